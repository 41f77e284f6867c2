"""The linear model, compared with scikit-learn's on the same features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from srucli.ngrams import linear, vocabulary
from srucli.ngrams.linear import NgramModel, fit, size_of_model
from srucli.ngrams.vocabulary import Features, all_grams, joined, learn

WORDS = (
    *("good", "bad", "fine", "poor", "film", "plot", "actor", "scene"),
    *("very", "not", "so", "it", "is", "was", "the", "an"),
)


def made(texts: int, classes: int, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """Return texts of random words, and labels that some of the words depend on."""
    draw = np.random.default_rng(seed)
    labels = np.arange(texts) % classes
    found = [
        " ".join([*draw.choice(WORDS, 6), *draw.choice(WORDS[label * 2 : label * 2 + 2], 2)])
        for label in labels
    ]
    return found, labels


def sparse(part: Features, rows: int) -> Any:
    """Return features (B, R) as a matrix."""
    texts = part.stops.size
    lengths = part.stops - part.starts
    places = np.concatenate([np.arange(a, b) for a, b in zip(part.starts, part.stops, strict=True)])
    text = np.repeat(np.arange(texts), lengths)
    values = part.values[places].astype(np.float64), (text, part.rows[places])
    return scipy.sparse.csr_array(values, shape=(texts, rows))


def test_features_are_those_of_scikit_learn() -> None:
    """Words and pairs with TF-IDF, sublinear counts, and a norm of 1 of each block."""
    texts, _ = made(60, 3)
    texts = [*texts, "good good good film"]
    found = all_grams(texts)
    known = learn(found, 10**6)
    own = sparse(known.features(found), known.keys.size)
    words = own[:, np.flatnonzero(known.keys & 1)].toarray()
    wanted = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    theirs = wanted.fit_transform(texts).toarray()
    order = [np.lexsort(np.round(array, 4)) for array in (words, theirs)]
    np.testing.assert_allclose(words[:, order[0]], theirs[:, order[1]], atol=1e-5)
    norms = np.sqrt((own[:, np.flatnonzero(known.keys & 1 == 0)].toarray() ** 2).sum(axis=1))
    np.testing.assert_allclose(norms, 1, atol=1e-5)


@pytest.mark.parametrize(("classes", "few"), [(2, False), (3, False), (3, True)])
def test_the_model_is_the_minimum(classes: int, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """LinearSVC on features times the root of the prior's variance has the same scores."""
    monkeypatch.setattr(linear, "PASSES", 400)
    monkeypatch.setattr(linear, "MANY_TEXTS", 10**6 if few else 1)
    texts, targets = made(120, classes)
    model = fit(texts, targets, classes)
    found = all_grams(texts)
    part = model.vocabulary.features(found)
    features = sparse(part, model.vocabulary.keys.size)
    truth = targets[:, None] == np.arange(classes)
    truth = truth[:, 1:] if classes == 2 else truth
    power, cost = (0.5, 1.0) if few else (1.5, 0.5)
    for column in range(truth.shape[1]):
        variances = _variances(features, model, truth[:, column], power)
        scaled = features.toarray() * np.sqrt(variances)
        theirs = LinearSVC(C=cost, tol=1e-8, max_iter=100_000)
        theirs.fit(scaled, truth[:, column])
        own = model.margins(texts, classes)[:, column + (classes == 2)]
        np.testing.assert_allclose(own, theirs.decision_function(scaled), atol=3e-3)


def _variances(
    features: Any, model: NgramModel, truth: NDArray[np.bool_], power: float
) -> NDArray[np.float64]:
    """Return the prior as the module's docstring defines it (R,)."""
    present = features.toarray() > 0
    ratios = np.empty(present.shape[1])
    for block in (0, 1):
        own = np.flatnonzero((model.vocabulary.keys & 1) == block)
        one, other = (present[rows][:, own].sum(axis=0) + 1.0 for rows in (truth, ~truth))
        ratios[own] = np.log(one / one.sum()) - np.log(other / other.sum())
    return (np.abs(ratios) + 0.1) ** power


