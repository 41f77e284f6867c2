"""Validation: what it fits, which epoch is best, and when a metric is undefined."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from srucli.data.dataset import Dataset
from srucli.errors import DataError
from srucli.inference.forward import all_logits
from srucli.metrics import METRICS, Outcome
from srucli.model.classifier import Classifier
from srucli.tokenizer.model import Tokenizer
from srucli.training.objectives import loss_function
from srucli.training.validation import Validation
from tests.training.small import DEV, LABELS, examples, quick

MakeOne = Callable[..., Validation]
NAN = math.nan


@pytest.fixture
def make_one(tokenizer: Tokenizer) -> MakeOne:
    """Return a function that makes a validation of a new model: make_one("train.metric=auc")."""

    def built(*overrides: str, dev: bool = True, seed: int = 1) -> Validation:
        config = quick(*overrides)
        several = config.data.multi_label
        data = Dataset.make(examples(DEV, LABELS[:2], seed, several), LABELS, several, "dev.tsv")
        torch.manual_seed(0)
        model = Classifier(config.model, tokenizer.vocab_size, len(LABELS))
        loss = loss_function(config.train, data.targets, len(LABELS), multi_label=several)
        limits = model.limits(config.train)
        metric, patience = config.metric, config.train.patience
        scores = np.random.default_rng(seed).normal(size=(len(data), len(LABELS)))
        given = data if dev else None, tokenizer, limits, scores.astype(np.float32)
        return Validation(metric, patience, model, loss, *given)

    return built


@pytest.mark.parametrize("several", ["false", "true"], ids=["single-label", "multi-label"])
def test_evaluation_is_repeatable_and_leaves_the_weights_unchanged(
    make_one: MakeOne, several: str
) -> None:
    made = make_one("model.dropout=0.5", "model.word_dropout=0.3", f"data.multi_label={several}")
    made.model.train()
    before = {name: weight.clone() for name, weight in made.model.named_parameters()}
    first = made.fit_and_evaluate()
    assert made.fit_and_evaluate() == first
    assert all(torch.equal(before[name], w) for name, w in made.model.named_parameters())


@pytest.mark.parametrize("several", ["false", "true"], ids=["single-label", "multi-label"])
def test_with_many_labels_few_logits_are_held_at_once(
    make_one: MakeOne, monkeypatch: pytest.MonkeyPatch, several: str
) -> None:
    """The weights are fitted to as many examples as fit; the metrics use all."""
    made = make_one(f"data.multi_label={several}")
    count, sizes = len(made.data or ()), []

    def logits(model: Classifier, *rest: Any) -> torch.Tensor:
        found = all_logits(model, *rest)
        sizes.append(found.shape[1])
        return found

    whole = made.fit_and_evaluate()
    for place in ("srucli.training.validation", "srucli.inference.forward"):
        monkeypatch.setattr(f"{place}.all_logits", logits)
    monkeypatch.setattr("srucli.inference.forward.MAX_LOGITS", 2 * len(LABELS) * (count // 2 + 1))
    part = made.fit_and_evaluate()
    assert sizes == [count // 2 + 1, count // 2 + 1, count - count // 2 - 1]
    assert part["log_loss"] == pytest.approx(whole["log_loss"], rel=0.1)


def test_too_many_dev_examples_for_so_many_labels(
    make_one: MakeOne, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srucli.metrics.outcome.MAX_CELLS", 9)
    with pytest.raises(DataError, match=r"dev\.tsv: .* labels take too much memory; at most 9"):
        make_one()


def test_without_dev_examples_every_epoch_is_the_best(make_one: MakeOne) -> None:
    made = make_one("train.patience=1", dev=False)
    assert made.fit_and_evaluate() == {}
    assert [made.improved({}, step) for step in (3, 6)] == [True, True]
    assert made.best.best_step == 6
    assert made.spent is None


# metric, its values, which of them are the best so far, epochs since the best at the end
SEQUENCES = {
    "larger": ("accuracy", [0.5, 0.4, 0.5, 0.6], [1, 0, 0, 1], 0),
    "smaller": ("log_loss", [0.9, 0.8, 0.85, 0.8], [1, 1, 0, 0], 2),
    "smaller, never negative": ("calibration_error", [0.0, 0.1, 0.2], [1, 0, 0], 2),
    "zero at first": ("macro_f1", [0.0, 0.0, 0.1], [1, 0, 1], 0),
    "undefined": ("auc", [NAN, NAN, NAN], [0, 0, 0], 0),
    "undefined at first": ("auc", [NAN, 0.5, NAN, 0.4], [0, 1, 0, 0], 1),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_which_epoch_is_best(make_one: MakeOne, name: str) -> None:
    metric, values, best, stale = SEQUENCES[name]
    made = make_one(f"train.metric={metric}")
    found = [made.improved({metric: value}, step) for step, value in enumerate(values)]
    assert found == [bool(each) for each in best]
    assert made.best.stale == stale
    steps = [step for step, each in enumerate(best) if each]
    assert made.best.best_step == (steps[-1] if steps else None)


def test_the_best_epoch_is_restored(make_one: MakeOne) -> None:
    first, second = (make_one("data.multi_label=true", "train.patience=2") for _ in range(2))
    for step, value in enumerate([0.3, 0.7, 0.6, 0.7]):
        first.improved({"macro_f1": value}, step)
    first.thresholds = [0.25, 0.5, 0.75]
    second.load_state_dict(first.state_dict())
    assert (second.best, second.thresholds) == (first.best, first.thresholds)
    assert second.spent == "train.patience"
    assert (
        second.early_stop_message() == "no better macro_f1 than 0.7000 for 2 epochs: stopping early"
    )
    assert second.restored_basis == first.basis
    second.reset_best(3, 0.7)
    assert second.best.model_dump() == {"best": 0.7, "best_step": 3, "stale": 0}
    assert second.early_stop_message() is None


def test_metrics_are_comparable_only_for_the_same_metric_and_examples(make_one: MakeOne) -> None:
    basis = make_one().basis
    assert make_one("train.metric=log_loss").basis["metric"] != basis["metric"]
    other = make_one(seed=2).basis
    assert (other["metric"], other["dev"] == basis["dev"]) == ("accuracy", False)


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"hamming_loss"}))
def test_whether_a_metric_is_defined_depends_on_the_targets_only(
    make_one: MakeOne, metric: str
) -> None:
    several = "true" if METRICS[metric].multi_label_only else "false"
    made = make_one(f"train.metric={metric}", f"data.multi_label={several}")
    assert made.data is not None
    assert made.is_defined
    draw = np.random.default_rng(0)

    def expected(targets: NDArray[Any]) -> bool:
        truth = targets.astype(bool) if several == "true" else targets
        outcome = Outcome(draw.dirichlet([1, 1, 1], len(targets)), truth)
        return not math.isnan(METRICS[metric](outcome))

    assert expected(made.data.targets)
    made.data.targets[:] = 0
    assert made.is_defined == expected(made.data.targets)


def test_the_basis_of_a_checkpoint_is_kept(make_one: MakeOne) -> None:
    first, second = make_one(), make_one()
    second.load_state_dict(first.state_dict())
    assert second.restored_basis == second.basis
    second.load_state_dict(first.state_dict() | {"judge": {"metric": "auc", "dev": "0"}})
    assert second.restored_basis == {"metric": "auc", "dev": "0"}
