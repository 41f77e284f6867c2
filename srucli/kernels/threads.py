"""Run a compiled kernel in several threads, as many as torch uses in the calling one.

A kernel is serial, is called with a range of tasks, and releases the GIL. Ranges are shares of all
tasks. Results do not depend on the shares, because tasks do not share what they write.

Workers wait for calls and never end, as those of torch; `threading` does not list them. Nothing
depends on them: the calling thread takes every share that no worker has begun, as on a busy
machine, in a forked child, or where no thread can be started.
"""

from __future__ import annotations

import os
import sys
from _thread import start_new_thread
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shares = list[tuple[int, int]]
# The least work of a share, in steps of the recurrence of one unit: 50 to 100 microseconds. Waking
# a worker takes 30.
MIN_WORK = 2**15


class _Call:
    """The shares of one call that no thread has begun, and how those that ended did."""

    def __init__(self, shares: Sequence[Callable[[], object]]) -> None:
        self._shares = deque(shares)
        self.ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def help(self) -> None:
        """Run shares until none is left."""
        while True:
            try:
                share = self._shares.popleft()
            except IndexError:
                return
            self.ended.put(_error(share))


def _error(share: Callable[[], object]) -> BaseException | None:
    try:
        share()
    except BaseException as error:
        return error
    return None


class _Workers:
    """Threads that help with calls."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._starting, self._running = Lock(), 0

    def ask(self, number: int, call: _Call) -> None:
        """Let that many workers help with a call, or fewer if no more threads can be started."""
        with self._starting, suppress(RuntimeError):
            while self._running < number:
                start_new_thread(self._work, ())
                self._running += 1
        for _ in range(min(number, self._running)):
            self._calls.put(call)

    def _work(self) -> None:
        while True:
            self._calls.get().help()


# By process, since a forked child has no workers of its parent, and by whether denormals are
# flushed, which a thread inherits from the one that starts it.
_workers: defaultdict[tuple[int, bool], _Workers] = defaultdict(_Workers)


def run(kernel: Any, shares: Shares, *arguments: Any) -> None:
    """Call kernel(first, stop, *arguments) for each share; raise an error of one, after all."""
    if len(shares) == 1:
        kernel(*shares[0], *arguments)
        return
    call = _Call([partial(kernel, *share, *arguments) for share in shares])
    _workers[os.getpid(), sys.float_info.min / 2 > 0].ask(len(shares) - 1, call)
    call.help()
    for error in [call.ended.get() for _ in shares]:
        if error is not None:
            raise error


def by_rows(offsets: NDArray[Any] | Tensor, work: int, directions: int = 1) -> Shares:
    """Share all texts of one direction, then those of the other, by about as many rows each.

    work: of a row in one direction, in the unit of MIN_WORK.
    """
    bounds_of = np.asarray(offsets)
    starts, rows = bounds_of[:-1], int(bounds_of[-1])
    number = _number(rows * directions * work)
    bounds = [0]
    for share in range(1, number):
        direction, row = divmod(share * rows * directions // number, rows)
        bounds.append(direction * starts.size + int(np.searchsorted(starts, row)))
    return list(pairwise([*bounds, starts.size * directions]))


def evenly(tasks: int, work: int) -> Shares:
    """Share tasks of equal size; work: of all of them, in the unit of MIN_WORK."""
    number = max(min(_number(work), tasks), 1)
    return list(pairwise(tasks * share // number for share in range(number + 1)))


def _number(work: int) -> int:
    return max(min(torch.get_num_threads(), work // MIN_WORK), 1)
