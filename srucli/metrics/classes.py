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


def confusion(outcome: Outcome) -> Array:
    """Return (K, K) counts: a row per true class, a column per predicted one (single-label)."""
    size = outcome.classes
    cells = outcome.targets * size + outcome.predictions
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def reliability(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Return mean confidence, share right and number of decisions of each bin, (15,) each.

    The bins are those of `calibration_error`; empty ones have NaN.
    """
    bins, confidence, right = (part.ravel() for part in confidences(outcome))
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bins, confidence, BINS) / count
        return mean_confidence, np.bincount(bins, right, BINS) / count, count