def test_scores_of_two_classes_are_opposite() -> None:
    texts, targets = made(50, 2)
    scores = fit(texts, targets, 2).margins(texts, 2)
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])
    assert (scores.argmax(axis=1) == targets).mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_log_odds_or_log_probabilities(classes: int) -> None:
    texts, targets = made(50, classes)
    model = fit(texts, targets, classes)
    odds = linear.SLOPE * model.margins(texts, classes)
    found = model.scores(texts, classes, multi_label=True)
    np.testing.assert_array_equal(found, odds)
    logs = model.scores(texts, classes, multi_label=False)
    assert logs.dtype == np.float32
    np.testing.assert_allclose(logs, np.log(1 / (1 + np.exp(-odds))), atol=1e-5)


def test_multi_label_columns_are_tasks_of_their_own() -> None:
    texts, targets = made(90, 3)
    several = np.zeros((90, 4), np.float32)
    several[np.arange(90), targets] = 1
    several[::2, 1] = 1
    model = fit(texts, several[:, :3], 3, multi_label=True)
    alone = fit(texts, several[:, 1].astype(np.int64), 2)
    assert model.margins(texts, 3).shape == (90, 3)
    assert _weights(model, 1) == _weights(alone, 0)
    assert model.bias[1] == alone.bias


def _weights(model: NgramModel, label: int) -> dict[int, float]:
    """Return a label's weights by the keys of their n-grams."""
    own = model.labels == label
    keys = np.repeat(model.vocabulary.keys, model.counts)[own]
    return dict(zip(keys.tolist(), model.weights[own].tolist(), strict=True))


def _equal_variances(
    part: Features, known: vocabulary.Vocabulary, truth: NDArray[np.bool_], _: float
) -> Any:
    return np.ones((known.keys.size, truth.shape[1]), np.float32)


