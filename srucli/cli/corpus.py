"""Files of raw text: how commands name them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from srucli.cli import options
from srucli.errors import InputMissingError, UsageError
from srucli.io.console import say, warn

_LABELLED = {".tsv", ".csv", ".json", ".jsonl", ".ndjson", ".ft", ".fasttext"}


def _inside(folder: Path) -> list[str]:
    """Return the sorted files below a folder, without hidden ones and what srucli wrote."""
    from srucli.runs.claim import MARKER

    files: list[Path] = []
    for place, inner, names in os.walk(folder):
        below = [Path(place, name) for name in inner if not name.startswith(".")]
        if own := [path for path in below if (path / MARKER).is_file()]:
            say(f"{', '.join(map(str, own))}: left out, as srucli made it")
        inner[:] = [path.name for path in below if path not in own]
        found = (Path(place, name) for name in names if not name.startswith("."))
        files += [path for path in found if path.is_file()]
    if not files:
        raise InputMissingError(f"{folder}: no files in this folder")
    return [str(path) for path in sorted(files)]


def files_of(inputs: Sequence[str]) -> list[str]:
    """Return the files that arguments name: files, folders, comma lists of both, `-`.

    Raises UsageError, InputMissingError.
    """
    names: list[str] = []
    for given in inputs:
        is_one = given == "-" or os.path.exists(given)
        for name in [given] if is_one else options.comma_list("input", given):
            if name != "-" and not os.path.exists(name):
                raise InputMissingError(f"{name}: no such file or folder; check the name")
            names += _inside(Path(name)) if os.path.isdir(name) else [name]
    if not names:
        raise UsageError("no input; name files or folders, or - for standard input")
    if names.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    return names


def warn_of_labels(
    files: Sequence[str], remedy: str = "--format auto takes the texts of labelled files"
) -> None:
    """Say so if a file that seems to be labelled is read as plain text."""
    for name in files:
        if _LABELLED & set(Path(name.lower()).suffixes):
            warn(f"{name} is read as raw text, labels and all; {remedy}")
            return
