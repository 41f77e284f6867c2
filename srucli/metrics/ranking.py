"""Metrics of how a class's probabilities rank the examples, equal to scikit-learn's.

Equal probabilities are one place in the ranking.
"""

from __future__ import annotations

import numpy as np

from srucli.metrics.outcome import Array


def auc(truth: Array, scores: Array) -> float:
    """Return the area under the ROC curve of scores (N,), with truth (N,) of both kinds.

    It is the share of the pairs of a true and a false example that are in the right order; ties
    count half.
    """
    true, false = _places(truth, scores)
    below = np.cumsum(false) - false / 2
    return float(true @ below / (true.sum() * false.sum()))


def average_precision(truth: Array, scores: Array) -> float:
    """Return the precision at each place of the ranking, averaged over the true examples.

    scores (N,), truth (N,) with a true example.
    """
    true, false = (places[::-1] for places in _places(truth, scores))
    hits = np.cumsum(true)
    return float(true @ (hits / (hits + np.cumsum(false))) / hits[-1])


def _places(truth: Array, scores: Array) -> tuple[Array, Array]:
    """Return the number of true and of false examples with each score, from the lowest on."""
    values, places = np.unique(scores, return_inverse=True)
    true, every = (np.bincount(places, weights, len(values)) for weights in (truth, None))
    return true, every - true
