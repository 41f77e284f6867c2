"""The device and the CPU threads.

Library calls use `use_threads`, which is undone when they return. `tune_process` is permanent, for
commands, their child processes, and programs that ask for it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec

import torch

from srucli.errors import UsageError

with warnings.catch_warnings():
    # Without semaphores, which its pools of processes need, joblib warns, and itself counts one.
    warnings.simplefilter("ignore")
    from joblib.externals.loky import cpu_count

# More than processors are of use only to repeat another machine's results.
SAFE_THREADS = 64
_changing = threading.Lock()


def resolve_device(name: str) -> torch.device:
    """Return the device named auto, cpu, cuda or cuda:N. Raises UsageError if it is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,2})?", name):
        raise UsageError(f"--device {name}: write auto, cpu, cuda or cuda:N")
    device, found = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise UsageError(f"--device {name}: torch sees {found} GPUs; use --device cpu")
    return device


def use_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one during a block, for streams, events and CUDA graphs.

    Without it they would be made on the first GPU, while tensors and kernels are on another.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def cores() -> int:
    """Return the number of CPU cores that this process may use, within a container's limit too."""
    return int(cpu_count())


def max_threads() -> int:
    """Return the largest number of threads that may be used."""
    return max(os.cpu_count() or 1, SAFE_THREADS)


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Use this many CPU threads during a block, in torch and in our kernels; 0: one per core.

    Other Python threads, running or started later, keep their thread counts. Raises UsageError for
    far more threads than processors.
    """
    threads = _checked(threads)
    before = _set_own_threads(threads)
    try:
        yield
    finally:
        _set_own_threads(before)


def tune_process(threads: int = 0) -> None:
    """Set up this process for speed: set thread counts, flush denormals, keep freed memory.

    It also lets the process say when it compiles kernels. Raises UsageError as `use_threads`.
    """
    threads = _checked(threads)
    if find_spec("numba"):
        from srucli.kernels import jit

        jit.announce_compiling()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    _keep_freed_memory()


def _checked(threads: int) -> int:
    """Return the number of threads, the default for 0. OpenMP ends the process for too many."""
    if threads > max_threads():
        raise UsageError(
            f"train.threads={threads}: this machine has {os.cpu_count()} processors; use at most "
            f"{max_threads()} threads"
        )
    return threads or cores()


def _set_own_threads(threads: int) -> int:
    """Set torch's thread count for the calling thread only; return the previous one.

    torch also makes it the default of threads that start later. A short-lived thread restores the
    default: it sets the count for itself, and ends. A new thread takes the default when it first
    asks for its count, so the lock is held then too.
    """
    with _changing:
        before = torch.get_num_threads()
        if threads != before:
            with ThreadPoolExecutor(1) as other:
                default = other.submit(torch.get_num_threads).result()
                torch.set_num_threads(threads)
                other.submit(torch.set_num_threads, default).result()
    return before


def _keep_freed_memory() -> None:
    """Let glibc, if it is used, keep freed memory.

    Otherwise it returns the pages of a freed tensor to the kernel, and the next step waits while
    the kernel zeroes new ones, which takes 2.5 times as long as writing to them.
    """
    _set_malloc(max_maps=0, trim_threshold=2**31 - 1)


def return_freed_memory() -> None:
    """Undo that setting of `tune_process`, for huge tensors.

    The kept memory of one rarely fits another: with layers of 65,536 units it grew with each text.
    """
    _set_malloc(max_maps=2**16, trim_threshold=2**17)


def _set_malloc(max_maps: int, trim_threshold: int) -> None:
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, max_maps)  # M_MMAP_MAX of malloc.h
        libc.mallopt(-1, trim_threshold)  # M_TRIM_THRESHOLD
