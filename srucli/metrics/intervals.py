"""How far a metric can be trusted: confidence intervals over texts, and calibration by chance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.special import ndtri

from srucli.metrics.outcome import Floats, Outcome
from srucli.metrics.table import BINS, SumMetric, confidences, fitting

# Resampling fewer texts says next to nothing about others like them.
MIN_RESAMPLED = 10
# Draws of what a calibrated model would do; a bin of over so many decisions has a normal sum.
DRAWS, MANY = 2_000, 500


def _resampled_sums(parts: sparse.csr_array, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield sums (r, P) of `parts` (B, P) over bootstrap samples, `resamples` rows in all.

    A sample is a column of counts: how often each text was drawn. A few million counts at a time.
    """
    texts, rng = parts.shape[0], np.random.default_rng(seed)
    while resamples > 0:
        width = min(resamples, max(1, 4_000_000 // texts))
        drawn = rng.integers(texts, size=(texts, width)) * width + np.arange(width)
        counts = np.bincount(drawn.ravel(), minlength=texts * width).reshape(texts, width)
        yield (parts.T @ counts.astype(np.float64)).T
        resamples -= width


def wilson(hits: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of the proportion `hits` of `total` (Wilson 1927).

    It is NaN where `total` is 0. Where all or none are hits it does not shrink to a point, as the
    bootstrap does.
    """
    if not total:
        return float("nan"), float("nan")
    z = float(ndtri((1 + level) / 2))
    share, weight = hits / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    reach = (weight * share * (1 - share) + weight * weight / 4) ** 0.5 / (1 + weight)
    low = 0.0 if hits == 0 else middle - reach
    return low, 1.0 if hits == total else middle + reach


def _is_share_of_texts(name: str, outcome: Outcome) -> bool:
    """Whether a metric is the share of texts that are right, as single-label micro F1 is."""
    return name == "accuracy" or (name == "micro_f1" and not outcome.multi_label)


def confidence_intervals(
    outcome: Outcome, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return intervals over texts for every metric of sums; NaN where there is none to give.

    Wilson's for a share of texts that are right; of the others, percentiles of the bootstrap (Efron
    1979). That has none to give of fewer than MIN_RESAMPLED texts, nor where all resamples have
    the same value: it is then as far from certain as accuracy is, but nothing says how far.
    Undefined resamples are left out. Where no decision or every one is wrong, Hamming loss is
    bounded as if texts were wholly wrong or wholly right.

    The ranking metrics (AUC, average precision) have no interval, nor has the calibration error,
    whose resamples lie above it where it is small.
    """
    wanted = {n: m for n, m in fitting(outcome).items() if isinstance(m, SumMetric)}
    texts = len(outcome.targets)
    found = {}
    for name, (low, high) in _bootstrapped(outcome, wanted, resamples, level, seed).items():
        value = wanted[name](outcome)
        if _is_share_of_texts(name, outcome) or (name == "hamming_loss" and value in (0.0, 1.0)):
            found[name] = wilson(value * texts, texts, level)
        elif texts < MIN_RESAMPLED or high - low < 1e-12:
            found[name] = float("nan"), float("nan")
        else:
            found[name] = low, high
    return found


def _bootstrapped(
    outcome: Outcome, wanted: dict[str, SumMetric], resamples: int, level: float, seed: int
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of the `wanted` metrics."""
    shares = {parts: parts(outcome) for parts in {m.parts: None for m in wanted.values()}}
    ends = np.cumsum([0, *(matrix.shape[1] for matrix in shares.values())])
    where = {parts: slice(*ends[i : i + 2]) for i, parts in enumerate(shares)}
    stacked = sparse.hstack(list(shares.values()), format="csr")
    sums = np.concatenate(list(_resampled_sums(stacked, resamples, seed)))
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = {}
    for name, metric in wanted.items():
        values = metric.finish(sums[:, where[metric.parts]])
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, tails) if values.size else (np.nan, np.nan)
        found[name] = (float(low), float(high))
    return found


def calibration_by_chance(outcome: Outcome, *, level: float = 0.95, seed: int = 0) -> float:
    """Return the calibration error that a perfectly calibrated model stays below on these texts.

    It does so in a share `level` of cases: each label given is right as often as the model says,
    and drawn so many times. Whatever lies below cannot be told from perfect.
    """
    bins, sure, _ = (part.ravel() for part in confidences(outcome))
    rng, decisions = np.random.default_rng(seed), len(bins)
    # The sum of a bin that holds many decisions is as good as normal.
    errors = np.zeros(DRAWS)
    for number in range(BINS):
        own = sure[bins == number]
        if len(own) > MANY:
            gaps = rng.normal(scale=float(np.sqrt((own * (1 - own)).sum())), size=DRAWS)
        else:
            gaps = (own - (rng.random((DRAWS, len(own))) < own)).sum(axis=1)
        errors += np.abs(gaps)
    return float(np.quantile(errors / decisions, level))
