"""Run srucli with an `os` module in which random calls that write fail or kill the process.

Usage: python -m tests.robustness.faulty (fail|kill) FOLDER SEED SHARE ARGUMENTS OF SRUCLI

SHARE (from 0 to 1) is the share of faulty calls among those that open files below FOLDER for
writing, or write, sync, truncate, rename, create or remove them. A faulty write first writes a part
of its data. `fail` raises the OSError of a full or broken disk or of an exceeded quota. `kill` ends
the process with SIGKILL. srucli writes its files only with these functions.
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
    """A folder whose calls are faulty, with its open descriptors. `how` is `fail` or `kill`."""

    def __init__(self, how: str, folder: str, seed: int, share: float) -> None:
        self.how, self.folder, self.share = how, os.path.abspath(folder), share
        self.random = random.Random(seed)
        self.descriptors: set[int] = set()
        self.real = {name: getattr(os, name) for name in (*PATHS, *OPEN)}

    def holds(self, path: Any, dir_fd: int | None = None) -> bool:
        """Return whether a path is the folder or is below it. It may be relative to `dir_fd`."""
        if dir_fd is not None:
            return dir_fd in self.descriptors
        if not isinstance(path, str | os.PathLike):
            return False
        whole = os.path.abspath(os.fspath(path))
        return whole == self.folder or whole.startswith(self.folder + os.sep)

    def is_faulty(self) -> bool:
        """Return, at random, whether this call is faulty."""
        return self.random.random() < self.share

    def fail(self) -> NoReturn:
        """Kill this process, or raise OSError."""
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = self.random.choice(FAULTS)
        raise OSError(code, os.strerror(code))

    def open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        """Replace `os.open`."""
        own = self.holds(path, named.get("dir_fd"))
        if own and flags & WRITING and self.is_faulty():
            self.fail()
        descriptor: int = self.real["open"](path, flags, *rest, **named)
        (self.descriptors.add if own else self.descriptors.discard)(descriptor)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """Replace `os.write`. A faulty call writes a part of the data."""
        if descriptor in self.descriptors and self.is_faulty():
            self.real["write"](descriptor, data[: self.random.randrange(len(data) + 1)])
            self.fail()
        return int(self.real["write"](descriptor, data))

    def fsync(self, descriptor: int) -> None:
        """Replace `os.fsync`."""
        if descriptor in self.descriptors and self.is_faulty():
            self.fail()
        self.real["fsync"](descriptor)

    def ftruncate(self, descriptor: int, length: int) -> None:
        """Replace `os.ftruncate`."""
        if descriptor in self.descriptors and self.is_faulty():
            self.fail()
        self.real["ftruncate"](descriptor, length)

    def close(self, descriptor: int) -> None:
        """Replace `os.close`. Another file may soon have the same descriptor."""
        self.descriptors.discard(descriptor)
        self.real["close"](descriptor)

    def on_path(self, name: str, path: Any, *rest: Any, **named: Any) -> Any:
        """Replace the function of `os` with this name, whose first argument is a path."""
        dir_fd = named.get("dir_fd", named.get("src_dir_fd"))
        if self.holds(path, dir_fd) and self.is_faulty():
            self.fail()
        return self.real[name](path, *rest, **named)

    def install(self) -> None:
        """Replace the functions of `os`."""
        for name in OPEN:
            setattr(os, name, getattr(self, name))
        for name in PATHS:
            replacement: Callable[..., Any] = partial(self.on_path, name)
            setattr(os, name, replacement)


def main() -> None:
    """Run srucli on a faulty disk."""
    how, folder, seed, share, *arguments = sys.argv[1:]
    sys.argv = ["srucli", *arguments]
    from srucli.cli import main as run

    Disk(how, folder, int(seed), float(share)).install()
    run()


if __name__ == "__main__":
    main()
