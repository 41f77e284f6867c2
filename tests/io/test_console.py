"""What people see: lines folded to a terminal's width, colours, tables, all of it escaped."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

from srucli.errors import MAX_MESSAGE, DataError, UsageError
from srucli.io.console import (
    EscapedStream,
    abridged,
    coloured,
    fail,
    folded,
    for_people,
    progress_bar,
    put,
    say,
    shell_line,
    shell_word,
    text_table,
    warn,
)
from tests.support import RunMain, Tiny

# Clear the screen, C1's CSI, delete, next line, override the direction, a zero-width space, the
# separators of lines and paragraphs, half of a surrogate pair.
HOSTILE = "\x1b[2J\x9b2J\x7f\x85\u202e\u2066\u200b\u2028\u2029\ud800"
MEGABYTES = "x" * 3_000_000


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


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


def test_messages_keep_their_layout_and_scripts() -> None:
    assert for_people("good\t\x1b[31mbad\x9b") == "good\t\\x1b[31mbad\\x9b"
    assert for_people("긍정\tनमस्ते\nمی\u200cخواهم") == "긍정\tनमस्ते\nمی\u200cخواهم"
    assert is_harmless(for_people(HOSTILE))


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A name of a file may have line ends."""
    say("a\nb.tsv: read", f"to use it:  srucli eval {shell_word('a' + chr(10))}", whole=True)
    warn("a\nb.tsv: damaged")
    fail("a\nb.tsv: no such file")
    assert capsys.readouterr().err.splitlines() == [
        "a\\nb.tsv: read",
        "to use it:  srucli eval $'a\\012'",
        "a\\nb.tsv: damaged",
        "srucli: a\\nb.tsv: no such file",
    ]


def test_what_is_said_is_escaped_and_short(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a: {HOSTILE}", f"b: {MEGABYTES}; see c")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a: \\x1b[2J")
    assert is_harmless(first)
    assert second.startswith("b: xxx")
    assert second.endswith("xxx; see c")
    assert " characters) ..." in second
    assert len(second) <= MAX_MESSAGE


def test_commands_are_said_whole(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"to resume:  srucli train --resume {MEGABYTES[:4000]}", whole=True)
    assert capsys.readouterr().err.endswith(f"--resume {MEGABYTES[:4000]}\n")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    "word",
    ["plain", "a b", "it's", "긍정", "\x1b[31m", "a\nb\tc", "\\'\x9b", "\udcff1", "", "$HOME `x`"],
)
def test_a_command_that_is_copied_has_the_same_words(word: str) -> None:
    """Control characters, and bytes that are no UTF-8, stay the same where they are escaped."""
    said = for_people(shell_line(["printf", "%s", word]))
    assert is_harmless(said)
    assert "\n" not in said
    assert os.fsdecode(subprocess.check_output(["bash", "-c", said])) == word


def test_errors_are_short() -> None:
    """The beginning says where, and the end what to do."""
    error = DataError("file.tsv", 3, f"odd: {MEGABYTES}", "mend it")
    assert str(error).startswith("file.tsv:3: odd: xxx")
    assert str(error).endswith("xxx; mend it")
    assert max(len(str(each)) for each in (error, UsageError(MEGABYTES))) <= MAX_MESSAGE
    command = f"to start again: srucli train {MEGABYTES[:1400]} --force"
    error = DataError("file.tsv", 3, f"odd: {MEGABYTES}", command)
    assert for_people(str(error)).endswith(f"xxx; {command}")


def test_only_our_own_colours_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = io.StringIO()
    with redirect_stderr(EscapedStream(shown, for_people)):
        say("a \x1b[32mb", colour="warning", good=" *")
    assert shown.getvalue() == "\x1b[33ma \\x1b[32mb\x1b[0m\x1b[32m *\x1b[0m\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "shown"), [(io.StringIO, "a\n"), (Terminal, "\x1b[32ma\x1b[0m\n")]
)
def test_reports_have_colours_on_terminals_alone(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], shown: str
) -> None:
    """What is piped or written to a file is data, whatever FORCE_COLOR says."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with redirect_stdout(kind()) as stream:
        put("a", colour="good")
    assert stream.getvalue() == shown


def test_tables_are_escaped() -> None:
    assert list(text_table([("\x1b[2J", "é"), ("b", "c")])) == ["\\x1b[2J  é", "b        c"]


def test_a_stream_keeps_progress_bars() -> None:
    shown = io.StringIO()
    stream = EscapedStream(shown, for_people)
    with redirect_stderr(stream):
        with progress_bar(total=2, disable=False) as bar:
            bar.update(1)
            say("긍정")
        print(f"warning:\r {HOSTILE}", file=stream)
    bar_lines, warning = shown.getvalue().split("warning:")
    assert "\r 50%|" in bar_lines
    assert "긍정\n" in bar_lines
    assert "\\x1b" not in bar_lines
    assert is_harmless(warning)
    assert "\\r" in warning


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", f"--{HOSTILE}", "run"),
        ("predict", "run", "-", "--top", HOSTILE),
        ("eval", HOSTILE, "b.tsv"),
        ("info", HOSTILE),
        ("train", "b.tsv", f"model.{HOSTILE}=3"),
        ("train", "b.tsv", f"model.layers={HOSTILE}"),
        ("train", "b.tsv", "--optimizer", HOSTILE),
        ("train", "b.tsv", "--delimiter", HOSTILE[:1] * 2),
    ],
)
def test_usage_errors_are_escaped(run_main: RunMain, arguments: tuple[str, ...]) -> None:
    done = run_main(*arguments)
    assert done.code in (2, 66)
    assert is_harmless(done.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", f"--{MEGABYTES}", "run"),
        ("predict", "RUN", "-", "--top", MEGABYTES),
        ("train", "TRAIN", f"model.layers=[{MEGABYTES}]"),
        ("train", "TRAIN", MEGABYTES),
        ("train", "TRAIN", f"{MEGABYTES}=1"),
        ("train", "TRAIN", "--optimizer", MEGABYTES),
        ("train", "TRAIN", "--optimizer", f"{MEGABYTES}:A"),
        ("train", "TRAIN", "--metric", MEGABYTES),
        ("train", "TRAIN", "--format", MEGABYTES),
        ("train", "TRAIN", "--text", MEGABYTES),
        ("train", "TRAIN", "--text", "9" * 5000),
        ("train", "TRAIN", "--label", "9" * 5000),
        ("train", "TRAIN", "--encoding", MEGABYTES),
        ("eval", "RUN", "TRAIN", "--fail-under", f"{MEGABYTES}=1"),
        ("compare", "TRAIN", "--over", f"model.layers={MEGABYTES},{MEGABYTES}"),
        ("compare", "TRAIN", "--encoder", f"{MEGABYTES},sru"),
    ],
)
def test_errors_that_quote_megabytes_are_short(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    paths = {"RUN": tiny.run, "TRAIN": tiny.train}
    words = [paths.get(word, word) for word in arguments]
    output = ("-o", tmp_path / "new") if arguments[0] in ("train", "compare") else ()
    done = run_main(*words, *output)
    assert done.code in (2, 65)
    assert len(done.err) < 2 * MAX_MESSAGE


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("0123456789", 10, "0123456789"),
        ("0123456789a", 10, "0123...89a"),
        ("가나다라마바사", 11, "가나...바사"),
        ("e\u0301" * 9, 8, "e\u0301" * 3 + "..." + "e\u0301" * 2),
    ],
)
def test_long_labels_lose_their_middle(text: str, width: int, shown: str) -> None:
    assert abridged(text, width) == shown
