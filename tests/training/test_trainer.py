"""The trainer and its parts together: schedule, metrics, checkpoints, diagnostics, skips."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from srucli import optim
from srucli.data.loader import Position
from srucli.errors import InterruptedRun, SrucliError
from srucli.inference.forward import all_logits
from srucli.metrics import METRICS, Outcome, choose_thresholds
from srucli.model.blend import NETWORK, fit_weights
from srucli.model.encoders import Encoder
from srucli.runs.run_dir import RunDir
from srucli.training.objectives import balanced
from srucli.training.trainer import MAX_SKIPPED, Trainer
from srucli.training.validation import Validation
from tests.support import OnStep
from tests.training.small import TRAIN, Make


class StepTaken(NamedTuple):
    """An optimizer step: examples per batch, fraction of the peak rate, training mode."""

    sizes: list[int]
    rate: float
    training: bool


@pytest.fixture
def taken() -> Iterator[list[StepTaken]]:
    """Record every optimizer step."""
    steps: list[StepTaken] = []
    read: list[tuple[int, bool]] = []

    def encode(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, Encoder) and torch.is_grad_enabled():
            read.append((inputs[-1].numel() - 1, module.training))

    def step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not read:  # called by the optimizer's own step, on its base class
            return
        group = optimizer.param_groups[0]
        sizes, modes = zip(*read, strict=True)
        steps.append(StepTaken(list(sizes), float(group["lr"] / group["initial_lr"]), all(modes)))
        read.clear()

    with (
        register_module_forward_pre_hook(encode),
        register_optimizer_step_pre_hook(step),
    ):
        yield steps


def records(made: Trainer, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (made.checkpoints.run.path / name).read_text().splitlines()
    ]


# --- learning rates ----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["one-cycle", "linear", "constant"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_learning_rates_follow_the_schedule_by_examples(
    make: Make, taken: list[StepTaken], schedule: str, accumulate: int
) -> None:
    made = make(
        *(f"optim.schedule={schedule}", f"train.accumulate={accumulate}", "optim.lr=0.003"),
        *("train.batch_tokens=60", "optim.warmup=0.2"),
    )
    made.train()
    seen = np.cumsum([sum(step.sizes) for step in taken])
    wanted = [optim.lr_factor(schedule, int(texts), TRAIN * 3, 0.2) for texts in seen]
    assert seen[-1] == TRAIN * 3
    assert made.step.optimizer.param_groups[0]["initial_lr"] == 0.003
    assert [step.rate for step in taken] == pytest.approx(wanted, abs=1e-12)
    assert wanted[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-12)
    # A shift by one step would change the rates.
    assert wanted[0] != wanted[1]


def test_learning_rates_follow_the_schedule_by_steps_if_given(
    make: Make, taken: list[StepTaken]
) -> None:
    made = make("train.steps=8", "optim.warmup=0.25")
    made.train()
    wanted = [optim.lr_factor("one-cycle", step, 8, 0.25) for step in range(8)]
    assert [step.rate for step in taken] == pytest.approx(wanted, abs=1e-12)
    assert wanted[-1] == pytest.approx(0, abs=1e-12)
    assert made.loader.position.step == 8


def test_a_single_step_is_taken_at_the_peak_rate(make: Make, taken: list[StepTaken]) -> None:
    made = make("train.epochs=1", "train.batch_size=99")
    before = made.step.model.embedding.weight.clone()
    made.train()
    assert [step.rate for step in taken] == [1.0]
    assert not torch.equal(made.step.model.embedding.weight, before)


# --- accumulation ------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_loss_of_an_epoch_is_the_mean_over_its_examples(make: Make, weights: str) -> None:
    """For all sizes of batches and of the last group; weighted if classes are."""
    still = ("optim.name=sgd", "optim.lr=1e-30", "model.dropout=0", "train.subword_dropout=0")
    settings = (*still, "train.epochs=1", f"train.class_weights={weights}")
    losses = []
    for name, batches in (("a", "7"), ("b", "45"), ("c", "1")):
        made = make(*settings, f"train.batch_size={batches}", "train.accumulate=4", name=name)
        made.train()
        losses.append(records(made)[0]["train_loss"])
    store = made.loader.tokenize(0)
    logits = all_logits(made.step.model, store, made.step.device).double()
    targets = made.loader.data.targets
    counts = np.bincount(targets, minlength=3)
    of_text = TRAIN / (3 * counts[targets]) if weights == "balanced" else np.ones(TRAIN)
    logs = logits.log_softmax(dim=2).numpy()
    smooth = 0.9 * np.eye(3)[targets] + 0.1 / 3
    each = -(smooth * logs).sum(axis=2).mean(axis=0)
    assert losses == pytest.approx([(of_text * each).sum() / of_text.sum()] * 3, rel=1e-5)


def test_examples_that_were_not_trained_on_do_not_count_in_the_loss(make: Make) -> None:
    """These are the examples of skipped steps, and those after the last step."""
    still = ("optim.name=sgd", "optim.lr=1e-30", "model.dropout=0", "train.subword_dropout=0")
    whole, cut, skipping = (
        make(*still, "train.batch_size=5", *more, dev=False, name=name)
        for name, more in (
            ("whole", ["train.epochs=1"]),
            ("cut", ["train.steps=3"]),
            ("skipping", ["train.epochs=1"]),
        )
    )
    spoil(skipping, lambda step: step % 3 == 0)
    for made in (whole, cut, skipping):
        made.train()
    first = records(whole)[0]["train_loss"]
    assert 0.9 < first < 1.3
    for made in (cut, skipping):
        assert records(made)[0]["train_loss"] == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize(("accumulate", "sizes"), [(2, [2, 2, 2]), (4, [4, 2]), (9, [6])])
def test_the_position_counts_steps_examples_and_tokens(
    make: Make, taken: list[StepTaken], accumulate: int, sizes: list[int]
) -> None:
    """An epoch has six batches; its last group may be smaller."""
    made = make(f"train.accumulate={accumulate}", "train.subword_dropout=0", "train.epochs=2")
    made.train()
    assert [len(step.sizes) for step in taken] == sizes * 2
    done = made.loader.position
    pieces = len(made.loader.tokenize(0).ids)
    assert (done.step, done.texts, done.pieces) == (2 * len(sizes), 2 * TRAIN, 2 * pieces)
    assert (done.epoch, done.batches, done.taken) == (2, 0, 0)


# --- epochs, records, callbacks ----------------------------------------------------------------


def test_on_epoch_gets_the_number_and_the_metrics_of_each_epoch(make: Make) -> None:
    seen: list[tuple[int, Mapping[str, float]]] = []
    made = make()
    made.train(lambda epoch, metrics: seen.append((epoch, dict(metrics))))
    rows = records(made)
    assert [epoch for epoch, _ in seen] == [row["epoch"] for row in rows] == [1, 2, 3]
    assert [metrics for _, metrics in seen] == [row["dev"] for row in rows]
    assert [row["step"] for row in rows] == [6, 12, 18]
    assert rows[-1]["lr"] == pytest.approx(0, abs=1e-12)
    assert rows[0]["lr"] > 0


def test_an_epoch_that_ends_early_is_recorded(make: Make) -> None:
    seen: list[int] = []
    made = make("train.steps=8")
    made.train(lambda epoch, metrics: seen.append(epoch))
    assert seen == [1, 2]
    assert [row["step"] for row in records(made)] == [6, 8]
    assert made.checkpoints.run.state("last")["epoch"] == 1
    assert made.checkpoints.run.state("last")["finished"] is True


def test_steps_are_in_training_mode_and_evaluations_are_not(
    make: Make, taken: list[StepTaken], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[bool] = []
    used: list[bool] = []
    real, real_set_mode = all_logits, optim.set_mode

    def logits(model: Any, *rest: Any) -> Tensor:
        found = real(model, *rest)
        modes.append(model.training)
        return found

    def set_mode(optimizer: Any, *, training: bool) -> None:
        used.append(training)
        real_set_mode(optimizer, training=training)

    monkeypatch.setattr("srucli.training.validation.all_logits", logits)
    monkeypatch.setattr(optim, "set_mode", set_mode)
    made = make("model.dropout=0.5", "train.epochs=2")
    made.train()
    assert all(step.training for step in taken)
    assert modes == [False, False]
    # The weights for evaluation are the ones that are evaluated and saved.
    assert used == [True, False, True, False]


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree"])
def test_averaged_weights_are_evaluated_and_saved(make: Make, name: str) -> None:
    pytest.importorskip("schedulefree")
    made = make(f"optim.name=schedulefree:{name}", "train.epochs=2")
    made.train()
    saved = made.checkpoints.run.checkpoint("last").weights
    trained = {key: value.clone() for key, value in made.step.model.named_parameters()}
    for key, value in trained.items():
        assert torch.equal(saved[key], value), key
    optim.set_mode(made.step.optimizer, training=True)
    assert not torch.equal(saved["head.weight"], made.step.model.state_dict()["head.weight"])


# --- evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("several", [False, True], ids=["single-label", "multi-label"])
def test_evaluation_fits_blend_and_thresholds_and_saves_them(
    make: Make, several: bool, weights: str
) -> None:
    task = (f"data.multi_label={str(several).lower()}", f"train.class_weights={weights}")
    made = make(*task, "model.dropout=0.5", "optim.lr=0.02")
    made.train()
    assert made.validation.store is not None
    assert made.validation.data is not None
    assert made.validation.prior[0] == pytest.approx(NETWORK)
    validated = made.step.model, made.validation.store, made.step.device
    logits = all_logits(*validated, scores=made.validation.scores).double().numpy()
    targets = made.validation.data.targets
    targets = targets.astype(bool) if several else targets
    sides = None
    if several and weights == "balanced":  # not in single-label models: docs/decisions.md
        assert made.loader.data.targets.shape[1] == logits.shape[2]
        sides = balanced(made.loader.data.targets, logits.shape[2], True)
        assert sides != pytest.approx(np.ones_like(sides), abs=0.1)
    blend = fit_weights(logits, targets, several, sides, made.validation.prior)
    assert made.step.model.blend.numpy() == pytest.approx(blend, rel=1e-5)
    assert blend != pytest.approx(made.validation.prior, abs=0.01)
    saved = made.checkpoints.run.checkpoint("last")
    assert torch.equal(saved.weights["blend"], made.step.model.blend)
    mixed = np.tensordot(made.step.model.blend.double().numpy(), logits, axes=1)
    probabilities = expit(mixed) if several else softmax(mixed, axis=1)
    thresholds = choose_thresholds(probabilities, targets) if several else None
    if thresholds is not None:
        assert saved.state["thresholds"] == pytest.approx(thresholds.tolist(), abs=1e-6)
        assert made.validation.thresholds == saved.state["thresholds"]
    else:
        assert "thresholds" not in saved.state
    outcome = Outcome(probabilities, targets, thresholds, made.validation.at_least_one)
    wanted = {name: METRICS[name](outcome) for name in ("accuracy", "macro_f1", "log_loss")}
    assert records(made)[-1]["dev"] == pytest.approx(wanted, abs=1e-5)
    metric = "macro_f1" if several or weights == "balanced" else "accuracy"
    assert next(iter(records(made)[-1]["dev"])) == metric


def test_without_dev_examples_nothing_is_fitted(make: Make) -> None:
    made = make(dev=False)
    made.train()
    assert made.step.model.blend.tolist() == made.validation.prior
    assert [row["dev"] for row in records(made)] == [{}, {}, {}]
    assert (made.checkpoints.run.path / "best").read_text() == (
        made.checkpoints.run.path / "last"
    ).read_text()


# --- the best epoch ----------------------------------------------------------------------------


def test_the_checkpoint_of_the_best_epoch_is_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch is the best; after two more, early stopping ends the training."""
    values = iter([0.3, 0.7, 0.6, 0.7, 0.9])
    monkeypatch.setattr(Validation, "fit_and_evaluate", lambda self: {"accuracy": next(values)})
    made = make("train.epochs=9", "train.patience=2")
    made.train()
    assert (made.validation.best.best, made.validation.best.best_step) == (0.7, 12)
    assert [row["epoch"] for row in records(made)] == [1, 2, 3, 4]
    assert (made.checkpoints.run.path / "best").read_text() == "step-12\n"
    assert (made.checkpoints.run.path / "last").read_text() == "step-24\n"
    assert made.checkpoints.run.state("best")["epoch"] == 2
    assert made.checkpoints.run.checkpoints.names() == ["step-24", "step-12"]


