"""A linear classifier of n-grams: squared hinge loss, and a Gaussian prior from class counts.

Each label is a binary task against the rest, as in scikit-learn's LinearSVC, and the prior is what
differs: its variance of a weight is (|r| + FLOOR)^power, where r is the log ratio of the n-gram's
frequencies inside and outside the label. (Wang & Manning 2012, "Baselines and Bigrams", scale
features by r, which is a power of 2.) Training is dual coordinate ascent (Hsieh et al. 2008, "A
Dual Coordinate Descent Method for Large-scale Linear SVM"), for all labels at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.kernels import cpu_linear
from srucli.kernels.cpu_grams import Grams
from srucli.kernels.threads import evenly, run
from srucli.ngrams.texts import grams
from srucli.ngrams.vocabulary import Features, Vocabulary, all_grams, joined, learn

Floats = NDArray[np.float32]
# The size of a model, without its biases. An n-gram takes a key, a frequency and the number of its
# weights. A weight takes two bytes, and its label two more, or four with more than FEW_LABELS.
MAX_BYTES, BYTES_OF_ROW, BYTES_OF_BIAS, FEW_LABELS = 7_500_000, 12, 4, 2**15
# Of larger data, texts are drawn, and the commonest of their n-grams are learned. The characters
# take 1.2 GB in training, texts times labels 1.7 GB, and n-grams times labels 2 GB.
MAX_CHARACTERS, MAX_CELLS = 2**24, 2**27
# Log ratios from few texts are mostly chance, so with fewer texts per label they count less.
MANY_TEXTS = 200
POWER, COST = 1.5, 0.5
POWER_OF_FEW, COST_OF_FEW = 0.5, 1.0
FLOOR, SMOOTHING = 0.1, 1.0
PASSES = 8
SLOPE = 4.0
# A soft target becomes so many copies of its text, of which it is the share that have the label.
COPIES = 10
# The inverse of the least weight of a text, so that all numbers are finite.
MAX_SCALE = 1e30


def columns(classes: int, multi_label: bool) -> int:
    """Return K, the number of weights of an n-gram: two classes need one, unless multi-label."""
    return 1 if classes == 2 and not multi_label else classes


def _bytes_of_weight(labels: int) -> int:
    return 4 if labels <= FEW_LABELS else 6


@dataclass(frozen=True, eq=False)
class NgramModel:
    """The n-grams of a vocabulary, each with weights for some labels; a bias (K,) of each label.

    counts (R,) int32: how many weights each n-gram has; labels (E,) int32 and weights (E,): of all
    n-grams, one after the other. K is 1 for two classes.
    """

    vocabulary: Vocabulary
    counts: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: Floats
    bias: Floats

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.concatenate(([0], np.cumsum(self.counts, dtype=np.int64)))

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return self.weights.size + self.bias.size

    def table(self, keys: NDArray[np.uint32]) -> Floats:
        """Return the weights (R, K) of the n-grams of so many keys, 0 for unknown ones."""
        table = np.zeros((keys.size, self.bias.size), np.float32)
        rows = self.vocabulary.rows_of(keys)
        own = np.full(self.counts.size, -1)
        own[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        places = np.repeat(own, self.counts)
        there = places >= 0
        table[places[there], self.labels[there]] = self.weights[there]
        return table

    def with_labels(self, found: NDArray[np.int64], *, multi_label: bool) -> NgramModel:
        """Return the model for C labels, of which `found` (C,) has the numbers here, or -1.

        Weights and bias of a new label are 0. The one column of two classes is that of the second,
        and the negative of the first's.
        """
        rows = np.repeat(np.arange(self.counts.size), self.counts)
        labels, weights, bias = self.labels.astype(np.int64), self.weights, self.bias
        if bias.size == 1 and not multi_label:
            rows, labels = np.tile(rows, 2), np.repeat((0, 1), labels.size)
            weights, bias = np.concatenate((-weights, weights)), np.concatenate((-bias, bias))
        found = found[-columns(found.size, multi_label) :]
        known = np.flatnonzero(found >= 0)
        number, biases = np.full(bias.size, -1), np.zeros(found.size, np.float32)
        number[found[known]], biases[known] = known, bias[found[known]]
        labels = number[labels]
        order = np.lexsort((labels, rows))
        order = order[labels[order] >= 0]
        counts = np.bincount(rows[order], minlength=self.counts.size).astype(np.int32)
        own = labels[order].astype(np.int32), weights[order]
        return NgramModel(self.vocabulary, counts, *own, biases)

    def scores(self, texts: Sequence[str], classes: int, *, multi_label: bool) -> Floats:
        """Return the scores (B, C) of texts, to be added to a network's logits.

        They are the log odds of each label by itself, of which SLOPE times the margin is an
        estimate; of labels that exclude each other, the logarithms of their probabilities.
        """
        odds = np.float32(SLOPE) * self.margins(texts, classes)
        return odds if multi_label else -np.logaddexp(np.float32(0), -odds)

    def margins(self, texts: Sequence[str], classes: int) -> Floats:
        """Return the margins (B, C) of texts, which are near 1 for a true label, else near -1.

        Of two classes that exclude each other, they are opposite.
        """
        found = np.empty((len(texts), self.bias.size), np.float32)
        table = self._ends, self.labels, self.weights, self.bias
        for first, own in grams(texts):
            part = self.vocabulary.features(own)
            stop = first + part.stops.size
            shares = evenly(part.stops.size, part.rows.size)
            run(cpu_linear.scores, shares, *part, *table, found[first:stop])
        return found if self.bias.size == classes else np.concatenate((-found, found), axis=1)


def fit(
    texts: Sequence[str],
    targets: NDArray[Any],
    classes: int,
    weights: NDArray[Any] | None = None,
    seed: int = 0,
    base: NgramModel | None = None,
    *,
    multi_label: bool = False,
    counts: NDArray[Any] | None = None,
) -> NgramModel:
    """Fit a model to B texts and their targets: (B,) integers, or (B, C) from 0 to 1.

    weights (2, C): how much an example counts for each label where that is false, and where it is
    true; default 1. The model depends on the seed little, as the order of texts does. base: a model
    of the same labels, whose weights are the mean of the prior instead of 0, and whose n-grams are
    known too. counts (B,): how many examples a text counts as, above 0; default 1.
    """
    labels = columns(classes, multi_label)
    chosen, found, vocabulary = _read(texts, labels, seed)
    truth, copies = _truth(targets[chosen], classes, multi_label)
    sides = np.ones((2, classes)) if weights is None else np.asarray(weights)
    if labels < classes:
        truth, sides = truth[:, 1:], sides[1][:, None]
    own, start = vocabulary, None
    if base is not None:
        vocabulary = joined(base.vocabulary, own, _most(labels))
        own, start = own.aligned(vocabulary.keys), (base.table(vocabulary.keys), base.bias.copy())
    part = vocabulary.features(found)
    few = len(chosen) < MANY_TEXTS * classes
    power, cost = (POWER_OF_FEW, COST_OF_FEW) if few else (POWER, COST)
    slack = (0.5 / cost / sides).astype(np.float32)
    prior = _prior(part, own, truth, power)
    counts = None if counts is None else counts[chosen].astype(np.float64)
    if copies is not None:
        of, truth, shares = copies
        truth = truth[:, 1:] if labels < classes else truth
        part = part._replace(starts=part.starts[of], stops=part.stops[of])
        counts = shares if counts is None else shares * counts[of]
    scale = None if counts is None else (1 / counts).clip(max=MAX_SCALE).astype(np.float32)
    table, bias = _ascend(part, truth, prior, slack, scale, seed, start)
    return _largest(vocabulary, table, bias)


class _Copies(NamedTuple):
    """Copies of texts: the text (D,) of each, its labels (D, C), and its share of the text (D,)."""

    texts: NDArray[np.int64]
    truth: NDArray[np.bool_]
    shares: NDArray[np.float64]


def _truth(
    targets: NDArray[Any], classes: int, multi_label: bool
) -> tuple[NDArray[np.bool_], _Copies | None]:
    """Return the (most likely) labels of texts (B, C), and copies of them if targets are soft."""
    if targets.ndim == 1:
        return targets[:, None] == np.arange(classes), None
    targets = targets[:, :classes]
    soft = bool(((targets > 0) & (targets < 1)).any())
    if multi_label:
        return targets >= 0.5, _copies(targets) if soft else None
    truth = targets.argmax(axis=1)[:, None] == np.arange(classes)
    return truth, _copies(targets) if soft else None


def _copies(targets: NDArray[Any]) -> _Copies:
    """Return COPIES of each text (B, C), with all labels whose target is above 0.05, 0.15, ...

    So a target is the share of the copies that have the label. Equal copies are one.
    """
    counts, latest = np.full(len(targets), -1), np.zeros(len(targets), np.int64)
    texts, truth, copies, made = [], [], [], 0
    for number in range(COPIES):
        above = targets > (number + 0.5) / COPIES
        before, counts = counts, above.sum(axis=1)
        (new,) = np.nonzero(counts != before)  # the labels only get fewer
        latest[new] = np.arange(made, made + new.size)
        made += new.size
        texts.append(new)
        truth.append(above[new])
        copies.append(latest.copy())
    shares = np.bincount(np.concatenate(copies), minlength=made) / COPIES
    return _Copies(np.concatenate(texts), np.concatenate(truth), shares)


def size_of_model(texts: Sequence[str], classes: int, multi_label: bool, seed: int) -> int:
    """Return how many bytes the model of texts takes at most in a file."""
    labels = columns(classes, multi_label)
    _, _, vocabulary = _read(texts, labels, seed)
    rows = vocabulary.keys.size * (BYTES_OF_ROW + labels * _bytes_of_weight(labels))
    return min(rows, MAX_BYTES) + BYTES_OF_BIAS * labels


def _most(labels: int) -> int:
    """Return how many texts, and how many n-grams, a model of so many columns can be fitted to."""
    return max(MAX_CELLS // labels, 1)


def _read(
    texts: Sequence[str], labels: int, seed: int
) -> tuple[NDArray[np.int64], Grams, Vocabulary]:
    """Return the numbers of the texts to learn from, their n-grams, and the vocabulary."""
    most = _most(labels)
    chosen = _drawn(texts, most, seed)
    found = all_grams([texts[n] for n in chosen])
    return chosen, found, learn(found, most)


def _drawn(texts: Sequence[str], most: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of the texts to learn from: all, or `most`, of MAX_CHARACTERS."""
    lengths = np.array([len(text) for text in texts])
    order = np.random.default_rng(seed).permutation(len(texts))[:most]
    return np.sort(order[: max(int((lengths[order].cumsum() <= MAX_CHARACTERS).sum()), 1)])


