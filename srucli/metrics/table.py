"""The table of metrics: each row of METRICS is called with an `Outcome`.

Conventions: C is the number of labels that the model knows. A true label that it does not know is a
class of its own, numbered from C on, that the model never predicts: there are K >= C classes. So an
unknown label is an error for accuracy, a class with F1 0 for macro and weighted F1, and a miss for
micro F1, as in scikit-learn with the same label names. Metrics of probabilities cover the C known
classes: single-label log loss leaves out examples with an unknown label, the others treat every
known class as wrong for them. F1 averages cover the classes that occur in truth or predictions, as
in scikit-learn. An undefined metric is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from scipy import sparse

from srucli.errors import UsageError, did_you_mean
from srucli.metrics.outcome import Array, Floats, Outcome
from srucli.metrics.ranking import auc, average_precision

# Bins of the calibration error and of a reliability diagram.
BINS = 15


def _columns(*columns: Array) -> sparse.csr_array:
    return sparse.csr_array(np.column_stack(columns).astype(np.float64))


def _correct(outcome: Outcome) -> sparse.csr_array:
    same = outcome.predictions == outcome.targets
    right = same.all(axis=1) if outcome.multi_label else same
    return _columns(right, np.ones_like(right))


def _wrong_labels(outcome: Outcome) -> sparse.csr_array:
    wrong = outcome.predictions != outcome.targets
    return _columns(wrong.sum(axis=1), np.full(len(wrong), outcome.classes))


def _losses(outcome: Outcome) -> sparse.csr_array:
    eps = np.finfo(outcome.probabilities.dtype).eps
    if outcome.multi_label:
        clipped = outcome.probabilities.clip(eps, 1 - eps).astype(np.float64)
        loss = -np.log(np.where(outcome.truth, clipped, 1 - clipped)).sum(axis=1)
        return _columns(loss, np.full_like(loss, outcome.known))
    known = np.flatnonzero(outcome.targets < outcome.known)
    of_truth = outcome.probabilities[known, outcome.targets[known]].clip(eps, 1 - eps)
    loss = np.zeros(len(outcome.targets))
    loss[known] = -np.log(of_truth.astype(np.float64))
    return _columns(loss, outcome.targets < outcome.known)


def _indicator(chosen: Array, classes: int) -> sparse.csr_array:
    if chosen.ndim == 2:
        return sparse.csr_array(chosen.astype(np.float64))
    examples = len(chosen)
    one_each = (np.ones(examples), chosen, np.arange(examples + 1))
    return sparse.csr_array(one_each, shape=(examples, classes))


def decisions(outcome: Outcome) -> sparse.csr_array:
    """Return (B, 3K): hits, predictions and truths of each class."""
    predicted = _indicator(outcome.predictions, outcome.classes)
    true = _indicator(outcome.targets, outcome.classes)
    return sparse.hstack([predicted.multiply(true), predicted, true], format="csr")


def confidences(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Return bins, confidences and whether they were right: (B, 1), or (B, C) for multi-label."""
    if outcome.multi_label:
        confidence, right = outcome.probabilities, outcome.truth
    else:
        confidence = outcome.probabilities.max(axis=1, keepdims=True)
        right = (outcome.predictions == outcome.targets)[:, None]
    confidence = confidence.astype(np.float64)
    bins = (np.ceil(confidence * BINS).astype(np.int64) - 1).clip(0, BINS - 1)
    return bins, confidence, right


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return cast(Floats, sums[..., 0] / sums[..., 1])


def _micro_f1(sums: Floats) -> Floats:
    hits, predicted, true = (part.sum(-1) for part in np.split(sums, 3, axis=-1))
    return _ratio(np.stack([2 * hits, predicted + true], axis=-1))


def _mean_f1(sums: Floats, weighted: bool) -> Floats:
    hits, predicted, true = np.split(sums, 3, axis=-1)
    f1 = 2 * hits / np.maximum(predicted + true, 1)
    weights = true if weighted else predicted + true > 0
    return _ratio(np.stack([(f1 * weights).sum(-1), weights.sum(-1)], axis=-1))


