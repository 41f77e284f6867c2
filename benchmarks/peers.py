"""What a user would pick instead of srucli, trained and measured on label/text files.

Usage: python -m benchmarks.peers TRAIN TEST [--dev DEV] [--systems NAME,NAME] [--seed N]
       [--multi-label] [--long]

PEERS is the table of systems. Every one takes the texts as they stand in the file. Single label:
the label with the highest score. Multi label (labels joined with a comma): one classifier a label,
each with the threshold that gives its best F1 on dev.

`linear-sum` adds the decision functions of `linear-svm-good`, twice, and of two logistic
regressions on n-grams times naive Bayes' log-count ratios (Wang and Manning 2012), a third each.
These fit one label against the rest, with features of its own for each label, so their time grows
with the labels: about a minute for 77 labels of 10,000 short texts, a quarter of an hour for 113 of
72,000. Nothing is approximated for that.

One JSON line for each system goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from benchmarks import extra
from benchmarks.sets import read_rows

with extra():
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

Figures = dict[str, float]


@dataclass(frozen=True)
class Task:
    """Texts with their labels, in three parts; `dev` may be empty. `long`: whole documents."""

    train: tuple[list[str], list[list[str]]]
    dev: tuple[list[str], list[list[str]]]
    test: tuple[list[str], list[list[str]]]
    multi_label: bool
    long: bool

    @cached_property
    def labels(self) -> list[str]:
        """The labels of train, the most frequent first."""
        counts = Counter(label for labels in self.train[1] for label in labels)
        return [label for label, _ in counts.most_common()]


class Fitted(NamedTuple):
    """A trained model. `scores` maps texts to an array (texts, labels)."""

    scores: Callable[[Sequence[str]], np.ndarray]
    parameters: int
    megabytes: float


def read_part(path: Path | None, multi_label: bool) -> tuple[list[str], list[list[str]]]:
    """Return texts and the labels of each; both are empty without a file."""
    rows = read_rows(path) if path else []
    labels = [label.split(",") if multi_label else [label] for label, _ in rows]
    return [text for _, text in rows], labels


def read_task(
    train: Path, test: Path, dev: Path | None = None, multi_label: bool = False, long: bool = False
) -> Task:
    """Read the files of one measurement."""
    read = partial(read_part, multi_label=multi_label)
    return Task(read(train), read(dev), read(test), multi_label, long)


class _Megabytes:
    """A file that only counts the bytes written to it."""

    def __init__(self) -> None:
        self.value = 0.0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.value += size / 1e6
        return size


def fit_fasttext(task: Task, seed: int, **options: Any) -> Fitted:
    """Train fastText's supervised mode with a thread per core."""
    with extra():
        import fasttext

    number = {label: index for index, label in enumerate(task.labels)}
    if task.multi_label:
        options["loss"] = "ova"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.txt")
        rows = list(zip(*task.train, strict=True))
        random.Random(seed).shuffle(rows)  # it reads in order, and some files are sorted by class
        with file.open("w", encoding="utf-8", newline="\n") as out:
            for text, labels in rows:
                out.write(" ".join(f"__label__{number[label]}" for label in labels))
                out.write(f" {text}\n")
        model = fasttext.train_supervised(
            input=str(file), seed=seed, thread=os.cpu_count() or 1, verbose=0, **options
        )
        model.save_model(str(file))
        megabytes = file.stat().st_size / 1e6

    # `model.predict` on one text fails under numpy 2 in some builds; on a list it never did.
    def scores(texts: Sequence[str]) -> np.ndarray:
        table = np.zeros((len(texts), len(number)), dtype=np.float32)
        top = -1 if task.multi_label else 1
        for row, names, values in zip(table, *model.predict(list(texts), k=top), strict=True):
            for name, value in zip(names, values, strict=True):
                row[int(name.removeprefix("__label__"))] = value
        return table

    rows = len(model.words) + model.bucket + len(number)
    return Fitted(scores, rows * model.dim, megabytes)


