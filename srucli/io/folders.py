"""Folders held open, in which nothing is reached through a link.

Names are opened, made, renamed and removed relative to the folder's descriptor, so that whoever
swaps a part of its path meanwhile gains nothing by it. How the folder itself is reached is its
user's affair: that path may hold links. Functions of `os` do the work, so that a test can let any
of them fail; what the files mean is not known here.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from srucli.errors import OutputError

# Of a file beside a final name, as `OpenFolder.write` makes it; whoever was killed leaves some.
TEMPORARY = ".tmp"
# Linux and macOS open names relative to a folder. Elsewhere a path is checked, opened and checked.
BY_DESCRIPTOR = {
    *(os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename),
} <= os.supports_dir_fd and os.listdir in os.supports_fd
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_PLAIN = os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)

Identity = tuple[int, int]


class LinkError(OSError):
    """A name in a folder is a link, or one of several names of a file."""


def identity(found: os.stat_result) -> Identity:
    """What tells one file or folder from all others for as long as it exists."""
    return found.st_dev, found.st_ino


def identity_of(path: Path) -> Identity | None:
    """Of what a path leads to, through links; None where that is nothing."""
    try:
        return identity(os.stat(path))
    except (OSError, ValueError):
        return None


class OpenFolder:
    """A folder, from `at` or `child`. Methods take plain names, and raise OSError.

    `path` is how it was reached, for messages. `lock` is the descriptor of a file in it that has to
    stay in its place, with its name, as long as the folder is written to.
    """

    def __init__(self, path: Path, descriptor: int | None, meant: Identity | None = None) -> None:
        """`meant` is which folder it has to be, where that is known."""
        self.path, self.descriptor = path, descriptor
        self.absolute = Path(os.path.abspath(path))  # whatever becomes of the current folder
        own = identity(os.stat(path) if descriptor is None else os.fstat(descriptor))
        self.identity, self.meant = own, meant or own
        self.lock: tuple[str, int] | None = None

    @classmethod
    @contextmanager
    def at(cls, path: Path, meant: Identity | None = None) -> Iterator[OpenFolder]:
        """Hold the folder that a path leads to, for a block."""
        if not BY_DESCRIPTOR:
            yield cls(path, None, meant)
            return
        with _closed(os.open(path, _FOLDER | os.O_CLOEXEC)) as descriptor:
            yield cls(path, descriptor, meant)

    @contextmanager
    def child(self, name: str, *, make: bool = False) -> Iterator[OpenFolder]:
        """Hold a folder in this one for a block; where `make` is set it is made if need be."""
        if make:
            with suppress(FileExistsError):
                self.make(name)
        if self.descriptor is None:
            if not stat.S_ISDIR(self.stat(name).st_mode):
                raise self._unfit(name, errno.ENOTDIR)
            yield OpenFolder(self.path / name, None)
            return
        with _closed(self.open(name, _FOLDER)) as descriptor:
            yield OpenFolder(self.path / name, descriptor)

    @contextmanager
    def below(self, names: str, *, make: bool = False) -> Iterator[OpenFolder]:
        """Hold a folder some levels below, as a/b/c, for a block; "" is this one."""
        name, _, rest = names.partition("/")
        if not name:
            yield self
            return
        with self.child(name, make=make) as child, child.below(rest, make=make) as last:
            yield last

    def _at(self, name: str) -> str | Path:
        if name in ("", ".", "..") or "/" in name:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        return self.path / name if self.descriptor is None else name

    def _unfit(self, name: str, code: int) -> OSError:
        """An error that says what is wrong with a name; for some links a system says ENOTDIR."""
        with suppress(OSError):
            if code == errno.ELOOP or stat.S_ISLNK(self.stat(name).st_mode):
                return LinkError(errno.ELOOP, "it is a link", name)
        return OSError(code, os.strerror(code), name)

    # ------------------------------------------------------------ looking

    def names(self) -> list[str]:
        """Of everything in it, sorted."""
        return sorted(os.listdir(self.path if self.descriptor is None else self.descriptor))

    def stat(self, name: str) -> os.stat_result:
        """Of what has the name itself, be it a link."""
        return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)

    def is_file(self, name: str) -> bool:
        """Whether there is a plain file of that name."""
        try:
            return stat.S_ISREG(self.stat(name).st_mode)
        except (OSError, ValueError):
            return False

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name, and no link to one."""
        try:
            return stat.S_ISDIR(self.stat(name).st_mode)
        except (OSError, ValueError):
            return False

    def open(self, name: str, flags: int) -> int:
        """A descriptor of what has the name. Raises LinkError for a link."""
        if self.descriptor is None:
            return _open_by_path(self, name, flags)
        try:
            flags |= _NOFOLLOW | _PLAIN
            return os.open(self._at(name), flags, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                raise self._unfit(name, error.errno) from error
            raise

    # ------------------------------------------------------------ writing

    def is_in_place(self) -> bool:
        """Whether its path still leads to it, and its lock still has its name."""
        if not self.identity == self.meant == identity_of(self.absolute):
            return False
        return self.lock is None or self.is_open_as(*self.lock)

    def is_open_as(self, name: str, descriptor: int) -> bool:
        """Whether the file of an open descriptor still has that name here."""
        try:
            return identity(self.stat(name)) == identity(os.fstat(descriptor))
        except OSError:
            return False

    def check_in_place(self) -> None:
        """Refuse to write where another may write by now. Raises OutputError."""
        if self.is_in_place():
            return
        happened = "was removed or renamed, or is another folder by now"
        if self.identity == self.meant == identity_of(self.absolute):
            happened = "has lost its lock, so that another may write there"
        raise OutputError(
            f"{self.path}: {happened}; nothing more is written there: begin again in a folder of "
            "its own, with -o"
        )

    def open_to_write(self, name: str, flags: int) -> int:
        """A descriptor of a plain file with no other name, to change it. Raises LinkError."""
        descriptor = self.open(name, os.O_RDWR | flags)
        found = os.fstat(descriptor)
        problem: OSError | None = None
        if not stat.S_ISREG(found.st_mode):
            problem = OSError(errno.EISDIR, "it is no plain file", name)
        elif found.st_nlink > 1:
            problem = LinkError(errno.EMLINK, "it has other names too, by hard links", name)
        if problem:
            os.close(descriptor)
            raise problem
        return descriptor

    def create(self, name: str, data: bytes) -> None:
        """Write a file that must not be there yet, and see that it lasts."""
        with _closed(self.open(name, _NEW)) as descriptor:
            _write(descriptor, data)

    @contextmanager
    def replacing(self, name: str) -> Iterator[int]:
        """A descriptor to write to; after the block its file is synced and gets the name.

        Where the block fails nothing of it stays.
        """
        beside = _beside(name)
        with _closed(self.open(beside, _NEW)) as descriptor:
            try:
                yield descriptor
                os.fsync(descriptor)
                self.rename(beside, name)
            except BaseException:
                with suppress(OSError):
                    self.remove(beside)
                raise

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file, made if need be, and see that it lasts."""
        with _closed(self.open_to_write(name, os.O_CREAT | os.O_APPEND)) as descriptor:
            _write(descriptor, data)

    def cut(self, name: str, size: int) -> None:
        """Keep the first bytes of a file."""
        with _closed(self.open_to_write(name, 0)) as descriptor:
            os.ftruncate(descriptor, size)

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write all files beside their final names, sync them, rename them, sync the folder.

        Where one cannot be written, none is renamed, and the error's `filename` is its name.
        """
        beside = {name: _beside(name) for name in contents}
        made: list[str] = []
        name = ""
        try:
            for name, data in contents.items():
                made.append(beside[name])
                self.create(beside[name], data)
            for name in contents:
                self.rename(beside[name], name)
                made.remove(beside[name])
            self.sync()
        except OSError as error:
            error.filename = name
            raise
        finally:
            for temporary in made:
                with suppress(OSError):
                    self.remove(temporary)

    def rename(self, name: str, new: str) -> None:
        """Give what has a name another one, in the place of a file that has that."""
        own = self.descriptor
        os.replace(self._at(name), self._at(new), src_dir_fd=own, dst_dir_fd=own)

    def make(self, name: str) -> None:
        """Make a folder."""
        os.mkdir(self._at(name), dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file's name, or a link."""
        os.unlink(self._at(name), dir_fd=self.descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove a folder, if it is empty; otherwise it stays."""
        try:
            os.rmdir(self._at(name), dir_fd=self.descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def sync(self) -> None:
        """Make its names last."""
        if self.descriptor is not None:
            os.fsync(self.descriptor)


def _open_by_path(folder: OpenFolder, name: str, flags: int) -> int:
    """Open as `OpenFolder.open` does where names cannot be opened relative to a folder."""
    if os.path.islink(folder._at(name)):
        raise folder._unfit(name, errno.ELOOP)
    descriptor = os.open(folder._at(name), flags | _NOFOLLOW | _PLAIN, 0o666)
    if identity(os.fstat(descriptor)) != identity(folder.stat(name)) or not folder.is_in_place():
        os.close(descriptor)
        raise LinkError(errno.ELOOP, "it was replaced meanwhile", name)
    return descriptor


@contextmanager
def _closed(descriptor: int) -> Iterator[int]:
    """Close a descriptor after a block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _beside(name: str) -> str:
    return f".{name}.{unique()}{TEMPORARY}"


def unique() -> str:
    """What no other process, and no other call, makes a temporary name of."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
