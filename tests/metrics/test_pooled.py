"""Pooled metrics: equal to those of one model, for other labels per model, groups and repeats."""

from __future__ import annotations

import numpy as np
import pytest

from srucli import metrics
from srucli.metrics import METRICS, Outcome, Portion, confidence_intervals, pooled
from srucli.metrics.outcome import Array
from srucli.metrics.table import SumMetric

NAMES = ("a", "b", "c")


def single(examples: int, seed: int = 0) -> tuple[Array, Array]:
    """Return probabilities (B, 3) and targets (B,) that agree more often than by chance."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(3, size=examples, p=[0.6, 0.3, 0.1])
    scores = rng.normal(size=(examples, 3))
    scores[np.arange(examples), targets] += 1.5
    p = np.exp(scores)
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32), targets


def several(examples: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    targets = rng.random((examples, 3)) < [0.5, 0.3, 0.1]
    noise = rng.normal(size=(examples, 3))
    return (1 / (1 + np.exp(noise - 2 * targets + 1))).astype(np.float32), targets


@pytest.mark.parametrize("made", [single, several])
def test_models_of_the_same_labels_are_as_one_model(made: object) -> None:
    probabilities, targets = made(120)  # type: ignore[operator]
    folds = np.array_split(np.random.default_rng(1).permutation(120), 4)
    tests = [Portion(Outcome(probabilities[r], targets[r]), NAMES, r) for r in folds]
    whole, found = Outcome(probabilities, targets), pooled(tests)
    intervals = confidence_intervals(whole)
    assert found.keys() == intervals.keys()
    for name, each in found.items():
        assert each.value == pytest.approx(METRICS[name](whole), abs=1e-12)
        assert (each.low, each.high) == pytest.approx(intervals[name], abs=1e-9), name


def test_models_may_lack_labels_and_order_them_differently() -> None:
    """A label that one model lacks is a miss there, and the same class as in the other's fold."""
    first = Outcome(np.eye(2, dtype=np.float32)[[0, 1, 0, 0]], np.array([0, 1, 2, 0]))
    other = Outcome(np.eye(3, dtype=np.float32)[[0, 1, 2, 2]], np.array([0, 1, 2, 0]))
    tests = [
        Portion(first, ("a", "c", "b"), np.arange(4)),
        Portion(other, ("a", "b", "c"), np.arange(4, 8)),
    ]
    truth, predicted = "acbaabca", "acaaabcc"
    found = pooled(tests)
    f1 = []
    for label in "abc":
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        f1.append(2 * hits / (truth.count(label) + predicted.count(label)))
    assert found["macro_f1"].value == pytest.approx(np.mean(f1))
    assert found["accuracy"].value == 6 / 8
    # The log loss leaves out the example whose label its model does not know.
    parts = [METRICS["log_loss"](first) * 3, METRICS["log_loss"](other) * 4]
    assert found["log_loss"].value == pytest.approx(sum(parts) / 7)


def test_a_repeat_tests_the_same_examples_again() -> None:
    """So the value is the mean over repeats, and the interval is as wide as of one."""
    probabilities, targets = single(200)
    halves = [np.arange(100), np.arange(100, 200)]
    once = [Portion(Outcome(probabilities[r], targets[r]), NAMES, r) for r in halves]
    again = [Portion(test.outcome, test.names, test.rows, 2) for test in once]
    for name, each in pooled(once).items():
        other = pooled([*once, *again])[name]
        assert (other.value, other.low, other.high) == pytest.approx(
            (each.value, each.low, each.high), abs=1e-12
        )
    worse = Outcome(probabilities[:, [1, 0, 2]], targets)
    tests = [*once, Portion(worse, NAMES, np.arange(200), 2)]
    mean = (METRICS["macro_f1"](worse) + pooled(once)["macro_f1"].value) / 2
    found = pooled(tests)["macro_f1"]
    assert found.value == pytest.approx(mean)
    assert found.low < mean < found.high


def test_groups_are_drawn_as_a_whole() -> None:
    """Against the definition: draw groups, measure all of their examples."""
    probabilities, targets = single(150)
    groups = np.random.default_rng(2).integers(30, size=150)
    folds = [np.flatnonzero(groups % 2 == half) for half in (0, 1)]
    tests = [Portion(Outcome(probabilities[r], targets[r]), NAMES, r) for r in folds]
    rng, found = np.random.default_rng(3), pooled(tests, groups, resamples=4000)
    draws = []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(30, size=30)])
        draws.append(Outcome(probabilities[rows], targets[rows]))
    for name, each in found.items():
        expected = np.quantile([METRICS[name](draw) for draw in draws], [0.025, 0.975])
        width = each.high - each.low
        assert [each.low, each.high] == pytest.approx(expected, abs=0.2 * width), name


def test_intervals_cover_only_if_groups_are_drawn() -> None:
    """All examples of a group are right, or all wrong, as an extreme case of one author."""
    covered = {True: 0, False: 0}
    for trial in range(150):
        rng = np.random.default_rng(trial)
        right = (rng.random(60) < 0.7).repeat(10)
        p = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
        test = Portion(Outcome(p, np.zeros(600, np.int64)), ("a", "b"), np.arange(600))
        for grouped in covered:
            units = np.arange(60).repeat(10) if grouped else None
            found = pooled([test], units, resamples=300)["accuracy"]
            covered[grouped] += found.low <= 0.7 <= found.high
    assert covered[True] >= 0.88 * 150
    assert covered[False] < 0.6 * 150


def test_few_groups_have_no_interval() -> None:
    probabilities, targets = single(90)
    tests = [Portion(Outcome(probabilities, targets), NAMES, np.arange(90))]
    for groups, has in ((metrics.MIN_RESAMPLED, True), (metrics.MIN_RESAMPLED - 1, False)):
        found = pooled(tests, np.arange(90) % groups)
        assert all(np.isfinite([each.low, each.high]).all() == has for each in found.values())


def test_only_sums_are_pooled() -> None:
    probabilities, targets = single(30)
    found = pooled([Portion(Outcome(probabilities, targets), NAMES, np.arange(30))])
    sums = {n for n, m in METRICS.items() if isinstance(m, SumMetric) and not m.multi_label_only}
    assert found.keys() == sums
