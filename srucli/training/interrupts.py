"""A request to stop, made by a signal and granted where the work can be kept."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from traceback import walk_stack
from types import FrameType

from srucli.errors import InterruptedRun

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EXIT_AT_ONCE = 130
# Seconds until a block is ended that was in others' code when it was asked to stop.
AGAIN = 0.02
OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
OTHERS = ("site-packages", "dist-packages", "<")
IMPORT = "<frozen importlib"


class _Stop(BaseException):
    """Ends a block in which there is nothing to keep.

    No SrucliError, for what catches those goes on; no KeyboardInterrupt, for where one passes an
    `exec`, Python ends itself by the signal even if the exception was handled.
    """


class StopRequest:
    """What the first INT, TERM or USR1 makes; the second ends the process at once.

    As long as there is nothing to keep, the first ends the block that is `listening` right away,
    with InterruptedRun. Once there is, it only makes `wanted` true.
    """

    def __init__(self) -> None:
        self.wanted = self.keeping = False
        # Whether an alarm is set, or was, for the end of what others' code does.
        self.alarmed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            _say("stopped at once")
            os._exit(EXIT_AT_ONCE)
        self.wanted = True
        if self.keeping:
            _say("stopping after this step; once more to stop at once")
        else:
            self._end(number, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """End the block, but not amidst others' code: it may take that for something else."""
        if self.keeping:
            return
        if _is_others(frame):
            self.alarmed = True
            signal.signal(signal.SIGALRM, self._end)
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            raise _Stop

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals for the length of a block, where this thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        alarm = signal.getsignal(signal.SIGALRM)
        try:
            for number, handler in before.items():
                if handler != signal.SIG_IGN:  # as of what a script starts in its background
                    signal.signal(number, self._handle)
            yield self
        except _Stop:
            words = "stopped before the first step; the same command starts again"
            raise InterruptedRun(words) from None
        finally:
            if self.alarmed:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarm)
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_others(frame: FrameType | None) -> bool:
    """Whether srucli has called another package, or imports a module, and that has not come back.

    Packages catch what their own imports raise and do without a module; an exception out of a
    callback from C is lost, or leaves LLVM in pieces. Python makes another exception of one that
    is raised while a class is made, so srucli's own modules are imported whole as well.
    """
    files = [each.f_code.co_filename for each, _ in walk_stack(frame)]
    own = [place for place, file in enumerate(files) if file.startswith(OWN)]
    if not own:
        return False
    called, within = files[: own[0]], files[: own[-1]]
    return any(sign in file for file in called for sign in OTHERS) or any(
        file.startswith(IMPORT) for file in within
    )


def _say(words: str) -> None:
    """Say it past all buffers: the signal may have come amidst a write to them."""
    with suppress(OSError):
        os.write(2, f"\nsrucli: {words}\n".encode())
