"""Shares of tasks, and the threads that run them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import torch

from srucli.kernels import threads
from srucli.kernels.threads import Shares, by_rows, evenly, run
from srucli.runtime import use_threads


@pytest.mark.parametrize("number", [1, 2, 7])
@pytest.mark.parametrize("lengths", [[], [0], [5], [3, 0, 0, 4, 1, 9, 2], [1] * 50])
def test_shares_hold_each_task_once_and_about_as_many_rows(lengths: list[int], number: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    with use_threads(number):
        for directions in (1, 2):
            tasks = lengths * directions
            shares = by_rows(offsets, 1, directions)
            assert list(chain.from_iterable(range(*each) for each in shares)) == [
                *range(len(tasks))
            ]
            rows = [sum(tasks[slice(*each)]) for each in shares]
            mean = sum(rows) / len(rows)
            assert all(abs(each - mean) <= max(lengths, default=0) for each in rows)
        for size in range(20):
            shares = evenly(size, 10**6)
            assert list(chain.from_iterable(range(*each) for each in shares)) == [*range(size)]


def test_little_work_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_WORK", 100)
    offsets = torch.tensor([0, 10, 20])
    with use_threads(8):
        assert [len(by_rows(offsets, work)) for work in (1, 9, 10, 15, 1000)] == [1, 1, 2, 3, 8]
        assert [len(evenly(64, work)) for work in (0, 199, 200, 10**6)] == [1, 1, 2, 8]


class Meeting:
    """A kernel whose shares wait for each other, so that each runs in a thread of its own."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing = failing
        self.barrier = threading.Barrier(2, timeout=60)
        self.seen: list[tuple[int, bool]] = []

    def __call__(self, first: int, _: int, *arguments: object) -> None:
        self.barrier.wait()
        self.seen.append((threading.get_ident(), sys.float_info.min / 2 > 0))
        if first == self.failing:
            raise KeyError(first)


TWO: Shares = [(0, 1), (1, 2)]


@pytest.fixture
def new_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker run at first."""
    monkeypatch.setattr(threads, "_workers", defaultdict(threads._Workers))


def test_an_error_of_any_share_reaches_the_caller_and_the_worker_goes_on(new_workers: None) -> None:
    before, meeting = threading.enumerate(), Meeting()
    for failing in (0, 1):
        with pytest.raises(KeyError, match=str(failing)):
            run(Meeting(failing), TWO)
    run(meeting, TWO)
    assert len({ident for ident, _ in meeting.seen} - {threading.get_ident()}) == 1
    assert threading.enumerate() == before
    (workers,) = threads._workers.values()
    assert workers._running == 1


def test_workers_keep_no_arguments_of_a_call(new_workers: None) -> None:
    tensor = torch.zeros(3)
    gone = weakref.ref(tensor)
    run(Meeting(), TWO, tensor)
    del tensor
    run(Meeting(), TWO)  # the worker has left the first call
    assert gone() is None


@pytest.mark.parametrize("flushed", [True, False])
def test_workers_flush_denormals_if_their_caller_does(flushed: bool) -> None:
    meeting = Meeting()
    torch.set_flush_denormal(flushed)
    try:
        run(meeting, TWO)
    finally:
        torch.set_flush_denormal(False)
    assert [kept for _, kept in meeting.seen] == [not flushed] * 2


def test_if_no_thread_can_be_started_the_caller_runs_all_shares(new_workers: None) -> None:
    done: list[int] = []
    before = threading.stack_size(1 << 46)  # more than can be had
    try:
        run(lambda first, _: done.append(first), [(0, 1), (1, 2), (2, 3)])
    finally:
        threading.stack_size(before)
    assert done == [0, 1, 2]
    assert not next(iter(threads._workers.values()))._running


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own() -> None:
    run(Meeting(), TWO)
    if not (child := os.fork()):
        signal.alarm(60)
        try:
            run(Meeting(), TWO)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_calls_of_several_threads_at_once_do_not_mix() -> None:
    def call(factor: int) -> list[int]:
        found = [0] * 40

        def kernel(first: int, end: int, factor: int) -> None:
            for task in range(first, end):
                found[task] += task * factor

        with use_threads(3):
            for _ in range(50):
                run(kernel, evenly(40, 10**9), factor)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [
            [50 * task * factor for task in range(40)] for factor in range(4)
        ]
