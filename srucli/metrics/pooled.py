"""Several models, each tested on examples of its own, measured as if they were one model.

As in cross-validation: each example is tested once per repeat, by a model that was not trained on
it. AUC, average precision and the calibration error are not pooled: they would compare the
probabilities of different models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy import sparse

from srucli.metrics.intervals import (
    Summands,
    has_wilson,
    percentiles,
    resampled,
    sum_metrics,
    summands,
    wilson,
)
from srucli.metrics.outcome import Array, Outcome
from srucli.metrics.table import decisions


@dataclass(frozen=True, eq=False)
class Portion:
    """The outcome of one model on n of B examples.

    rows (n,): which examples. names: the K classes of the outcome, which may be others than those
    of another model. repeat: examples are tested once in each.
    """

    outcome: Outcome
    names: Sequence[str]
    rows: Array
    repeat: int = 1


@dataclass(frozen=True)
class Pooled:
    """A metric over all examples, the mean over repeats; its interval, NaN if there is none."""

    value: float
    low: float
    high: float


def pooled(
    tests: Sequence[Portion],
    units: Array | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Pooled]:
    """Return every metric that depends on sums over examples.

    units (B,): of each example the number, from 0, of the group that is drawn as a whole; None if
    examples are drawn. A resample has the same examples in every repeat. Shares of examples have
    Wilson's interval if examples are drawn; for others, and for groups, see
    `confidence_intervals`.
    """
    first, wanted, alone = tests[0].outcome, sum_metrics(tests[0].outcome), units is None
    repeats: dict[int, list[Portion]] = {}
    for test in tests:
        repeats.setdefault(test.repeat, []).append(test)
    if units is None:
        units = np.arange(sum(len(test.rows) for test in repeats[tests[0].repeat]))
    count = int(units.max()) + 1
    models = [_stacked(group, units, count) for group in repeats.values()]
    drawn, found = resampled(models, wanted, resamples, seed), {}
    for name, metric in wanted.items():
        sums = [model[metric.parts].sum(axis=0) for model in models]
        value = float(np.mean([metric.finish(each) for each in sums]))
        if alone and has_wilson(name, value, first.multi_label):
            low, high = wilson(value * count, count, level)
        else:
            values = np.mean([each[name] for each in drawn], axis=0)
            low, high = percentiles(values, level, count)
        found[name] = Pooled(value, low, high)
    return found


def _stacked(tests: Sequence[Portion], units: Array, count: int) -> Summands:
    """Return the summands (U, P) of all examples of a repeat, added up over each unit."""
    wanted = sum_metrics(tests[0].outcome)
    names = list(dict.fromkeys(chain.from_iterable(test.names for test in tests)))
    place = {name: number for number, name in enumerate(names)}
    parts = [summands(test.outcome, wanted) for test in tests]
    rows = units[np.concatenate([test.rows for test in tests])]
    adding = sparse.csr_array(
        (np.ones(len(rows)), (rows, np.arange(len(rows)))), (count, len(rows))
    )
    found = {}
    for kind in parts[0]:
        matrices = [part[kind] for part in parts]
        if kind is decisions:  # has columns for each class
            places = [[place[name] for name in test.names] for test in tests]
            matrices = [
                _widened(matrix, own, len(names))
                for matrix, own in zip(matrices, places, strict=True)
            ]
        found[kind] = (adding @ sparse.vstack(matrices, format="csr")).tocsr()
    return found


def _widened(matrix: sparse.csr_array, places: Sequence[int], classes: int) -> sparse.csr_array:
    """Return (n, 3C) for `decisions` (n, 3K) of K classes, given their places among C."""
    own, entries = len(places), matrix.tocoo()
    block, number = np.divmod(entries.col, own)
    columns = block * classes + np.asarray(places)[number]
    shape = (matrix.shape[0], 3 * classes)
    return sparse.csr_array((entries.data, (entries.row, columns)), shape)
