"""The recorded diagnostics are what the optimizer did: steps, strides, shares, frequencies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srucli import optim
from srucli.config import OptimConfig
from srucli.diagnostics.watch import DECILES, Record, Watch, deciles, is_recorded
from tests.support import RunMain, Tiny

ROWS, WIDTH = 40, 4


class Bag(nn.Module):
    """The mean of embeddings, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ROWS, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(self.embedding(ids).mean(1))
        return scores


def watched(
    steps: int, every: int = 1, clip: float = 0.0, **settings: Any
) -> tuple[list[Record], list[tuple[Tensor, Tensor]]]:
    """Return the records, and each step's gradient and move of the embedding."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model, config = Bag(), optim.resolve(OptimConfig(**settings))
    optimizer = optim.build(config, model)
    counts = np.zeros(ROWS, np.int64)
    counts[:30] = np.arange(30, 0, -1)
    watch = Watch(model, optimizer, optim.second_moment(config.name), every, counts)
    assert watch.counts[0] == 29
    records, moves = [], []
    for _ in range(steps):
        ids = torch.randperm(30, generator=generator).view(6, 5)
        target = torch.randint(3, (6,), generator=generator)
        torch.autograd.backward(nn.functional.cross_entropy(model(ids), target))
        recorded = watch.next()
        if recorded:
            watch.before()
        if clip:
            watch.clipped += nn.utils.clip_grad_norm_(model.parameters(), clip) > clip
        before = model.embedding.weight.detach().clone()
        optimizer.step()
        if recorded:
            watch.after()
        grad = model.embedding.weight.grad
        assert grad is not None
        whole = grad.to_dense() if grad.is_sparse else grad.clone()
        moves.append((whole, model.embedding.weight.detach() - before))
        optimizer.zero_grad()
        if record := watch.pop_record():
            records.append(record)
    return records, moves


def test_early_steps_and_multiples_are_recorded() -> None:
    recorded = [step for step in range(1, 151) if is_recorded(step, 50)]
    assert recorded == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 50, 64, 96, 100, 128, 150]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adagrad", {"lr_decay": 0.1}),
        ("rmsprop", {}),
        ("rmsprop", {"centered": True}),
        ("adam", {"betas": [0.0, 0.9]}),
        ("adam", {"betas": [0.0, 0.9], "bias_correction": False}),
        ("adam", {"betas": [0.0, 0.9], "amsgrad": True}),
        ("adam-nobias", {"betas": [0.0, 0.9]}),
        ("adamw", {"betas": [0.0, 0.9]}),
        ("radam", {"betas": [0.0, 0.9]}),
        ("adadelta", {}),
        ("adamax", {"betas": [0.0, 0.9]}),
        ("muon", {"betas": [0.0, 0.9]}),
    ],
)
def test_the_effective_step_times_the_gradient_equals_the_move(
    name: str, options: dict[str, Any]
) -> None:
    """Without momentum. adadelta's scale is read after the step that changed it."""
    settings: dict[str, Any] = {"name": name, "lr": 0.01, "weight_decay": 0.0, "options": options}
    records, moves = watched(40, **settings)
    for record, (grad, move) in list(zip(records, moves, strict=True))[5:]:
        seen = grad != 0
        wanted = (move[seen] / grad[seen]).abs().quantile(torch.tensor([0.1, 0.5, 0.9]))
        slack = 0.3 if name == "adadelta" else 1e-2
        assert record["groups"]["embeddings"]["effective"] == pytest.approx(wanted, rel=slack)


@pytest.mark.parametrize(
    ("name", "first", "twelfth"),
    [
        ("adam", 1.0, None),
        ("adam-nobias", 3.162, 6.57),
        ("rmsprop", 10.0, None),
        ("adagrad", 1, None),
    ],
)
def test_the_first_stride_agrees_with_theory(
    name: str, first: float, twelfth: float | None
) -> None:
    records, _ = watched(12, name=name)
    strides = {record["step"]: record["groups"]["head"]["stride"] for record in records}
    assert strides[1] == pytest.approx(first, rel=1e-2)
    if twelfth:
        corrected, _ = watched(12, name="adam")
        ratio = strides[12] / corrected[11]["groups"]["head"]["stride"]
        assert ratio == pytest.approx(twelfth, rel=0.5)


def test_ratios_and_norms_match_the_step() -> None:
    records, moves = watched(3, name="sgd", lr=0.5)
    for record, (grad, move) in zip(records, moves, strict=True):
        group = record["groups"]["embeddings"]
        assert group["grad_norm"] == pytest.approx(float(grad.norm()))
        assert group["update_norm"] == pytest.approx(float(move.norm()), rel=1e-4)
        assert group["ratio"] == pytest.approx(group["update_norm"] / group["weight_norm"])
        assert record["lr"] == 0.5
        assert "effective" not in group
        assert record["by_frequency"] is None


def test_clipped_steps_are_counted_since_the_last_record() -> None:
    records, _ = watched(8, every=8, clip=1e-9, name="sgd")
    assert [record["clipped"] for record in records] == [1.0] * 6
    records, _ = watched(8, every=8, clip=1e9, name="sgd")
    assert [record["clipped"] for record in records] == [0.0] * 6


