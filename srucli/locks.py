"""One writer in a folder at a time.

The kernel holds the lock and lets go of it when the process ends, however that happens, so a lock
that a dead process left is none. The file says who holds it, for messages only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srucli.errors import OutputError
from srucli.files import unwritable
from srucli.lines import escaped

NAME = "lock"
_HOLDER = b"process"
# What file systems say that know no locks.
_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock for a block; gives whether there is nothing else in it.

    Raises OutputError where somebody else holds it.
    """
    path = folder / NAME
    try:
        descriptor = _acquire(path)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield os.listdir(folder) == [NAME]
    finally:
        with suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def is_ours(folder: Path) -> bool:
    """Whether a training left its lock in a folder: the file says so."""
    try:
        with open(folder / NAME, "rb") as file:
            return file.read(len(_HOLDER)) in (_HOLDER, b"")
    except OSError:
        return False


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the folder's lock just now."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Open and lock the file. A holder removes it at the end, so it may be another by then."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not _try(descriptor):
            holder = escaped(os.read(descriptor, 200).decode("utf-8", "replace").strip())
            os.close(descriptor)
            raise OutputError(
                f"{path.parent}: another training writes there ({holder or 'just begun'}); wait "
                "for it, stop it, or choose another -o"
            )
        if _is_at(path, descriptor):
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                words = f" {os.getpid()} on {platform.node()}\n"
                os.write(descriptor, _HOLDER + words.encode())
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _try(descriptor: int) -> bool:
    """Lock an open file, if nobody else has; where a file system knows no locks, nobody has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
    return True
