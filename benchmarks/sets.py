"""The labelled sets that benchmarks read, and `srucli` run on them as a command.

A set is a folder with train, dev (or not) and test, or with `all`, each `.tsv` or `.tsv.gz`, a
label and a text in each line.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
SHARED_DATA = Path(os.environ.get("SRUCLI_DATA", ROOT.parent / "shared" / "data"))


class Files(NamedTuple):
    """What one measurement reads."""

    train: Path
    test: Path
    dev: Path | None


class CommandError(Exception):
    """A command that failed, with what it wrote to stderr."""


def find(folder: Path, part: str) -> Path | None:
    """Return the file of a part, compressed or not."""
    files = (folder / f"{part}{ending}" for ending in (".tsv", ".tsv.gz"))
    return next((file for file in files if file.is_file()), None)


def split_files(folder: Path) -> Files | None:
    """Return the files of a set that has a split of its own; None if it has none."""
    train, test = find(folder, "train"), find(folder, "test")
    return Files(train, test, find(folder, "dev")) if train and test else None


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Return the (label, text) rows of a `.tsv` or `.tsv.gz` file."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = (line.rstrip("\n").partition("\t") for line in file)
        return [(label, text) for label, _, text in rows]


def srucli(*arguments: object) -> str:
    """Run the command and return its stdout. Raises CommandError."""
    command = [sys.executable, "-m", "srucli", *map(str, arguments)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout
