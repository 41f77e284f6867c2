"""The peers of scikit-learn: log-count ratios, and the sum of three linear models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks import peers
from benchmarks.peers import PEERS, Task
from tests.support import sentences

ROWS = sentences()
WORDS: dict[str, Any] = {"token_pattern": r"\S+", "ngram_range": (1, 2)}


def task_of(*names: str) -> Task:
    """Return a task with the sentences of these labels: 20 to train on, 40 to test on."""
    rows = [(text, [label]) for label, text in ROWS if label in names]
    train, test = (tuple(map(list, zip(*part, strict=True))) for part in (rows[:20], rows[20:60]))
    return Task(train, ([], []), test, multi_label=False, long=False)  # type: ignore[arg-type]


def test_log_count_ratios() -> None:
    """Wang and Manning 2012, equation 1 of section 2, with 1 added to each count."""
    features = sparse.csr_array(np.array([[1.0, 1, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0]]))
    ratio = peers.log_count_ratio(features, np.array([True, True, False, False]))
    assert np.exp(ratio) == pytest.approx([(3 / 6) / (1 / 6), (2 / 6) / (3 / 6), (1 / 6) / (2 / 6)])


@pytest.mark.parametrize("names", [("good", "bad"), ("good", "bad", "none")])
def test_the_sum_adds_three_linear_models(names: tuple[str, ...]) -> None:
    """A third of each regression, and twice the SVM across words."""
    task = task_of(*names)
    words = peers.fit_naive_bayes(task, 0, **WORDS)
    characters = peers.fit_naive_bayes(task, 0, analyzer="char_wb", ngram_range=(1, 5))
    svm = peers.fit_linear_across(task, 0)
    fitted = PEERS["linear-sum"](task, 0)
    texts = task.test[0]
    wanted = (words.scores(texts) + characters.scores(texts)) / 3 + 2 * svm.scores(texts)
    assert fitted.scores(texts) == pytest.approx(wanted)
    assert fitted.scores(texts).shape == (40, len(names))
    assert fitted.parameters == words.parameters + characters.parameters + svm.parameters
    assert peers.measure(peers.fit_linear_sum, task)["accuracy"] > 1.5 / len(names)


def test_a_regression_reads_features_times_ratios() -> None:
    """The texts are scaled, not the weights: the scores are scikit-learn's own."""
    task = task_of("good", "bad", "none")
    vectorizer = CountVectorizer(binary=True, **WORDS)
    train, test = vectorizer.fit_transform(task.train[0]), vectorizer.transform(task.test[0])
    scores = peers.fit_naive_bayes(task, 0, **WORDS).scores(task.test[0])
    for label, found in zip(task.labels, scores.T, strict=True):
        own = np.array([names == [label] for names in task.train[1]])
        ratio = peers.log_count_ratio(train, own)
        machine = LogisticRegression(solver="liblinear", random_state=0)
        machine.fit(train.multiply(ratio).tocsr(), own)
        wanted = machine.decision_function(test.multiply(ratio).tocsr())
        assert found == pytest.approx(wanted, abs=1e-5)


def test_two_classes_need_one_regression() -> None:
    """It has the scores that the second of two regressions would have."""
    task = task_of("good", "bad")
    one = peers.fit_naive_bayes(task, 0, **WORDS)
    both = peers.fit_naive_bayes(replace(task, multi_label=True), 0, **WORDS)
    assert both.parameters == 2 * one.parameters
    scores = one.scores(task.test[0])
    assert scores == pytest.approx(both.scores(task.test[0]), abs=1e-3)
    assert scores[:, 0] == pytest.approx(-scores[:, 1])


def test_several_labels_get_the_thresholds_of_other_peers() -> None:
    """Each of two labels is fitted against the rest; a text may have both."""
    rows = [(f"{a} {b}", [a[0], b[0]]) for a in ("alpha", "axe") for b in ("beta", "bun", "bag")]
    rows += [("axe alpha", ["a"]), ("bag bun", ["b"]), ("beta", ["b"]), ("alpha", ["a"])]
    part = tuple(map(list, zip(*rows, strict=True)))
    task = Task(part, part, part, multi_label=True, long=False)  # type: ignore[arg-type]
    found = peers.measure(peers.fit_linear_sum, task)
    assert (found["accuracy"], found["macro_f1"]) == (1.0, 1.0)