def test_steps_clipped_before_a_resume_are_counted() -> None:
    model = Bag()
    optimizer = optim.build(optim.resolve(OptimConfig(name="sgd")), model)
    watches = [Watch(model, optimizer, None, 4, np.ones(ROWS, np.int64)) for _ in range(2)]
    watches[0].step, watches[0].since = 4, 2
    watches[0].clipped.fill_(1.0)
    watches[1].load_state_dict(watches[0].state_dict())
    assert watches[1].state_dict() == {"step": 4, "since": 2, "clipped": 1.0}


def test_rows_that_never_had_a_gradient_are_untouched() -> None:
    records, _ = watched(20, name="adam")
    assert records[-1]["untouched"] == {"embedding": 0.25}


def test_no_row_is_untouched_under_weight_decay() -> None:
    records, _ = watched(3, name="adamw", decay_embeddings=True)
    assert records[-1]["untouched"] == {}


def test_a_row_with_one_entry_that_moved_is_touched() -> None:
    model = Bag()
    optimizer = optim.build(optim.resolve(OptimConfig(name="sgd", weight_decay=0.0)), model)
    watch = Watch(model, optimizer, None, 1, np.ones(ROWS, np.int64))
    model.embedding.weight.grad = torch.zeros(ROWS, WIDTH)
    model.embedding.weight.grad[7, 2] = 1.0
    assert watch.next()
    watch.before()
    optimizer.step()
    watch.after()
    record = watch.pop_record()
    assert record is not None
    assert record["untouched"] == {"embedding": pytest.approx(1 - 1 / ROWS)}


@pytest.mark.parametrize("options", [{}, {"initial_accumulator_value": 0.5}])
def test_quantiles_exclude_untouched_rows(options: dict[str, Any]) -> None:
    records, moves = watched(20, name="adagrad", options=options)
    squares = torch.stack([grad.square() for grad, _ in moves]).sum(dim=0)
    wanted = squares[squares > 0].quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    assert records[-1]["groups"]["embeddings"]["accumulator"] == pytest.approx(wanted, rel=1e-3)


def test_steps_by_frequency_are_geometric_means() -> None:
    """lr / (root of the sum of squares + eps) is the step of adagrad for a unit of gradient."""
    records, moves = watched(20, name="adagrad", lr=0.01)
    squares = torch.stack([grad.square() for grad, _ in moves]).sum(dim=0).double()
    steps = (0.01 / (squares.sqrt() + 1e-10)).log()
    counts = np.r_[np.arange(30, 0, -1), np.zeros(10, np.int64)]
    wanted = [float(steps[rows][squares[rows] > 0].mean().exp()) for rows in deciles(counts)]
    assert records[-1]["by_frequency"] == pytest.approx(wanted, rel=1e-4)


def test_eps_dominates_adadelta_when_large() -> None:
    records, _ = watched(3, name="adadelta", options={"eps": 1.0})
    assert records[-1]["groups"]["head"]["eps_dominates"] == 1.0


def test_eps_dominates_adam_when_large() -> None:
    settings: dict[str, Any] = {"name": "adam", "options": {"eps": 10.0}}
    assert watched(4, **settings)[0][-1]["groups"]["head"]["eps_dominates"] == 1.0
    assert watched(4, name="adam")[0][-1]["groups"]["head"]["eps_dominates"] == 0.0


def test_rare_tokens_take_longer_steps_under_adagrad() -> None:
    torch.manual_seed(0)
    model = Bag()
    optimizer = optim.build(OptimConfig(name="adagrad"), model)
    counts = np.array([2 ** (10 - row // 4) for row in range(ROWS)])
    watch = Watch(model, optimizer, optim.second_moment("adagrad"), 200, counts)
    odds = torch.from_numpy(counts / counts.sum())
    for _ in range(200):
        ids = torch.multinomial(odds, 80, replacement=True).view(16, 5)
        torch.autograd.backward(nn.functional.cross_entropy(model(ids), ids[:, 0] % 3))
        if recorded := watch.next():
            watch.before()
        optimizer.step()
        if recorded:
            watch.after()
        optimizer.zero_grad()
    record = watch.pop_record()
    assert record is not None
    steps = record["by_frequency"]
    assert len(steps) == DECILES
    assert steps[-2] > 4 * steps[0]


def test_deciles_contain_the_tokens_that_occur() -> None:
    counts = np.array([0, 5, 1, 0, 9, *range(10, 28)])
    parts = deciles(counts)
    assert len(parts) == DECILES
    assert sorted(np.concatenate(parts)) == sorted(np.flatnonzero(counts))
    means = [counts[part].mean() for part in parts]
    assert means == sorted(means, reverse=True)
    assert sum(len(part) for part in deciles(np.array([0, 3, 1]))) == 2


def test_recording_does_not_change_the_weights(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    weights = []
    for name, flags in (("plain", ()), ("recorded", ("--diagnose", 10))):
        ended = run_main(
            *("train", tiny.train, "-o", tmp_path / name, "--epochs", 2, "--threads", 1),
            *("--encoder", "bag", "model.pooling=[mean]", "model.bag_buckets=512", *flags),
        )
        assert ended.code == 0, ended.err
        weights.append(next(tmp_path.glob(f"{name}/checkpoints/*/model.safetensors")).read_bytes())
    assert weights[0] == weights[1]
    assert not (tmp_path / "plain" / "diagnostics.jsonl").exists()
    lines = (tmp_path / "recorded" / "diagnostics.jsonl").read_text().splitlines()
    first, *records = map(json.loads, lines)
    assert first["optimizer"]["name"] == "adam"
    assert [record["step"] for record in records] == [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24]
    assert set(records[0]["untouched"]) == {"embedding", "encoder.table"}
