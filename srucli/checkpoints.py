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

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from srucli.errors import DataError, SrucliError
from srucli.files import (
    COPY_AGAIN,
    TEMPORARY,
    read_json,
    read_within,
    sync_folder,
    to_json,
    unwritable,
    write_atomic,
    write_synced,
)

Which = Literal["best", "last"]
POINTERS: tuple[Which, ...] = ("best", "last")
MODEL, STATE = "model.safetensors", "state.json"
TRAINING_TENSORS, TRAINING = "training.safetensors", "training.json"
MANIFEST = "manifest.json"
# The largest that are read, whoever wrote them: room for hundreds of times what is usual.
MOST_BYTES = {
    MODEL: 4 * 2**30,
    STATE: 4 * 2**20,
    TRAINING_TENSORS: 16 * 2**30,
    TRAINING: 16 * 2**20,
    MANIFEST: 2**16,
}
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")


class Checkpoints:
    """Those of the run in a folder. `manifests` tells whether they must have manifests."""

    def __init__(self, run: Path, *, manifests: bool = True) -> None:
        self.run, self.folder, self.manifests = run, run / "checkpoints", manifests

    def save(self, step: int, files: Mapping[str, bytes], which: set[Which], keep: int) -> None:
        """Write a checkpoint, point `which` at it, sweep. Raises OutputError."""
        name = f"step-{step}"
        beside = self.folder / f".{name}{TEMPORARY}"
        manifest = {
            file: {"bytes": len(data), "sha256": sha256(data).hexdigest()}
            for file, data in files.items()
        }
        try:
            shutil.rmtree(beside, ignore_errors=True)
            os.mkdir(beside)
            whole = {**files, MANIFEST: to_json({"files": manifest})}
            for file, data in whole.items():
                write_synced(beside / file, data)
            sync_folder(beside)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            os.replace(beside, self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(self.folder / name, error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self.point(name, which)
        self.sweep(keep)

    def point(self, name: str, which: set[Which]) -> None:
        """Let `which` name this checkpoint. Raises OutputError."""
        for pointer in sorted(which):
            write_atomic({self.run / pointer: name.encode() + b"\n"})

    def sweep(self, keep: int) -> None:
        """Remove all but the `keep` newest and those that are pointed at, and what kills left."""
        kept = set(self.names()[:keep])
        kept |= {self.pointed(which) for which in POINTERS if (self.run / which).is_file()}
        for path in self.folder.iterdir():
            ours = _NAME.fullmatch(path.name) or path.name.endswith(TEMPORARY)
            if ours and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def names(self) -> list[str]:
        """Those that there are, the newest first; whether they are whole is not looked at."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        steps = sorted((int(match[1]) for match in found if match), reverse=True)
        return [f"step-{step}" for step in steps]

    def pointed(self, which: Which) -> str:
        """The name that `best` or `last` holds. Raises InputMissingError, DataError."""
        name = read_within(self.run, which, 99).decode("utf-8", "replace").strip()
        if not _NAME.fullmatch(name):
            problem = f"{name!r} names no checkpoint"
            raise DataError(str(self.run / which), None, problem, COPY_AGAIN)
        return name

    def read(self, name: str, file: str, most: int | None = None) -> bytes:
        """A file of a checkpoint, as its manifest has it. Raises InputMissingError, DataError."""
        place = f"checkpoints/{name}/{file}"
        entry = self._entries(name).get(file) if self.manifests else None
        limit = min(MOST_BYTES[file], MOST_BYTES[file] if most is None else most)
        said = entry.get("bytes") if isinstance(entry, dict) else None
        data = read_within(self.run, place, min(limit, said) if type(said) is int else limit)
        if self.manifests and entry != {"bytes": len(data), "sha256": sha256(data).hexdigest()}:
            problem = "damaged: not what manifest.json says"
            raise DataError(str(self.run / place), None, problem, COPY_AGAIN)
        return data

    def _entries(self, name: str) -> dict[str, Any]:
        place = f"checkpoints/{name}/{MANIFEST}"
        found = read_json(self.run, place, MOST_BYTES[MANIFEST])
        files = found.get("files") if isinstance(found, dict) else None
        if not isinstance(files, dict) or not files.keys() <= MOST_BYTES.keys():
            problem = "no list of a checkpoint's files"
            raise DataError(str(self.run / place), None, problem, COPY_AGAIN)
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