def _prior(
    part: Features, vocabulary: Vocabulary, truth: NDArray[np.bool_], power: float
) -> Floats:
    """Return the variances of the weights (R, K)."""
    keys, frequencies = vocabulary.keys, vocabulary.frequencies
    counts = np.zeros((keys.size, truth.shape[1]), np.float32)
    cpu_linear.class_counts(part.rows, part.starts, part.stops, *np.nonzero(truth), counts)
    shares = np.empty((2, truth.shape[1]), np.float32)
    for block in (0, 1):
        own = (keys & 1) == block
        inside = counts.sum(axis=0, dtype=np.float64, where=own[:, None])
        outside, smooth = frequencies[own].sum() - inside, SMOOTHING * max(own.sum(), 1)
        shares[block] = np.log((inside + smooth) / (outside + smooth))
    logs = np.log(np.arange(vocabulary.texts + 1) + SMOOTHING).astype(np.float32)
    shape = np.float32(FLOOR), np.float32(power)
    parts = evenly(keys.size, counts.size)
    run(cpu_linear.variances, parts, keys, frequencies, logs, shares, *shape, counts)
    return counts


def _ascend(
    part: Features,
    truth: NDArray[np.bool_],
    prior: Floats,
    slack: Floats,
    scale: Floats | None,
    seed: int,
    start: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats]:
    """Return the weights (R, K) and the bias (K,).

    slack (2, K), scale (B,): see `cpu_linear.ascend`. start: the means of the prior, weights and
    bias, which are changed; default 0.
    """
    texts, labels = truth.shape
    table, bias = start or (np.zeros_like(prior), np.zeros(labels, np.float32))
    dual, norms = np.zeros((texts, labels), np.float32), np.empty((texts, labels), np.float32)
    run(cpu_linear.diagonal, evenly(texts, part.rows.size * labels), *part, prior, norms)
    signs = np.where(truth, np.int8(1), np.int8(-1))
    random = np.random.default_rng(seed)
    for _ in range(PASSES):
        order = random.permutation(texts)
        own = order, signs, slack, scale, prior, table, bias, dual, norms
        run(cpu_linear.ascend, evenly(labels, part.rows.size), *part, *own)
    return table, bias


def _largest(vocabulary: Vocabulary, table: Floats, bias: Floats) -> NgramModel:
    """Return the model of the largest weights of a table (R, K), at most MAX_BYTES."""
    halves = table.astype(np.float16)
    sizes = halves.view(np.uint16) & 0x7FFF  # in the order of the absolute values
    highest = sizes.max(axis=1, initial=0)
    each = _bytes_of_weight(bias.size)

    def room_left(least: int) -> int:
        rows, weights = (int(np.count_nonzero(found >= least)) for found in (highest, sizes))
        return MAX_BYTES - BYTES_OF_ROW * rows - each * weights

    least = bisect_left(range(1, 2**15), 0, key=room_left) + 1
    rows = np.flatnonzero(highest >= least)
    kept = sizes[rows] >= least
    counts, labels = kept.sum(axis=1, dtype=np.int32), np.nonzero(kept)[1].astype(np.int32)
    known = Vocabulary(vocabulary.keys[rows], vocabulary.frequencies[rows], vocabulary.texts)
    return NgramModel(known, counts, labels, halves[rows][kept].astype(np.float32), bias)
