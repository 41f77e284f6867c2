"""The diagnostics of a run, read back from what `watch.py` recorded, and statistics of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from srucli.diagnostics.checks import check_epochs, check_first, check_records, damaged
from srucli.errors import InputMissingError, UsageError
from srucli.io.folders import OpenFolder
from srucli.optim import OPTIMIZERS, second_moment
from srucli.runs.claim import kind_of, need_run
from srucli.runs.run_dir import read_records

Record = Mapping[str, Any]

# The number of records that a slope needs, and the level of its interval.
MIN_RECORDS = 6
LEVEL = 0.95
# The last epoch of a run may be incomplete; with as many epochs, there is a complete one.
WHOLE_EPOCH = 2


@dataclass(frozen=True)
class Diagnostics:
    """A run's diagnostics: the optimizer's settings, records of steps and metrics of epochs.

    counts: how often a token of each decile of frequency occurs in an epoch, on average.
    rows: whether only the embedding's rows with a gradient, and their state, change in a step.
    chosen: whether the learning rate was the best of several on validation data.
    """

    optimizer: Record
    records: Sequence[Record]
    metrics: Sequence[Record]
    counts: Sequence[float]
    source: str = "diagnostics.jsonl"
    chosen: bool = False
    rows: bool = False

    @classmethod
    def read(cls, run: Path) -> Diagnostics:
        """Read the diagnostics in a run folder.

        Raises InputMissingError if there are none, UsageError for a comparison, DataError if they
        are damaged.
        """
        if not run.is_dir():
            need_run(run)
        lines = read_records(run / "diagnostics.jsonl")
        if len(lines) < 2 or "optimizer" not in lines[0]:
            with OpenFolder.at(run) as folder:
                if kind_of(folder) == "comparison":
                    raise UsageError(f"{run}: is a comparison; its page explains its trainings")
            raise InputMissingError(
                f"{run}: it has no diagnostics; train it again with --diagnose 20 and another -o"
            )
        first, *records = lines
        metrics = read_records(run / "metrics.jsonl")
        source = str(run / "diagnostics.jsonl")
        check_first(first, source)
        check_records(records, source)
        check_epochs(metrics, str(run / "metrics.jsonl"))
        counts, rows = first.get("counts", []), first.get("rows", False)
        return cls(first["optimizer"], records, metrics, counts, source, rows=rows)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold a block that computes with the numbers. Raises DataError if they do not allow that.

        Other errors are bugs: `read` has checked what the records have.
        """
        try:
            yield
        except (ValueError, ArithmeticError) as error:
            raise damaged(self.source, f"{type(error).__name__}: {error}") from error

    @property
    def name(self) -> str:
        return str(self.optimizer["name"])

    @property
    def steps(self) -> int:
        """The number of steps taken, as far as recorded."""
        return int(max(self.records[-1]["step"], self.metrics[-1]["step"] if self.metrics else 0))

    @property
    def peak(self) -> float:
        """The peak learning rate."""
        return float(self.optimizer["lr"])

    @property
    def groups(self) -> list[str]:
        """The names of the parameter groups."""
        return list(self.records[0]["groups"])

    def option(self, name: str) -> Any:
        """Return an option of the optimizer; None if it has no such option."""
        return self.optimizer["options"].get(name)

    def series(self, group: str, name: str) -> tuple[list[int], list[Any]]:
        """Return the steps at which a value of a group is recorded, and the values."""
        found = [
            (record["step"], record["groups"][group].get(name))
            for record in self.records
            if record["lr"] > 0
        ]
        present = [(step, value) for step, value in found if value is not None]
        return [step for step, _ in present], [value for _, value in present]

    def per_gradient(self, group: str) -> tuple[list[int], list[float]]:
        """Return steps, and a group's median effective step there at a learning rate of 1."""
        rates = {record["step"]: record["lr"] for record in self.records}
        steps, quantiles = self.series(group, "effective")
        return steps, [each[1] / rates[step] for step, each in zip(steps, quantiles, strict=True)]

    def by_frequency(self) -> list[tuple[float, float]]:
        """Return occurrences per epoch and last effective step of each decile of the tokens.

        A learning rate of 0, with which most schedules end, is left out.
        """
        found = [record["by_frequency"] for record in self.records if record["lr"] > 0]
        pairs = zip(self.counts, (found and found[-1]) or [], strict=False)
        return [(count, step) for count, step in pairs if step]

    def decay(self) -> float | None:
        """Return the decay per step of the mean of squared gradients; None without such a mean."""
        option = "betas"
        if self.name in OPTIMIZERS:
            moment = second_moment(self.name)
            option = moment.decay if moment and moment.decay else ""
        value = self.option(option)
        last = value[-1] if isinstance(value, list | tuple) and value else value
        return float(last) if isinstance(last, int | float) and 0 < last < 1 else None

    def steps_to_forget(self) -> float:
        """Return after how many steps 7/8 of a mean of squares is new; 0 if it never forgets.

        Until then it is a mean over the whole run; without bias correction it still grows.
        """
        decay = self.decay()
        return 3 * math.log(0.5) / math.log(decay) if decay and not self.option("amsgrad") else 0.0

    def excess(self, step: int) -> float | None:
        """Return the factor by which missing bias correction lengthens a step; else None."""
        moment = second_moment(self.name)
        if moment is None or not self.decay():
            return None
        return moment.excess({**OPTIMIZERS[self.name].fixed, **self.optimizer["options"]}, step)

    def gap(self) -> float | None:
        """Return the number of steps between two occurrences of a token of median frequency.

        None without a second epoch, since the only epoch may be incomplete, and where a token's
        state does not decay between its occurrences.
        """
        if self.rows or len(self.metrics) < WHOLE_EPOCH or not self.counts:
            return None
        first = self.metrics[0]
        middle = self.counts[len(self.counts) // 2]
        return float(first["step"] / first["epoch"] / middle) if middle else None


class Slope(NamedTuple):
    """The slope of log value against log step, with its 95% interval."""

    value: float
    low: float
    high: float


def slope(steps: Sequence[int], values: Sequence[float], start: float) -> Slope | None:
    """Fit a slope by least squares from step `start` on; None for fewer than MIN_RECORDS records.

    The interval is Student's, as if records were independent.
    """
    points = [(step, value) for step, value in zip(steps, values, strict=True) if step >= start]
    if len(points) < MIN_RECORDS:
        return None
    x, y = np.log(np.array(points, dtype=np.float64)).T
    x, y, free = x - x.mean(), y - y.mean(), len(points) - 2
    value = float(x @ y / (x @ x))
    error = math.sqrt(float(((y - value * x) ** 2).sum()) / free / float(x @ x))
    reach = float(stdtrit(free, (1 + LEVEL) / 2)) * error
    return Slope(value, value - reach, value + reach)
