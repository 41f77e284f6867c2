"""Write docs/commands.md from the live help of every command, the settings and the optimizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMANDS = (
    *("train", "eval", "predict", "run", "info", "help", "slim"),
    *("compare", "crossval", "tune", "diagnose", "optimizers", "pretrain", "tokenize", "encode"),
    "decode",
)
TABLES = (("info", "recipes"), ("info", "settings"), ("optimizers",))
PATH = Path(__file__).with_name("commands.md")


def output(*arguments: str) -> str:
    """What a command prints on a terminal of 100 columns without colours."""
    plain = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "srucli", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **plain},
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def document() -> str:
    """The whole page."""
    parts = [
        "# Commands",
        "Written by `make docs` from the commands' own help; do not edit it by hand.",
    ]
    for command in COMMANDS:
        parts.append(f"## srucli {command}\n\n```\n{output(command, '--help')}\n```")
    for words in TABLES:
        parts.append(f"## What `srucli {' '.join(words)}` prints\n\n```\n{output(*words)}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
