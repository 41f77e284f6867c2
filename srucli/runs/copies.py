"""A run as bytes: to copy it, or to keep it in another file than its folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from srucli.errors import DataError, OutputError
from srucli.io.files import opened, read_within
from srucli.runs.checkpoints import FOLDER, MODEL, POINTERS, STATE, TRAINING, Which
from srucli.runs.run_dir import (
    BASE_NGRAMS,
    MAX_NGRAMS,
    MAX_RECORDS,
    NGRAMS,
    RunDir,
)
from srucli.tokenizer.model import MAX_MODEL_BYTES

# The files of a copy that are not in a checkpoint, in the order in which they are written, and the
# most bytes of each.
_FILES = {
    "config.yaml": MAX_RECORDS,
    "tokenizer.model": MAX_MODEL_BYTES,
    NGRAMS: MAX_NGRAMS,
    BASE_NGRAMS: MAX_NGRAMS,
    "labels.json": MAX_RECORDS,
    "run.json": MAX_RECORDS,
    "metrics.jsonl": MAX_RECORDS,
    "README.md": MAX_RECORDS,
}
_OF_CHECKPOINT = (MODEL, STATE, TRAINING)
# Of every entry, so that the same run gives the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack(run: RunDir) -> bytes:
    """Return a zip archive of a run, as `srucli slim` leaves it: without optimizer states.

    Raises InputMissingError, DataError.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, _TIME), data)

        with opened(run.place) as folder:
            names = folder.names()
        for name, most in _FILES.items():
            if name in names:
                add(name, read_within(run.place, name, most))
        pointers = {which: run.checkpoints.pointed(which) for which in POINTERS if which in names}
        for checkpoint in sorted(set(pointers.values())):
            for file in _OF_CHECKPOINT:
                if run.checkpoints.lists(checkpoint, file):
                    add(f"{FOLDER}/{checkpoint}/{file}", run.checkpoints.read(checkpoint, file))
        for which, checkpoint in pointers.items():
            add(which, checkpoint.encode())
    return packed.getvalue()


def unpack(data: bytes, path: Path) -> None:
    """Write the run in an archive into a folder that is new or empty.

    Raises DataError for bytes that `pack` did not return, OutputError.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise DataError(str(path), None, f"no packed run ({error})", "pack it again") from error
    RunDir.check_free(path)
    pointers: dict[str, set[Which]] = {}
    for which in POINTERS:
        if which in entries:
            pointers.setdefault(entries[which].decode("utf-8", "replace"), set()).add(which)
    with RunDir.claim(path) as run:
        run.clear()
        for name in _FILES:
            if name in entries:
                run.write(name, entries[name])
        for checkpoint, names in pointers.items():
            places = {file: f"{FOLDER}/{checkpoint}/{file}" for file in _OF_CHECKPOINT}
            files = {file: entries[name] for file, name in places.items() if name in entries}
            step = int(checkpoint.removeprefix("step-"))
            run.checkpoints.save(step, files, names, keep=len(pointers))


def copy(run: RunDir, path: Path) -> None:
    """Copy a run, without optimizer states. Raises InputMissingError, DataError, OutputError."""
    if path.exists() and path.samefile(run.path):
        raise OutputError(f"{path}: is the run itself; choose another folder")
    unpack(pack(run), path)
