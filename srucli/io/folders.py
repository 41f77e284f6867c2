"""Open folders, in which no name is opened through a link.

Names are opened, made, renamed and removed relative to the folder's descriptor, so replacing a part
of its path meanwhile has no effect. The path to the folder itself may contain links. Functions of
`os` do the work, so a test can make any of them fail. Windows has no descriptors of folders: there,
names are joined to the path, and what replaces a part of it meanwhile may be followed.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from srucli.errors import OutputError

# The end of the names of files that are written beside a final name. A killed process leaves some.
TEMPORARY = ".tmp"
# The most bytes of a name.
_NAME_MAX = 255
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def _flags(*names: str) -> int:
    """Return the named flags of `os.open` together, without those that this system lacks."""
    return sum(getattr(os, name, 0) for name in names)


_FOLDER = _flags("O_RDONLY", "O_DIRECTORY", "O_CLOEXEC")
_ALWAYS = _flags("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT")
# Whether names can be opened below an open folder.
HAS_DESCRIPTORS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")

Identity = tuple[int, int]


def temporary_folder() -> TemporaryDirectory[str]:
    """Return a new folder that is removed with the object. Raises OutputError."""
    try:
        return TemporaryDirectory(prefix="srucli-")
    except OSError as error:
        raise OutputError(
            f"no folder for temporary files can be written ({error}); set TMPDIR to one that can"
        ) from error


class LinkError(OSError):
    """A name in a folder is a symbolic link, or one of several names of a file."""


def identity(status: os.stat_result) -> Identity:
    """Return what distinguishes a file or folder from all others that exist."""
    return status.st_dev, status.st_ino


def identity_of(path: Path) -> Identity | None:
    """Return the identity of what a path leads to, through links; None if that does not exist."""
    try:
        return identity(os.stat(path))
    except (OSError, ValueError):
        return None


class OpenFolder:
    """A folder, from `at` or `child`. Methods take names without a path, and raise OSError.

    `path` is how it was reached, for messages. `lock` has the name and descriptor of a file that
    must stay in the folder while it is written to.
    """

    def __init__(
        self, path: Path, descriptor: int | None, expected: Identity | None = None
    ) -> None:
        """descriptor: None if the system has none of folders. expected: the identity that the
        folder must have, if known.
        """
        self.path, self.descriptor = path, descriptor
        self.absolute = Path(os.path.abspath(path))  # the current folder may change
        self.identity = identity(os.stat(path if descriptor is None else descriptor))
        self.expected = expected or self.identity
        self.lock: tuple[str, int] | None = None

    @classmethod
    @contextmanager
    def at(cls, path: Path, expected: Identity | None = None) -> Iterator[OpenFolder]:
        """Hold the folder at a path for a block."""
        if not HAS_DESCRIPTORS:
            os.listdir(path)  # raises OSError for everything but a folder that can be read
            yield cls(path, None, expected)
            return
        with _closed(os.open(path, _FOLDER)) as descriptor:
            yield cls(path, descriptor, expected)

    @contextmanager
    def child(self, name: str, *, make: bool = False) -> Iterator[OpenFolder]:
        """Hold a folder in this one for a block. make: create it if it does not exist."""
        if make:
            with suppress(FileExistsError):
                self.make(name)
        if self.descriptor is None:
            self._refuse_link(name)
            with OpenFolder.at(self.path / name) as child:
                yield child
            return
        with _closed(self.open(name, _FOLDER)) as descriptor:
            yield OpenFolder(self.path / name, descriptor)

    @contextmanager
    def below(self, names: str, *, make: bool = False) -> Iterator[OpenFolder]:
        """Hold a folder at a relative path, as a/b/c, for a block; "" is this one."""
        name, _, rest = names.partition("/")
        if not name:
            yield self
            return
        with self.child(name, make=make) as child, child.below(rest, make=make) as last:
            yield last

    def names(self) -> list[str]:
        """Return the names of everything in it, sorted."""
        return sorted(os.listdir(self.absolute if self.descriptor is None else self.descriptor))

    def _at(self, name: str) -> str:
        """Return a name as functions of `os` take it, with `dir_fd`. Raises OSError for a path."""
        if name in ("", ".", "..") or os.path.basename(name) != name:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        return name if self.descriptor is not None else os.path.join(self.absolute, name)

    def stat(self, name: str) -> os.stat_result:
        """Return the status of a name, of the link itself if it is one."""
        return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)

    def _refuse_link(self, name: str) -> None:
        if self._is(stat.S_ISLNK, name):
            raise LinkError(errno.ELOOP, "it is a link", name)

    def is_file(self, name: str) -> bool:
        """Whether there is a regular file of that name, not a link to one."""
        return self._is(stat.S_ISREG, name)

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name, not a link to one."""
        return self._is(stat.S_ISDIR, name)

    def _is(self, kind: Callable[[int], bool], name: str) -> bool:
        try:
            return kind(self.stat(name).st_mode)
        except (OSError, ValueError):
            return False

    def open(self, name: str, flags: int) -> int:
        """Return a descriptor of a file or folder. Raises LinkError for a link."""
        if not hasattr(os, "O_NOFOLLOW"):
            self._refuse_link(name)
        try:
            return os.open(self._at(name), flags | _ALWAYS, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.EMLINK):
                self._refuse_link(name)
            if error.errno == errno.ELOOP:
                raise LinkError(errno.ELOOP, "it is a link", name) from error
            raise

    def is_in_place(self) -> bool:
        """Whether its path still leads to it, and its lock still has its name."""
        if not self.identity == self.expected == identity_of(self.absolute):
            return False
        return self.lock is None or self.is_open_as(*self.lock)

    def is_open_as(self, name: str, descriptor: int) -> bool:
        """Whether the file of an open descriptor still has that name here."""
        try:
            return identity(self.stat(name)) == identity(os.fstat(descriptor))
        except OSError:
            return False

    def check_in_place(self) -> None:
        """Raise OutputError if another process may write at its path by now."""
        if self.is_in_place():
            return
        happened = "was removed or renamed, or is another folder by now"
        if self.identity == self.expected == identity_of(self.absolute):
            happened = "has lost its lock, so that another may write there"
        raise OutputError(
            f"{self.path}: {happened}; nothing more is written there: start again in a folder of "
            "its own, with -o"
        )

    def open_to_write(self, name: str, flags: int) -> int:
        """Return a descriptor of a regular file with no other name. Raises LinkError."""
        descriptor = self.open(name, os.O_RDWR | flags)
        status = os.fstat(descriptor)
        problem: OSError | None = None
        if not stat.S_ISREG(status.st_mode):
            problem = OSError(errno.EISDIR, "it is not a regular file", name)
        elif status.st_nlink > 1:
            problem = LinkError(errno.EMLINK, "it has other names too, by hard links", name)
        if problem:
            os.close(descriptor)
            raise problem
        return descriptor

    def create(self, name: str, data: bytes) -> None:
        """Write and sync a file that must not exist yet."""
        with _closed(self.open(name, _NEW)) as descriptor:
            _write(descriptor, data)

    @contextmanager
    def replacing(self, name: str) -> Iterator[int]:
        """Yield a descriptor to write to; after a successful block, sync and rename its file."""
        beside = beside_name(name)
        try:
            with _closed(self.open(beside, _NEW)) as descriptor:
                yield descriptor
                os.fsync(descriptor)
            self.rename(beside, name)  # Windows renames no open file
        except BaseException:
            with suppress(OSError):
                self.remove(beside)
            raise

    def append(self, name: str, data: bytes) -> None:
        """Append to a file, created if it does not exist, and sync it."""
        with _closed(self.open_to_write(name, os.O_CREAT | os.O_APPEND)) as descriptor:
            _write(descriptor, data)

    def cut(self, name: str, size: int) -> None:
        """Truncate a file to `size` bytes."""
        with _closed(self.open_to_write(name, 0)) as descriptor:
            os.ftruncate(descriptor, size)

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write all files beside their final names, sync them, rename them, sync the folder.

        If one cannot be written, none is renamed, and the error's `filename` is its name.
        """
        beside = {name: beside_name(name) for name in contents}
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
        """Rename a file, replacing a file of the new name."""
        own = self.descriptor
        os.replace(self._at(name), self._at(new), src_dir_fd=own, dst_dir_fd=own)

    def make(self, name: str) -> None:
        """Create a folder."""
        os.mkdir(self._at(name), dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove the name of a file or link."""
        os.unlink(self._at(name), dir_fd=self.descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove a folder if it is empty."""
        try:
            os.rmdir(self._at(name), dir_fd=self.descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def sync(self) -> None:
        """Sync the folder, so that its names survive a crash."""
        if self.descriptor is not None:
            os.fsync(self.descriptor)


@contextmanager
def _closed(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def beside_name(name: str) -> str:
    """Return a temporary name for a file beside `name`, different for each process and call."""
    ending = f".{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}"
    while len(os.fsencode(name)) > _NAME_MAX - 1 - len(ending):
        name = name[:-1]
    return f".{name}{ending}"


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
