"""Fit the linear model of n-grams of a run, and score the dev examples with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.config import TrainConfig
from srucli.data.dataset import Split
from srucli.inference.forward import Scores
from srucli.io.console import say
from srucli.ngrams.linear import NgramModel, fit
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.truncation import MAX_TEXT_TOKENS, Limits, read_texts
from srucli.training.objectives import balanced


def fit_ngrams(
    split: Split, tokenizer: Tokenizer, settings: TrainConfig
) -> tuple[NgramModel, Scores]:
    """Return the model of a run, and scores (B, C) of its dev examples, if there are any.

    The run's model also learns from examples that were held out of the training examples. Their
    scores come from a model without them, since those of known texts would be too good.
    """
    start = time.perf_counter()
    train, dev = split.train, split.dev
    classes, most = len(train.labels), settings.max_tokens or MAX_TEXT_TOKENS
    limits = Limits(text=most, chosen=settings.max_tokens is not None)
    texts, dev_texts = (
        read_texts(data.texts if data else [], tokenizer, limits) for data in (train, dev)
    )
    model = _fit(texts, train.targets, classes, settings)
    scores = None if dev is None else model.scores(dev_texts, classes)
    if dev is not None and dev.part:
        targets = np.concatenate((train.targets, dev.targets))
        model = _fit([*texts, *dev_texts], targets, classes, settings)
    known, seconds = model.vocabulary.keys.size, time.perf_counter() - start
    say(f"n-grams: {known:,} known, with a weight for each label, fitted in {seconds:.1f} s")
    return model, scores


def _fit(
    texts: Sequence[str], targets: NDArray[Any], classes: int, settings: TrainConfig
) -> NgramModel:
    weights: NDArray[Any] = np.ones((2, classes))
    if settings.class_weights == "balanced":
        own = balanced(targets, classes)
        weights = own if own.ndim == 2 else np.stack((np.ones(classes), own))
    return fit(texts, targets, classes, weights, settings.seed)