def fit_fasttext_defaults(task: Task, seed: int) -> Fitted:
    """Train fastText with its default settings."""
    return fit_fasttext(task, seed)


def fit_fasttext_good(task: Task, seed: int, **options: Any) -> Fitted:
    """Train with word bigrams and character 2- to 5-grams (none in long texts), 25 epochs."""
    good = {"wordNgrams": 2, "dim": 50, "epoch": 25, "lr": 0.5}
    characters = {} if task.long else {"minn": 2, "maxn": 5}
    return fit_fasttext(task, seed, **{**good, **characters, **options})


def fit_linear(task: Task, machine: Any, **options: Any) -> Fitted:
    """Fit a linear model on TF-IDF of character n-grams; multi-label: one against the rest."""
    number = {label: index for index, label in enumerate(task.labels)}
    vectorizer = TfidfVectorizer(ngram_range=(1, 5), **options)
    features = vectorizer.fit_transform(task.train[0])
    if task.multi_label:
        machine = OneVsRestClassifier(machine)
        machine.fit(features, targets(task.train[1], task.labels))
        machines = machine.estimators_
    else:
        machine.fit(features, [number[label] for (label,) in task.train[1]])
        machines = [machine]

    def scores(texts: Sequence[str]) -> np.ndarray:
        margins = machine.decision_function(vectorizer.transform(texts))
        return np.stack([-margins, margins], axis=1) if margins.ndim == 1 else margins

    size = _Megabytes()
    pickle.dump((vectorizer, machine), size, protocol=5)
    parameters = sum(one.coef_.size + one.intercept_.size for one in machines)
    return Fitted(scores, parameters, size.value)


def fit_linear_words(task: Task, seed: int) -> Fitted:
    """Fit with n-grams within words and scikit-learn's defaults."""
    return fit_linear(task, LinearSVC(random_state=seed), analyzer="char_wb")


def fit_linear_across(task: Task, seed: int) -> Fitted:
    """Fit with n-grams across words and sublinear counts, which is nearly always better."""
    machine = LinearSVC(random_state=seed)
    return fit_linear(task, machine, analyzer="char", sublinear_tf=True)


def log_count_ratio(features: sparse.csr_array, wanted: np.ndarray) -> np.ndarray:
    """Return the logarithm (F,) of each feature's share with a label over that with the rest.

    features (N, F), of counts or of ones; wanted (N,) bool. Every count is one larger than it is.
    """
    own, other = (1 + features.T @ chosen.astype(np.float64) for chosen in (wanted, ~wanted))
    ratio: np.ndarray = np.log(own / own.sum()) - np.log(other / other.sum())
    return ratio


def fit_naive_bayes(task: Task, seed: int, **options: Any) -> Fitted:
    """Fit logistic regression on n-grams times log-count ratios, one label against the rest.

    An n-gram counts once in a text. Two classes need one regression.
    """
    vectorizer = CountVectorizer(binary=True, dtype=np.float32, **options)
    features = vectorizer.fit_transform(task.train[0])
    wanted = targets(task.train[1], task.labels)
    two_sides = not task.multi_label and len(task.labels) == 2
    if two_sides:
        wanted = wanted[:, 1:]
    weights = np.empty((features.shape[1], wanted.shape[1]), dtype=np.float32)
    biases = np.empty(wanted.shape[1])
    for label, own in enumerate(wanted.T):
        ratio = log_count_ratio(features, own)
        scaled = (ratio[features.indices], features.indices, features.indptr)
        machine = LogisticRegression(solver="liblinear", random_state=seed)
        machine.fit(sparse.csr_matrix(scaled, shape=features.shape), own)
        weights[:, label], biases[label] = ratio * machine.coef_[0], machine.intercept_[0]

    def scores(texts: Sequence[str]) -> np.ndarray:
        margins = vectorizer.transform(texts) @ weights + biases
        return np.hstack([-margins, margins]) if two_sides else margins

    size = _Megabytes()
    pickle.dump((vectorizer, weights, biases), size, protocol=5)
    return Fitted(scores, weights.size + biases.size, size.value)