def test_an_undefined_metric_is_reported_before_training(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("train.metric=micro_average_precision", "data.multi_label=true", "train.patience=1")
    assert made.validation.data is not None
    made.validation.data.targets[:] = 0
    made.train()
    ngrams, *said = capsys.readouterr().err.splitlines()
    assert ngrams.startswith("n-grams: ")
    assert said[0].startswith("micro_average_precision is undefined on these dev examples: ")
    assert not any(line.rpartition("  ")[0].endswith("*") for line in said)
    assert [row["dev"]["micro_average_precision"] for row in records(made)] == [None] * 3
    assert not (made.checkpoints.run.path / "best").exists()
    defined = make("train.metric=auc", name="defined")
    defined.train()
    assert "undefined" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "done", "spent"),
    [
        pytest.param([], {"epoch": 2}, None, id="not yet"),
        pytest.param([], {"epoch": 3}, ["--epochs"], id="epochs"),
        pytest.param(["train.steps=9"], {"step": 8, "epoch": 1}, None, id="steps not yet"),
        pytest.param(["train.steps=9"], {"step": 9}, ["train.steps"], id="steps"),
        pytest.param(["train.patience=2"], {"stale": 1}, None, id="patience not yet"),
        pytest.param(["train.patience=2"], {"stale": 2}, ["train.patience"], id="patience"),
        pytest.param(
            ["train.patience=2"],
            {"stale": 2, "epoch": 3},
            ["train.patience", "--epochs"],
            id="patience and epochs",
        ),
        pytest.param(
            ["train.patience=2", "train.steps=9"],
            {"stale": 2, "step": 6, "epoch": 1},
            ["train.patience"],
            id="patience before steps",
        ),
        pytest.param([], {"stale": 9, "epoch": 1}, None, id="no patience"),
    ],
)
def test_when_a_training_is_over_and_by_which_settings(
    make: Make, settings: list[str], done: dict[str, int], spent: list[str] | None
) -> None:
    made = make(*settings)
    made.loader.position = made.loader.position.model_copy(update=done)
    made.validation.best.stale = done.get("stale", 0)
    assert made.is_over == (spent is not None)
    assert made.spent == (spent or [])


