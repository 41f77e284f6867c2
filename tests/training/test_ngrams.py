"""The linear model of a run: what it learns from, its dev scores, and its weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from srucli.config import resolve
from srucli.data.dataset import Dataset, Split
from srucli.data.layout import NO_NAMES
from srucli.metrics import Outcome, metric_named
from srucli.model.blend import LINEAR
from srucli.model.blend import fit_weights as fitted_weights
from srucli.ngrams.linear import fit
from srucli.tokenizer.model import Tokenizer
from srucli.training import ngrams as module
from srucli.training.ngrams import Ngrams, fit_ngrams
from tests.training.small import LABELS, examples


def data(count: int, *, several: bool = False, seed: int = 0) -> Dataset:
    return Dataset.make(examples(count, LABELS, seed, several), LABELS, several, "train.tsv")


def noisy(dataset: Dataset) -> Dataset:
    """Return a dataset with a fifth of its labels changed."""
    chosen = np.random.default_rng(0).random(len(dataset)) < 0.2
    other = 1 - dataset.targets if dataset.multi_label else (dataset.targets + 1) % len(LABELS)
    shape = (-1, *[1] * (dataset.targets.ndim - 1))
    return replace(dataset, targets=np.where(chosen.reshape(shape), other, dataset.targets))


def fitted(split: tuple[Dataset, Dataset | None], tokenizer: Tokenizer, *settings: str) -> Ngrams:
    return fit_ngrams(Split(*split, NO_NAMES), tokenizer, resolve(overrides=settings).train)


def equal(one: Any, other: Any) -> bool:
    return np.array_equal(one.weights, other.weights) and np.array_equal(one.labels, other.labels)


def test_held_out_examples_are_learned_but_not_before_they_are_scored(tokenizer: Tokenizer) -> None:
    train, dev = data(60).split(0.2, 0)
    assert dev is not None
    found = fitted((train, dev), tokenizer)
    without = fit(train.texts, train.targets, len(LABELS))
    assert found.scores is not None
    np.testing.assert_array_equal(found.scores, without.scores(dev.texts, 3, multi_label=False))
    whole = fit([*train.texts, *dev.texts], np.concatenate((train.targets, dev.targets)), 3)
    assert equal(found.model, whole)


def test_a_dev_file_is_not_learned(tokenizer: Tokenizer) -> None:
    train, dev = data(60), data(20, seed=1)
    found = fitted((train, dev), tokenizer)
    assert equal(found.model, fit(train.texts, train.targets, len(LABELS)))
    assert fitted((train, None), tokenizer).scores is None


def test_class_weights_change_the_model(tokenizer: Tokenizer) -> None:
    for several in (False, True):
        train = data(60, several=several)
        one, other = (
            fitted((train, None), tokenizer, f"train.class_weights={name}")
            for name in ("none", "balanced")
        )
        assert not equal(one.model, other.model)


def test_max_tokens_is_a_limit_of_the_linear_model_too(tokenizer: Tokenizer) -> None:
    texts = ["나무 straße " * 30 + word for word in ("blau", "zwölf", "gut")]
    split = Dataset(texts, np.array([0, 1, 2]), [1, 2, 3], LABELS, "x", "0"), None
    short = fitted(split, tokenizer, "train.max_tokens=5").model
    assert np.ptp(short.weights) < 0.1
    assert equal(short, fitted(split, tokenizer, "train.max_tokens=5").model)
    assert short.vocabulary.keys.size < fitted(split, tokenizer).model.vocabulary.keys.size


@pytest.mark.parametrize("several", [False, True], ids=["single-label", "multi-label"])
def test_the_weight_of_few_examples_calibrates_new_ones(
    tokenizer: Tokenizer, several: bool
) -> None:
    """Their log loss is near the least that any weight gives."""
    found = fitted((noisy(data(200, several=several)), None), tokenizer)
    new = noisy(data(400, several=several, seed=5))
    scores = found.model.scores(new.texts, len(LABELS), multi_label=several).astype(np.float64)
    losses = {}
    for weight in (found.weight, *np.geomspace(0.1, 100, 60)):
        total = weight * scores
        p = 1 / (1 + np.exp(-total)) if several else np.exp(total)
        p = p if several else p / p.sum(axis=1, keepdims=True)
        truth = new.targets.astype(bool) if several else new.targets
        losses[weight] = metric_named("log_loss", several)(Outcome(p.astype(np.float32), truth))
    assert losses[found.weight] < min(losses.values()) * 1.15
    assert found.weight != LINEAR


def test_n_grams_that_do_not_help_leave_a_prior_to_fit_from(tokenizer: Tokenizer) -> None:
    """Distances are measured in units of the prior, so it is above 0."""
    draw = np.random.default_rng(0)
    weights = []
    for _ in range(8):
        texts = [" ".join(map(str, draw.integers(100, 300, 8))) for _ in range(300)]
        chance = Dataset(texts, draw.integers(0, 3, 300), [*range(300)], LABELS, "x", "0")
        weights.append(fitted((chance, None), tokenizer).weight)
    assert min(weights) == module.LEAST_WEIGHT
    logits = np.stack([np.eye(3) * 5, np.zeros((3, 3))])
    network, _ = fitted_weights(logits, np.arange(3), False, before=[0.2, min(weights)])
    assert network > 0.25


def test_with_enough_dev_examples_the_weight_is_the_prior(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENOUGH", 20)
    assert fitted((data(30), data(20, seed=1)), tokenizer).weight == LINEAR
    assert fitted((data(30), data(19, seed=1)), tokenizer).weight != LINEAR


def test_with_many_labels_few_scores_fit_the_weight(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def record(scores: Any, *rest: Any) -> list[float]:
        sizes.append(scores.shape)
        return fitted_weights(scores, *rest)

    monkeypatch.setattr(module, "fit_weights", record)
    fitted((data(60), None), tokenizer)
    monkeypatch.setattr(module, "MAX_SCORES", 3 * 7 + 1)
    fitted((data(60), None), tokenizer)
    assert sizes == [(1, 60, 3), (1, 7, 3)]


def test_two_examples_are_enough(tokenizer: Tokenizer) -> None:
    split = Dataset(["blau", "gut"], np.array([0, 1]), [1, 2], LABELS[:2], "x", "0"), None
    assert fitted(split, tokenizer).weight >= 0