def fit_linear_sum(task: Task, seed: int) -> Fitted:
    """Fit two regressions with naive Bayes' ratios and a linear SVM, and add their scores."""
    parts = (
        (1 / 3, fit_naive_bayes(task, seed, token_pattern=r"\S+", ngram_range=(1, 2))),
        (1 / 3, fit_naive_bayes(task, seed, analyzer="char_wb", ngram_range=(1, 5))),
        (2, fit_linear_across(task, seed)),
    )

    def scores(texts: Sequence[str]) -> np.ndarray:
        total: np.ndarray = np.sum([share * part.scores(texts) for share, part in parts], axis=0)
        return total

    parameters, megabytes = (
        sum(getattr(part, name) for _, part in parts) for name in ("parameters", "megabytes")
    )
    return Fitted(scores, parameters, megabytes)


Fit = Callable[[Task, int], Fitted]
PEERS: dict[str, Fit] = {
    "fasttext": fit_fasttext_defaults,
    "fasttext-good": fit_fasttext_good,
    "linear-svm": fit_linear_words,
    "linear-svm-good": fit_linear_across,
    "linear-sum": fit_linear_sum,
}


def targets(labels: Sequence[Sequence[str]], known: Sequence[str]) -> np.ndarray:
    """Return an array (texts, known labels) of which labels each text has."""
    number = {label: index for index, label in enumerate(known)}
    table = np.zeros((len(labels), len(known)), dtype=bool)
    for row, names in zip(table, labels, strict=True):
        row[[number[name] for name in names if name in number]] = True
    return table


def best_thresholds(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return for each label (labels,) the threshold of the score with the best F1."""
    best = []
    for column, truth in zip(scores.T, wanted.T, strict=True):
        precision, recall, cuts = precision_recall_curve(truth, column)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best.append(cuts[np.argmax(f1[:-1])])
    return np.array(best)


def judge_multi(task: Task, fitted: Fitted, scores: np.ndarray) -> Figures:
    """Return exact matches and macro-F1 over the labels of train."""
    cuts = best_thresholds(fitted.scores(task.dev[0]), targets(task.dev[1], task.labels))
    said, wanted = scores >= cuts, targets(task.test[1], task.labels)
    macro = f1_score(wanted, said, average="macro", zero_division=0)
    return {"accuracy": float((said == wanted).all(axis=1).mean()), "macro_f1": float(macro)}


def judge_single(task: Task, scores: np.ndarray) -> Figures:
    """Return accuracy, and macro-F1 over the labels in the test set or in the predictions."""
    said = [task.labels[index] for index in scores.argmax(axis=1)]
    wanted = [label for (label,) in task.test[1]]
    macro = f1_score(wanted, said, average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(wanted, said)), "macro_f1": float(macro)}


def measure(fit: Fit, task: Task, seed: int = 0) -> Figures:
    """Train one system and measure it. Shares are of 1, times in seconds, sizes in megabytes."""
    start = time.perf_counter()
    fitted = fit(task, seed)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    scores = fitted.scores(task.test[0])
    rate = len(scores) / (time.perf_counter() - start)
    figures = judge_multi(task, fitted, scores) if task.multi_label else judge_single(task, scores)
    return figures | {
        "train_seconds": seconds,
        "texts_per_second": rate,
        "parameters": fitted.parameters,
        "megabytes": fitted.megabytes,
    }


def main() -> None:
    """Measure peers on the given files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--systems", default=",".join(PEERS), help="comma list; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--multi-label", action="store_true")
    parser.add_argument("--long", action="store_true", help="whole documents")
    given = parser.parse_args()
    task = read_task(given.train, given.test, given.dev, given.multi_label, given.long)
    for system in given.systems.split(","):
        print(
            json.dumps({"system": system, **measure(PEERS[system], task, given.seed)}), flush=True
        )


if __name__ == "__main__":
    main()