# --- checkpoints -------------------------------------------------------------------------------


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, set[str], int]]:
    """Record step, pointers and `keep` of each saved checkpoint."""
    written: list[tuple[int, set[str], int]] = []
    real = RunDir.save

    def save(self: RunDir, step: int, weights: Any, state: Any, which: Any, *rest: Any) -> None:
        written.append((step, set(which), rest[1]))
        real(self, step, weights, state, which, *rest)

    monkeypatch.setattr(RunDir, "save", save)
    return written


Saved = list[tuple[int, set[str], int]]


def test_checkpoints_by_steps_and_how_many_are_kept(make: Make, saved: Saved) -> None:
    """Of 18 steps, every fourth and the last of each epoch (6 steps)."""
    made = make("train.save_steps=4", "train.keep_checkpoints=3", dev=False)
    made.train()
    both = {"last", "best"}
    assert saved == [
        *((4, {"last"}, 3), (6, both, 3), (8, {"last"}, 3), (12, both, 3)),
        *((16, {"last"}, 3), (18, both, 3)),
    ]
    assert made.checkpoints.run.checkpoints.names() == ["step-18", "step-16", "step-12"]


def test_checkpoints_by_minutes(
    make: Make, saved: Saved, monkeypatch: pytest.MonkeyPatch, taken: list[StepTaken]
) -> None:
    """Here a step takes a minute; a checkpoint is due more than 2 minutes after the last one."""
    monkeypatch.setattr(time, "monotonic", lambda: 60.0 * len(taken))
    made = make("train.save_minutes=2", dev=False)
    made.train()
    assert [step for step, _, _ in saved] == [3, 6, 9, 12, 15, 18]
    assert made.log.seconds == 60 * 18


