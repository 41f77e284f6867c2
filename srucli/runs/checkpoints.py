"""The checkpoints of a run: whole or not there, each with a manifest of what it holds.

    checkpoints/step-N/model.safetensors      the weights
                       state.json             what predicting needs beside them
                       training.safetensors   what going on with the training needs, if it is kept
                       training.json
                       manifest.json          size and SHA-256 of each of the others
    best, last         the name of a checkpoint

A checkpoint is written into a folder beside, synced, renamed; then `best` and `last` are, one by
one. What the files mean is not known here. Runs of format version 1 have no manifests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from srucli.errors import DataError, SrucliError
from srucli.io.files import (
    COPY_AGAIN,
    Place,
    opened,
    path_of,
    read_json,
    read_within,
    to_json,
    write_files,
    writing,
)
from srucli.io.folders import TEMPORARY, OpenFolder, unique
from srucli.runs.claim import Layout, clear

Which = Literal["best", "last"]
POINTERS: tuple[Which, ...] = ("best", "last")
FOLDER = "checkpoints"
MODEL, STATE = "model.safetensors", "state.json"
TRAINING_TENSORS, TRAINING = "training.safetensors", "training.json"
MANIFEST = "manifest.json"
# The largest that are read, whoever wrote them: room for hundreds of times what is usual.
MAX_BYTES = {
    MODEL: 4 * 2**30,
    STATE: 4 * 2**20,
    TRAINING_TENSORS: 16 * 2**30,
    TRAINING: 16 * 2**20,
    MANIFEST: 2**16,
}
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")
_BESIDE = re.compile(rf"\.{_NAME.pattern}(\.[0-9]+-[0-9a-f]+)?{re.escape(TEMPORARY)}")
_FILES: Layout = {re.escape(name): None for name in MAX_BYTES}
LAYOUT: Layout = {_BESIDE.pattern: _FILES, _NAME.pattern: _FILES}


class Checkpoints:
    """Those of the run in a folder. `manifests` tells whether they must have manifests."""

    def __init__(self, run: Place, *, manifests: bool = True) -> None:
        self.run, self.manifests = run, manifests

    def _path(self, *parts: str) -> Path:
        return path_of(self.run).joinpath(*parts)

    def save(self, step: int, files: Mapping[str, bytes], which: set[Which], keep: int) -> None:
        """Write a checkpoint, point `which` at it, sweep. Raises OutputError."""
        name = f"step-{step}"
        beside = f".{name}.{unique()}{TEMPORARY}"
        manifest = {
            file: {"bytes": len(data), "sha256": sha256(data).hexdigest()}
            for file, data in files.items()
        }
        whole = {**files, MANIFEST: to_json({"files": manifest})}
        with writing(self.run, f"{FOLDER}/{name}") as run, run.child(FOLDER) as folder:
            try:
                folder.make(beside)
                with folder.child(beside) as new:
                    for file, data in whole.items():
                        new.create(file, data)
                    new.sync()
                _remove(folder, name)
                folder.rename(beside, name)
                folder.sync()
            except BaseException:
                with suppress(OSError):
                    _remove(folder, beside)
                raise
        self.point(name, which)
        self.sweep(keep)

    def point(self, name: str, which: set[Which]) -> None:
        """Let `which` name this checkpoint. Raises OutputError."""
        for pointer in sorted(which):
            write_files(self.run, {pointer: name.encode() + b"\n"})

    def sweep(self, keep: int) -> None:
        """Remove all but the `keep` newest and those that are pointed at, and what kills left."""
        kept = set(self.names()[:keep])
        kept |= {self.pointed(which) for which in POINTERS if self._is_pointer(which)}
        with suppress(OSError), opened(self.run) as run, run.child(FOLDER) as folder:
            for name in folder.names():
                if _BESIDE.fullmatch(name) or (_NAME.fullmatch(name) and name not in kept):
                    _remove(folder, name)

    def _is_pointer(self, which: Which) -> bool:
        with opened(self.run) as run:
            return run.is_file(which)

    def names(self) -> list[str]:
        """Those that there are, the newest first; whether they are whole is not looked at."""
        found: list[str] = []
        with suppress(OSError), opened(self.run) as run, run.child(FOLDER) as folder:
            found = [name for name in folder.names() if folder.is_folder(name)]
        matches = (_NAME.fullmatch(name) for name in found)
        steps = sorted((int(match[1]) for match in matches if match), reverse=True)
        return [f"step-{step}" for step in steps]

    def pointed(self, which: Which) -> str:
        """The name that `best` or `last` holds. Raises InputMissingError, DataError."""
        name = read_within(self.run, which, 99).decode("utf-8", "replace").strip()
        if not _NAME.fullmatch(name):
            problem = f"{name!r} names no checkpoint"
            raise DataError(str(self._path(which)), None, problem, COPY_AGAIN)
        return name

    def read(self, name: str, file: str, most: int | None = None) -> bytes:
        """A file of a checkpoint, as its manifest has it. Raises InputMissingError, DataError."""
        place = f"{FOLDER}/{name}/{file}"
        entry = self._entries(name).get(file) if self.manifests else None
        limit = min(MAX_BYTES[file], MAX_BYTES[file] if most is None else most)
        said = entry.get("bytes") if isinstance(entry, dict) else None
        data = read_within(self.run, place, min(limit, said) if type(said) is int else limit)
        if self.manifests and entry != {"bytes": len(data), "sha256": sha256(data).hexdigest()}:
            problem = "damaged: not what manifest.json says"
            raise DataError(str(self._path(place)), None, problem, COPY_AGAIN)
        return data

    def _entries(self, name: str) -> dict[str, Any]:
        place = f"{FOLDER}/{name}/{MANIFEST}"
        found = read_json(self.run, place, MAX_BYTES[MANIFEST])
        files = found.get("files") if isinstance(found, dict) else None
        if not isinstance(files, dict) or not files.keys() <= MAX_BYTES.keys():
            problem = "no list of a checkpoint's files"
            raise DataError(str(self._path(place)), None, problem, COPY_AGAIN)
        return files

    def verify(self, name: str) -> None:
        """Read all that the manifest lists. Raises InputMissingError, DataError."""
        for file in self._entries(name):
            self.read(name, file)

    def whole(self) -> Iterator[tuple[str, SrucliError | None]]:
        """The checkpoints, the newest first, each with what is wrong with it, if anything is."""
        for name in self.names():
            try:
                self.verify(name)
            except SrucliError as error:
                yield name, error
            else:
                yield name, None


def _remove(folder: OpenFolder, name: str) -> None:
    """Remove a checkpoint's files, and its folder if nothing else is in it. Raises OSError."""
    if folder.is_folder(name):
        with folder.child(name) as checkpoint:
            clear(checkpoint, _FILES)
        folder.remove_folder(name)
