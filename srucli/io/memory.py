"""Texts in groups that fit into memory; failed allocations, and the sentence that replaces them."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from srucli.errors import OutOfMemoryError

# torch's CPU allocator, CUDA's libraries and C++ say so only in the words of a RuntimeError.
_SAYS_SO = re.compile(
    r"out of memory|(can't|cannot|not enough memory: you tried to) allocate|bad_alloc|ALLOC_FAILED",
    re.IGNORECASE,
)
# The exit code of a child process of ours that ran out of memory, and that of `subprocess` for one
# that the kernel killed (SIGKILL), usually because memory ran out.
NO_MEMORY, KILLED = 4, -9
_ON_GPU = re.compile("CU(DA|BLAS|DNN)")
_AMOUNT = re.compile(r"(?:tried|Unable) to allocate ([\d.]+) ([KMGT]iB|bytes)", re.IGNORECASE)


def groups(texts: Sequence[str], characters: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield all texts, about so many characters at a time, and the number of the first of them."""
    first = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= characters:
            yield first, texts[first : number + 1]
            first, size = number + 1, 0
    if first < len(texts):
        yield first, texts[first:]


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that memory, the system's or a GPU's, could not be allocated.

    Code that catches errors of other causes raises such an error again.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return _is_torchs(error) or says_so(str(error))
    return isinstance(error, MemoryError)


def says_so(words: str) -> bool:
    """Return whether words of other software say that memory could not be allocated."""
    return bool(_SAYS_SO.search(words))


def _is_torchs(error: BaseException) -> bool:
    """Return whether an error is `torch.OutOfMemoryError`, without importing torch."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)


@contextmanager
def enough_memory(doing: str, remedy: str | Callable[[], str]) -> Iterator[None]:
    """Run a block. Raises OutOfMemoryError, with what to lower, if it cannot allocate memory.

    doing: the subject of the sentence. remedy: a clause, or a function that returns it.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not ran_out(error):
            raise
        advice = remedy if isinstance(remedy, str) else remedy()
        raise OutOfMemoryError(f"{doing} ran out of {_which(error)}; {advice}") from error


def _which(error: BaseException) -> str:
    """Return which memory was too small, and how much of it was asked for."""
    words = str(error)
    kind = "GPU memory" if _is_torchs(error) or _ON_GPU.search(words) else "memory"
    found = _AMOUNT.search(words)
    if not found:
        return kind
    amount, unit = found.groups()
    if unit == "bytes":
        amount, unit = f"{int(amount) / 2**20:,.0f}", "MiB"
    return f"{kind} (it needs another {amount.rstrip('.')} {unit})"


def ending(code: int) -> str:
    """Return how a process ended that nobody asked to end, from the code of `subprocess`."""
    if code == KILLED:
        return "was killed, probably because memory ran out"
    return f"ended with {code}"
