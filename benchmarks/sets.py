"""The labelled sets that benchmarks read, and `srucli` run on them as a command.

A set is a folder with train, dev (or not) and test, or with `all`, each `.tsv` or `.tsv.gz`, a
label and a text in each line. If there is dev but no test, dev is the test.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
SHARED_DATA = Path(os.environ.get("SRUCLI_DATA", ROOT.parent / "shared" / "data"))
# The default recipe, and an encoder that has to do without the linear model of n-grams.
WAYS = {"alone": ("model.ngrams=false",), "recipe": ()}


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
    train, dev, test = (find(folder, part) for part in ("train", "dev", "test"))
    if test is None:
        dev, test = None, dev
    return Files(train, test, dev) if train and test else None


def need_split(folder: Path) -> Files:
    """Return the files of a set that has a split; end the program if it has none."""
    files = split_files(folder)
    if files is None:
        sys.exit(f"{folder}: no train and test (.tsv or .tsv.gz)")
    return files


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Return the (label, text) rows of a `.tsv` or `.tsv.gz` file."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = (line.rstrip("\n").partition("\t") for line in file)
        return [(label, text) for label, _, text in rows]


def write_rows(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write (label, text) rows to a `.tsv` file."""
    lines = (f"{label}\t{text}\n" for label, text in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a child process that imports srucli and the benchmarks."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **variables}


def command(*arguments: object) -> list[str]:
    """Return the words of a `srucli` command."""
    return [sys.executable, "-m", "srucli", *map(str, arguments)]


def srucli(*arguments: object) -> str:
    """Run the command and return its stdout. Raises CommandError."""
    words = command(*arguments)
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise CommandError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def srucli_here(*arguments: object) -> str:
    """Run the command in this process, without the start of Python. Raises CommandError."""
    from srucli.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    words = ["srucli", *map(str, arguments)]
    try:
        with (
            patch.object(sys, "argv", words),
            patch.dict(os.environ),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
    except SystemExit as ended:
        if ended.code:
            err.seek(0)
            raise CommandError(f"{' '.join(words)}: exit code {ended.code}\n{err.read()}") from None
    out.seek(0)
    return out.read()
