"""Metrics of each class, the confusion matrix and the bins of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srucli.metrics.intervals import wilson
from srucli.metrics.outcome import Array, Outcome
from srucli.metrics.table import BINS, confidences, decisions


@dataclass(frozen=True)
class ClassMetrics:
    """One class: precision, recall and F1 (NaN if undefined) and its number of examples.

    The intervals of precision and recall are Wilson's.
    """

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]


def per_class(outcome: Outcome) -> list[ClassMetrics]:
    """Return the metrics of each of the K classes, in order."""
    counts = np.split(decisions(outcome).sum(axis=0), 3)
    return [_class_metrics(*map(float, row)) for row in zip(*counts, strict=True)]


def _class_metrics(hits: float, predicted: float, true: float) -> ClassMetrics:
    undefined = float("nan")
    return ClassMetrics(
        precision=hits / predicted if predicted else undefined,
        recall=hits / true if true else undefined,
        f1=2 * hits / (predicted + true) if predicted + true else undefined,
        support=int(true),
        predicted=int(predicted),
        precision_interval=wilson(hits, predicted),
        recall_interval=wilson(hits, true),
    )


def confusion(outcome: Outcome, chosen: Array | None = None) -> Array:
    """Return counts (K, K): a row per true class, a column per predicted one (single-label).

    chosen: numbers of k classes, for the part (k, k) of the matrix that is about them.
    """
    chosen = np.arange(outcome.classes) if chosen is None else chosen
    cells, counts = confused(outcome)
    place = np.full(outcome.classes, -1)
    place[chosen] = np.arange(len(chosen))
    cells = place[cells]
    within = (cells >= 0).all(axis=1)
    matrix = np.zeros((len(chosen), len(chosen)), np.int64)
    matrix[tuple(cells[within].T)] = counts[within]
    return matrix


def confused(outcome: Outcome) -> tuple[Array, Array]:
    """Return the M pairs of true and predicted class that occur (M, 2), and their counts (M,).

    Unlike the whole matrix they need no memory for pairs of many classes that do not occur.
    """
    pairs = outcome.targets * outcome.classes + outcome.predictions
    cells, counts = np.unique(pairs, return_counts=True)
    return np.stack(np.divmod(cells, outcome.classes), axis=1), counts


def reliability(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Return mean confidence, share right and number of decisions of each bin, (15,) each.

    The bins are those of `calibration_error`; empty ones have NaN.
    """
    bins, confidence, right = (part.ravel() for part in confidences(outcome))
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bins, confidence, BINS) / count
        return mean_confidence, np.bincount(bins, right, BINS) / count, count
