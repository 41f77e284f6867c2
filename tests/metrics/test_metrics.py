"""Metrics against scikit-learn and against values computed by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from srucli import metrics
from srucli.errors import DataError, SrucliError, UsageError
from srucli.metrics import METRICS, Array, Floats, Outcome, ranking


def single(
    texts: int = 400,
    classes: int = 5,
    seed: int = 0,
    sure: float = 1.5,
    dtype: npt.DTypeLike = np.float32,
) -> Outcome:
    """Return an outcome whose probabilities are a softmax of noise and a bit of truth."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=texts)
    scores = rng.normal(size=(texts, classes))
    scores[np.arange(texts), targets] += sure
    exp = np.exp(scores)
    return Outcome((exp / exp.sum(axis=1, keepdims=True)).astype(dtype), targets)


def multi_label(
    texts: int = 400, labels: int = 6, seed: int = 0, thresholds: Floats | None = None
) -> Outcome:
    rng = np.random.default_rng(seed)
    targets = rng.random((texts, labels)) < np.linspace(0.05, 0.5, labels)
    scores = rng.normal(size=(texts, labels)) - 1 + 2 * targets
    return Outcome((1 / (1 + np.exp(-scores))).astype(np.float32), targets, thresholds)


@pytest.mark.parametrize("classes", [2, 5])
def test_single_label_metrics_equal_scikit_learn(classes: int) -> None:
    outcome = single(classes=classes, dtype=np.float64)
    y, p, said = outcome.targets, outcome.probabilities, outcome.probabilities.argmax(axis=1)
    ranked = p[:, 1] if classes == 2 else p
    one_hot = np.eye(classes, dtype=int)[y]
    expected = {
        "accuracy": sk.accuracy_score(y, said),
        "macro_f1": sk.f1_score(y, said, average="macro"),
        "micro_f1": sk.f1_score(y, said, average="micro"),
        "weighted_f1": sk.f1_score(y, said, average="weighted"),
        "log_loss": sk.log_loss(y, p),
        "auc": sk.roc_auc_score(y, ranked, multi_class="ovr"),
        "average_precision": sk.average_precision_score(one_hot, p, average="macro"),
    }
    found = metrics.measure(outcome)
    assert set(found) == {*expected, "calibration_error"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("places", [1, 2, 7, 200])
def test_rankings_with_ties_equal_scikit_learn(places: int) -> None:
    rng = np.random.default_rng(places)
    for share in (0.01, 0.3, 0.99):
        truth, scores = rng.random(300) < share, rng.integers(places, size=300) / np.float32(7)
        truth[:2] = False, True
        found = ranking.auc(truth, scores), ranking.average_precision(truth, scores)
        wanted = sk.roc_auc_score(truth, scores), sk.average_precision_score(truth, scores)
        assert found == pytest.approx(wanted, rel=1e-12)


def test_multi_label_metrics_equal_scikit_learn() -> None:
    thresholds = np.linspace(0.3, 0.6, 6)
    outcome = multi_label(thresholds=thresholds)
    y, p = outcome.targets, outcome.probabilities
    said = p >= thresholds
    per_label = [sk.log_loss(y[:, k], p[:, k].astype(np.float64)) for k in range(6)]
    expected = {
        "accuracy": sk.accuracy_score(y, said),
        "macro_f1": sk.f1_score(y, said, average="macro"),
        "micro_f1": sk.f1_score(y, said, average="micro"),
        "weighted_f1": sk.f1_score(y, said, average="weighted"),
        "hamming_loss": sk.hamming_loss(y, said),
        "log_loss": np.mean(per_label),
        "auc": sk.roc_auc_score(y, p, average="macro"),
        "average_precision": sk.average_precision_score(y, p, average="macro"),
        "micro_average_precision": sk.average_precision_score(y, p, average="micro"),
    }
    found = metrics.measure(outcome)
    assert set(found) == {*expected, "calibration_error"} == set(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_confusions_of_many_classes_need_no_matrix() -> None:
    """The matrix of a hundred thousand classes would have ten billion cells."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2]])
    outcome = Outcome(probabilities, np.array([99_999, 1, 99_999, 0]))
    cells, counts = metrics.confused(outcome)
    assert cells.tolist() == [[0, 0], [1, 1], [99_999, 0]]
    assert counts.tolist() == [1, 1, 2]
    chosen = metrics.confusion(outcome, np.array([0, 99_999]))
    assert chosen.tolist() == [[1, 0], [2, 0]]


def test_per_class_and_confusion_equal_scikit_learn() -> None:
    outcome = single()
    said = outcome.predictions
    expected = sk.precision_recall_fscore_support(outcome.targets, said)
    rows = metrics.per_class(outcome)
    found = [[r.precision, r.recall, r.f1, r.support] for r in rows]
    np.testing.assert_allclose(found, np.transpose(expected))
    assert [r.predicted for r in rows] == np.bincount(said).tolist()
    matrix = sk.confusion_matrix(outcome.targets, said)
    np.testing.assert_array_equal(metrics.confusion(outcome), matrix)


def test_multi_label_classes_equal_scikit_learn() -> None:
    outcome = multi_label()
    said = outcome.probabilities >= 0.5
    expected = sk.precision_recall_fscore_support(outcome.targets, said, zero_division=np.nan)
    found = [[r.precision, r.recall, r.f1, r.support] for r in metrics.per_class(outcome)]
    np.testing.assert_allclose(found, np.transpose(expected))


# Small inputs with classes that only occur on one side, ties and odd numbers.
SINGLE = {
    "a class that is only predicted": ([0, 0, 1], [[7, 2, 1], [2, 3, 5], [1, 6, 3]]),
    "a class that is only true": ([0, 2, 2, 1], [[7, 2, 1], [6, 3, 1], [1, 6, 3], [3, 5, 2]]),
    "a class that is neither": ([0, 1, 1], [[6, 2, 1, 1], [5, 3, 1, 1], [1, 6, 1, 2]]),
    "classes swapped": ([0, 1, 0, 1], [[2, 8], [7, 3], [4, 6], [9, 1]]),
    "probabilities that are equal": ([0, 1, 1, 2], [[4, 4, 2], [4, 4, 2], [3, 3, 4], [2, 4, 4]]),
    "classes of unequal size": (
        [0, 0, 0, 0, 1, 1, 2],
        [[8, 1, 1], [3, 6, 1], [9, 0.5, 0.5], [2, 2, 6], [1, 8, 1], [4, 3, 3], [4, 1, 5]],
    ),
}


@pytest.mark.parametrize(("truth", "tenths"), SINGLE.values(), ids=SINGLE)
def test_single_label_metrics_of_small_inputs_equal_scikit_learn(
    truth: list[int], tenths: list[list[float]]
) -> None:
    y, p = np.array(truth), np.array(tenths) / 10
    outcome = Outcome(p, y)
    said, known = p.argmax(axis=1), range(p.shape[1])
    ranked = [(y == k, p[:, k]) for k in known if 0 < (y == k).sum() < len(y)]
    bins = np.ceil(p.max(axis=1) * 15 - 1e-9)
    gaps = [(p.max(axis=1) - (said == y))[bins == number].sum() for number in range(1, 16)]
    expected = {
        "accuracy": sk.accuracy_score(y, said),
        "macro_f1": sk.f1_score(y, said, average="macro"),
        "micro_f1": sk.f1_score(y, said, average="micro"),
        "weighted_f1": sk.f1_score(y, said, average="weighted"),
        "log_loss": sk.log_loss(y, p, labels=list(known)),
        "calibration_error": np.abs(gaps).sum() / len(y),
        "auc": np.mean([sk.roc_auc_score(*each) for each in ranked]),
        "average_precision": np.mean([sk.average_precision_score(*each) for each in ranked]),
    }
    assert metrics.measure(outcome) == pytest.approx(expected, rel=1e-9)
    labels = list(known)
    classes = sk.precision_recall_fscore_support(y, said, labels=labels, zero_division=np.nan)
    found = [[r.precision, r.recall, r.f1, r.support] for r in metrics.per_class(outcome)]
    np.testing.assert_allclose(found, np.transpose(classes))
    matrix = sk.confusion_matrix(y, said, labels=labels)
    np.testing.assert_array_equal(metrics.confusion(outcome), matrix)


def test_macro_f1_includes_classes_that_are_only_predicted() -> None:
    outcome = Outcome(np.eye(3)[[0, 2, 1]], np.array([0, 0, 1]))
    assert METRICS["macro_f1"](outcome) == pytest.approx(5 / 9)


SEVERAL = {
    "a label that is only predicted": ([[1, 0], [1, 0], [0, 0]], [[9, 6], [4, 2], [3, 1]]),
    "a label that is only true": ([[1, 1], [1, 0], [0, 1]], [[9, 4], [8, 2], [3, 1]]),
    "a label that is neither": ([[1, 0, 1], [0, 0, 1]], [[9, 2, 6], [6, 1, 3]]),
    "examples without labels": ([[0, 0], [0, 0], [1, 1]], [[2, 3], [7, 4], [8, 9]]),
    "probabilities that are equal": ([[1, 0], [0, 1], [1, 1]], [[5, 5], [5, 4], [4, 5]]),
}


@pytest.mark.parametrize(("truth", "tenths"), SEVERAL.values(), ids=SEVERAL)
def test_multi_label_metrics_of_small_inputs_equal_scikit_learn(
    truth: list[list[int]], tenths: list[list[int]]
) -> None:
    y, p = np.array(truth, dtype=bool), np.array(tenths) / 10
    outcome = Outcome(p, y)
    said, labels = p >= 0.5, y.shape[1]
    # Averages cover the labels that occur, which scikit-learn needs as an argument.
    seen = np.flatnonzero(y.any(axis=0) | said.any(axis=0))
    ranked = [(y[:, k], p[:, k]) for k in range(labels) if 0 < y[:, k].sum() < len(y)]
    bins = np.ceil(p.ravel() * 15 - 1e-9)
    gaps = [(p - y).ravel()[bins == number].sum() for number in range(1, 16)]
    averages = {
        f"{name}_f1": sk.f1_score(y, said, average=name, labels=seen, zero_division=0)
        for name in ("macro", "micro", "weighted")
    }
    expected = averages | {
        "accuracy": sk.accuracy_score(y, said),
        "hamming_loss": sk.hamming_loss(y, said),
        "log_loss": np.mean([sk.log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in range(labels)]),
        "calibration_error": np.abs(gaps).sum() / y.size,
        "auc": np.mean([sk.roc_auc_score(*each) for each in ranked]),
        "average_precision": np.mean([sk.average_precision_score(*each) for each in ranked]),
        "micro_average_precision": sk.average_precision_score(y.ravel(), p.ravel()),
    }
    # As in training, log loss is a sum over the labels of an example; this is its mean over labels.
    assert metrics.measure(outcome) == pytest.approx(expected, rel=1e-9)
    found = [[r.precision, r.recall, r.f1, r.support] for r in metrics.per_class(outcome)]
    classes = sk.precision_recall_fscore_support(y, said, zero_division=np.nan)
    np.testing.assert_allclose(found, np.transpose(classes))


def test_calibration_error_by_hand() -> None:
    # Two examples at 0.9, one right: a gap of 0.4. Two at 0.6, both right: 0.4 the other way.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    outcome = Outcome(p, np.array([0, 1, 0, 0]))
    assert METRICS["calibration_error"](outcome) == pytest.approx(0.4)
    confidence, right, count = metrics.reliability(outcome)
    assert count.tolist() == [0] * 8 + [2] + [0] * 4 + [2, 0]
    assert confidence[[8, 13]] == pytest.approx([0.6, 0.9])
    assert right[[8, 13]] == pytest.approx([1.0, 0.5])
    assert np.isnan(confidence[0])


def test_calibration_bins_include_both_ends() -> None:
    """A bin includes its upper edge (0.2 is in the third); 0 and 1 are in the first and last."""
    p = np.array([[0.0, 1.0, 3 / 15, 0.21]])
    outcome = Outcome(p, np.array([[False, True, False, True]]))
    assert np.flatnonzero(metrics.reliability(outcome)[2]).tolist() == [0, 2, 3, 14]


def test_multi_label_calibration_error_by_hand() -> None:
    outcome = Outcome(np.array([[0.9, 0.1]]), np.array([[True, True]]))
    assert METRICS["calibration_error"](outcome) == pytest.approx((0.1 + 0.9) / 2)


def test_an_unknown_label_is_a_class_that_is_never_predicted() -> None:
    p = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    targets, names = metrics.encode([("a",), ("b",), ("new",)], ["a", "b"], False, "x")
    assert (targets.tolist(), names) == ([0, 1, 2], ["a", "b", "new"])
    outcome = Outcome(p, targets)
    found = metrics.measure(outcome)
    assert found["accuracy"] == pytest.approx(2 / 3)
    gold, said = ["a", "b", "new"], ["a", "b", "a"]
    for average in ("macro", "micro", "weighted"):
        expected = sk.f1_score(gold, said, average=average)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    # The example is a negative of both classes: 0.8 > 0.6 > 0.3 for a, 0.7 > 0.4 > 0.2 for b.
    assert found["auc"] == 1.0
    unknown = metrics.per_class(outcome)[2]
    assert (unknown.support, unknown.predicted, unknown.recall) == (1, 0, 0.0)
    assert np.isnan(unknown.precision)
    assert metrics.confusion(outcome).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_many_classes_take_little_memory() -> None:
    """Sums of 200 resamples alone would have 96 MB; each takes as much as its examples."""
    rng = np.random.default_rng(0)
    p = rng.random((40, 20_000), np.float32)
    outcome = Outcome(p / p.sum(axis=1, keepdims=True), rng.integers(20_000, size=40))
    tracemalloc.start()
    metrics.confidence_intervals(outcome, resamples=200)
    assert tracemalloc.get_traced_memory()[1] < 80_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("count", "labels", "multi_label", "fit"),
    [(6_000, 100_000, False, "5,368"), (2_000, 70_000, True, "1,917")],
)
def test_more_probabilities_than_memory_is_for(
    count: int, labels: int, multi_label: bool, fit: str
) -> None:
    metrics.check_size(int(fit.replace(",", "")), labels, multi_label, "x.tsv")
    said = rf"x\.tsv: {count:,} or more examples with {labels:,} labels .* use {fit} examples or"
    with pytest.raises(DataError, match=said):
        metrics.check_size(count, labels, multi_label, "x.tsv")


def test_targets_of_too_many_labels_are_not_allocated() -> None:
    """A label each, of which every one is another, would be 2 GB."""
    truth = [[f"{number}"] for number in range(45_000)]
    with pytest.raises(DataError, match="x: 45,000 or more examples with 45,000 labels"):
        metrics.encode(truth, [], True, "x")


def test_only_unknown_labels() -> None:
    outcome = Outcome(np.array([[0.8, 0.2]]), np.array([2]))
    found = metrics.measure(outcome)
    assert found["accuracy"] == found["macro_f1"] == 0
    assert np.isnan([found["log_loss"], found["auc"], found["average_precision"]]).all()
    assert np.isnan(metrics.confidence_intervals(outcome)["log_loss"]).all()


def test_unknown_labels_of_a_multi_label_example() -> None:
    targets, names = metrics.encode([("a", "new"), ()], ["a", "b"], True, "x")
    assert (targets.tolist(), names) == ([[True, False, True], [False] * 3], ["a", "b", "new"])
    found = metrics.measure(Outcome(np.array([[0.9, 0.1], [0.2, 0.4]]), targets))
    assert found["accuracy"] == 0.5
    assert found["hamming_loss"] == pytest.approx(1 / 6)
    assert found["micro_f1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((1 + 0) / 2)  # b neither occurs nor is predicted
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.9, 0.8, 0.6]).mean())


def test_one_class_in_the_file() -> None:
    outcome = Outcome(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]))
    found = metrics.measure(outcome)
    assert found["accuracy"] == found["macro_f1"] == 1
    assert np.isnan(found["auc"])
    empty = metrics.per_class(outcome)[1]
    assert empty.support == empty.predicted == 0
    assert np.isnan([empty.precision, empty.recall, empty.f1]).all()


def test_ranking_metrics_cover_the_classes_that_occur() -> None:
    outcome = single(classes=3)
    wider = np.pad(outcome.probabilities, ((0, 0), (0, 1)))
    for name in ("auc", "average_precision"):
        assert METRICS[name](Outcome(wider, outcome.targets)) == METRICS[name](outcome)


def test_ranking_metrics_leave_out_a_label_of_all_examples() -> None:
    outcome = multi_label(labels=3)
    everywhere = np.hstack([outcome.targets, np.ones((400, 1), bool)])
    wider = np.pad(outcome.probabilities, ((0, 0), (0, 1)), constant_values=0.9)
    for name in ("auc", "average_precision"):
        assert METRICS[name](Outcome(wider, everywhere)) == METRICS[name](outcome)


def test_a_probability_at_the_threshold_gives_the_label() -> None:
    p = np.array([[0.5, 0.4], [0.7, 0.6]])
    assert metrics.decide(p, None, True).tolist() == [[True, False], [True, True]]
    cuts = np.array([0.7, 0.5])
    assert metrics.decide(p, cuts, True).tolist() == [[False, False], [True, True]]
    assert metrics.decide(p, None, False).tolist() == [0, 0]


def test_a_text_gets_the_label_nearest_to_its_threshold_if_every_text_has_one() -> None:
    p, cuts = np.array([[0.3, 0.1], [0.3, 0.04], [0.7, 0.0], [0.0, 0.0]]), np.array([0.6, 0.2])
    found = metrics.decide(p, cuts, True, at_least_one=True).tolist()
    assert found == [[False, True], [True, False], [True, False], [False, True]]
    assert metrics.decide(p[:1], None, True, at_least_one=True).tolist() == [[True, False]]
    assert metrics.decide(p[:0], cuts, True, at_least_one=True).shape == (0, 2)
    targets = np.array([[False, True]] * 4)
    assert METRICS["accuracy"](Outcome(p, targets, cuts, at_least_one=True)) == 0.5
    assert METRICS["accuracy"](Outcome(p, targets, cuts)) == 0.0


def test_examples_without_labels_and_without_predictions() -> None:
    found = metrics.measure(Outcome(np.full((3, 2), 0.1), np.zeros((3, 2), bool)))
    assert (found["accuracy"], found["hamming_loss"]) == (1, 0)
    undefined = ("macro_f1", "micro_f1", "weighted_f1", "auc", "micro_average_precision")
    assert np.isnan([found[name] for name in undefined]).all()


def test_log_loss_of_a_wrong_probability_of_one_is_finite() -> None:
    outcome = Outcome(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert METRICS["log_loss"](outcome) == pytest.approx(-np.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_probabilities_are_refused(bad: float) -> None:
    p = np.array([[0.5, 0.5], [bad, 0.5], [0.5, bad]])
    with pytest.raises(SrucliError, match="probabilities of 2 of 3 examples are NaN or Inf"):
        Outcome(p, np.array([0, 1, 1]))


def test_no_examples_are_refused() -> None:
    with pytest.raises(SrucliError, match="no examples to evaluate on"):
        Outcome(np.empty((0, 2)), np.empty(0, np.int64))


@pytest.mark.parametrize("outcome", [single(), multi_label()], ids=["single", "several"])
def test_every_metric_knows_which_way_is_better(outcome: Outcome) -> None:
    """A better model has a better value, in the direction that the row gives."""
    perfect = Outcome(outcome.truth.astype(np.float32), outcome.targets)
    for name, value in metrics.measure(outcome).items():
        best = METRICS[name](perfect)
        assert (best > value) == METRICS[name].larger_is_better, name
        assert best != value


def test_metric_named() -> None:
    assert metrics.metric_named("accuracy") is METRICS["accuracy"]
    with pytest.raises(UsageError, match=r"'acuracy' \(did you mean 'accuracy'"):
        metrics.metric_named("acuracy")
    assert metrics.metric_named("hamming_loss", multi_label=True)
    with pytest.raises(UsageError, match="'hamming_loss' needs a multi-label model"):
        metrics.metric_named("hamming_loss", multi_label=False)


def resampled(outcome: Outcome, rows: Array) -> Outcome:
    return Outcome(outcome.probabilities[rows], outcome.targets[rows], outcome.thresholds)


@pytest.mark.parametrize("outcome", [single(150), multi_label(150, 3)], ids=["single", "several"])
def test_intervals_equal_those_of_a_plain_bootstrap(outcome: Outcome) -> None:
    """The matrix product against the definition: resample examples, compute the metric again."""
    rng = np.random.default_rng(1)
    draws = [resampled(outcome, rng.integers(150, size=150)) for _ in range(300)]
    found = metrics.confidence_intervals(outcome, resamples=4000)
    assert {"accuracy", "macro_f1", "weighted_f1", "log_loss"} <= set(found)
    for name, (low, high) in found.items():
        values = [METRICS[name](draw) for draw in draws]
        width = high - low
        expected = np.quantile(values, [0.025, 0.975])
        assert [low, high] == pytest.approx(expected, abs=0.2 * width), name
        assert low < METRICS[name](outcome) < high, name


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(
    ("hits", "total"), [(45, 45), (0, 45), (44, 45), (1, 45), (1, 2), (1, 1), (999, 1000)]
)
def test_wilsons_interval_equals_scipy(hits: int, total: int, level: float) -> None:
    wanted = binomtest(hits, total).proportion_ci(level, method="wilson")
    assert metrics.wilson(hits, total, level) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilsons_interval_by_hand() -> None:
    # 45 of 45: 45 / (45 + z^2).
    assert metrics.wilson(45, 45) == pytest.approx((45 / (45 + 1.959964**2), 1.0))
    assert np.isnan(metrics.wilson(0, 0)).all()


def right(texts: int, wrong: int = 0) -> Outcome:
    """Return an outcome of three classes where the first `wrong` examples are wrong."""
    targets = np.arange(texts) % 3
    return Outcome(np.eye(3)[(targets + (np.arange(texts) < wrong)) % 3] * 0.94 + 0.02, targets)


def test_intervals_of_a_model_that_is_always_right() -> None:
    found = metrics.confidence_intervals(right(45))
    for name in ("accuracy", "micro_f1"):
        assert found[name] == pytest.approx((0.9213, 1.0), abs=1e-4)
    for name in ("macro_f1", "weighted_f1", "log_loss"):  # all resamples are equal
        assert np.isnan(found[name]).all()
    low, high = metrics.confidence_intervals(right(45, wrong=45))["accuracy"]
    assert (low, high) == pytest.approx((0, 0.0787), abs=1e-4)
    assert np.isfinite([*metrics.confidence_intervals(right(45, wrong=3)).values()]).all()


def test_a_share_of_examples_has_wilsons_interval() -> None:
    single_label = metrics.confidence_intervals(right(45, wrong=3))
    wanted = binomtest(42, 45).proportion_ci(method="wilson")
    for name in ("accuracy", "micro_f1"):
        assert single_label[name] == pytest.approx((wanted.low, wanted.high))
    outcome = multi_label(60)
    hits = round(METRICS["accuracy"](outcome) * 60)
    wanted = binomtest(hits, 60).proportion_ci(method="wilson")
    found = metrics.confidence_intervals(outcome)
    assert found["accuracy"] == pytest.approx((wanted.low, wanted.high))
    assert found["micro_f1"] != pytest.approx(
        metrics.wilson(METRICS["micro_f1"](outcome) * 60, 60), abs=0.005
    )


@pytest.mark.parametrize(("wrong", "ends"), [(False, (0.0, 0.0786)), (True, (0.9214, 1.0))])
def test_hamming_loss_of_zero_or_one_has_wilsons_interval(
    wrong: bool, ends: tuple[float, float]
) -> None:
    truth = np.arange(90).reshape(45, 2) % 4 < 2
    found = metrics.confidence_intervals(Outcome((truth ^ wrong) * 0.8 + 0.1, truth))
    assert found["hamming_loss"] == pytest.approx(ends, abs=1e-4)


def test_few_examples_are_not_resampled() -> None:
    found = metrics.confidence_intervals(right(9, wrong=4))
    assert np.isfinite(found["accuracy"]).all()
    assert np.isnan([found["macro_f1"], found["weighted_f1"], found["log_loss"]]).all()
    assert np.isfinite(metrics.confidence_intervals(right(10, wrong=4))["macro_f1"]).all()


def test_classes_have_wilsons_intervals() -> None:
    rows = metrics.per_class(right(9, wrong=2))  # 0 is predicted as 1, and 1 as 2
    assert [(row.support, row.predicted) for row in rows] == [(3, 2), (3, 3), (3, 4)]
    for row, recalled, precise in zip(rows, (2, 2, 3), (2, 2, 3), strict=True):
        recall = binomtest(recalled, row.support).proportion_ci(method="wilson")
        assert row.recall_interval == pytest.approx((recall.low, recall.high))
        precision = binomtest(precise, row.predicted).proportion_ci(method="wilson")
        assert row.precision_interval == pytest.approx((precision.low, precision.high))
    (absent,) = metrics.per_class(Outcome(np.eye(4)[[0, 1]], np.array([0, 1])))[2:3]
    assert np.isnan([*absent.precision_interval, *absent.recall_interval]).all()


def test_intervals_have_their_nominal_coverage() -> None:
    """95% intervals for a true accuracy of 70%."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        hits = rng.random(300) < 0.7
        p = np.where(hits[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
        outcome = Outcome(p, np.zeros(300, np.int64))
        low, high = metrics.confidence_intervals(outcome, seed=trial)["accuracy"]
        held += low <= 0.7 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_intervals_are_repeatable() -> None:
    outcome = single(1_000, 7, sure=4)
    first = metrics.confidence_intervals(outcome)
    assert first == metrics.confidence_intervals(outcome)
    assert first != metrics.confidence_intervals(outcome, seed=1)


@pytest.mark.parametrize("texts", [20, 200, 20_000])  # the last has bins of over 500 examples
def test_a_calibrated_model_stays_below_the_bound(texts: int) -> None:
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(200):
        p = rng.dirichlet([0.5] * 4, size=texts)
        outcome = Outcome(p, (p.cumsum(axis=1) > rng.random((texts, 1))).argmax(axis=1))
        below += METRICS["calibration_error"](outcome) <= metrics.calibration_by_chance(outcome)
    assert 0.90 <= below / 200 <= 0.99


def test_an_overconfident_model_is_above_the_bound() -> None:
    outcome = Outcome(np.full((200, 2), [0.99, 0.01]), np.arange(200) % 2)
    assert METRICS["calibration_error"](outcome) == pytest.approx(0.49)
    assert metrics.calibration_by_chance(outcome) < 0.02


def calibrated_labels(texts: int, seed: int) -> tuple[Floats, Array]:
    """Return 20 labels from common to rare; 0.5 is a bad threshold for the rare ones."""
    rng = np.random.default_rng(seed)
    targets = rng.random((texts, 20)) < np.geomspace(0.3, 0.004, 20)
    scores = 2.2 * targets + rng.normal(size=targets.shape) - np.linspace(1.5, 4, 20)
    return 1 / (1 + np.exp(-scores)), targets


def test_thresholds_help_on_other_examples() -> None:
    def macro_f1(thresholds: Floats | None) -> float:
        return METRICS["macro_f1"](Outcome(*calibrated_labels(20_000, 1), thresholds))

    dev_p, dev_y = calibrated_labels(1_000, 0)
    chosen = metrics.choose_thresholds(dev_p, dev_y)
    assert chosen.shape == (20,)
    grid = np.linspace(0.01, 0.99, 99)
    said = dev_p >= grid[:, None, None]
    f1 = 2 * (said & dev_y).sum(axis=1) / (said.sum(axis=1) + dev_y.sum(axis=0))
    best_for_dev = grid[f1.argmax(axis=0)]
    assert macro_f1(chosen) > macro_f1(best_for_dev) + 0.005
    assert macro_f1(chosen) > macro_f1(None) + 0.1


def test_the_threshold_of_a_common_label_is_its_own() -> None:
    rng = np.random.default_rng(0)
    y = rng.random((5_000, 2)) < 0.3
    p = np.where(y, [0.9, 0.30], [0.6, 0.05])
    low, high = metrics.choose_thresholds(p, y)[::-1]
    assert 0.05 < low <= 0.30
    assert 0.6 < high <= 0.9


def test_one_example_does_not_determine_a_threshold() -> None:
    p, y = calibrated_labels(2_000, 0)
    y[:, 7] = False
    p[0, 7], y[0, 7] = 0.999, True
    p[1:, 7] = p[1:, 7].clip(max=0.99)  # alone, the label would get 0.99
    chosen = metrics.choose_thresholds(p, y)
    assert chosen[7] < 0.6


def test_a_label_without_examples_gets_the_mean_threshold() -> None:
    p, y = calibrated_labels(2_000, 0)
    y[:, 7] = False
    chosen = metrics.choose_thresholds(p, y)
    assert chosen.min() <= chosen[7] <= chosen.max()


def test_thresholds_without_any_label_are_one_half() -> None:
    chosen = metrics.choose_thresholds(np.full((10, 3), 0.2), np.zeros((10, 3), bool))
    assert chosen == pytest.approx([0.5] * 3, abs=0.02)
