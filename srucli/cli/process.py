"""The process of a command: its environment, file descriptors and signal handlers.

Only commands change these; library calls do not. `runtime.tune_process` sets thread counts,
denormals and memory.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from srucli.errors import InterruptedRun, OutputError
from srucli.io.children import isolate
from srucli.io.console import EscapedStream, escaped_lines, for_people
from srucli.io.openmp import sleep_soon
from srucli.io.waiting import Notes, WaitingFile
from srucli.training.interrupts import Interrupt

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # the last is unknown to Windows
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
EXIT_AT_ONCE = 130


def set_environment() -> None:
    """Set variables that packages and child processes read when they start."""
    # Python processes that packages start import nothing from the current folder either.
    isolate(os.environ)
    # pydantic would look for plugins in all installed packages.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sleep_soon()
    # torch makes a cache folder when it imports its compiler, which srucli does not use. Where
    # no temporary one can be made, name one that exists; torch would make it in the current folder.
    given = map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))
    places = (*filter(None, given), "/tmp", "/var/tmp", "/usr/tmp")
    if not any(os.access(place, os.W_OK | os.X_OK) for place in places):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.sep)


def take_descriptors() -> None:
    """Open descriptors 0 to 2 that are closed, so that no other file gets these numbers.

    Raises OutputError if stdout was closed.
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


@contextmanager
def escaped_output() -> Iterator[None]:
    """In a block, escape all text on stderr, and on stdout if that is a terminal.

    Writes wait for a reader, and what cannot be written to stderr is dropped.
    """
    with ExitStack() as stack:
        out = stack.enter_context(_reopened(sys.stdout, WaitingFile))
        stack.enter_context(redirect_stdout(out))
        notes = stack.enter_context(_reopened(sys.stderr, Notes))
        stack.enter_context(redirect_stderr(notes))
        errors = EscapedStream(sys.stderr, for_people)
        stack.enter_context(redirect_stderr(cast(TextIO, errors)))
        if sys.stdout.isatty():
            data = EscapedStream(sys.stdout, escaped_lines)
            stack.enter_context(redirect_stdout(cast(TextIO, data)))
        yield


@contextmanager
def _reopened(stream: TextIO, kind: type[WaitingFile]) -> Iterator[TextIO]:
    """Return a standard stream with `kind` as its file; a stream of another sort as it is.

    That is the console of Windows, or what a caller of `main` put there.
    """
    below = getattr(stream, "buffer", None)
    plain = type(getattr(below, "raw", below)) is io.FileIO
    if not plain or not isinstance(stream, io.TextIOWrapper):
        yield stream
        return
    file = kind(stream.fileno(), "w", closefd=False)
    unbuffered = isinstance(below, io.FileIO)  # as with PYTHONUNBUFFERED
    opened = io.TextIOWrapper(
        file if unbuffered else io.BufferedWriter(file),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    try:
        yield opened
    finally:
        with suppress(OSError):
            opened.flush()


def drop_stdout() -> None:
    """Discard what is still buffered, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_quietly() -> None:
    """Let what fails at the end of the process fail silently, as nothing works without memory."""
    sys.unraisablehook = lambda _: None


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """In a block, the first INT, TERM or USR1 requests an interrupt; a second one exits with 130.

    Until a training checks for interrupts there is nothing to save, and the first signal exits with
    75, like SIGKILL without cleaning up. An exception would pass through other packages' code,
    which may catch it.
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
    """In a block, let TERM raise KeyboardInterrupt, as INT does."""
    return _handling(signal.default_int_handler, signal.SIGTERM)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any], *numbers: int) -> Iterator[None]:
    """Handle signals in a block, except ignored ones: a shell ignores INT in background jobs."""
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
    """Exit at once. Child processes end when their stdin closes."""
    _say(words)
    os._exit(code)


def _say(words: str) -> None:
    """Write without buffers, as the signal may have interrupted a buffered write."""
    with suppress(OSError):
        os.write(2, f"\nsrucli: {words}\n".encode())
