"""How much each branch of a classifier counts, fitted to dev texts. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

Floats = npt.NDArray[np.floating[Any]]
# How many dev texts weigh as much as the belief that all branches count alike.
PRIOR_TEXTS = 1


def fit_weights(
    logits: Floats, targets: npt.NDArray[Any], multi_label: bool, sides: Floats | None = None
) -> list[float]:
    """The weights, none below 0, whose sum of branches has the least log loss on dev texts.

    logits (n, B, C) of n branches; targets (B,) integers, those from C on being labels that the
    model cannot say and left out, or for several labels a text (B, C) bool, and then sides (2, C):
    how much a label counts where it is false, and where it is true; None for 1. The weights' sum
    is free, so that it also sets how confident the model is. The mean of the branches (1/n) is the
    prior: a squared distance from it in units of 1/n, worth PRIOR_TEXTS texts.
    """
    branches, _, classes = logits.shape
    mean = np.full(branches, 1 / branches)
    if not multi_label:
        known = targets < classes
        logits, targets = logits[:, known], targets[known]
    if not len(targets):
        return mean.tolist()
    found = minimize(
        loss,
        mean,
        (logits, targets, multi_label, sides),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * branches,
    )
    weights: list[float] = found.x.tolist()
    return weights


def loss(
    weights: Floats,
    logits: Floats,
    targets: npt.NDArray[Any],
    multi_label: bool,
    sides: Floats | None = None,
) -> tuple[float, Floats]:
    """What `fit_weights` makes least, and its gradient (n,): summed log loss, and the prior."""
    branches, texts, _ = logits.shape
    total = np.tensordot(weights, logits, axes=1)
    if multi_label:
        counts = 1.0 if sides is None else np.where(targets, sides[1], sides[0])
        value = (counts * np.logaddexp(0, np.where(targets, -total, total))).sum()
        slope = counts * (expit(total) - targets)
    else:
        logs = log_softmax(total, axis=1)
        value = -logs[np.arange(texts), targets].sum()
        slope = np.exp(logs)
        slope[np.arange(texts), targets] -= 1
    away = branches * weights - 1
    gradient = np.tensordot(logits, slope, axes=2) + 2 * PRIOR_TEXTS * branches * away
    return float(value + PRIOR_TEXTS * (away**2).sum()), gradient
