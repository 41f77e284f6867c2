"""srucli over an `os` whose writes fail at random: a disk that is full, worn out or over quota.

Usage: python -m benchmarks.faulty FOLDER SEED SHARE srucli's arguments

The share (of 1) of calls fails that open files below FOLDER for writing, write to them, sync,
rename, cut and make them; of what is to be written, some is before a call fails. srucli writes its
files through these functions alone.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

FAULTS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
WRITING = os.O_WRONLY | os.O_RDWR


class Disk:
    """Which descriptors and paths lie on it, and when it fails."""

    def __init__(self, folder: str, seed: int, share: float) -> None:
        self.folder, self.share = os.path.abspath(folder), share
        self.random = random.Random(seed)
        self.descriptors: set[int] = set()
        self.real = {name: getattr(os, name) for name in (*PATHS, "open", "write", "fsync")}

    def holds(self, path: Any) -> bool:
        """Whether a path is the folder or below it."""
        if not isinstance(path, str | os.PathLike):
            return False
        whole = os.path.abspath(os.fspath(path))
        return whole == self.folder or whole.startswith(self.folder + os.sep)

    def may_fail(self) -> None:
        """Raise OSError, or do not."""
        if self.random.random() < self.share:
            code = self.random.choice(FAULTS)
            raise OSError(code, os.strerror(code))

    def open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        """As `os.open`."""
        own = self.holds(path)
        if own and flags & WRITING:
            self.may_fail()
        descriptor: int = self.real["open"](path, flags, *rest, **named)
        (self.descriptors.add if own else self.descriptors.discard)(descriptor)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """As `os.write`; before it fails, it may write some."""
        if descriptor in self.descriptors:
            try:
                self.may_fail()
            except OSError:
                self.real["write"](descriptor, data[: self.random.randrange(len(data) + 1)])
                raise
        return int(self.real["write"](descriptor, data))

    def fsync(self, descriptor: int) -> None:
        """As `os.fsync`."""
        if descriptor in self.descriptors:
            self.may_fail()
        self.real["fsync"](descriptor)

    def on_path(self, name: str, path: Any, *rest: Any, **named: Any) -> Any:
        """As the function of that name, whose first argument is a path."""
        if self.holds(path):
            self.may_fail()
        return self.real[name](path, *rest, **named)

    def install(self) -> None:
        """Take the place of the real functions."""
        os.open, os.write, os.fsync = self.open, self.write, self.fsync  # type: ignore[assignment]
        for name in PATHS:
            replaced: Callable[..., Any] = partial(self.on_path, name)
            setattr(os, name, replaced)


PATHS = ("replace", "rename", "mkdir", "truncate")


def main() -> None:
    """Run srucli so."""
    folder, seed, share, *arguments = sys.argv[1:]
    sys.argv = ["srucli", *arguments]
    from srucli.cli import main as run

    Disk(folder, int(seed), float(share)).install()
    run()


if __name__ == "__main__":
    main()
