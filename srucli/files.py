"""Files that are written whole or not at all, and files of a folder that a stranger may have made.

Everything goes through functions of `os`, so that a test can let any of them fail.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from srucli.errors import DataError, InputMissingError, OutputError

# A file beside a final name, as `write_atomic` makes it; whoever was killed leaves some behind.
TEMPORARY = ".tmp"
COPY_AGAIN = "copy the run again"
# Lists and objects of a JSON document: in Python a million of them take seconds.
MOST_NESTED = 2**18


def write_atomic(contents: Mapping[Path, bytes]) -> None:
    """Write all files beside their final names, sync them, rename them, sync their folders.

    Where one cannot be written, none is renamed. Raises OutputError naming the file.
    """
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}") for path in contents}
    path = next(iter(contents))
    try:
        for path, data in contents.items():
            write_synced(beside[path], data)
        for path in contents:
            os.replace(beside[path], path)
        for folder in {path.parent for path in contents}:
            sync_folder(folder)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for temporary in beside.values():
            with suppress(OSError):
                os.unlink(temporary)


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file and sync it. Raises OutputError naming the file."""
    try:
        write_synced(path, data, os.O_APPEND)
    except OSError as error:
        raise unwritable(path, error) from error


def write_synced(path: Path, data: bytes, how: int = os.O_TRUNC) -> None:
    """Write to a file and see that it lasts. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> OutputError:
    """What is said where a file or folder cannot be written."""
    remedy = "choose a folder that can be written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "make room"
    elif error.errno == errno.ENOENT:
        remedy = "its folder was removed or renamed"
    return OutputError(f"{path}: cannot be written ({error.strerror}); {remedy}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_within(folder: Path, name: str, most: int) -> bytes:
    """A file of a folder that anybody may have made: at most `most` bytes, and nothing outside.

    Raises InputMissingError where there is none, DataError for links that lead out of the folder,
    for what is no plain file, and for one that is too large.
    """
    path = folder / name
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        # Without waiting for the other end, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if inside else None
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name with a NUL
        raise _unreadable(path, error) from error
    if descriptor is None:
        raise DataError(str(path), None, "is a link to outside of its folder", COPY_AGAIN)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(str(path), None, "is no plain file", COPY_AGAIN)
        data = b"" if found.st_size > most else _read(descriptor, path, most)
    finally:
        os.close(descriptor)
    if found.st_size > most or len(data) > most:
        problem = f"larger than the {most:,} bytes that it can need"
        raise DataError(str(path), None, problem, COPY_AGAIN)
    return data


def _read(descriptor: int, path: Path, most: int) -> bytes:
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputMissingError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputMissingError(f"{path}: cannot be read ({reason}); {COPY_AGAIN}")


def read_json(folder: Path, name: str, most: int) -> Any:
    """A JSON file of such a folder. Raises DataError and InputMissingError, as `read_within`."""
    return parse_json(read_within(folder, name, most), str(folder / name))


def parse_json(data: bytes, source: str) -> Any:
    """A JSON document that anybody may have written. Raises DataError naming `source`."""
    check_nested(data, source, MOST_NESTED)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(source, None, "not valid JSON", COPY_AGAIN) from error


def check_nested(data: bytes, source: str, most: int) -> None:
    """Refuse JSON of more lists and objects than that. Raises DataError naming `source`."""
    if data.count(b"[") + data.count(b"{") > most:
        raise DataError(source, None, f"more than {most:,} lists and objects", COPY_AGAIN)


def to_json(data: Any) -> bytes:
    """JSON for people and for `read_json`."""
    return (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode()