def _calibration_error(outcome: Outcome) -> float:
    bins, confidence, right = (part.ravel() for part in confidences(outcome))
    return float(np.abs(np.bincount(bins, confidence - right, BINS)).sum() / len(bins))


def _mean_over_classes(score: Callable[[Array, Array], float], outcome: Outcome) -> float:
    """Return the mean of a ranking's score over the known classes.

    Classes that are true of all examples or of none are left out; NaN if no others remain.
    """
    present = outcome.truth.any(axis=0) & ~outcome.truth.all(axis=0)
    scores = [
        score(outcome.truth[:, label], outcome.probabilities[:, label])
        for label in np.flatnonzero(present)
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _micro_average_precision(outcome: Outcome) -> float:
    if not outcome.truth.any():
        return float("nan")
    return average_precision(outcome.truth.ravel(), outcome.probabilities.ravel())


@dataclass(frozen=True)
class Metric:
    """A metric: call it with an Outcome. It returns NaN if it is undefined."""

    larger_is_better: bool
    compute: Callable[[Outcome], float]
    multi_label_only: bool = False

    def __call__(self, outcome: Outcome) -> float:
        return self.compute(outcome)


@dataclass(frozen=True)
class SumMetric:
    """A metric that depends on sums over examples only, so that resampling is a matrix product.

    `parts` returns the summands (B, P); `finish` turns sums (..., P) into values (...).
    """

    larger_is_better: bool
    parts: Callable[[Outcome], sparse.csr_array]
    finish: Callable[[Floats], Floats]
    multi_label_only: bool = False

    def __call__(self, outcome: Outcome) -> float:
        return float(self.finish(self.parts(outcome).sum(axis=0)))


METRICS: dict[str, Metric | SumMetric] = {
    # The share of examples with the right label; multi-label: with exactly the right labels.
    "accuracy": SumMetric(True, _correct, _ratio),
    "macro_f1": SumMetric(True, decisions, partial(_mean_f1, weighted=False)),
    "micro_f1": SumMetric(True, decisions, _micro_f1),
    # Weighted by the number of examples of each class.
    "weighted_f1": SumMetric(True, decisions, partial(_mean_f1, weighted=True)),
    # The share of (example, label) decisions that are wrong.
    "hamming_loss": SumMetric(False, _wrong_labels, _ratio, multi_label_only=True),
    # The mean of -ln p(truth) over examples, or over (example, label) pairs for multi-label.
    "log_loss": SumMetric(False, _losses, _ratio),
    # The expected calibration error with bins of equal width (Guo et al. 2017, arXiv 1706.04599).
    "calibration_error": Metric(False, _calibration_error),
    # One against the rest, averaged over the classes that occur.
    "auc": Metric(True, partial(_mean_over_classes, auc)),
    "average_precision": Metric(True, partial(_mean_over_classes, average_precision)),
    # Over all (example, label) pairs.
    "micro_average_precision": Metric(True, _micro_average_precision, multi_label_only=True),
}


def metric_named(
    name: str, multi_label: bool | None = None, setting: str = "train.metric"
) -> Metric | SumMetric:
    """Return the metric of that name. Raises UsageError if there is none, or not for the task.

    `multi_label` is None if the task is not known yet. The error names `setting`.
    """
    metric = METRICS.get(name)
    if metric is None:
        single = multi_label is False
        names = [each for each, row in METRICS.items() if not (single and row.multi_label_only)]
        raise UsageError(f"{setting}: unknown metric '{name}'{did_you_mean(name, names)}")
    if metric.multi_label_only and multi_label is False:
        raise UsageError(f"{setting}: metric '{name}' needs a multi-label model")
    return metric


def applicable(outcome: Outcome) -> dict[str, Metric | SumMetric]:
    """Return the rows of METRICS that apply to the task."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if outcome.multi_label or not metric.multi_label_only
    }


def measure(outcome: Outcome) -> dict[str, float]:
    """Return the value of every metric that applies to the task."""
    return {name: metric(outcome) for name, metric in applicable(outcome).items()}
