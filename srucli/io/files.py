"""Atomic writes, and size-limited reads of files that anybody may have made.

A place is the path of a folder, or an open folder (see `folders.py`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from srucli.errors import DataError, InputMissingError, OutputError
from srucli.io.folders import LinkError, OpenFolder, beside_name
from srucli.io.json_text import json_text, json_value
from srucli.io.system_limits import RAISE_FILE_SIZE, RAISE_OPEN_FILES, is_open_files

COPY_AGAIN = "copy the run again"
COPY_WITHOUT_LINKS = "copy the folder with `cp -rL`, and use the copy"
# The limit of lists and objects in a JSON document: parsing a million takes seconds.
MAX_NESTED = 2**18

Place = Path | OpenFolder


def path_of(place: Place) -> Path:
    """Return the path of a place, for messages."""
    return place.path if isinstance(place, OpenFolder) else place


@contextmanager
def opened(place: Place) -> Iterator[OpenFolder]:
    """Hold a folder open for a block. Raises OSError."""
    if isinstance(place, OpenFolder):
        yield place
    else:
        with OpenFolder.at(place) as folder:
            yield folder


@contextmanager
def writing(place: Place, name: str) -> Iterator[OpenFolder]:
    """Hold a folder open for a block that writes `name`. Raises OutputError naming the file."""
    try:
        with opened(place) as folder:
            folder.check_in_place()
            yield folder
    except OSError as error:
        raise unwritable(path_of(place) / name, error) from error


def write_atomic(contents: Mapping[Path, bytes]) -> None:
    """Write files, those of each folder all or none. Raises OutputError naming the failed file."""
    for parent in {path.parent: None for path in contents}:
        own = {path.name: data for path, data in contents.items() if path.parent == parent}
        write_files(parent, own)


def write_files(place: Place, contents: Mapping[str, bytes], within: str = "") -> None:
    """Write all files or none. Raises OutputError naming the one that fails.

    within: the path of a folder in `place`, as a/b/c, created if it does not exist.
    """
    try:
        with opened(place) as top:
            top.check_in_place()
            with top.below(within, make=True) as folder:
                folder.write(contents)
    except OSError as error:
        name = error.filename if error.filename in contents else next(iter(contents))
        raise unwritable(path_of(place) / within / name, error) from error


def append(place: Place, name: str, data: bytes) -> None:
    """Append to a file and sync it. Raises OutputError naming the file."""
    with writing(place, name) as folder:
        folder.append(name, data)


def check_writable(path: Path) -> None:
    """Raise OutputError if a file cannot be written, before the work whose result it will hold."""
    with writing(path.resolve().parent, path.name) as folder:
        temporary = beside_name(path.name)
        folder.create(temporary, b"")
        folder.remove(temporary)


_REMEDIES = {
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), RAISE_OPEN_FILES),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room"),
    errno.EFBIG: RAISE_FILE_SIZE,
    errno.EIO: "check the disk",
    errno.ENOENT: "make its folder first",
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY),
        "move away what is in its place",
    ),
}


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return the error for a file or folder that cannot be written."""
    remedy = COPY_WITHOUT_LINKS if isinstance(error, LinkError) else remedy_for(error)
    return OutputError(f"{path}: cannot be written ({error.strerror}); {remedy}")


def remedy_for(error: OSError) -> str:
    """Return what to do about a write that failed."""
    return _REMEDIES.get(error.errno or 0, "choose a folder that can be written")


def read_within(place: Place, name: str, most: int) -> bytes:
    """Return the content of a file in a folder, as a/b/c, of at most `most` bytes.

    Raises InputMissingError if it cannot be read, DataError if a part of the name is a link, or the
    file is not regular or too large.
    """
    path = path_of(place) / name
    folders, _, last = name.rpartition("/")
    try:
        with opened(place) as top, top.below(folders) as folder:
            descriptor = folder.open(last, os.O_RDONLY)
            try:
                return _read(descriptor, path, most)
            finally:
                os.close(descriptor)
    except LinkError as error:
        raise DataError(str(path), None, "is a link, or in one", COPY_WITHOUT_LINKS) from error
    except (OSError, ValueError) as error:  # a name with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        remedy = RAISE_OPEN_FILES if is_open_files(error) else COPY_AGAIN
        raise InputMissingError(f"{path}: cannot be read ({reason}); {remedy}") from error


def _read(descriptor: int, path: Path, most: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(str(path), None, "is not a regular file", COPY_AGAIN)
    with open(descriptor, "rb", closefd=False) as file:
        data = read_bounded(file, most) if status.st_size <= most else b""
    if status.st_size > most or len(data) > most:
        problem = f"larger than the {most:,} bytes that it can need"
        raise DataError(str(path), None, problem, COPY_AGAIN)
    return data


def read_bounded(file: BinaryIO, most: int) -> bytes:
    """Return the rest of a file, or its first bytes, more than `most`, if it is larger.

    Allocates what the file needs: Python's own `read(most)` would allocate `most` bytes first.
    """
    size = min(os.fstat(file.fileno()).st_size, most)
    data = file.read(size + 1)
    return data if len(data) <= size else data + file.read(most - size)


def read_json(place: Place, name: str, most: int) -> Any:
    """Return the value of a JSON file. Raises what `read_within` raises, and DataError."""
    return parse_json(read_within(place, name, most), str(path_of(place) / name))


def parse_json(data: bytes, source: str) -> Any:
    """Return the value of an untrusted JSON document. Raises DataError naming `source`."""
    check_nested(data, source, MAX_NESTED)
    try:
        return json_value(data)
    except (ValueError, RecursionError) as error:
        raise DataError(source, None, "not valid JSON", COPY_AGAIN) from error


def check_nested(data: bytes, source: str, most: int) -> None:
    """Raise DataError naming `source` for JSON with more than `most` lists and objects."""
    if data.count(b"[") + data.count(b"{") > most:
        raise DataError(source, None, f"more than {most:,} lists and objects", COPY_AGAIN)


def to_json(data: Any) -> bytes:
    """Return indented JSON, as `json_text`."""
    return (json_text(data, indent=2) + "\n").encode()
