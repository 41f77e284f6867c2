"""One writer in a folder at a time.

The kernel holds the lock and lets go of it when the process ends, however that happens, so a lock
that a dead process left is none. The file says who holds it, for messages only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srucli.errors import OutputError, SrucliError
from srucli.io.console import escaped
from srucli.io.files import read_within, unwritable
from srucli.io.folders import OpenFolder

NAME = "lock"
_HOLDER = re.compile(rb"process [0-9]+ on [^\n]*\n")
# The longest that is read of what a lock says.
_MAX_BYTES = 400
# What file systems say that know no locks.
_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def locked(folder: OpenFolder) -> Iterator[None]:
    """Hold the folder's lock for a block. Raises OutputError where somebody else holds it.

    Once it is gone from the folder nothing more is written there: another may hold a new one.
    """
    try:
        descriptor = _acquire(folder)
    except OSError as error:
        raise unwritable(folder.path / NAME, error) from error
    folder.lock = (NAME, descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            if folder.is_in_place():
                folder.remove(NAME)
        folder.lock = None
        os.close(descriptor)


def is_left(folder: OpenFolder) -> bool:
    """Whether the folder's lock says what srucli writes into one."""
    try:
        return bool(_HOLDER.fullmatch(read_within(folder, NAME, _MAX_BYTES)))
    except SrucliError:
        return False


def is_locked(path: Path) -> bool:
    """Whether somebody holds the folder's lock just now."""
    try:
        with OpenFolder.at(path) as folder:
            descriptor = folder.open_to_write(NAME, 0)
    except OSError:
        return False
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


def _acquire(folder: OpenFolder) -> int:
    """Open and lock the file. A holder removes it at the end, so it may be another by then."""
    while True:
        descriptor = folder.open_to_write(NAME, os.O_CREAT)
        if not _try(descriptor):
            holder = escaped(os.read(descriptor, _MAX_BYTES).decode("utf-8", "replace").strip())
            os.close(descriptor)
            raise OutputError(
                f"{folder.path}: another training writes there ({holder or 'just begun'}); wait "
                "for it or stop it, or train in another folder, with -o"
            )
        if folder.is_open_as(NAME, descriptor):
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
            return descriptor
        os.close(descriptor)


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
