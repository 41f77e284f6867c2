"""What must not happen outside of a folder, seen by an audit hook: files opened to be written, made
or removed, links followed, processes, sockets, pickles."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Those that take a name itself, be it a link, and those that take what it leads to.
_NAMES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
_CHANGES = (
    *(*_NAMES, "os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr", "shutil."),
)
_FORBIDDEN = (
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill", "socket."),
    *("pickle.find_class", "urllib.", "webbrowser.", "ftplib."),
)


class Watch:
    """An audit hook that notes what happens outside of a folder, while there is one."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.events: list[str] = []
        # The folder that `os.open` has just been given, of which its event does not tell.
        self.inside: int | None = None
        self.open = os.open
        os.open = self._open
        sys.addaudithook(self._hook)

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """As `os.open`."""
        self.inside = dir_fd
        try:
            return self.open(path, flags, mode, dir_fd=dir_fd)
        finally:
            self.inside = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        folder, self.folder = self.folder, None  # what is done here is not looked at
        if event == "open":
            self._opened(folder, *arguments)
        elif event.startswith(_FORBIDDEN):
            self.events.append(f"{event} {arguments!r}"[:300])
        elif event.startswith(_CHANGES):
            place, follows = _folder(arguments[-1]), not event.startswith(_NAMES)
            for path in arguments:
                if isinstance(path, str | bytes | os.PathLike) and not _inside(
                    path, folder, place, follows
                ):
                    self.events.append(f"{event} {arguments!r}"[:300])
        self.folder = folder

    def _opened(self, folder: str, path: Any, mode: str | None, flags: int) -> None:
        if isinstance(path, int) or path is None:
            return
        place = _folder(self.inside)
        named = os.path.abspath(os.path.join(place, os.fsdecode(path)))
        writes = flags & _WRITES or set(mode or "") & set("wax+")
        follows = not flags & os.O_NOFOLLOW
        if (_is_below(named, folder) or writes) and not _inside(path, folder, place, follows):
            self.events.append(f"open {path!r} {mode} {flags:#o}")


def _folder(descriptor: Any) -> str:
    """Where relative paths begin: the folder of `dir_fd`, where one was given."""
    if isinstance(descriptor, int) and descriptor >= 0:
        with suppress(OSError):
            return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


def _inside(path: Any, folder: str, place: str, follows: bool) -> bool:
    """Whether what a call takes is a folder or below it. `follows`: be its name a link, too."""
    named = os.path.join(place, os.fsdecode(path))
    above, name = os.path.split(named)
    whole = os.path.realpath(named) if follows else os.path.join(os.path.realpath(above), name)
    return _is_below(whole, folder)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


WATCH: list[Watch] = []


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Have the audit hook, where there is one, look at the block. Raises AssertionError."""
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
    """Let a part of such a block do what srucli must not."""
    if not WATCH:
        yield
        return
    folder, WATCH[0].folder = WATCH[0].folder, None
    try:
        yield
    finally:
        WATCH[0].folder = folder