def test_weights_of_labels_count_as_repeated_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior and the features see each text once, so they are fixed here."""
    monkeypatch.setattr(linear, "PASSES", 200)
    monkeypatch.setattr(
        linear,
        "_prior",
        _equal_variances,
    )
    monkeypatch.setattr(vocabulary.Vocabulary, "_idf", 1.0 + np.zeros(10**5, np.float32))
    texts, targets = made(60, 2)
    twice = [*texts, *(text for text, label in zip(texts, targets, strict=True) if label)]
    more = np.concatenate((targets, np.ones(len(twice) - 60, np.int64)))
    weighted = fit(texts, targets, 2, np.array([[1, 1], [1, 2]])).margins(texts, 2)
    np.testing.assert_allclose(weighted, fit(twice, more, 2).margins(texts, 2), atol=5e-3)


def test_a_vocabulary_keeps_the_n_grams_of_most_texts() -> None:
    texts, _ = made(40, 3)
    found = all_grams(texts)
    whole, some = learn(found, 10**6), learn(found, 50)
    assert some.keys.size == 50
    assert set(some.keys) < set(whole.keys)
    left = ~np.isin(whole.keys, some.keys)
    assert some.frequencies.min() >= whole.frequencies[left].max()
    assert (np.diff(whole.keys.astype(np.int64)) > 0).all()
    assert whole.keys.size == np.unique(found[0]).size
    counts = dict(zip(*np.unique(found[0], return_counts=True), strict=True))
    assert [counts[key] for key in whole.keys] == whole.frequencies.tolist()


def test_the_number_of_n_grams_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MAX_CELLS", 300)
    texts, targets = made(40, 3)
    assert size_of_model(texts, 3, False, 0) == 100 * (12 + 3 * 4) + 3 * 4
    assert fit(texts, targets, 3).vocabulary.keys.size <= 100


@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_has_the_largest_weights(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, targets = made(40, classes)
    whole = fit(texts, targets, classes)
    monkeypatch.setattr(linear, "MAX_BYTES", 1000)
    some = fit(texts, targets, classes)
    size = 12 * some.counts.size + 4 * some.weights.size
    assert 800 < size <= 1000
    assert some.counts.sum() == some.weights.size
    largest = np.sort(np.abs(whole.weights))[-some.weights.size :]
    np.testing.assert_array_equal(np.sort(np.abs(some.weights)), largest)
    assert size_of_model(texts, classes, False, 0) == 1000 + 4 * some.bias.size


def test_of_long_data_some_texts_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, targets = made(40, 2)
    monkeypatch.setattr(linear, "MAX_CHARACTERS", sum(map(len, texts)) // 2)
    assert 15 <= fit(texts, targets, 2).vocabulary.texts <= 25
    monkeypatch.setattr(linear, "MAX_CELLS", 9)
    assert fit(texts, targets, 2).vocabulary.texts == 9
    monkeypatch.setattr(linear, "MAX_CHARACTERS", 1)
    assert fit(texts, targets, 2).vocabulary.texts == 1


@pytest.mark.parametrize("classes", [2, 3, 37])
def test_results_do_not_depend_on_threads(classes: int) -> None:
    texts, _ = made(1000, 4)
    targets = np.arange(1000) % classes
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model = fit(texts, targets, classes)
            arrays = (model.counts, model.labels, model.weights, model.bias)
            found.append([each.tobytes() for each in (*arrays, model.margins(texts, classes))])
    finally:
        torch.set_num_threads(before)
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("classes", [2, 3])
def test_soft_targets_and_counts_are_texts_that_are_repeated(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target of 0.6 is six of ten copies with the label. As above, the prior is fixed."""
    monkeypatch.setattr(linear, "PASSES", 300)
    monkeypatch.setattr(linear, "MANY_TEXTS", 1)
    monkeypatch.setattr(linear, "_prior", _equal_variances)
    monkeypatch.setattr(vocabulary.Vocabulary, "_idf", 1.0 + np.zeros(10**5, np.float32))
    texts, targets = made(45, classes)
    soft = np.full((45, classes), 0.4 / (classes - 1))
    soft[np.arange(45), targets] = 0.6
    soft[:9] = np.eye(classes)[targets[:9]]
    counts = np.where(np.arange(45) % 2, 2.0, 0.5)
    found = fit(texts, soft.astype(np.float32), classes, counts=counts).margins(texts, classes)
    tenths = np.rint(soft * counts[:, None] * 20).astype(int)
    text, label = np.nonzero(tenths)
    often = tenths[text, label]
    text, label = np.repeat(text, often), np.repeat(label, often)
    sides = np.full((2, classes), 1 / 20)
    many = fit([texts[n] for n in text], label, classes, sides).margins(texts, classes)
    np.testing.assert_allclose(found, many, atol=2e-2)
    assert not np.allclose(found, fit(texts, targets, classes).margins(texts, classes), atol=0.1)


def test_multi_label_soft_targets() -> None:
    """The more likely a label is, the higher is its score; hard targets change nothing."""
    texts, targets = made(120, 2)
    columns = [np.where(targets == 1, high, 1 - high) for high in (1.0, 0.8, 0.6)]
    soft = np.stack(columns, axis=1).astype(np.float32)
    margins = fit(texts, soft, 3, multi_label=True).margins(texts, 3)
    of_true = margins[targets == 1].mean(axis=0)
    assert of_true[0] > of_true[1] > of_true[2] > 0
    hard = (soft > 0.5).astype(np.float32)
    one = fit(texts, hard, 3, multi_label=True, counts=np.ones(120))
    np.testing.assert_array_equal(one.weights, fit(texts, hard, 3, multi_label=True).weights)


def test_weights_near_0_are_finite() -> None:
    texts, targets = made(60, 3)
    counts = np.where(np.arange(60) < 30, 1.0, 1e-40).astype(np.float32)
    found = fit(texts, targets, 3, counts=counts).margins(texts, 3)
    assert np.isfinite(found).all()


def test_hard_distributions_are_labels() -> None:
    texts, targets = made(60, 3)
    rows = np.eye(3, dtype=np.float32)[targets]
    np.testing.assert_array_equal(fit(texts, rows, 3).weights, fit(texts, targets, 3).weights)


def test_texts_without_known_n_grams_have_the_bias() -> None:
    texts, targets = made(40, 3)
    model = fit(texts, targets, 3)
    scores = model.margins(["", "你好"], 3)
    np.testing.assert_allclose(scores, np.stack([model.bias] * 2))


