"""Every metric is defined here, once: a row of METRICS that is called with an `Outcome`.

Conventions. C is the number of labels that the model knows. A gold label that it does not know is
a class of its own, numbered from C on, that the model can never predict: K >= C classes in all. So
an unknown label is an error in accuracy, a class of F1 0 in macro and weighted F1, and missed in
micro F1, as scikit-learn has it for the same label names. Metrics of probabilities go over
the C known classes: log loss leaves out texts of an unknown label (single label), the others keep
them, as texts on which every known class is wrong. F1 averages go over the classes that occur in
truth or prediction, as scikit-learn's do. An undefined metric is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import sparse

from srucli.errors import UsageError, did_you_mean
from srucli.metrics.outcome import Array, Floats, Outcome

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
    tiny = np.finfo(outcome.probabilities.dtype).eps
    sure = outcome.probabilities.clip(tiny, 1 - tiny).astype(np.float64)
    if outcome.multi_label:
        loss = -np.log(np.where(outcome.truth, sure, 1 - sure)).sum(axis=1)
        return _columns(loss, np.full_like(loss, outcome.known))
    loss = -(np.log(sure) * outcome.truth).sum(axis=1)
    return _columns(loss, outcome.targets < outcome.known)


def _indicator(chosen: Array, classes: int) -> sparse.csr_array:
    if chosen.ndim == 2:
        return sparse.csr_array(chosen.astype(np.float64))
    texts = len(chosen)
    one_each = (np.ones(texts), chosen, np.arange(texts + 1))
    return sparse.csr_array(one_each, shape=(texts, classes))


def decisions(outcome: Outcome) -> sparse.csr_array:
    """Return (B, 3K): hits, predictions and truths of each class."""
    said = _indicator(outcome.predictions, outcome.classes)
    gold = _indicator(outcome.targets, outcome.classes)
    return sparse.hstack([said.multiply(gold), said, gold], format="csr")


def confidences(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Return bins, confidences and whether they were right: (B, 1), or (B, C) for multi-label."""
    if outcome.multi_label:
        sure, right = outcome.probabilities, outcome.truth
    else:
        sure = outcome.probabilities.max(axis=1, keepdims=True)
        right = (outcome.predictions == outcome.targets)[:, None]
    sure = sure.astype(np.float64)
    return (np.ceil(sure * BINS).astype(np.int64) - 1).clip(0, BINS - 1), sure, right


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return cast(Floats, sums[..., 0] / sums[..., 1])


def _macro_f1(sums: Floats) -> Floats:
    hits, said, gold = np.split(sums, 3, axis=-1)
    f1 = 2 * hits / np.maximum(said + gold, 1)
    return _ratio(np.stack([f1.sum(-1), (said + gold > 0).sum(-1)], axis=-1))


def _micro_f1(sums: Floats) -> Floats:
    hits, said, gold = (part.sum(-1) for part in np.split(sums, 3, axis=-1))
    return _ratio(np.stack([2 * hits, said + gold], axis=-1))


def _weighted_f1(sums: Floats) -> Floats:
    hits, said, gold = np.split(sums, 3, axis=-1)
    f1 = 2 * hits / np.maximum(said + gold, 1)
    return _ratio(np.stack([(f1 * gold).sum(-1), gold.sum(-1)], axis=-1))


def _calibration_error(outcome: Outcome) -> float:
    bins, sure, right = (part.ravel() for part in confidences(outcome))
    return float(np.abs(np.bincount(bins, sure - right, BINS)).sum() / len(bins))


def _mean_over_classes(score: Callable[[Array, Array], float], outcome: Outcome) -> float:
    """The mean of `score(truth, probability)` over the known classes that are true of some texts
    and false of others; NaN where there is none."""
    some = outcome.truth.any(axis=0) & ~outcome.truth.all(axis=0)
    scores = [
        score(outcome.truth[:, label], outcome.probabilities[:, label])
        for label in np.flatnonzero(some)
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _auc(outcome: Outcome) -> float:
    from sklearn.metrics import roc_auc_score

    return _mean_over_classes(roc_auc_score, outcome)


def _average_precision(outcome: Outcome) -> float:
    from sklearn.metrics import average_precision_score

    return _mean_over_classes(average_precision_score, outcome)


def _micro_average_precision(outcome: Outcome) -> float:
    from sklearn.metrics import average_precision_score

    if not outcome.truth.any():
        return float("nan")
    return float(average_precision_score(outcome.truth.ravel(), outcome.probabilities.ravel()))


@dataclass(frozen=True)
class Metric:
    """A metric: call it with an Outcome. Where it is undefined it is NaN."""

    meaning: str
    larger_is_better: bool
    compute: Callable[[Outcome], float]
    multi_label_only: bool = False

    def __call__(self, outcome: Outcome) -> float:
        return self.compute(outcome)


@dataclass(frozen=True)
class SumMetric:
    """A metric of sums over texts alone, which makes resampling it a matrix product.

    `parts` gives each text's share (B, P); `finish` turns sums (..., P) into values (...).
    """

    meaning: str
    larger_is_better: bool
    parts: Callable[[Outcome], sparse.csr_array]
    finish: Callable[[Floats], Floats]
    multi_label_only: bool = False

    def __call__(self, outcome: Outcome) -> float:
        return float(self.finish(self.parts(outcome).sum(axis=0)))


METRICS: dict[str, Metric | SumMetric] = {
    "accuracy": SumMetric(
        "share of texts with the right label; several labels: with exactly the right ones",
        True,
        _correct,
        _ratio,
    ),
    "macro_f1": SumMetric("mean of the classes' F1", True, decisions, _macro_f1),
    "micro_f1": SumMetric("F1 of all decisions pooled", True, decisions, _micro_f1),
    "weighted_f1": SumMetric("mean of F1 weighted by support", True, decisions, _weighted_f1),
    "hamming_loss": SumMetric(
        "share of (text, label) decisions that are wrong", False, _wrong_labels, _ratio, True
    ),
    "log_loss": SumMetric(
        "mean of -ln p(truth), by text, or by (text, label) for several; p clipped by its epsilon",
        False,
        _losses,
        _ratio,
    ),
    "calibration_error": Metric(
        "expected calibration error, 15 equal-width bins, of the label given, or of every "
        "(text, label) for several (Guo et al. 2017, arXiv 1706.04599)",
        False,
        _calibration_error,
    ),
    "auc": Metric("area under ROC, one against the rest, mean of the classes present", True, _auc),
    "average_precision": Metric(
        "average precision, one against the rest, mean of the classes present",
        True,
        _average_precision,
    ),
    "micro_average_precision": Metric(
        "average precision over all (text, label) pooled", True, _micro_average_precision, True
    ),
}


def metric_named(name: str, multi_label: bool | None = None) -> Metric | SumMetric:
    """Return the metric of that name. Raises UsageError where it does not fit the task.

    `multi_label` is None where the task is not known yet.
    """
    metric = METRICS.get(name)
    if metric is None:
        raise UsageError(f"unknown metric '{name}'{did_you_mean(name, list(METRICS))}")
    if metric.multi_label_only and multi_label is False:
        raise UsageError(f"metric '{name}' needs a model that gives several labels to a text")
    return metric


def fitting(outcome: Outcome) -> dict[str, Metric | SumMetric]:
    """Return the metrics of METRICS that fit the task."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if outcome.multi_label or not metric.multi_label_only
    }


def measure(outcome: Outcome) -> dict[str, float]:
    """Return the value of every metric that fits the task."""
    return {name: metric(outcome) for name, metric in fitting(outcome).items()}
