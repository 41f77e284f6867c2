"""Allow one writing process per folder.

The kernel releases a lock when its process ends in any way. The file names the holder for messages.
"""

from __future__ import annotations

import errno
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "lock"
_HOLDER = re.compile(rb"process [0-9]+ on [^\n]*\n")
_MAX_BYTES = 400
_LOCKED_BYTE = 1 << 30
# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def locked(folder: OpenFolder) -> Iterator[None]:
    """Hold the folder's lock for a block. Raises OutputError if another process holds it.

    The folder refuses writes if the lock file is removed: another process may hold a new one.
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
    """Whether the folder has a lock file that srucli wrote."""
    try:
        return bool(_HOLDER.fullmatch(read_within(folder, NAME, _MAX_BYTES)))
    except SrucliError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process holds the folder's lock now, as far as this one may see."""
    try:
        with OpenFolder.at(path) as folder:
            descriptor = folder.open_to_write(NAME, 0)
        try:
            return not _try(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _acquire(folder: OpenFolder) -> int:
    """Open and lock the file. Try again if its holder removed it meanwhile."""
    while True:
        descriptor = folder.open_to_write(NAME, os.O_CREAT)
        try:
            is_ours = _try(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if not is_ours:
            holder = escaped(os.read(descriptor, _MAX_BYTES).decode("utf-8", "replace").strip())
            os.close(descriptor)
            raise OutputError(
                f"{folder.path}: another training writes there ({holder or 'just started'}); wait "
                "for it or stop it, or train in another folder, with -o"
            )
        if folder.is_open_as(NAME, descriptor):
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
            return descriptor
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    """Lock an open file. Return False if another process holds the lock."""
    held = BlockingIOError if fcntl else PermissionError  # POSIX: lack of rights
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            _lock_byte(descriptor)
    except held:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _lock_byte(descriptor: int) -> None:
    """Lock a byte behind the content, which others could not read otherwise. Raises OSError."""
    import msvcrt

    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
