"""A linear classifier of n-grams: squared hinge loss, and a Gaussian prior from class counts.

Each label is a binary task against the rest, as in scikit-learn's LinearSVC, and the prior is what
differs: its variance of a weight is (|r| + FLOOR)^power, where r is the log ratio of the n-gram's
frequencies inside and outside the label. (Wang & Manning 2012, "Baselines and Bigrams", scale
features by r, which is a power of 2.) Training is dual coordinate ascent (Hsieh et al. 2008, "A
Dual Coordinate Descent Method for Large-scale Linear SVM"), for all labels at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.kernels import cpu_linear
from srucli.kernels.threads import evenly, run
from srucli.ngrams.texts import grams
from srucli.ngrams.vocabulary import Features, Vocabulary, all_grams, learn

Floats = NDArray[np.float32]
# The size of a model: of its keys and frequencies, and its weights in half precision.
MAX_BYTES = 8 * 10**6
# Of larger data, texts are drawn: characters take 1.2 GB in training, and texts times labels too.
MAX_CHARACTERS, MAX_CELLS = 2**24, 2**27
# Log ratios from few texts are mostly chance, so with fewer texts per label they count less.
MANY_TEXTS = 200
POWER, COST = 1.5, 0.5
POWER_OF_FEW, COST_OF_FEW = 0.5, 1.0
FLOOR, SMOOTHING = 0.1, 1.0
PASSES = 8


def columns(classes: int, multi_label: bool) -> int:
    """Return K, the number of weights of an n-gram: two classes need one, unless multi-label."""
    return 1 if classes == 2 and not multi_label else classes


@dataclass(frozen=True, eq=False)
class NgramModel:
    """Weights (R, K) of the n-grams of a vocabulary, and a bias (K,); K is 1 for two classes."""

    vocabulary: Vocabulary
    table: Floats
    bias: Floats

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return self.table.size + self.bias.size

    def scores(self, texts: Sequence[str], classes: int) -> Floats:
        """Return the scores (B, C) of texts: margins, which are near 1 for a true label, else -1.

        Of two classes that exclude each other, the scores are opposite.
        """
        found = np.empty((len(texts), self.bias.size), np.float32)
        for first, own in grams(texts):
            part = self.vocabulary.features(own)
            stop = first + part.stops.size
            shares = evenly(part.stops.size, part.rows.size * self.bias.size)
            run(cpu_linear.scores, shares, *part, self.table, self.bias, found[first:stop])
        return found if self.bias.size == classes else np.concatenate((-found, found), axis=1)


def size_of_model(texts: Sequence[str], labels: int) -> int:
    """Return how many bytes the model of texts takes in a file, with so many columns of weights."""
    rows = learn(all_grams(texts), MAX_BYTES // _row_bytes(labels)).keys.size
    return rows * _row_bytes(labels)


def _row_bytes(labels: int) -> int:
    """Return the bytes of a key, a frequency, and weights in half precision."""
    return 8 + 2 * labels


def fit(
    texts: Sequence[str],
    targets: NDArray[Any],
    classes: int,
    weights: NDArray[Any] | None = None,
    seed: int = 0,
) -> NgramModel:
    """Fit a model to B texts and their targets: (B,) integers, or (B, C) for multi-label texts.

    weights (2, C): how much an example counts for each label where that is false, and where it is
    true; default 1. The model depends on the seed little, as the order of texts does.
    """
    most = max(MAX_CELLS // columns(classes, targets.ndim == 2), 1)
    chosen = _drawn(texts, most, seed)
    texts, targets = [texts[n] for n in chosen], targets[chosen]
    single = targets.ndim == 1
    truth = targets[:, None] == np.arange(classes) if single else targets[:, :classes] > 0
    sides = np.ones((2, classes)) if weights is None else np.asarray(weights)
    if columns(classes, not single) < classes:
        truth, sides = truth[:, 1:], sides[1][:, None]
    found = all_grams(texts)
    vocabulary = learn(found, MAX_BYTES // _row_bytes(truth.shape[1]))
    part = vocabulary.features(found)
    few = len(texts) < MANY_TEXTS * classes
    prior = _prior(part, vocabulary, truth, POWER_OF_FEW if few else POWER)
    slack = 0.5 / (COST_OF_FEW if few else COST) / sides
    table, bias = _ascend(part, truth, prior, slack.astype(np.float32), seed)
    return NgramModel(vocabulary, table.astype(np.float16).astype(np.float32), bias)


def _drawn(texts: Sequence[str], most: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of the texts to learn from: all, or `most`, of MAX_CHARACTERS."""
    lengths = np.array([len(text) for text in texts])
    order = np.random.default_rng(seed).permutation(len(texts))[:most]
    return np.sort(order[: max(int((lengths[order].cumsum() <= MAX_CHARACTERS).sum()), 1)])


def _prior(
    part: Features, vocabulary: Vocabulary, truth: NDArray[np.bool_], power: float
) -> Floats:
    """Return the variances of the weights (R, K)."""
    inside = np.zeros((vocabulary.keys.size, truth.shape[1]), np.float32)
    cpu_linear.class_counts(part.rows, part.starts, part.stops, *np.nonzero(truth), inside)
    outside = vocabulary.frequencies[:, None] - inside
    ratio = np.empty_like(inside)
    for block in (0, 1):
        own = (vocabulary.keys & 1) == block
        shares = [counts[own] + np.float32(SMOOTHING) for counts in (inside, outside)]
        one, other = (np.log(counts / counts.sum(axis=0)) for counts in shares)
        ratio[own] = one - other
    variances: Floats = (np.abs(ratio) + np.float32(FLOOR)) ** np.float32(power)
    return variances


def _ascend(
    part: Features, truth: NDArray[np.bool_], prior: Floats, slack: Floats, seed: int
) -> tuple[Floats, Floats]:
    """Return the weights (R, K) and the bias (K,); slack (2, K): see `cpu_linear.ascend`."""
    texts, labels = truth.shape
    table, bias = np.zeros_like(prior), np.zeros(labels, np.float32)
    dual, norms = np.zeros((texts, labels), np.float32), np.empty((texts, labels), np.float32)
    run(cpu_linear.diagonal, evenly(texts, part.rows.size * labels), *part, prior, norms)
    signs = np.where(truth, 1, -1).astype(np.int8)
    random = np.random.default_rng(seed)
    for _ in range(PASSES):
        order = random.permutation(texts)
        cpu_linear.ascend(*part, order, signs, slack, prior, table, bias, dual, norms)
    return table, bias
