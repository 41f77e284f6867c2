"""Limits of the system that a process can reach: which errors say so, and what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from srucli.errors import SrucliError
from srucli.io.memory import ran_out

RAISE_OPEN_FILES = "close other files, or raise the limit, as with `ulimit -n 1024`"
RAISE_FILE_SIZE = "raise the limit of a file's size, as with `ulimit -f unlimited`"
_RAISE_PROCESSES = "end others, or raise the limits of processes and memory: ulimit -u, ulimit -v"
_RAISE_MEMORY = "free some memory, or raise the limit: ulimit -v"
_NO_TEMPORARY = "No usable temporary directory"
_NO_THREAD = "can't start new thread"
_NOT_FOUND = "Could not find/load shared object file"
_NOT_MAPPED = re.compile("failed to map segment|cannot (allocate|map)|cannot create .*mapping")


def is_open_files(error: BaseException) -> bool:
    """Return whether an error says that too many files are open."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def reached(error: BaseException) -> SrucliError | None:
    """Return the error for people if an error, or one that led to it, says that a limit is reached.

    Where memory is too small to import a package, the package may raise an error of its own.
    """
    for each in _with_causes(error):
        if is_open_files(each):
            return SrucliError(f"too many files are open; {RAISE_OPEN_FILES}")
        if isinstance(each, RuntimeError) and _NO_THREAD in str(each):
            return SrucliError(f"a thread cannot be started; {_RAISE_PROCESSES}")
        if isinstance(each, ImportError | OSError) and _NOT_MAPPED.search(str(each).lower()):
            return SrucliError(f"a library cannot be loaded ({each}); {_RAISE_MEMORY}")
        if isinstance(each, FileNotFoundError) and _NO_TEMPORARY in str(each):
            return SrucliError("no temporary folder can be written; set TMPDIR to one that can be")
        if ran_out(each):
            return SrucliError(f"memory ran out; {_RAISE_MEMORY}")
    return None


def no_process(error: OSError) -> SrucliError:
    """Return the error for people for a process that cannot be started."""
    remedy = RAISE_OPEN_FILES if is_open_files(error) else _RAISE_PROCESSES
    return SrucliError(f"a process cannot be started ({error.strerror}); {remedy}")


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what led to it.

    That is the cause that it names. What was being handled when it was raised is none, since a bug
    in a handler would pass for a limit; but a package that cannot be imported, or Numba's compiler
    that cannot be loaded, often names no cause.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        context = None if error.__suppress_context__ else error.__context__
        unnamed = isinstance(error, ImportError) or _NOT_FOUND in str(error)
        error = error.__cause__ or (context if unnamed else None)
