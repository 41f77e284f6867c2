"""What the benchmarks of speed share: made-up batches, timers, cells of tables."""

from __future__ import annotations

import timeit

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.speed import Row, Setup

SETUP = Setup(device="cpu", rounds=2)


def test_ragged_lengths_are_log_normal_and_repeat() -> None:
    lengths = speed.ragged_lengths(25, 500)
    assert lengths == speed.ragged_lengths(25, 500)
    assert 22 <= sorted(lengths)[250] <= 28
    assert min(lengths) >= 1
    assert max(lengths) <= speed.MAX_LENGTH
    assert speed.offsets_of([3, 0, 2]).tolist() == [0, 3, 3, 5]


def test_the_batch_of_a_step() -> None:
    batch = speed.text_batch(256, 20, "cpu")
    tokens, offsets, targets = batch.tokens, batch.offsets, batch.targets
    assert targets is not None
    assert 22 <= offsets.diff().double().quantile(0.5) <= 28
    assert offsets[-1] == tokens.numel()
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < speed.VOCABULARY
    assert targets.shape == (256,)
    assert set(targets.tolist()) == set(range(20))
    codes, starts = speed.spelling()
    assert len(starts) == speed.VOCABULARY + 1
    assert starts[-1] == len(codes)
    assert batch.characters == np.diff(starts)[tokens].sum() + 256


def test_quartiles_and_cells() -> None:
    assert speed.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == [2.0, 3.0, 4.0]
    assert speed.shown([1.0, 2.0, 3.0], 1) == "2.0 (1.0 to 3.0)"


def test_times_are_those_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeit, "repeat", lambda *_, **__: [0.02, 0.04])
    assert speed.times_of(Row(lambda: None, 10), "cpu") == [2.0, 4.0]
    monkeypatch.setattr(timeit, "repeat", lambda *_, **__: [0.03])
    assert speed.calls_for(lambda: None, "cpu") == 1
    monkeypatch.setattr(timeit, "repeat", lambda *_, **__: [0.01])
    assert speed.calls_for(lambda: None, "cpu") == speed.CALLS


def test_systems_take_turns() -> None:
    """In a round each of them runs, and once before what is timed."""
    order: list[str] = []
    rows = {name: Row(lambda name=name: order.append(name), 1) for name in "ab"}  # type: ignore[misc]
    times = speed.in_turn(rows, SETUP)
    runs = 1 + speed.CPU_ROWS
    assert order == ["a"] * runs + ["b"] * runs + ["a"] * runs + ["b"] * runs
    assert all(len(each) == 3 for each in times.values())


def test_a_row_makes_its_calls() -> None:
    calls: list[int] = []
    row = speed.row_of(lambda: calls.append(1), 4)
    row.run()
    assert (len(calls), row.calls) == (4, 4)
