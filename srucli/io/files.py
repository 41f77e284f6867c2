"""Files that are written whole or not at all, and files of a folder that a stranger may have made.

A place is a folder's path, or a folder that is held open already (see `folders.py`).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srucli.errors import DataError, InputMissingError, OutputError
from srucli.io.folders import LinkError, OpenFolder

COPY_AGAIN = "copy the run again"
COPY_WITHOUT_LINKS = "copy the folder with `cp -rL`, and use the copy"
# Lists and objects of a JSON document: in Python a million of them take seconds.
MAX_NESTED = 2**18

Place = Path | OpenFolder


def path_of(place: Place) -> Path:
    """What messages call it."""
    return place.path if isinstance(place, OpenFolder) else place


@contextmanager
def opened(place: Place) -> Iterator[OpenFolder]:
    """The folder, held for a block at least. Raises OSError."""
    if isinstance(place, OpenFolder):
        yield place
    else:
        with OpenFolder.at(place) as folder:
            yield folder


# ---------------------------------------------------------------- writing


@contextmanager
def writing(place: Place, name: str) -> Iterator[OpenFolder]:
    """The folder, held for a block that writes to it. Raises OutputError naming what it writes."""
    try:
        with opened(place) as folder:
            folder.check_in_place()
            yield folder
    except OSError as error:
        raise unwritable(path_of(place) / name, error) from error


def write_atomic(contents: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all. Raises OutputError naming the one that fails."""
    for parent in {path.parent: None for path in contents}:
        own = {path.name: data for path, data in contents.items() if path.parent == parent}
        write_files(parent, own)


def write_files(place: Place, contents: Mapping[str, bytes], within: str = "") -> None:
    """Write all files of a folder whole, or none. Raises OutputError naming the one that fails.

    `within` is the folder below, as a/b/c, that they are in; it is made if need be.
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
    """Add to the end of a file and sync it. Raises OutputError naming the file."""
    with writing(place, name) as folder:
        folder.append(name, data)


_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "make room",
    errno.ENOENT: "make its folder first",
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY),
        "move away what is in its place",
    ),
}


def unwritable(path: Path, error: OSError) -> OutputError:
    """What is said where a file or folder cannot be written."""
    remedy = _REMEDIES.get(error.errno or 0, "choose a folder that can be written")
    if isinstance(error, LinkError):
        remedy = COPY_WITHOUT_LINKS
    return OutputError(f"{path}: cannot be written ({error.strerror}); {remedy}")


# ---------------------------------------------------------------- reading


def read_within(place: Place, name: str, most: int) -> bytes:
    """A file of a folder that anybody may have made, as a/b/c: at most `most` bytes of it.

    Raises InputMissingError where there is none, DataError where a part of the name is a link, for
    what is no plain file, and for one that is too large.
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
        raise InputMissingError(f"{path}: cannot be read ({reason}); {COPY_AGAIN}") from error


def _read(descriptor: int, path: Path, most: int) -> bytes:
    """Raises OSError, and DataError for what is no plain file or larger than `most`."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise DataError(str(path), None, "is no plain file", COPY_AGAIN)
    data = b""
    if found.st_size <= most:
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(most + 1)
    if found.st_size > most or len(data) > most:
        problem = f"larger than the {most:,} bytes that it can need"
        raise DataError(str(path), None, problem, COPY_AGAIN)
    return data


def read_json(place: Place, name: str, most: int) -> Any:
    """A JSON file of such a folder. Raises DataError and InputMissingError, as `read_within`."""
    return parse_json(read_within(place, name, most), str(path_of(place) / name))


def parse_json(data: bytes, source: str) -> Any:
    """A JSON document that anybody may have written. Raises DataError naming `source`."""
    check_nested(data, source, MAX_NESTED)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(source, None, "not valid JSON", COPY_AGAIN) from error


def check_nested(data: bytes, source: str, most: int) -> None:
    """Refuse JSON of more lists and objects than that. Raises DataError naming `source`."""
    if data.count(b"[") + data.count(b"{") > most:
        raise DataError(source, None, f"more than {most:,} lists and objects", COPY_AGAIN)


def to_json(data: Any) -> bytes:
    """JSON for people and for `read_json`; all ASCII where a file's name in it is no Unicode."""
    try:
        return (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(data, indent=2) + "\n").encode()
