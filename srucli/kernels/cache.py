"""Where Numba keeps compiled functions: in its folders, else in a temporary one, else nowhere.

Code that lies beside srucli where nothing can be written, as in an image of a container, comes
first: it was compiled when srucli was installed.

A cache that cannot be read or written costs time and nothing else, so it raises no error; a line on
stderr says so once. Code in a cache is run, so it is read only from folders that others cannot
write by default, and never from one that depends on the current folder.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

from srucli.io.console import say

_TEMPORARY = (
    "compiled code is kept in {folder}, as no other folder for it can be written; set "
    "NUMBA_CACHE_DIR to choose one"
)
_NOWHERE = (
    "compiled code is not kept, as no folder for it can be written, so every start compiles it "
    "anew; set NUMBA_CACHE_DIR to a folder that can be written"
)
_FULL = (
    "compiled code cannot be kept in {folder} ({error}), so the next start compiles it anew; set "
    "NUMBA_CACHE_DIR to another folder, or make room"
)
_DAMAGED = "compiled code in {folder} cannot be read ({error}), and is compiled anew"
_said: set[str] = set()


def _say_once(message: str, **values: object) -> None:
    if message not in _said:
        _said.add(message)
        say("kernels: " + message.format(**values))


class _HomeLocator(UserWideCacheLocator):
    """The cache in the home folder, if there is one: without it, its path is a relative one."""

    def ensure_cache_path(self) -> None:
        if not os.path.isabs(self._cache_path):
            raise NotADirectoryError(f"{self._cache_path} depends on the current folder")
        super().ensure_cache_path()  # type: ignore[no-untyped-call]


class _TemporaryLocator(UserWideCacheLocator):
    """A folder below the temporary one that nobody else can write."""

    def ensure_cache_path(self) -> None:
        """Make it. Raises OSError."""
        user = os.getuid() if hasattr(os, "getuid") else "cache"
        top = tempfile.gettempdir()
        if os.path.samefile(top, os.curdir) and not _is_named(top):
            raise NotADirectoryError("there is no temporary folder")
        own = os.path.join(top, f"srucli-{user}")
        os.makedirs(own, mode=0o700, exist_ok=True)
        status = os.lstat(own)
        shared = os.name == "posix" and (status.st_uid != user or status.st_mode & 0o077)
        if shared or not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{own} is not a folder of this user alone")
        below = self.get_suitable_cache_subpath(self._py_file)  # type: ignore[no-untyped-call]
        self._cache_path = os.path.join(own, below)
        super().ensure_cache_path()  # type: ignore[no-untyped-call]
        _say_once(_TEMPORARY, folder=own)


def _is_named(folder: str) -> bool:
    """Return whether a folder is temporary wherever a command runs.

    Without a temporary folder, Python's last resort is the current folder.
    """
    given = map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))
    named = [*filter(None, given), "/tmp", "/var/tmp", "/usr/tmp"]
    return folder in filter(os.path.isabs, named)


class _ShippedLocator(InTreeCacheLocator):
    """The folder beside the code, if it has compiled code and cannot be written."""

    def ensure_cache_path(self) -> None:
        """Raise OSError if it is another folder."""
        try:
            super().ensure_cache_path()  # type: ignore[no-untyped-call]
        except OSError:
            if any(name.endswith(".nbi") for name in os.listdir(self._cache_path)):
                return
            raise
        raise FileExistsError(f"{self._cache_path} can be written")


class _ShippedFiles(CompileResultCacheImpl):
    _locator_classes = [_ShippedLocator]  # noqa: RUF012


class _Files(CompileResultCacheImpl):
    _locator_classes = [  # noqa: RUF012
        UserProvidedCacheLocator,
        InTreeCacheLocator,
        _HomeLocator,
        _TemporaryLocator,
    ]


class _Cache(FunctionCache):
    """The compiled versions of a function on disk."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with _going_on(_DAMAGED, self.cache_path):
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        with _going_on(_FULL, self.cache_path):
            self.flush()  # else it could not be saved
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with _going_on(_FULL, self.cache_path):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


class _Shipped(FunctionCache):
    """The compiled versions that came with srucli, before those in the user's folder."""

    _impl_class = _ShippedFiles

    @cached_property
    def _own(self) -> _Cache | None:
        return _writable(self._py_func)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        with _going_on(_DAMAGED, self.cache_path):
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        if found is None and self._own:
            return self._own.load_overload(sig, target_context)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._own:
            self._own.save_overload(sig, data)


@contextmanager
def _going_on(message: str, folder: str) -> Iterator[None]:
    """Say what failed in a block. Damaged pickles raise errors of any class."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or repr(error)
        _say_once(message, folder=folder, error=reason)


def _writable(function: Any) -> _Cache | None:
    """Return a cache that keeps what it is given; None if no folder can be written."""
    try:
        return _Cache(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # Numba's error for that
        _say_once(_NOWHERE)
        return None


def keep(dispatcher: Any) -> None:
    """Let a function's compiled versions be kept on disk, if that is possible."""
    cache: FunctionCache | None
    try:
        cache = _Shipped(dispatcher.py_func)  # type: ignore[no-untyped-call]
    except RuntimeError:  # nothing came with srucli
        cache = _writable(dispatcher.py_func)
    if cache is not None:
        dispatcher._cache = cache
