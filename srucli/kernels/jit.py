"""Numba, without the settings of a `.numba_config.yaml` in the current folder.

Such a file may name a folder of compiled code, which would be run. Every module imports Numba's
functions from here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import numba
from numba.core import config, event
from numba.core.compiler import Compiler

from srucli.io.console import say
from srucli.kernels.cache import keep

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

COMPILING = "compiling kernels for this machine (once; takes 2 to 8 seconds)"

config._config_fname = ""
config.reload_config()  # type: ignore[no-untyped-call]


def njit(*, cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return Numba's decorator. cache: keep compiled code on disk, which may fail."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if cache:
            keep(dispatcher)
        return dispatcher

    return compiled


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled functions call.

    It gets no entry point for Python or C, which would take a quarter of the time of compiling.
    """
    return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


class _Disjoint(Compiler):
    """Tells LLVM that the arguments of a function share no memory that it writes.

    LLVM then vectorizes loops without a second version for arrays that overlap.
    """

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()  # type: ignore[no-untyped-call]


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of a kernel for `threads.run`.

    It is not compiled with `parallel=True`, which takes three times as long.
    """
    return njit(
        cache=True,
        nogil=True,
        no_cfunc_wrapper=True,
        error_model="numpy",
        pipeline_class=_Disjoint,
        **options,
    )


class Announcement(event.Listener):
    """Says once, on `stream`, that kernels are compiled.

    Numba sends no event for kernels that it finds in its cache.
    """

    def __init__(self) -> None:
        self.said = False
        self.stream: TextIO = sys.stderr

    def on_start(self, event: event.Event) -> None:
        if not self.said and event.data["dispatcher"].py_func.__module__.startswith("srucli."):
            self.said = True
            if not self.stream.closed:  # as that of a command which has ended in this process
                say(COMPILING, stream=self.stream)

    def on_end(self, event: event.Event) -> None:
        """Say nothing."""


@functools.cache
def _announcement() -> Announcement:
    announcement = Announcement()
    event.register("numba:compile", announcement)  # type: ignore[no-untyped-call]
    return announcement


def announce_compiling(stream: TextIO | None = None) -> None:
    """Say on `stream`, by default the present stderr, if this process has to compile a kernel."""
    _announcement().stream = stream or sys.stderr


def array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values as an array that compiled functions take."""
    return tensor.detach().contiguous().numpy()
