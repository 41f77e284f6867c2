"""Confidence intervals of metrics, and the calibration error that comes by chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.special import ndtri

from srucli.metrics.outcome import Floats, Outcome
from srucli.metrics.table import BINS, SumMetric, applicable, confidences

# Resampling fewer examples says next to nothing about others.
MIN_RESAMPLED = 10
# Simulations of a calibrated model; the sum of a bin with more decisions is drawn as normal.
DRAWS, NORMAL_FROM = 2_000, 500


def _resampled_sums(parts: sparse.csr_array, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield sums (r, P) of `parts` (B, P) over bootstrap samples, `resamples` rows in all.

    A sample is a column of counts: how often each example was drawn. A few million counts, and
    sums, at a time.
    """
    examples, rng = parts.shape[0], np.random.default_rng(seed)
    most = max(1, 4_000_000 // max(parts.shape))
    while resamples > 0:
        width = min(resamples, most)
        drawn = rng.integers(examples, size=(examples, width)) * width + np.arange(width)
        counts = np.bincount(drawn.ravel(), minlength=examples * width)
        yield (parts.T @ counts.reshape(examples, width).astype(np.float64)).T
        resamples -= width


def wilson(hits: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of the proportion `hits` of `total` (Wilson 1927).

    It is NaN if `total` is 0. If all or none are hits, it does not shrink to a point as the
    bootstrap's interval does.
    """
    if not total:
        return float("nan"), float("nan")
    z = float(ndtri((1 + level) / 2))
    share, weight = hits / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    reach = (weight * share * (1 - share) + weight * weight / 4) ** 0.5 / (1 + weight)
    low = 0.0 if hits == 0 else middle - reach
    return low, 1.0 if hits == total else middle + reach


def confidence_intervals(
    outcome: Outcome, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return intervals of every SumMetric; NaN where there is no valid one.

    A share of correct examples has Wilson's interval, other metrics have percentiles of the
    bootstrap (Efron 1979). The bootstrap gives no valid interval for fewer than MIN_RESAMPLED
    examples, nor if all resamples have the same value. Undefined resamples are left out. If no
    decision or every one is wrong, Hamming loss has the interval of a share of examples.

    The ranking metrics (AUC, average precision) have no interval, nor has the calibration error,
    whose resamples are larger than it if it is small.
    """
    wanted, examples = sum_metrics(outcome), len(outcome.targets)
    (drawn,) = resampled([summands(outcome, wanted)], wanted, resamples, seed)
    found = {}
    for name, values in drawn.items():
        value = wanted[name](outcome)
        if has_wilson(name, value, outcome.multi_label):
            found[name] = wilson(value * examples, examples, level)
        else:
            found[name] = percentiles(values, level, examples)
    return found


def sum_metrics(outcome: Outcome) -> dict[str, SumMetric]:
    """Return the metrics of the task that depend on sums over examples."""
    return {n: m for n, m in applicable(outcome).items() if isinstance(m, SumMetric)}


def has_wilson(name: str, value: float, multi_label: bool) -> bool:
    """Return whether a metric is a proportion of examples, or as good as one at this value."""
    is_share = name == "accuracy" or (name == "micro_f1" and not multi_label)
    return is_share or (name == "hamming_loss" and value in (0.0, 1.0))


def percentiles(values: Floats, level: float, units: int) -> tuple[float, float]:
    """Return the ends of the interval that has `level` of the defined values (r,).

    They are NaN if fewer than MIN_RESAMPLED units were resampled, or if all values are the same.
    """
    values = values[np.isfinite(values)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(values, tails) if values.size else (np.nan, np.nan)
    if units < MIN_RESAMPLED or high - low < 1e-12:
        return float("nan"), float("nan")
    return float(low), float(high)


# The summands (B, P) of metrics, by the function that computes them.
Summands = Mapping[Callable[[Outcome], sparse.csr_array], sparse.csr_array]


def summands(outcome: Outcome, wanted: Mapping[str, SumMetric]) -> Summands:
    """Return what the `wanted` metrics add up over examples."""
    kinds = {metric.parts: None for metric in wanted.values()}
    return {parts: parts(outcome) for parts in kinds}


def resampled(
    models: Sequence[Summands], wanted: Mapping[str, SumMetric], resamples: int, seed: int
) -> list[dict[str, Floats]]:
    """Return, for each model, values (r,) of the metrics over bootstrap samples.

    The summands are of the same examples; every model is measured on the same samples.
    """
    kinds, every = list(models[0]), [matrix for model in models for matrix in model.values()]
    ends = np.cumsum([0, *(matrix.shape[1] for matrix in every)])
    stacked = sparse.hstack(every, format="csr")
    columns = [slice(*pair) for pair in pairwise(ends)]
    found: list[dict[str, list[Floats]]] = [{name: [] for name in wanted} for _ in models]
    for sums in _resampled_sums(stacked, resamples, seed):
        for model, values in enumerate(found):
            own = dict(zip(kinds, columns[model * len(kinds) :], strict=False))
            for name, metric in wanted.items():
                values[name].append(metric.finish(sums[:, own[metric.parts]]))
    return [{name: np.concatenate(rows) for name, rows in values.items()} for values in found]


def calibration_by_chance(outcome: Outcome, *, level: float = 0.95, seed: int = 0) -> float:
    """Return the calibration error below which a perfectly calibrated model stays.

    It does so with probability `level`, in simulations where each decision is right with the
    model's confidence. A smaller error cannot be distinguished from perfect calibration.
    """
    bins, confidence, _ = (part.ravel() for part in confidences(outcome))
    rng, decisions = np.random.default_rng(seed), len(bins)
    errors = np.zeros(DRAWS)
    for number in range(BINS):
        own = confidence[bins == number]
        if len(own) > NORMAL_FROM:
            gaps = rng.normal(scale=float(np.sqrt((own * (1 - own)).sum())), size=DRAWS)
        else:
            gaps = (own - (rng.random((DRAWS, len(own))) < own)).sum(axis=1)
        errors += np.abs(gaps)
    return float(np.quantile(errors / decisions, level))
