"""The weights of a network and of a linear model beside it, fitted to validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

Floats = npt.NDArray[np.floating[Any]]
# How many examples the prior counts as.
PRIOR_EXAMPLES = 1
# The prior weights of a network's logits and of a linear model's scores.
NETWORK, LINEAR = 0.2, 0.8


def prior(*, linear: bool) -> list[float]:
    """Return the prior weights of a network, and of a linear model if there is one."""
    return [NETWORK, LINEAR] if linear else [1.0]


def fit_weights(
    logits: Floats,
    targets: npt.NDArray[Any],
    multi_label: bool,
    sides: Floats | None = None,
    before: Sequence[float] | None = None,
) -> list[float]:
    """Return non-negative weights whose sum of logits has the least log loss.

    logits (n, B, C) of n models; targets (B,) integers, where examples from C on have a label
    that the model does not know and are left out; soft or multi-label: (B, C). sides (2, C), for
    multi-label only: the weights of a label where it is false, and where it is true; default 1.
    The sum of the weights is free, since it also determines the model's confidence.
    before (n,): the prior, default the mean of the models. The squared distance from it, in units
    of the prior weights, counts as PRIOR_EXAMPLES examples.
    """
    models, _, classes = logits.shape
    mean = np.full(models, 1 / models) if before is None else np.array(before)
    if targets.ndim == 1:
        known = targets < classes
        logits, targets = logits[:, known], targets[known]
    if not len(targets):
        return [float(weight) for weight in mean]
    fit = minimize(
        loss,
        mean,
        (logits, targets, multi_label, sides, mean),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * models,
    )
    weights: list[float] = fit.x.tolist()
    return weights


def loss(
    weights: Floats,
    logits: Floats,
    targets: npt.NDArray[Any],
    multi_label: bool,
    sides: Floats | None = None,
    before: Floats | None = None,
) -> tuple[float, Floats]:
    """Return the loss that `fit_weights` minimizes, and its gradient (n,).

    It is the sum of the log losses and of the prior.
    """
    models, examples, _ = logits.shape
    before = np.full(models, 1 / models) if before is None else before
    total = np.tensordot(weights, logits, axes=1)
    if multi_label:
        false, true = (1.0, 1.0) if sides is None else sides
        false, true, chance = false * (1.0 - targets), true * targets, expit(total)
        value = (true * np.logaddexp(0, -total) + false * np.logaddexp(0, total)).sum()
        slope = false * chance - true * (1 - chance)
    elif targets.ndim == 2:
        logs = log_softmax(total, axis=1)
        value, slope = -(targets * logs).sum(), np.exp(logs) - targets
    else:
        logs = log_softmax(total, axis=1)
        value = -logs[np.arange(examples), targets].sum()
        slope = np.exp(logs)
        slope[np.arange(examples), targets] -= 1
    distance = weights / before - 1
    gradient = np.tensordot(logits, slope, axes=2) + 2 * PRIOR_EXAMPLES * distance / before
    return float(value + PRIOR_EXAMPLES * (distance**2).sum()), gradient