def test_features_have_norms_of_one_or_none() -> None:
    found = all_grams(["a b", "", "c"])
    part = learn(found, 10**6).features(found)
    whole = normalize(sparse(part, 100))
    assert whole.shape == (3, 100)
    assert part.stops.tolist()[1] == part.starts.tolist()[1]


# --- from an earlier model ---------------------------------------------------------------------


def test_an_empty_model_as_base_changes_nothing() -> None:
    texts, labels = made(90, 3)
    plain = fit(texts, labels, 3)
    nothing = fit(texts, labels, 3, base=plain.with_labels(np.full(3, -1), multi_label=False))
    known = nothing.vocabulary.aligned(plain.vocabulary.keys)
    assert (known.frequencies == 2 * plain.vocabulary.frequencies).all()
    assert known.texts == 180
    # The inverse document frequencies differ a little: log((1 + n) / (1 + f)).
    np.testing.assert_allclose(nothing.margins(texts, 3), plain.margins(texts, 3), atol=0.1)


@pytest.mark.parametrize("classes", [2, 3])
def test_from_its_own_weights_a_model_learns_little_more(classes: int) -> None:
    texts, labels = made(120, classes)
    first = fit(texts, labels, classes)
    again = fit(texts, labels, classes, base=first)
    before, after = (each.margins(texts, classes) for each in (first, again))
    truth = 2 * (labels[:, None] == np.arange(classes)) - 1
    assert (truth * after).mean() > (truth * before).mean()
    assert np.abs(after - before).mean() < 0.3


def test_what_the_new_texts_lack_is_kept() -> None:
    """The prior is centred on the old weights, so that n-grams without evidence keep theirs."""
    texts, labels = made(120, 3)
    first = fit(texts, labels, 3)
    others = [f"river {word} stone" for word in ("blue", "red", "green") * 10]
    again = fit(others, np.arange(30) % 3, 3, base=first)
    accuracy = (again.margins(texts, 3).argmax(axis=1) == labels).mean()
    assert accuracy == (first.margins(texts, 3).argmax(axis=1) == labels).mean() > 0.9
    assert (again.margins(others, 3).argmax(axis=1) == np.arange(30) % 3).all()


def test_columns_move_with_their_labels() -> None:
    texts, labels = made(90, 3)
    model = fit(texts, labels, 3)
    moved = model.with_labels(np.array([2, -1, 0, 1]), multi_label=False)
    old, new = model.margins(texts, 3), moved.margins(texts, 4)
    assert (new[:, [0, 2, 3]] == old[:, [2, 0, 1]]).all()
    assert not new[:, 1].any()
    back = moved.with_labels(np.array([2, 3, 0]), multi_label=False)
    for name in ("counts", "labels", "weights", "bias"):
        assert (getattr(back, name) == getattr(model, name)).all(), name


def test_two_classes_become_more_and_two_again() -> None:
    texts, labels = made(60, 2)
    model = fit(texts, labels, 2)
    assert model.bias.size == 1
    more = model.with_labels(np.array([1, -1, 0]), multi_label=False)
    old, new = model.margins(texts, 2), more.margins(texts, 3)
    assert (new[:, [2, 0]] == old).all()
    assert not new[:, 1].any()
    same = model.with_labels(np.array([0, 1]), multi_label=False)
    assert (same.margins(texts, 2) == old).all()
    swapped = model.with_labels(np.array([1, 0]), multi_label=False)
    assert (swapped.margins(texts, 2) == old[:, ::-1]).all()


def test_a_union_of_vocabularies_keeps_the_commonest() -> None:
    one, other = (learn(all_grams(texts), 10**6) for texts in (["a b", "b c"], ["b", "d e f"]))
    both = joined(one, other, 10**6)
    assert set(both.keys) == {*one.keys, *other.keys}
    assert both.texts == 4
    shared = np.intersect1d(one.keys, other.keys)
    assert both.aligned(shared).frequencies.max() == 3
    few = joined(one, other, 2)
    assert few.keys.size == 2
    assert few.frequencies.min() >= np.sort(both.frequencies)[-2]
