"""An audit hook that reports forbidden events outside a folder.

Forbidden are files opened for writing, created or removed, links followed to outside, processes,
sockets and pickles.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of calls that change a name, even if it is a link. The others follow links.
_NAMES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
_CHANGES = (
    *(*_NAMES, "os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr", "shutil."),
)
_FORBIDDEN = (
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill", "socket."),
    *("pickle.find_class", "urllib.", "webbrowser.", "ftplib."),
)


class Watch:
    """An audit hook that records forbidden events outside `folder`, while that is not None."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.events: list[str] = []
        # The `dir_fd` of the current call of `os.open`; its event does not contain it.
        self.dir_fd: int | None = None
        self.open = os.open
        os.open = self._open
        sys.addaudithook(self._hook)

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Replace `os.open`."""
        self.dir_fd = dir_fd
        try:
            return self.open(path, flags, mode, dir_fd=dir_fd)
        finally:
            self.dir_fd = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        folder, self.folder = self.folder, None  # ignore the events of this method
        if event == "open":
            self._opened(folder, *arguments)
        elif event.startswith(_FORBIDDEN):
            self._report(f"{event} {arguments!r}")
        elif event.startswith(_CHANGES):
            place, follows = _folder(arguments[-1]), not event.startswith(_NAMES)
            for path in arguments:
                if isinstance(path, str | bytes | os.PathLike) and not _inside(
                    path, folder, place, follows
                ):
                    self._report(f"{event} {arguments!r}")
        self.folder = folder

    def _opened(self, folder: str, path: Any, mode: str | None, flags: int) -> None:
        if isinstance(path, int) or path is None:
            return
        place = _folder(self.dir_fd)
        named = os.path.abspath(os.path.join(place, os.fsdecode(path)))
        writes = flags & _WRITES or set(mode or "") & set("wax+")
        follows = not flags & os.O_NOFOLLOW
        if (_is_below(named, folder) or writes) and not _inside(path, folder, place, follows):
            self._report(f"open {path!r} {mode} {flags:#o}")

    def _report(self, event: str) -> None:
        """Record an event, unless Numba reads or writes a kernel in its cache, outside any run."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_globals.get("__name__") == "numba.core.caching":
                return
            frame = frame.f_back
        self.events.append(event[:300])


def _folder(descriptor: Any) -> str:
    """Return the folder of a `dir_fd`, to which paths are relative, or "" without one."""
    if isinstance(descriptor, int) and descriptor >= 0:
        with suppress(OSError):
            return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


def _inside(path: Any, folder: str, place: str, follows: bool) -> bool:
    """Return whether a path is the folder or is below it. `follows`: resolve a final link too."""
    named = os.path.join(place, os.fsdecode(path))
    above, name = os.path.split(named)
    whole = os.path.realpath(named) if follows else os.path.join(os.path.realpath(above), name)
    return _is_below(whole, folder)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


WATCH: list[Watch] = []


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Watch a block, if there is a hook. Raises AssertionError for the first forbidden event."""
    if not WATCH:
        yield
        return
    watch = WATCH[0]
    watch.events.clear()
    watch.folder = os.path.realpath(folder)
    try:
        yield
    finally:
        watch.folder = None
        if watch.events:
            raise AssertionError(watch.events[0])


@contextmanager
def unwatched() -> Iterator[None]:
    """Pause the watching of a block: the test itself does what srucli must not do."""
    if not WATCH:
        yield
        return
    folder, WATCH[0].folder = WATCH[0].folder, None
    try:
        yield
    finally:
        WATCH[0].folder = folder
