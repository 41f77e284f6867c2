"""The process of a command: its environment, descriptors and signal handlers.

These are set in this file alone: what a command calls may be called by other programs too. Threads,
denormals and memory are set by `runtime.tune_process`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from srucli.errors import InterruptedRun, OutputError
from srucli.io.children import isolate
from srucli.training.interrupts import Interrupt

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EXIT_AT_ONCE = 130


def set_environment() -> None:
    """Set variables that packages and child processes read when they start."""
    # Whatever Python process a package starts imports nothing from the current folder either.
    isolate(os.environ)
    # Threads that wait for each other in a loop keep a core from the one that they wait for as soon
    # as anything else runs on the machine: let them sleep soon. Read when torch loads OpenMP.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def take_descriptors() -> None:
    """See that 0 to 2 are open: the next file that is opened would get what is written to them.

    Raises OutputError where stdout was closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")
    if sys.stdout is None:
        raise OutputError("stdout is closed; send it somewhere, as >/dev/null")


def drop_stdout() -> None:
    """What is still buffered goes nowhere, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Within a block the first INT, TERM or USR1 requests an interrupt; a second one ends at once.

    As long as nobody looks at the request there is nothing to save, and the first one ends the
    process too. It leaves no more behind than SIGKILL does. An exception would run through whatever
    code of other packages is at work, which may take it for something else.
    """
    interrupt = Interrupt()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if interrupt.requested:
            _end("stopped at once", EXIT_AT_ONCE)
        interrupt.requested = True
        if not interrupt.checked:
            words = "stopped before the first step; the same command starts again"
            _end(words, InterruptedRun.exit_code)
        _say("stopping after this step; once more to stop at once")

    with _handling(handle, *SIGNALS):
        yield interrupt


def term_as_int() -> AbstractContextManager[None]:
    """Within a block TERM raises KeyboardInterrupt, as INT does."""
    return _handling(signal.default_int_handler, signal.SIGTERM)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any], *numbers: int) -> Iterator[None]:
    """Handle signals, but those that are ignored, as by what a script starts in its background."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, other in before.items():
            if other != signal.SIG_IGN:
                signal.signal(number, handler)
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


def _end(words: str, code: int) -> NoReturn:
    """End the process. Its children notice, and end too."""
    _say(words)
    os._exit(code)


def _say(words: str) -> None:
    """Say it past all buffers: the signal may have come amidst a write to them."""
    with suppress(OSError):
        os.write(2, f"\nsrucli: {words}\n".encode())
