"""srucli over an `os` in which calls that write fail, or are the last, at random.

Usage: python -m tests.robustness.faulty (fail|kill) FOLDER SEED SHARE srucli's arguments

The share (of 1) is struck of calls that open files below FOLDER for writing, write to them, sync,
rename, cut, make and remove them; of what is to be written, some is before. `fail` is a disk that
is full, worn out or over quota; `kill` ends the process by SIGKILL. srucli writes its files
through these functions alone.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

FAULTS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
WRITING = os.O_WRONLY | os.O_RDWR
PATHS = ("replace", "rename", "mkdir", "truncate", "unlink", "rmdir")
OPEN = ("open", "close", "write", "fsync", "ftruncate")


class Disk:
    """Which descriptors and paths lie on it, and when it strikes: `how` is `fail` or `kill`."""

    def __init__(self, how: str, folder: str, seed: int, share: float) -> None:
        self.how, self.folder, self.share = how, os.path.abspath(folder), share
        self.random = random.Random(seed)
        self.descriptors: set[int] = set()
        self.real = {name: getattr(os, name) for name in (*PATHS, *OPEN)}

    def holds(self, path: Any, inside: int | None = None) -> bool:
        """Whether a path is the folder or below it, which `inside` is a descriptor of, if any."""
        if inside is not None:
            return inside in self.descriptors
        if not isinstance(path, str | os.PathLike):
            return False
        whole = os.path.abspath(os.fspath(path))
        return whole == self.folder or whole.startswith(self.folder + os.sep)

    def strikes(self) -> bool:
        """Whether it does so now."""
        return self.random.random() < self.share

    def strike(self) -> NoReturn:
        """End this process, or raise OSError."""
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = self.random.choice(FAULTS)
        raise OSError(code, os.strerror(code))

    def open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        """As `os.open`."""
        own = self.holds(path, named.get("dir_fd"))
        if own and flags & WRITING and self.strikes():
            self.strike()
        descriptor: int = self.real["open"](path, flags, *rest, **named)
        (self.descriptors.add if own else self.descriptors.discard)(descriptor)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """As `os.write`; before it strikes, it may write some."""
        if descriptor in self.descriptors and self.strikes():
            self.real["write"](descriptor, data[: self.random.randrange(len(data) + 1)])
            self.strike()
        return int(self.real["write"](descriptor, data))

    def fsync(self, descriptor: int) -> None:
        """As `os.fsync`."""
        if descriptor in self.descriptors and self.strikes():
            self.strike()
        self.real["fsync"](descriptor)

    def ftruncate(self, descriptor: int, length: int) -> None:
        """As `os.ftruncate`."""
        if descriptor in self.descriptors and self.strikes():
            self.strike()
        self.real["ftruncate"](descriptor, length)

    def close(self, descriptor: int) -> None:
        """As `os.close`; its number may soon be that of something else."""
        self.descriptors.discard(descriptor)
        self.real["close"](descriptor)

    def on_path(self, name: str, path: Any, *rest: Any, **named: Any) -> Any:
        """As the function of that name, whose first argument is a path."""
        inside = named.get("dir_fd", named.get("src_dir_fd"))
        if self.holds(path, inside) and self.strikes():
            self.strike()
        return self.real[name](path, *rest, **named)

    def install(self) -> None:
        """Take the place of the real functions."""
        for name in OPEN:
            setattr(os, name, getattr(self, name))
        for name in PATHS:
            replaced: Callable[..., Any] = partial(self.on_path, name)
            setattr(os, name, replaced)


def main() -> None:
    """Run srucli so."""
    how, folder, seed, share, *arguments = sys.argv[1:]
    sys.argv = ["srucli", *arguments]
    from srucli.cli import main as run

    Disk(how, folder, int(seed), float(share)).install()
    run()


if __name__ == "__main__":
    main()