def test_two_checkpoints_are_kept_by_default_and_one_at_the_end(make: Make, saved: Saved) -> None:
    made = make("train.save_steps=0", "train.save_minutes=0", dev=False)
    made.train()
    assert [(step, keep) for step, _, keep in saved] == [(6, 2), (12, 2), (18, 1)]
    assert made.checkpoints.run.checkpoints.names() == ["step-18"]
    assert made.checkpoints.run.state("last") == {"step": 18, "epoch": 3, "finished": True}


def test_an_interrupt_takes_effect_between_steps(make: Make, on_step: OnStep) -> None:
    made = make("train.accumulate=2", dev=False)

    def ask(step: int) -> None:
        made.stop.requested = step == 4

    on_step(ask)
    with pytest.raises(InterruptedRun, match="stopped at step 4, in epoch 2 of 3, and saved"):
        made.train()
    assert made.checkpoints.run.state("last") == {"step": 4, "epoch": 1, "finished": False}


# --- non-finite losses -------------------------------------------------------------------------


def spoil(made: Trainer, bad: Callable[[int], bool]) -> None:
    """Make the loss NaN in the steps (from 0) for which `bad` holds."""
    real, count = made.step.objective.losses, iter(range(10**6))

    def losses(logits: Tensor, targets: Tensor, own: Tensor | None = None) -> Tensor:
        step = next(count)
        return real(logits, targets, own) * (math.nan if bad(step) else 1.0)

    made.step.objective.losses = losses  # type: ignore[method-assign]


