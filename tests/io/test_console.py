"""What people see: lines folded to a terminal's width, colours, tables."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from srucli.io.console import coloured, folded


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """Return a terminal of 80 columns to write to."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(writer, "w") as stream:
        yield stream
    os.close(reader)


def test_a_terminal_shows_long_lines_broken_at_spaces(terminal: TextIO) -> None:
    line = "  a.tsv: " + " ".join(["seven77"] * 20)
    rows = list(folded(line, terminal))
    assert max(map(len, rows)) <= 80
    assert len(rows) == 3
    assert rows[0].startswith("  a.tsv: seven77 ")
    assert rows[1].startswith("  seven77 ")
    assert " ".join(row.strip() for row in rows) == line.strip()


def test_wide_characters_count_twice_and_long_words_stay_whole(terminal: TextIO) -> None:
    assert [len(row) for row in folded(" ".join(["긍정"] * 17), terminal)] == [47, 4]
    path = "runs/" + "x" * 90
    assert list(folded(f"see {path} for more", terminal)) == ["see", f"  {path}", "  for more"]


def test_exactly_the_width_is_one_row(terminal: TextIO) -> None:
    line = "x " * 39 + "xx"
    assert len(line) == 80
    assert list(folded(line, terminal)) == [line]
    green = line[:-2] + coloured("xx", "good", terminal)
    assert list(folded(green, terminal)) == [green]


def test_no_line_is_changed_where_there_is_no_terminal() -> None:
    line = "word " * 40
    reader, writer = os.pipe()
    with open(reader), open(writer, "w") as stream:
        assert list(folded(line, stream)) == [line]
        assert coloured(line, "warning", stream) == line


@pytest.mark.parametrize(
    ("variables", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"CLICOLOR_FORCE": "0"}, True, False),
    ],
)
def test_colours(
    terminal: TextIO,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    on_terminal: bool,
    elsewhere: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reader, writer = os.pipe()
    with open(reader), open(writer, "w") as pipe:
        for stream, shown in ((terminal, on_terminal), (pipe, elsewhere)):
            expected = "\x1b[1;31msrucli:\x1b[0m" if shown else "srucli:"
            assert coloured("srucli:", "error", stream) == expected
