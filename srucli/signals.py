"""A request to stop, made by a signal and granted where the work can be kept."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Becomes true at the first INT or TERM; the second INT interrupts at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.wanted, self._say = False, say

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True
        self._say("stopping after this step; once more to stop at once")

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals for the length of a block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