def test_scattered_skips_do_not_end_the_training(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make("train.epochs=10", dev=False)
    spoil(made, lambda step: step % 3 == 1)
    made.train()
    assert made.loader.position.step == 60
    assert "2 of 6 steps were skipped because of non-finite gradients" in capsys.readouterr().err
    assert math.isfinite(records(made)[-1]["train_loss"])


def test_too_many_skips_in_a_row_end_the_training(make: Make) -> None:
    made = make("train.batch_size=1", dev=False)
    spoil(made, lambda step: step >= 20)
    with pytest.raises(SrucliError, match=f"{MAX_SKIPPED} steps in a row had non-finite gradients"):
        made.train()
    assert made.loader.position.step == 40


def test_skipping_more_than_half_of_an_epoch_ends_the_training(make: Make) -> None:
    made = make(dev=False)
    spoil(made, lambda step: step in (0, 1, 3, 4))
    with pytest.raises(SrucliError, match="4 of 6 steps had non-finite gradients at step 6"):
        made.train()
    half = make(dev=False, name="half")
    spoil(half, lambda step: step in (0, 2, 4))
    half.train()


# --- diagnostics -------------------------------------------------------------------------------


def test_diagnostics_are_written_at_their_steps(make: Make) -> None:
    made = make("train.diagnose=5", dev=False)
    made.checkpoints.begin_diagnostics()
    made.train()
    first, *rows = records(made, "diagnostics.jsonl")
    assert first["optimizer"]["name"] == "adam"
    assert first["rows"] is True
    store = made.loader.tokenize(0)
    assert len(first["counts"]) == 10
    most = np.sort(np.bincount(store.ids))[::-1]
    present = (most > 0).sum()
    assert first["counts"][0] == pytest.approx(
        most[: len(np.array_split(np.arange(present), 10)[0])].mean(), abs=0.01
    )
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16]


# --- building ----------------------------------------------------------------------------------


def test_the_parts_get_their_settings(make: Make) -> None:
    made = make(
        *("train.kernel=reference", "optim.name=momentum", "optim.lr=0.5", "train.seed=4"),
        *("optim.weight_decay=0.25", "train.class_weights=balanced", "train.label_smoothing=0.2"),
    )
    assert {module.kernel for module in made.step.model.modules() if hasattr(module, "kernel")} == {
        "reference"
    }
    groups = {group["name"]: group for group in made.step.optimizer.param_groups}
    assert isinstance(made.step.optimizer, torch.optim.SGD)
    assert groups["head"]["initial_lr"] == 0.5
    assert (groups["head"]["weight_decay"], groups["embeddings"]["weight_decay"]) == (0.25, 0)
    counts = np.bincount(made.loader.data.targets, minlength=3)
    assert made.step.objective.weights.tolist() == pytest.approx(TRAIN / (3 * counts))
    assert made.step.objective.smoothing == 0.2
    assert not made.step.scaler.is_enabled()
    torch.manual_seed(4)
    again = make("train.seed=4", name="again")
    assert torch.equal(again.step.model.embedding.weight, made.step.model.embedding.weight)
    other = make("train.seed=5", name="other")
    assert not torch.equal(other.step.model.embedding.weight, made.step.model.embedding.weight)


def test_an_epoch_continues_from_a_position(make: Make, taken: list[StepTaken]) -> None:
    made = make("train.epochs=1", dev=False)
    made.loader.position = Position(batches=4, taken=32, texts=32, step=4)
    made.train()
    assert sum(sum(step.sizes) for step in taken) <= TRAIN - 4
    assert len(taken) == 2
