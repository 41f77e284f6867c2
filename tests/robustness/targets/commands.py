"""Commands of srucli, run in the fuzzer's own process."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import typer.main

from srucli import cli, runtime

CODES = {0, 1, 2, 3, 65, 66, 73, 75}


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal, and keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Said:
    """The exit code of a command, and its output."""

    code: int
    out: str
    err: str


@cache
def _app() -> Any:
    """Return the commands, which `srucli.cli` would build anew for each call."""
    return typer.main.get_command(cli.app)


def run_command(*words: str, terminal: bool = False) -> Said:
    """Run a command with an empty stdin. Exceptions other than an exit escape.

    terminal: whether stdout and stderr are one.
    """
    kind = Terminal if terminal else io.TextIOWrapper
    out, err = (kind(io.BytesIO(), "utf-8", "surrogateescape", newline="") for _ in range(2))
    with (
        patch.object(cli, "app", _app()),
        # A process that used several threads cannot be forked.
        patch.object(runtime, "cores", lambda: 1),
        patch.object(sys, "argv", ["srucli", *words]),
        patch.object(sys, "stdin", open(os.devnull)),
        patch.dict(os.environ, {"NO_COLOR": "1", "COLUMNS": "80"}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        sys.stdin.close()
    assert code in CODES, f"exit code {code}"
    return Said(code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8", "surrogateescape")
