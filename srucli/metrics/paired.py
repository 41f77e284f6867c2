"""Compare two models on the same examples: differences of metrics, and McNemar's test."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from scipy.special import bdtr

from srucli.metrics.intervals import percentiles, resampled, sum_metrics, summands
from srucli.metrics.outcome import Array, Outcome
from srucli.metrics.table import applicable


class Difference(NamedTuple):
    """A metric of one model minus that of the other, with its interval, NaN if there is none."""

    value: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def differences(
    one: Outcome, other: Outcome, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """Return the difference of every metric of two models on the same examples in the same order.

    The intervals are percentiles of the paired bootstrap (Efron 1979): a resample draws examples,
    and both models are measured on them. Metrics without sums over examples have no interval, nor
    has any for fewer than MIN_RESAMPLED examples or if all resamples have the same difference.
    """
    wanted = sum_metrics(one)
    values = resampled([summands(each, wanted) for each in (one, other)], wanted, resamples, seed)
    found = {}
    for name, metric in applicable(one).items():
        low, high = float("nan"), float("nan")
        if name in wanted:
            difference = values[0][name] - values[1][name]
            low, high = percentiles(difference, level, len(one.targets))
        found[name] = Difference(metric(one) - metric(other), low, high)
    return found


def correct(outcome: Outcome) -> Array:
    """Return which examples (B,) have the right label, or in multi-label exactly the right ones."""
    same = np.equal(outcome.predictions, outcome.targets)
    return cast(Array, same.all(axis=1) if outcome.multi_label else same)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the two-sided p of McNemar's exact test (McNemar 1947).

    only_one, only_other: the numbers of examples that only one of two models got right. If the
    models are equally good, each of these is a fair coin.
    """
    total = only_one + only_other
    tail = float(bdtr(min(only_one, only_other), total, 0.5)) if total else 1.0
    return min(1.0, 2 * tail)
