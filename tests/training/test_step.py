"""Training steps: fillers are ignored, no step waits for a GPU, graphs give the same result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from srucli import optim
from srucli.config import Config, resolve
from srucli.data.batch import Batch, order, upload, uploaded
from srucli.data.store import TokenStore
from srucli.diagnostics.watch import Watch
from srucli.kernels import backends
from srucli.model.classifier import Classifier
from srucli.optim import OPTIMIZERS
from srucli.tokenizer.truncation import Limits, Tally
from srucli.training.cuda_graphs import (
    FILLERS,
    MIN_SIZE,
    CaptureError,
    Graphs,
    Inputs,
    Shape,
    rounded,
    shape_of,
)
from srucli.training.objectives import loss_function
from srucli.training.step import Step, can_be_captured

VOCABULARY, CLASSES, TEXTS = 40, 3, 20
SMALL = [
    *("model.embedding_size=12", "model.hidden=8", "model.head_hidden=8"),
    "model.bag_buckets=64",
]


def settings(*overrides: str) -> Config:
    return resolve(overrides=[*SMALL, "model.dropout=0", *overrides])


def store(config: Config, seed: int = 0) -> TokenStore:
    """Return texts of 0 to 30 tokens, with targets."""
    generator = np.random.default_rng(seed)
    offsets = np.cumsum([0, *generator.integers(0, 31, TEXTS)])
    ids = generator.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    if config.data.multi_label:
        targets: Any = generator.integers(0, 2, (TEXTS, CLASSES)).astype(np.float32)
    else:
        targets = generator.integers(0, CLASSES, TEXTS)
    return TokenStore(ids, offsets, targets)


def plain_batches(config: Config, seed: int = 0) -> list[Batch]:
    made = store(config, seed)
    return [made.batch(texts) for texts in order(made.lengths, 4, 1000, (seed,))]


def batches(config: Config, device: str = "cpu", seed: int = 0) -> list[Batch]:
    """Return batches of four texts."""
    made = plain_batches(config, seed)
    return list(upload(made, torch.device(device)))


def make_step(config: Config, device: str = "cpu") -> Step:
    torch.manual_seed(0)
    model = Classifier(config.model, VOCABULARY, CLASSES).to(device).train()
    targets = store(config).targets
    assert targets is not None
    several = config.data.multi_label
    loss = loss_function(config.train, targets, CLASSES, multi_label=several)
    return Step(config.train, config.optim, model, loss)


# --- shapes and fillers ------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_sizes_are_rounded_up_by_less_than_a_quarter(count: int) -> None:
    size = rounded(count)
    assert size == rounded(size) >= count
    assert size == MIN_SIZE or size < 1.25 * count


def test_there_are_few_sizes() -> None:
    assert len({rounded(count) for count in range(2**14)}) == 1 + 4 * 8


KINDS = [("sru", "false"), ("sru", "true"), ("bag", "false")]


@pytest.mark.parametrize(("encoder", "several"), KINDS)
def test_fillers_are_ignored(encoder: str, several: str) -> None:
    config = settings(f"model.encoder={encoder}", f"data.multi_label={several}")
    plain, padded = make_step(config), make_step(config)
    for step in (plain, padded):
        for module in step.model.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = False  # as on a GPU, which alone has fillers
    shape = Shape(4, rounded(4 * 30))
    inputs = Inputs(shape, batches(config)[0])
    for batch in [batch for seed in range(3) for batch in batches(config, seed=seed)]:
        inputs.fill(batch)
        wider = inputs.batch()
        assert wider.texts == batch.texts + FILLERS
        assert wider.tokens.numel() == shape.tokens == int(wider.offsets[-1])
        assert bool((wider.offsets.diff() >= 0).all())
        for step, given_batch in ((plain, batch), (padded, wider)):
            step([given_batch], 1.0)
    torch.testing.assert_close(padded.totals, plain.totals)
    state = plain.model.state_dict()
    for name, weight in padded.model.state_dict().items():
        torch.testing.assert_close(weight, state[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_shape_has_space_for_the_batch_and_the_fillers() -> None:
    for batch in batches(settings()):
        shape = shape_of(batch)
        assert shape.texts == batch.texts
        assert shape.tokens >= batch.tokens.numel()


@pytest.mark.parametrize("several", ["false", "true"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_accumulated_batches_equal_one_batch(several: str, weights: str) -> None:
    """With 1, 2 and 5 examples of unequal weight: a mean over all, not a mean of means."""
    config = settings(
        *("train.accumulate=3", "optim.name=sgd", "optim.lr=0.5", f"data.multi_label={several}"),
        f"train.class_weights={weights}",
    )
    parts = store(config)
    apart, once = make_step(config), make_step(config)
    cuts = np.split(np.arange(8), (1, 3))
    apart([parts.batch(texts) for texts in cuts], 1.0)
    once([parts.batch(np.arange(8))], 1.0)
    torch.testing.assert_close(apart.totals, once.totals, rtol=1e-5, atol=0)
    for one, two in zip(once.model.parameters(), apart.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("several", ["false", "true"])
def test_weighted_examples_are_repeated_ones_in_any_batches(several: str) -> None:
    """Also in accumulated batches of different sizes, one of which has no weight at all."""
    config = settings(
        *("train.accumulate=3", "optim.name=sgd", "optim.lr=0.5", f"data.multi_label={several}"),
        "train.class_weights=balanced",
    )
    parts, steps = store(config), [make_step(config) for _ in range(3)]
    parts.weights = np.array([0, 2, 1, 0, 3, 1, 1, 2], np.float32)
    weighted, apart, repeated = steps
    weighted([parts.batch(np.arange(8))], 1.0)
    cuts = np.split(np.array([3, 0, 7, 2, 5, 1, 6, 4]), (2, 5))
    apart([parts.batch(texts) for texts in cuts], 1.0)
    texts = np.repeat(np.arange(8), parts.weights.astype(int))
    parts.weights = None
    repeated([parts.batch(texts)], 1.0)
    for step in (apart, repeated):
        torch.testing.assert_close(step.totals, weighted.totals, rtol=1e-5, atol=0)
        for one, two in zip(weighted.model.parameters(), step.model.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_step_of_weight_0_is_no_error() -> None:
    parts, step = store(settings()), make_step(settings("optim.name=sgd"))
    parts.weights = np.zeros(8, np.float32)
    before = [weight.clone() for weight in step.model.parameters()]
    step([parts.batch(np.arange(8))], 1.0)
    assert step.stats.skipped == 0
    assert step.stats.loss == 0
    assert all(map(torch.equal, before, step.model.parameters()))


def test_weights_go_with_their_texts_to_a_device_and_into_a_graph() -> None:
    parts = store(settings())
    parts.weights = np.arange(TEXTS, dtype=np.float32)
    batches = [parts.batch(np.array(texts)) for texts in ([5, 0, 3], [2, 7, 1])]
    cpu = torch.device("cpu")
    for moved in ([batch.to(cpu) for batch in batches], list(upload(batches, cpu))):
        assert [each.weights.tolist() for each in moved if each.weights is not None] == [
            *([5, 0, 3], [2, 7, 1])
        ]
    inputs = Inputs(Shape(3, 200), batches[0])
    for batch in batches:
        inputs.fill(batch)
        filled = inputs.batch().weights
        assert filled is not None
        assert batch.weights is not None
        assert torch.equal(filled, batch.weights)


# --- clipping, skipping, diagnostics -----------------------------------------------------------


def gradients(step: Step, batch: Batch) -> dict[str, Tensor]:
    """Return the gradients of the loss on a batch, computed without the step."""
    assert batch.targets is not None
    loss = step.objective(step.model(batch.tokens, batch.offsets), batch.targets)
    names, weights = zip(*step.model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return {name: grad for name, grad in zip(names, found, strict=True) if grad is not None}


def norm_of(tensors: Any) -> float:
    return float(torch.stack([each.norm() for each in tensors]).norm())


PLAIN = ("optim.name=sgd", "optim.lr=0.5", "train.label_smoothing=0.1")


@pytest.mark.parametrize("clip", [0.0, 0.001, 1e6])
def test_a_step_moves_weights_by_the_clipped_gradient(clip: float) -> None:
    step = make_step(settings(*PLAIN, f"optim.clip={clip}"))
    batch = batches(settings())[0]
    grads = gradients(step, batch)
    norm = norm_of(grads.values())
    assert 0.001 < norm < 1e6
    scale = clip / norm if clip == 0.001 else 1.0
    before = {name: weight.clone() for name, weight in step.model.named_parameters()}
    step([batch], 0.5)
    for name, weight in step.model.named_parameters():
        moved = before[name] - weight.detach()
        wanted = 0.5 * 0.5 * scale * grads.get(name, torch.zeros(()))
        torch.testing.assert_close(moved, wanted.expand_as(moved), rtol=1e-2, atol=1e-7, msg=name)


@pytest.mark.parametrize("clip", [0.001, 1e6, 0.0])
def test_diagnostics_read_gradients_before_they_are_clipped(clip: float) -> None:
    step = make_step(settings(*PLAIN, f"optim.clip={clip}"))
    batch = batches(settings())[0]
    norm = norm_of(gradients(step, batch).values())
    counts = np.bincount(batch.tokens, minlength=VOCABULARY)
    step.watch = Watch(step.model, step.optimizer, None, 1, counts)
    step([batch], 1.0)
    record = step.watch.pop_record()
    assert record is not None
    assert record["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert record["clipped"] == (1 if clip == 0.001 else 0)
    moved = math.hypot(*(group["update_norm"] for group in record["groups"].values()))
    assert moved == pytest.approx(0.5 * (0.001 if clip == 0.001 else norm), rel=1e-3)


def test_clipped_steps_are_counted_between_diagnostics() -> None:
    """Of the first six steps, the fifth is not recorded."""
    step = make_step(settings(*PLAIN, "optim.clip=0.001"))
    batch = batches(settings())[0]
    counts = np.bincount(batch.tokens, minlength=VOCABULARY)
    step.watch = Watch(step.model, step.optimizer, None, 100, counts)
    shares = []
    for _ in range(6):
        step([batch], 1.0)
        record = step.watch.pop_record()
        shares.append(record and record["clipped"])
    assert shares == [1, 1, 1, 1, None, 1]


def test_diagnostics_are_recorded_at_their_steps_only() -> None:
    step = make_step(settings(*PLAIN))
    step.watch = Watch(step.model, step.optimizer, None, 5, np.ones(VOCABULARY, int))
    looked = []
    for number, batch in enumerate([*batches(settings()), *batches(settings(), seed=1)], 1):
        step([batch], 1.0)
        if step.watch.pop_record():
            looked.append(number)
    assert looked == [1, 2, 3, 4, 5, 6, 8, 10]


class Spoiled(nn.Module):
    """An objective whose losses are NaN in some steps; a step calls it once."""

    def __init__(self, objective: Any, bad: set[int]) -> None:
        super().__init__()
        self.objective, self.bad, self.calls = objective, bad, 0

    def weight(self, *given: Tensor | None) -> Tensor:
        weight: Tensor = self.objective.weight(*given)
        return weight

    def losses(self, *given: Tensor | None) -> Tensor:
        self.calls += 1
        found: Tensor = self.objective.losses(*given)
        return found * (math.nan if self.calls - 1 in self.bad else 1.0)


def test_skipped_steps_are_counted_and_change_nothing() -> None:
    config = settings("optim.name=adam")
    step = make_step(config)
    step.objective = Spoiled(step.objective, {1, 2, 4})  # type: ignore[assignment]
    skipped, in_a_row, moved, texts = [], [], [], []
    for batch in [*batches(config), *batches(config, seed=1)][:7]:
        before = step.model.embedding.weight.clone()
        step([batch], 1.0)
        skipped.append(step.stats.skipped)
        in_a_row.append(step.stats.skipped_in_a_row)
        texts.append(step.stats.weight_sum)
        moved.append(not torch.equal(before, step.model.embedding.weight))
    assert skipped == [0, 1, 2, 2, 3, 3, 3]
    assert in_a_row == [0, 1, 2, 0, 1, 0, 0]
    assert texts == [4, 4, 4, 8, 8, 12, 16]
    assert moved == [True, False, False, True, False, True, True]
    assert math.isfinite(step.stats.loss)
    (steps,) = {int(state["step"]) for state in step.optimizer.state.values()}
    assert steps == 4
    step.begin_epoch()
    assert step.stats == (0, 0, 0, 0)
    assert step.stats.loss == 0


def test_skips_in_a_row_are_counted_across_epochs() -> None:
    step = make_step(settings())
    step.objective = Spoiled(step.objective, {0, 1})  # type: ignore[assignment]
    for batch in batches(settings())[:2]:
        step([batch], 1.0)
        step.begin_epoch()
    assert step.stats == (0, 0, 0, 2)


@pytest.mark.parametrize("several", ["false", "true"])
def test_the_totals_are_sums_of_losses_and_of_weights(several: str) -> None:
    config = settings(
        f"data.multi_label={several}", "train.class_weights=balanced", "optim.lr=1e-9"
    )
    step = make_step(config)
    total = weight = 0.0
    for batch in batches(config):
        assert batch.targets is not None
        logits = step.model(batch.tokens, batch.offsets)
        total += step.objective.losses(logits, batch.targets).item()
        weight += step.objective.weight(batch.targets).item()
        step([batch], 1.0)
    assert step.stats == pytest.approx((total, weight, 0, 0), rel=1e-5)
    assert step.stats.loss == pytest.approx(total / weight)


@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled")
@pytest.mark.parametrize(
    ("overrides", "captured"),
    [
        ((), True),
        (("optim.name=adagrad",), False),
        (("optim.options.bias_correction=false",), False),
        (("model.encoder=lstm",), False),
        (("model.encoder=bag",), True),
        (("train.precision=fp16",), False),
        (("train.precision=bf16",), True),
        (("train.accumulate=2",), False),
        (("train.detect_anomaly=true",), False),
        (("train.kernel=reference",), False),
    ],
)
def test_which_steps_a_cuda_graph_can_hold(
    overrides: tuple[str, ...], captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"auto": "triton"}
    monkeypatch.setattr(backends, "choose", lambda kernel, device: chosen.get(kernel, kernel))
    config = settings(*overrides)
    assert can_be_captured(config.train, config.optim, make_step(config).model) == captured


def test_the_encoder_trains_on_both_ends_of_a_long_text() -> None:
    made, step = store(settings()), make_step(settings())
    made.tally = Tally(TEXTS, limits=Limits(encoder=6))
    batch = made.batch(np.arange(TEXTS))
    assert batch.part is not None
    rows, bounds = batch.part
    whole = step.loss(replace(batch, part=None))
    ends = step.loss(replace(batch, tokens=batch.tokens[rows], offsets=bounds, part=None))
    found = step.loss(batch)
    torch.testing.assert_close(found, ends)
    assert not torch.allclose(found, whole)


class Refusing(Graphs):
    """Graphs that cannot capture any step."""

    def __init__(self) -> None:
        pass

    def run(self, batch: Batch, instead: object = None) -> None:
        raise CaptureError("operation not permitted when stream is capturing")


def test_steps_that_cannot_be_captured_are_launched_with_a_warning() -> None:
    config = settings()
    plain, refused = make_step(config), make_step(config)
    refused.graphs = Refusing()
    first, second, *_ = batches(config)
    with pytest.warns(
        UserWarning, match=r"a CUDA graph cannot hold a step \(operation not permitted"
    ):
        refused([first], 1.0)
    refused([second], 1.0)
    plain([first], 1.0)
    plain([second], 1.0)
    assert refused.stats == plain.stats


class Launching(Graphs):
    """Graphs without a GPU, which launch steps on padded batches and capture none."""

    def __init__(self, step: Step) -> None:
        self.step, self.inputs = lambda batch: step._run([batch]), {}

    def _launch(self, step: Callable[[Batch], None], inputs: Inputs) -> None:
        step(inputs.batch())


def test_a_recorded_step_has_the_fillers_of_a_replayed_one() -> None:
    """So that `--diagnose` changes no bit on a GPU."""
    config = settings()
    step, sizes = make_step(config), []
    step.graphs = Launching(step)
    step.watch = Watch(step.model, step.optimizer, None, 1, np.ones(VOCABULARY, int))
    step.model.pooling.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    given = [*batches(config), *batches(config)]
    for batch in given:
        step([batch], 1.0)
        assert step.watch.pop_record() is not None
    assert sizes == [shape_of(batch).tokens for batch in given]


# --- nothing waits -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_captured_optimizer_has_its_learning_rate_in_a_tensor(name: str) -> None:
    config = settings(f"optim.name={name}")
    if not optim.can_be_captured(config.optim):
        return
    model = nn.Linear(3, 2).to("meta")
    optimizer = optim.build(config.optim, model, captured=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    optim.set_lr(optimizer, 0.5)
    assert all(isinstance(rate, Tensor) for rate in rates)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        assert group["lr"] is rate
        assert isinstance(group["initial_lr"], float)


def test_a_learning_rate_tensor_is_set_to_a_fraction_of_the_peak() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=torch.tensor(1.0))
    optimizer.param_groups[0]["initial_lr"] = 0.25
    optim.set_lr(optimizer, 0.5)
    assert float(optimizer.param_groups[0]["lr"]) == 0.125


# --- uploads -----------------------------------------------------------------------------------


def test_uploaded_batches_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings()
    plain = plain_batches(config)
    for got, wanted in zip(batches(config), plain, strict=True):
        assert got.targets is not None
        assert wanted.targets is not None
        for one, other in zip(got.tokens, wanted.tokens, strict=True):
            assert one == other
        assert got.offsets.tolist() == wanted.offsets.tolist()
        assert got.targets.tolist() == wanted.targets.tolist()
    monkeypatch.setattr("srucli.data.batch.UPLOAD_TOKENS", 100)
    meta = list(uploaded(plain, torch.device("meta")))
    assert [batch.tokens.shape for batch in meta] == [batch.tokens.shape for batch in plain]
    assert list(uploaded(plain, torch.device("cpu"))) == plain


def test_totals_are_available_at_once_on_a_cpu() -> None:
    step = make_step(settings())
    step([batches(settings())[0]], 1.0)
    assert step.latest_stats() == step.stats
    assert step.stats.weight_sum == 4
