"""The checkpoints of a run. Each is written completely or not at all, with a manifest.

    checkpoints/step-N/model.safetensors      the weights
                       state.json             what prediction needs besides these
                       training.safetensors   what resuming needs, if it could be saved
                       training.json
                       manifest.json          size and SHA-256 of each of the others
    best, last         the name of a checkpoint

A checkpoint is written into a temporary folder, synced and renamed; then `best` and `last` are
replaced, one by one. This file does not interpret the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal

from srucli.errors import DataError
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
from srucli.io.folders import TEMPORARY, OpenFolder, beside_name
from srucli.runs.claim import Layout, clear

Which = Literal["best", "last"]
POINTERS: tuple[Which, ...] = ("best", "last")
FOLDER = "checkpoints"
MODEL, STATE = "model.safetensors", "state.json"
TRAINING_TENSORS, TRAINING = "training.safetensors", "training.json"
MANIFEST = "manifest.json"
# Size limits of untrusted files: hundreds of times what is usual.
MAX_BYTES = {
    MODEL: 4 * 2**30,
    STATE: 4 * 2**20,
    TRAINING_TENSORS: 16 * 2**30,
    TRAINING: 16 * 2**20,
    MANIFEST: 2**16,
}
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")
_UNFINISHED = re.compile(rf"\.{_NAME.pattern}(\.[0-9]+-[0-9a-f]+)?{re.escape(TEMPORARY)}")
_FILES: Layout = {re.escape(name): None for name in MAX_BYTES}
LAYOUT: Layout = {_UNFINISHED.pattern: _FILES, _NAME.pattern: _FILES}


class Checkpoints:
    """The checkpoints in a run folder."""

    def __init__(self, run: Place) -> None:
        self.run = run

    def save(self, step: int, files: Mapping[str, bytes], which: set[Which], keep: int) -> None:
        """Write a checkpoint, point `which` at it, and keep the `keep` newest. Raises OutputError.

        Checkpoints that are pointed at stay too.
        """
        name = f"step-{step}"
        temporary = beside_name(name)
        manifest = {file: _entry(data) for file, data in files.items()}
        with writing(self.run, f"{FOLDER}/{name}") as run, run.child(FOLDER) as folder:
            try:
                folder.make(temporary)
                with folder.child(temporary) as new:
                    for file, data in {**files, MANIFEST: to_json({"files": manifest})}.items():
                        new.create(file, data)
                    new.sync()
                _remove(folder, name)
                folder.rename(temporary, name)
                folder.sync()
            except BaseException:
                with suppress(OSError):
                    _remove(folder, temporary)
                raise
        self.point(name, which)
        self.sweep(keep)

    def point(self, name: str, which: set[Which]) -> None:
        """Let `which` name this checkpoint. Raises OutputError."""
        for pointer in sorted(which):
            write_files(self.run, {pointer: name.encode() + b"\n"})

    def sweep(self, keep: int) -> None:
        """Remove old checkpoints, as `save` does, and what killed processes left."""
        kept = set(self.names()[:keep])
        with opened(self.run) as run:
            kept |= {self.pointed(which) for which in POINTERS if run.is_file(which)}
        with suppress(OSError), opened(self.run) as run, run.child(FOLDER) as folder:
            for name in folder.names():
                if _UNFINISHED.fullmatch(name) or (_NAME.fullmatch(name) and name not in kept):
                    _remove(folder, name)

    def names(self) -> list[str]:
        """Return the names of all checkpoints, damaged or not, the newest first."""
        found: list[str] = []
        with suppress(OSError), opened(self.run) as run, run.child(FOLDER) as folder:
            found = [name for name in folder.names() if folder.is_folder(name)]
        matches = (_NAME.fullmatch(name) for name in found)
        steps = sorted((int(match[1]) for match in matches if match), reverse=True)
        return [f"step-{step}" for step in steps]

    def pointed(self, which: Which) -> str:
        """Return the name that `best` or `last` holds. Raises InputMissingError, DataError."""
        name = read_within(self.run, which, 99).decode("utf-8", "replace").strip()
        if not _NAME.fullmatch(name):
            raise self._damaged(which, f"{name!r} names no checkpoint")
        return name

    def read(self, name: str, file: str, most: int | None = None) -> bytes:
        """Read a file of a checkpoint and compare it with the manifest.

        Raises InputMissingError, and DataError if it is damaged or larger than `most` bytes.
        """
        place = f"{FOLDER}/{name}/{file}"
        limit = min(MAX_BYTES[file], MAX_BYTES[file] if most is None else most)
        entry = self._manifest(name).get(file)
        size = entry.get("bytes") if isinstance(entry, dict) else None
        data = read_within(self.run, place, min(limit, size) if type(size) is int else limit)
        if entry != _entry(data):
            raise self._damaged(place, "damaged: not what manifest.json says")
        return data

    def verify(self, name: str) -> None:
        """Read all files in the manifest. Raises InputMissingError, DataError."""
        for file in self._manifest(name):
            self.read(name, file)

    def lists(self, name: str, file: str) -> bool:
        """Return whether a checkpoint has this file. Raises InputMissingError, DataError."""
        return file in self._manifest(name)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a checkpoint's weights. Raises InputMissingError, DataError."""
        entry = self._manifest(name).get(MODEL)
        return str(entry.get("sha256")) if isinstance(entry, dict) else ""

    def drop(self, name: str, file: str) -> None:
        """Remove a file from a checkpoint, which is valid at any instant. Raises OutputError.

        Its manifest is replaced first, and then nothing reads the file.
        """
        place = f"{FOLDER}/{name}"
        with writing(self.run, f"{place}/{file}") as run, run.below(place) as folder:
            if MANIFEST in folder.names() and file in (entries := self._manifest(name)):
                rest = {each: entry for each, entry in entries.items() if each != file}
                folder.write({MANIFEST: to_json({"files": rest})})
            if file in folder.names():
                folder.remove(file)
                folder.sync()

    def _manifest(self, name: str) -> dict[str, Any]:
        place = f"{FOLDER}/{name}/{MANIFEST}"
        found = read_json(self.run, place, MAX_BYTES[MANIFEST])
        files = found.get("files") if isinstance(found, dict) else None
        if not isinstance(files, dict) or not files.keys() <= MAX_BYTES.keys():
            raise self._damaged(place, "no list of a checkpoint's files")
        return files

    def _damaged(self, place: str, problem: str) -> DataError:
        return DataError(str(path_of(self.run) / place), None, problem, COPY_AGAIN)


def _entry(data: bytes) -> dict[str, Any]:
    """Return the entry of a file in the manifest."""
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def _remove(folder: OpenFolder, name: str) -> None:
    """Remove a checkpoint's files, and its folder if it is empty then. Raises OSError."""
    if folder.is_folder(name):
        with folder.child(name) as checkpoint:
            clear(checkpoint, _FILES)
        folder.remove_folder(name)
