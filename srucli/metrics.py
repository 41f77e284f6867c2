"""Probabilities and targets in, figures out: every figure is defined here, once.

A figure is a row of METRICS. Training chooses its best epoch with them, `eval` prints them. Not
here: running a model (`inference/evaluation.py`) and pictures (`experiments/plots.py`). No torch.

Conventions. C is the number of labels that the model knows. A gold label that it does not know is
a class of its own, numbered from C on, that the model can never predict: K >= C classes in all. So
an unknown label is an error in accuracy, a class of F1 0 in macro and weighted F1, and missed in
micro F1, as scikit-learn has it for the same label names. Figures of probabilities go over
the C known classes: log loss leaves out texts of an unknown label (single label), the others keep
them, as texts on which every known class is wrong. F1 averages go over the classes that occur in
truth or prediction, as scikit-learn's do. A figure that is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import ndtri

from srucli.errors import DivergedError, SrucliError, UsageError, did_you_mean

Floats = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[Any]

BINS = 15
THRESHOLD = 0.5
# Resampling fewer texts says next to nothing about others like them.
MIN_RESAMPLED = 10
# Draws of what a calibrated model would do; a bin of over so many decisions has a normal sum.
DRAWS, MANY = 2_000, 500

LOGIT_STEP = 0.05
LOGITS = np.arange(-140, 141) * LOGIT_STEP
SMOOTHING = 0.5  # standard deviation, in logits, of the kernel over a label's F1 curve
PRIOR_TEXTS = 5  # how many of a label's texts weigh as much as the other labels do


def decide(probabilities: Floats, thresholds: Floats | None, multi_label: bool) -> Array:
    """What the model says: probabilities (B, C) -> classes (B,), or where multi_label (B, C) bool.

    One label: the likeliest. Several: every one at or above its threshold of thresholds (C,), or
    above 0.5 where there are none.
    """
    if not multi_label:
        return cast(Array, probabilities.argmax(axis=1))
    return probabilities >= (THRESHOLD if thresholds is None else thresholds)


def encode(
    gold: Sequence[Sequence[str]], labels: Sequence[str], multi_label: bool
) -> tuple[Array, list[str]]:
    """Gold labels of B texts -> targets and the names of the K classes.

    Targets are (B,) int64, or where multi_label (B, K) bool. The names are `labels`, then the
    labels that the model does not know, in order of appearance.
    """
    number = {label: index for index, label in enumerate(labels)}
    for names in gold:
        for name in names:
            number.setdefault(name, len(number))
    if not multi_label:
        return np.array([number[names[0]] for names in gold], dtype=np.int64), list(number)
    targets = np.zeros((len(gold), len(number)), dtype=bool)
    for row, names in enumerate(gold):
        targets[row, [number[name] for name in names]] = True
    return targets, list(number)


def choose_thresholds(probabilities: Floats, targets: Array) -> Floats:
    """Thresholds (C,) that maximise each label's F1 on dev data: probabilities and bools, (B, C).

    The best cut of a label with few texts is mostly chance. So each label's curve of F1 against
    the threshold is averaged with the mean curve of all labels, which weighs as much as
    PRIOR_TEXTS texts do, and smoothed over the logit of the threshold. A label without any text
    gets the threshold that suits the others.
    """
    grid = 1 / (1 + np.exp(-LOGITS))
    f1 = np.stack([_f1_curve(p, t, grid) for p, t in zip(probabilities.T, targets.T, strict=True)])
    support = targets.sum(axis=0)[:, None]
    curves = (support * f1 + PRIOR_TEXTS * f1.mean(axis=0)) / (support + PRIOR_TEXTS)
    half = round(3 * SMOOTHING / LOGIT_STEP)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * LOGIT_STEP / SMOOTHING) ** 2)
    smooth = (np.convolve(np.pad(curve, half, mode="edge"), kernel, "valid") for curve in curves)
    return np.array([grid[_middle_of_maxima(curve)] for curve in smooth])


def _f1_curve(probability: Floats, truth: Array, grid: Floats) -> Floats:
    """F1 of one label, (B,) and (B,), at each threshold of the grid."""
    said = len(truth) - np.searchsorted(np.sort(probability), grid)
    hits = truth.sum() - np.searchsorted(np.sort(probability[truth]), grid)
    return cast(Floats, 2 * hits / np.maximum(said + truth.sum(), 1))


def _middle_of_maxima(curve: Floats) -> int:
    best = np.flatnonzero(curve >= curve.max() - 1e-12)
    return int(best[len(best) // 2])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a model said about B texts, and what is true: all that a figure is made of.

    probabilities (B, C); targets (B,) integers below K, or for several labels a text (B, K) bool,
    K >= C; thresholds (C,) or None for 0.5 (several labels only). Raises SrucliError where there
    are no texts, DivergedError where a probability is not a number.
    """

    probabilities: Floats
    targets: Array
    thresholds: Floats | None = None

    def __post_init__(self) -> None:
        if not len(self.targets):
            raise SrucliError("there are no texts to measure; give a file with labelled texts")
        broken = int((~np.isfinite(self.probabilities).all(axis=1)).sum())
        if broken:
            raise DivergedError(
                f"the model gave {broken} of {len(self.targets)} texts probabilities that are not "
                "numbers; its weights are damaged or its training diverged: train again, with a "
                "lower optim.lr"
            )

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def known(self) -> int:
        """C, the number of classes that the model knows."""
        return int(self.probabilities.shape[1])

    @cached_property
    def classes(self) -> int:
        """K, the number of classes with those that only the truth has."""
        seen = self.targets.shape[1] if self.multi_label else int(self.targets.max()) + 1
        return max(self.known, seen)

    @cached_property
    def predictions(self) -> Array:
        """(B,) integers below C, or for several labels a text (B, K) bool."""
        decided = decide(self.probabilities, self.thresholds, self.multi_label)
        if not self.multi_label:
            return decided
        return np.pad(decided, ((0, 0), (0, self.classes - self.known)))

    @cached_property
    def truth(self) -> Array:
        """(B, C) bool: which of the model's labels are true."""
        if self.multi_label:
            return self.targets[:, : self.known]
        return cast(Array, self.targets[:, None] == np.arange(self.known))


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


