"""What a terminal of 80 columns shows: no line is longer, and the end says what to do next."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from srucli.cli import main
from tests.support import QUICK, Tiny, restored_process, write_tsv

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Runs a command in this process, on a terminal of 80 columns; returns the characters it wrote.
OnTerminal = Callable[..., str]


def _written(reader: int) -> str:
    parts = []
    with suppress(OSError):  # EIO: the last writer has closed the terminal
        while part := os.read(reader, 2**16):
            parts.append(part)
    os.close(reader)
    return b"".join(parts).decode()


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> OnTerminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def run(*arguments: object, code: int = 0) -> str:
        reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        with ThreadPoolExecutor(1) as pool:
            shown = pool.submit(_written, reader)
            with (
                open(writer, "w", encoding="utf-8") as terminal,
                patch.object(sys, "argv", ["srucli", *map(str, arguments)]),
                patch.dict(os.environ),
                redirect_stdout(terminal),
                redirect_stderr(terminal),
                restored_process(),
                pytest.raises(SystemExit) as ended,
            ):
                main()
            assert ended.value.code == code, shown.result()
            return shown.result()

    return run


def lines_of(shown: str) -> list[str]:
    """Return the lines without colours, what a progress bar drew apart from them."""
    plain = COLOUR.sub("", shown).replace("\x1b[A", "")
    return [part for line in plain.split("\n") for part in line.split("\r") if part.strip()]


def test_train_eval_and_info(tiny: Tiny, tmp_path: Path, on_terminal: OnTerminal) -> None:
    odd = [("none", "ein grüner Satz"), *(row.split("\t") for row in tiny.test.open())]
    dev = write_tsv(tmp_path / "dev.tsv", [(label, text.strip()) for label, text in odd])
    run = tmp_path / "run"
    words = ("train", tiny.train, "--dev", dev, "-o", run, "--epochs", 3, "--lr", "0.01")
    tokenizer = ("--tokenizer", tiny.run / "tokenizer.model")
    shown = on_terminal(*words, *tokenizer, *[word for word in QUICK if "share" not in str(word)])
    lines = lines_of(shown)
    # Paths stay whole, so that they can be copied.
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []
    head = next(line for line in lines if line.endswith("macro_f1  log_loss"))
    rows = [line for line in lines if re.match(r" *\d+/3 ", line)]
    assert [row.split()[0] for row in rows] == [f"{n}/3" for n in range(1, 4)]
    assert {len(row.removesuffix("  best so far")) for row in rows} == {len(head)}
    assert "\x1b[32m  best so far\x1b[0m" in shown
    assert lines[-1] == str(run)
    shown = on_terminal("eval", run, dev)
    lines = lines_of(shown)
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []
    assert any(line.startswith("macro_f1") for line in lines)
    assert [line.split()[0] for line in lines[-3:]] == ["bad", "good", "none"]


def test_errors_have_a_colour(on_terminal: OnTerminal, tmp_path: Path) -> None:
    shown = on_terminal("eval", tmp_path / "no", "x.tsv", code=66)
    assert shown.startswith(f"\x1b[1;31msrucli:\x1b[0m {tmp_path}/no: no such run; ")
