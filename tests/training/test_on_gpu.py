"""Training steps on a GPU: graphs against launched kernels, reruns, resuming, memory."""

from __future__ import annotations

import gc
import math
import random
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from srucli.config import Config
from srucli.data.batch import uploaded
from srucli.diagnostics.watch import Watch
from srucli.errors import OutOfMemoryError
from srucli.inference.forward import all_logits
from srucli.model.encoders import ENCODERS
from srucli.optim import OPTIMIZERS
from srucli.runs.tensors import tensors_of
from srucli.runs.training_state import (
    from_files,
    random_states,
    set_random_states,
    to_files,
)
from srucli.training.cuda_graphs import Graphs
from srucli.training.step import Step
from tests.support import RunMain, sentences, write_tsv
from tests.training.test_step import (
    VOCABULARY,
    batches,
    make_step,
    plain_batches,
    settings,
    store,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
TEXTS = [text for _, text in sentences()]
DROPS = ("model.dropout=0.5", "model.word_dropout=0.1")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_graphs_give_the_same_result_as_steps(name: str) -> None:
    config = settings(f"optim.name={name}")
    plain, captured = make_step(config, "cuda"), make_step(config, "cuda")
    plain.graphs = None
    assert (captured.graphs is not None) == captured.captured
    for seed in (0, 0, 0, 1, 1):
        for number, batch in enumerate(batches(config, "cuda", seed)):
            for step in (plain, captured):
                step([batch], 0.1 + 0.1 * number)
    torch.testing.assert_close(captured.totals, plain.totals, rtol=1e-3, atol=1e-3)
    if isinstance(captured.graphs, Graphs):
        assert captured.graphs.graphs


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_no_step_waits_once_its_shape_is_captured(precision: str) -> None:
    config = settings(f"train.precision={precision}", "model.dropout=0.5")
    step = make_step(config, "cuda")
    for _ in range(2):
        for batch in batches(config, "cuda"):
            step([batch], 1.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in uploaded(plain_batches(config), torch.device("cuda")):
            step([batch], 1.0)
            step.latest_stats()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(step.totals).all()


def test_dropout_differs_in_each_replay() -> None:
    config = settings("model.dropout=0.5", "optim.lr=0.0001")
    step, losses = make_step(config, "cuda"), []
    batch = batches(config, "cuda")[0]
    for _ in range(6):
        step.begin_epoch()
        step([batch], 0.0)
        losses.append(step.stats.loss_sum)
    assert len(set(losses[2:])) > 1


@pytest.mark.parametrize("precision", ["float32", "fp16"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"])
def test_steps_are_clipped_and_skipped_as_on_a_cpu(name: str, precision: str) -> None:
    """The first step, which is launched, is skipped, and so are some replayed ones."""
    config = settings(f"optim.name={name}", "optim.clip=0.5", f"train.precision={precision}")
    steps = {device: make_step(config, device) for device in ("cpu", "cuda")}
    for device, step in steps.items():
        for seed in (0, 0, 0):
            for number, batch in enumerate(batches(config, device, seed)):
                weights = torch.ones(batch.texts, device=device)
                weights[0] = math.nan if number % 3 == 0 else 1.0
                step([replace(batch, weights=weights)], 0.5)
    cpu, gpu = steps["cpu"], steps["cuda"]
    assert gpu.has_finite_weights()
    torch.testing.assert_close(gpu.totals.cpu()[1:], cpu.totals[1:])
    assert cpu.stats.skipped > 2
    if precision == "float32" and name in ("sgd", "adam", "adamw"):  # others have moved meanwhile
        for one, other in zip(cpu.model.parameters(), gpu.model.parameters(), strict=True):
            torch.testing.assert_close(other.cpu(), one, rtol=1e-3, atol=1e-4)


def waiting(x: Tensor) -> None:
    """Wait for the GPU, which a captured step must not do."""
    x.sum().item()


def test_training_continues_after_a_failed_capture() -> None:
    """With dropout, because torch leaves its generator in capture mode after a failure."""
    config = settings("model.dropout=0.5")
    step = make_step(config, "cuda")
    batch = batches(config, "cuda")[0]
    waits = step.model.encoder.register_forward_pre_hook(lambda _, given: waiting(given[0]))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(4):
            step([batch], 1.0)
    (said,) = (str(each.message) for each in warned)
    assert said.startswith("kernels are launched one by one: ")
    assert step.stats.loss_sum > 0
    waits.remove()
    again = make_step(config, "cuda")
    for _ in range(4):
        again([batch], 1.0)
    assert again.captured


def test_an_older_graph_is_not_collected_during_a_capture() -> None:
    config = settings()
    (batch, *_) = batches(config, "cuda")

    def trained() -> Step:
        step = make_step(config, "cuda")
        step([batch], 1.0)
        return step

    step = trained()
    old = trained()
    old([batch], 1.0)
    del old  # in a cycle with its graphs, so the collector ends it
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        step([batch], 1.0)
    finally:
        gc.set_threshold(*thresholds)
    assert step.captured


# --- as on a CPU -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        *(f"model.encoder={encoder}" for encoder in ENCODERS),
        *("model.pooling=[attention,last]", "model.activation=tanh", "model.head=mlp"),
        *("train.class_weights=balanced", "data.multi_label=true", "train.label_smoothing=0.1"),
        *("train.accumulate=3", "train.detect_anomaly=true", "train.kernel=reference"),
    ],
)
def test_losses_are_those_of_a_cpu(setting: str) -> None:
    """To rounding, over steps that are launched and replayed; TF32 is not used."""
    config = settings(setting, "optim.lr=0.001")
    size = config.train.accumulate
    losses: dict[str, list[float]] = {"cpu": [], "cuda": []}
    for device in losses:
        step = make_step(config, device)
        for _ in range(3):
            given = batches(config, device)
            for start in range(0, len(given), size):
                step.begin_epoch()
                step(given[start : start + size], 1.0)
                losses[device].append(step.stats.loss)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=2e-3)
    first, second, _ = np.array_split(losses["cpu"], 3)
    assert first != pytest.approx(second, rel=4e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_small_dtypes_learn(encoder: str, precision: str) -> None:
    config = settings(f"model.encoder={encoder}", f"train.precision={precision}", "optim.lr=0.01")
    step = make_step(config, "cuda")
    losses = []
    for _ in range(15):
        step.begin_epoch()
        for batch in batches(config, "cuda"):
            step([batch], 1.0)
        losses.append(step.stats.loss)
    assert losses[-1] < 0.8 * losses[0]
    assert step.has_finite_weights()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_logits_are_those_of_a_cpu(encoder: str) -> None:
    """With products of weights that are computed beforehand, and without. cuDNN uses TF32."""
    model = make_step(settings(f"model.encoder={encoder}")).model.eval()
    wanted = all_logits(model, store(settings()), torch.device("cpu"))
    on_gpu = make_step(settings(f"model.encoder={encoder}"), "cuda").model.eval()
    for _ in range(2):
        found = all_logits(on_gpu, store(settings()), torch.device("cuda"))
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=2e-4)
        on_gpu.tabulate()


# --- equal to the bit --------------------------------------------------------------------------

KINDS = [
    (),
    ("train.precision=bf16",),
    ("model.pooling=[attention,last]",),
    ("model.encoder=bag", "model.pooling=[max]"),
    ("train.class_weights=balanced", "optim.name=rmsprop"),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids="; ".join)


def trained(config: Config, epochs: int = 3, watched: bool = False) -> Step:
    """Return a step that was taken on the same batches in each epoch, mostly as CUDA graphs."""
    step = make_step(config, "cuda")
    if watched:
        step.watch = Watch(step.model, step.optimizer, None, 1, np.ones(VOCABULARY, int))
    for _ in range(epochs):
        for batch in batches(config, "cuda"):
            step([batch], 0.5)
    return step


def assert_equal_weights(one: Step, other: Step) -> None:
    others = other.model.state_dict()
    differ = {
        name: float((weight - others[name]).abs().max())
        for name, weight in one.model.state_dict().items()
        if not torch.equal(weight, others[name])
    }
    assert differ == {}


@kinds
def test_reruns_are_equal(kind: tuple[str, ...]) -> None:
    config = settings(*DROPS, *kind)
    assert_equal_weights(trained(config), trained(config))


@kinds
def test_watched_steps_which_are_launched_equal_replayed_ones(kind: tuple[str, ...]) -> None:
    config = settings(*DROPS, *kind)
    replayed, launched = trained(config), trained(config, watched=True)
    assert isinstance(replayed.graphs, Graphs)
    assert isinstance(launched.graphs, Graphs)
    assert replayed.graphs.graphs
    assert not launched.graphs.graphs
    assert_equal_weights(replayed, launched)


@kinds
def test_a_resumed_training_equals_one_that_was_not_stopped(kind: tuple[str, ...]) -> None:
    """Its first steps are launched, where the other replays graphs."""
    config = settings(*DROPS, *kind)
    device = torch.device("cuda")
    whole = trained(config, 2)
    files = to_files({"step": whole.state_dict(), "random": random_states(device)})
    weights = {name: weight.clone() for name, weight in whole.model.state_dict().items()}
    for batch in batches(config, "cuda"):
        whole([batch], 0.5)

    resumed = make_step(config, "cuda")
    text, tensors = files.values()
    state = from_files(text, tensors_of(tensors, "the state"))
    resumed.model.load_state_dict(weights)
    resumed.load_state_dict(state["step"])
    set_random_states(state["random"], device)
    for batch in batches(config, "cuda"):
        resumed([batch], 0.5)
    assert_equal_weights(whole, resumed)
    assert torch.equal(whole.totals, resumed.totals)


# --- memory ------------------------------------------------------------------------------------


def test_memory_is_flat_after_the_last_new_shape() -> None:
    config = settings(*DROPS)
    step = make_step(config, "cuda")
    reserved = []
    for _ in range(6):
        for seed in range(5):
            for batch in batches(config, "cuda", seed):
                step([batch], 0.5)
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[2:] == [reserved[1]] * 4


def test_out_of_memory_names_a_setting_with_which_the_run_resumes(
    tmp_path: Path, run_main: RunMain
) -> None:
    draw = random.Random(0)
    rows = [(label, " ".join(draw.sample(TEXTS, 20))) for label, _ in sentences()[:300]]
    file, run = write_tsv(tmp_path / "train.tsv", rows), tmp_path / "run"
    words = ("train", file, "-o", run, "--epochs", 1, "--device", "cuda", "train.batch_size=300")
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties().total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**27) / total)
    try:
        failed = run_main(*words, "train.batch_tokens=65536")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert failed.code == OutOfMemoryError.exit_code
    (said,) = re.findall(r"training ran out of GPU memory.*", failed.err)
    (lower,) = re.findall(r"; step 1 had a batch of .* tokens: set (train\.batch_tokens=\d+)", said)
    resumed = run_main(*words, lower)
    assert resumed.code == 0, resumed.err


def test_a_kernel_is_compiled_once_for_all_offsets() -> None:
    """Those of a batch are often a part of a larger tensor, and begin anywhere in it."""
    from srucli.kernels import triton_pool

    states = torch.randn(8, 77, device="cuda")
    parts = torch.tensor([0, 0, 3, 8, 0, 3, 8], device="cuda")
    counts = []
    for start in (0, 1, 4):
        triton_pool.pool(states, parts[start : start + 3])
        counts.append(compiled(triton_pool._pool))
    assert counts == counts[:1] * 3


def compiled(kernel: Any) -> int:
    """Return how many versions of a kernel there are."""
    return len(kernel.device_caches[torch.cuda.current_device()][0])
