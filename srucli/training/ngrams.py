"""Fit the linear model of n-grams of a run, its weight beside a network, and dev scores with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.config import Config, TrainConfig
from srucli.data.dataset import MAX_SCORES, Dataset, Split
from srucli.inference.forward import Scores
from srucli.io.console import say
from srucli.model.blend import LINEAR, NETWORK, fit_weights
from srucli.ngrams.linear import NgramModel, fit, size_of_model
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.truncation import MAX_TEXT_TOKENS, Limits, read_texts
from srucli.training.objectives import class_weights

# With fewer dev examples, the weight is fitted to the scores of as many training examples, each
# from a model that is fitted without its fold.
ENOUGH, FOLDS = 500, 5
# A weight is a prior, from which distances are measured in units of it.
LEAST_WEIGHT = 1e-3


class Ngrams(NamedTuple):
    """The linear model of a run, its scores (B, C) of dev examples, and its weight's prior.

    base: the model from which it was fitted, if there is one. network: the prior of the network's
    weight beside it.
    """

    model: NgramModel
    scores: Scores
    weight: float
    base: NgramModel | None = None
    network: float = NETWORK


def fit_ngrams(
    split: Split, tokenizer: Tokenizer, settings: TrainConfig, base: NgramModel | None = None
) -> Ngrams:
    """Return the model of a run. Examples that were held out are learned too.

    Their scores come from a model without them, since those of known texts would be too good. base:
    the model that is fine-tuned, of the same labels.
    """
    start = time.perf_counter()
    train, dev, classes = split.train, split.dev, len(split.train.labels)
    most, chosen = settings.max_tokens or MAX_TEXT_TOKENS, settings.max_tokens is not None
    limits = Limits(text=most, chosen=chosen)
    texts = read_texts(train.texts, tokenizer, limits)
    dev_texts = read_texts(dev.texts if dev else [], tokenizer, limits)
    several = train.multi_label
    task = _Task(classes, several, _sides(train, settings), settings.seed, base)
    examples = _Examples.of(train, texts)
    model = _fit(examples, task)
    scores = None if dev is None else model.scores(dev_texts, classes, multi_label=several)
    weight = LINEAR
    if len(dev_texts) < ENOUGH:
        weight = _weight(examples, task)
    if dev is not None and dev.part:
        model = _fit(examples.joined(_Examples.of(dev, dev_texts)), task)
    known, seconds = model.vocabulary.keys.size, time.perf_counter() - start
    say(f"n-grams: {known:,} with {model.weights.size:,} weights, fitted in {seconds:.1f} s")
    return Ngrams(model, scores, weight, base)


def bytes_of_ngrams(config: Config, texts: Sequence[str], classes: int) -> int:
    """Return how many bytes the model of a run takes at most in a file; 0 if it has none."""
    if not config.model.ngrams:
        return 0
    return size_of_model(texts, classes, config.data.multi_label, config.train.seed)


class _Examples(NamedTuple):
    """Texts, and what is learned of them, as in `Dataset`; texts of weight 0 are left out."""

    texts: Sequence[str]
    learned: NDArray[Any]
    weights: NDArray[Any] | None

    @classmethod
    def of(cls, data: Dataset, texts: Sequence[str]) -> _Examples:
        found = cls(texts, data.learned, data.weights)
        return found if data.weights is None else found.at(np.flatnonzero(data.weights))

    def at(self, numbers: NDArray[Any]) -> _Examples:
        """Return those of the given numbers."""
        weights = None if self.weights is None else self.weights[numbers]
        texts = [self.texts[n] for n in numbers.tolist()]
        return _Examples(texts, self.learned[numbers], weights)

    def joined(self, others: _Examples) -> _Examples:
        """Return these and others of the same file."""
        pairs: Any = zip(self[1:], others[1:], strict=True)
        arrays: Any = [None if one is None else np.concatenate((one, two)) for one, two in pairs]
        return _Examples([*self.texts, *others.texts], *arrays)


class _Task(NamedTuple):
    """What is fitted; sides (2, C): the weights of examples, by whether a label is true.

    base: the model that is fine-tuned, if there is one.
    """

    classes: int
    multi_label: bool
    sides: NDArray[Any]
    seed: int
    base: NgramModel | None


def _fit(examples: _Examples, task: _Task) -> NgramModel:
    how = task.sides, task.seed, task.base
    several, counts = task.multi_label, examples.weights
    given = examples.texts, examples.learned, task.classes
    return fit(*given, *how, multi_label=several, counts=counts)


def _sides(data: Dataset, settings: TrainConfig) -> NDArray[Any]:
    """Return the weights (2, C) of examples, by whether a label is false or true."""
    classes = len(data.labels)
    own = class_weights(settings, data.learned, classes, data.multi_label)
    return own if own.ndim == 2 else np.stack((np.ones(classes), own))


def _weight(examples: _Examples, task: _Task) -> float:
    """Return the weight with which out-of-fold scores have the least log loss; it is not 0."""
    classes, multi_label, sides, seed, _ = task
    fold = np.random.default_rng(seed).permutation(len(examples.texts)) % FOLDS
    places, found = np.zeros(0, np.int64), np.zeros((0, classes), np.float32)
    enough = max(min(ENOUGH, MAX_SCORES // classes), 1)
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if len(places) >= enough or not outside.size:
            break
        model = _fit(examples.at(outside), task)
        inside = inside[: enough - len(places)]
        own = examples.at(inside).texts
        places = np.concatenate((places, inside))
        found = np.concatenate((found, model.scores(own, classes, multi_label=multi_label)))
    given = examples.learned[places]
    weights = sides if multi_label else None
    (weight,) = fit_weights(found[None].astype(np.float64), given, multi_label, weights, [LINEAR])
    return max(weight, LEAST_WEIGHT)