def _decisions(outcome: Outcome) -> sparse.csr_array:
    """(B, 3K): hits, predictions and truths of each class."""
    said = _indicator(outcome.predictions, outcome.classes)
    gold = _indicator(outcome.targets, outcome.classes)
    return sparse.hstack([said.multiply(gold), said, gold], format="csr")


def _confidences(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Bins, confidences and whether they were right: (B, 1), or (B, C) for several labels."""
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
    bins, sure, right = (part.ravel() for part in _confidences(outcome))
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
    """A figure: call it with an Outcome. Undefined figures are NaN."""

    meaning: str
    larger_is_better: bool
    compute: Callable[[Outcome], float]
    multi_label_only: bool = False

    def __call__(self, outcome: Outcome) -> float:
        return self.compute(outcome)


@dataclass(frozen=True)
class SumMetric:
    """A figure that depends on sums over texts alone, which makes resampling it a matrix product.

    `parts` gives each text's share (B, P); `finish` turns sums (..., P) into figures (...).
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
    "macro_f1": SumMetric("mean of the classes' F1", True, _decisions, _macro_f1),
    "micro_f1": SumMetric("F1 of all decisions pooled", True, _decisions, _micro_f1),
    "weighted_f1": SumMetric("mean of F1 weighted by support", True, _decisions, _weighted_f1),
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
    """The metric of that name that fits the task (None: not known yet). Raises UsageError."""
    metric = METRICS.get(name)
    if metric is None:
        raise UsageError(f"unknown metric '{name}'{did_you_mean(name, list(METRICS))}")
    if metric.multi_label_only and multi_label is False:
        raise UsageError(f"metric '{name}' needs a model that gives several labels to a text")
    return metric


def _fitting(outcome: Outcome) -> dict[str, Metric | SumMetric]:
    return {
        name: metric
        for name, metric in METRICS.items()
        if outcome.multi_label or not metric.multi_label_only
    }


def measure(outcome: Outcome) -> dict[str, float]:
    """Every figure of METRICS that fits the task."""
    return {name: metric(outcome) for name, metric in _fitting(outcome).items()}


def _resampled_sums(parts: sparse.csr_array, resamples: int, seed: int) -> Iterator[Floats]:
    """Sums (r, P) of `parts` (B, P) over bootstrap samples, `resamples` rows in all.

    A sample is a column of counts, how often each text was drawn; a few million counts at a time.
    """
    texts, rng = parts.shape[0], np.random.default_rng(seed)
    while resamples > 0:
        width = min(resamples, max(1, 4_000_000 // texts))
        drawn = rng.integers(texts, size=(texts, width)) * width + np.arange(width)
        counts = np.bincount(drawn.ravel(), minlength=texts * width).reshape(texts, width)
        yield (parts.T @ counts.astype(np.float64)).T
        resamples -= width


def wilson(hits: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of the proportion `hits` of `total` (Wilson 1927); NaN where 0 of 0.

    Unlike the bootstrap it does not shrink to a point where all or none are hits.
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
    """Whether a figure is the share of texts that are right; of one label, micro F1 is too."""
    return name == "accuracy" or (name == "micro_f1" and not outcome.multi_label)


def intervals(
    outcome: Outcome, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Intervals over texts, for every figure made of sums; NaN where there is none to give.

    Wilson's for a share of texts that are right; of the others, percentiles of the bootstrap (Efron
    1979). That has none to give of fewer than MIN_RESAMPLED texts, nor where all resamples have
    the same figure: it is then as far from certain as accuracy is, but nothing says how far.
    Undefined resamples are left out. Where no decision or every one is wrong, Hamming loss is
    bounded as if texts were wholly wrong or wholly right.

    The ranking figures (AUC, average precision) have no interval, nor has the calibration error,
    whose resamples lie above it where it is small.
    """
    wanted = {n: m for n, m in _fitting(outcome).items() if isinstance(m, SumMetric)}
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
    """Percentile intervals of those figures."""
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
    """The calibration error that a perfectly calibrated model stays below on these texts.

    It does so in a share `level` of cases: each label given is right as often as the model says,
    and drawn so many times. Whatever lies below cannot be told from perfect.
    """
    bins, sure, _ = (part.ravel() for part in _confidences(outcome))
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


@dataclass(frozen=True)
class ClassFigures:
    """One class: precision, recall and F1 (NaN where undefined), and its number of texts.

    Precision and recall are shares of the texts that were given the class, and that have it; their
    intervals are Wilson's.
    """

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]


def per_class(outcome: Outcome) -> list[ClassFigures]:
    """The figures of each of the K classes, in order."""
    counts = np.split(_decisions(outcome).sum(axis=0), 3)
    return [_class_figures(*map(float, row)) for row in zip(*counts, strict=True)]


def _class_figures(hits: float, said: float, gold: float) -> ClassFigures:
    undefined = float("nan")
    return ClassFigures(
        precision=hits / said if said else undefined,
        recall=hits / gold if gold else undefined,
        f1=2 * hits / (said + gold) if said + gold else undefined,
        support=int(gold),
        predicted=int(said),
        precision_interval=wilson(hits, said),
        recall_interval=wilson(hits, gold),
    )


def confusion(outcome: Outcome) -> Array:
    """Single label: (K, K) counts, a row for each true class, a column for each predicted one."""
    size = outcome.classes
    cells = outcome.targets * size + outcome.predictions
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def reliability(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Mean confidence, share right and number of decisions in each bin, (15,) each; NaN where a
    bin is empty. The bins are those of `calibration_error`."""
    bins, sure, right = (part.ravel() for part in _confidences(outcome))
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, sure, BINS) / count
        return confidence, np.bincount(bins, right, BINS) / count, count
