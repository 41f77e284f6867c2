"""The threshold of each label's probability, fitted to validation data (multi-label)."""

from __future__ import annotations

from typing import cast

import numpy as np

from srucli.metrics.outcome import Array, Floats

LOGIT_STEP = 0.05
LOGITS = np.arange(-140, 141) * LOGIT_STEP
SMOOTHING = 0.5  # standard deviation, in logits, of the kernel over a label's F1 curve
PRIOR_EXAMPLES = 5  # how many examples of a label count as much as all other labels


def choose_thresholds(probabilities: Floats, targets: Array) -> Floats:
    """Return thresholds (C,) that maximize each label's F1: probabilities and bools (B, C).

    The best threshold for a label with few examples is mostly chance. So each label's curve of F1
    against the threshold is averaged with the mean curve of all labels, which counts as much as
    PRIOR_EXAMPLES examples, and smoothed over the logit of the threshold. A label without examples
    gets the threshold of the mean curve.
    """
    grid = 1 / (1 + np.exp(-LOGITS))
    f1 = np.stack([_f1_curve(p, t, grid) for p, t in zip(probabilities.T, targets.T, strict=True)])
    support = targets.sum(axis=0)[:, None]
    curves = (support * f1 + PRIOR_EXAMPLES * f1.mean(axis=0)) / (support + PRIOR_EXAMPLES)
    half = round(3 * SMOOTHING / LOGIT_STEP)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * LOGIT_STEP / SMOOTHING) ** 2)
    smooth = (np.convolve(np.pad(curve, half, mode="edge"), kernel, "valid") for curve in curves)
    return np.array([grid[_middle_of_maxima(curve)] for curve in smooth])


def _f1_curve(probability: Floats, truth: Array, grid: Floats) -> Floats:
    """Return F1 of one label, (B,) and (B,), at each threshold of the grid."""
    predicted = len(truth) - np.searchsorted(np.sort(probability), grid)
    hits = truth.sum() - np.searchsorted(np.sort(probability[truth]), grid)
    return cast(Floats, 2 * hits / np.maximum(predicted + truth.sum(), 1))


def _middle_of_maxima(curve: Floats) -> int:
    best = np.flatnonzero(curve >= curve.max() - 1e-12)
    return int(best[len(best) // 2])
