"""Shared parts of the speed benchmarks: artificial batches, timers, cells of tables."""

from __future__ import annotations

import json
import timeit
from pathlib import Path

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


def test_a_report_keeps_no_nan(tmp_path: Path) -> None:
    """JSON has none, and the file must stay whole."""
    report = speed.Report({}, tmp_path / "report.json")
    report.add("steps", 1.5)
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.add("steps", float("nan"))
    report.end("steps", 0.25, "no")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found == {"steps": [1.5], "parts": {"steps": {"seconds": 0.2, "failed": "no"}}}
    report.values = {}
    report.read()
    assert report.values == found


def test_quartiles_and_cells() -> None:
    assert speed.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == [2.0, 3.0, 4.0]
    assert speed.shown([1.0, 2.0, 3.0], 1) == "2.0 (1.0 to 3.0)"


def test_times_are_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeit, "repeat", lambda *_, **__: [0.02, 0.04])
    assert speed.times_of(Row(lambda: None, 10), "cpu") == [2.0, 4.0]
    monkeypatch.setattr(timeit, "repeat", lambda *_, **__: [0.03])
    assert speed.calls_for(lambda: None, "cpu") == 1
    monkeypatch.setattr(timeit, "repeat", lambda *_, **__: [0.01])
    assert speed.calls_for(lambda: None, "cpu") == speed.CALLS


class Clock:
    """A driver of Triton whose time advances with every run."""

    def __init__(self) -> None:
        self.now = 0.0

    def get_device_interface(self) -> Clock:
        return self

    def get_empty_cache_for_benchmark(self) -> None:
        """There is no cache."""

    def clear_cache(self, cache: object) -> None:
        self.now += 1.0

    def synchronize(self) -> None:
        """Nothing runs later."""

    def Event(self, enable_timing: bool) -> Mark:
        return Mark(self)


class Mark:
    """A moment of the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, 0.0

    def record(self) -> None:
        self.at = self.clock.now

    def elapsed_time(self, end: Mark) -> float:
        return end.at - self.at


def test_triton_measures_without_the_time_to_clear_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = pytest.importorskip("triton.runtime.driver", reason="Triton is not installed")
    clock = Clock()
    monkeypatch.setattr(driver.DriverConfig, "active", clock)

    def run() -> None:
        clock.now += 0.5

    times = speed.times_of(speed.row_of(run, 4), "cuda")
    assert len(times) > 10
    assert set(times) == {0.5}
    assert speed.calls_for(run, "cuda") == speed.CALLS


def test_systems_take_turns() -> None:
    """Each runs once per round, and once before the timing."""
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
