"""Every optimizer of the table learns, resumes to the bit and follows its equations."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from srucli import optim
from srucli.config import Config, ModelConfig, OptimConfig, build, dump
from srucli.errors import UsageError
from srucli.model.classifier import Classifier
from srucli.optim.table import OPTIMIZERS

ROOT = Path(__file__).parents[2]
VOCABULARY = 10
Array = np.ndarray[Any, np.dtype[np.float64]]


class Recurrence(nn.Module):
    """One step of an SRU: a matrix, its bias, and vectors in a 2-d tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(12, 8) * 0.3)
        self.bias = nn.Parameter(torch.zeros(12))
        self.v = nn.Parameter(torch.randn(2, 4) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, f, r = (x @ self.W.T + self.bias).chunk(3, dim=-1)
        forget = torch.sigmoid(f + self.v[0])
        return torch.sigmoid(r + self.v[1]) * (1 - forget) * u


class Tiny(nn.Module):
    """Embedding, bag, convolution, recurrence, attention and head: a parameter of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.wide = nn.EmbeddingBag(20, 4)
        self.buckets = nn.Embedding(20, 4)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.cell = Recurrence()
        self.head = nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        x = self.norm(x + self.conv(x.transpose(1, 2)).transpose(1, 2))
        wide, rows = self.wide(ids), self.buckets(ids).mean(1)
        scores: torch.Tensor = self.head(torch.cat([self.cell(x).mean(1), wide, rows], dim=1))
        return scores


IDS = torch.randint(20, (64, 6), generator=torch.Generator().manual_seed(0))
TARGET = ((IDS < 10).sum(1) > 3).long()  # whether a text has more low tokens than high ones


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def loss_of(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(IDS), TARGET)


def take_steps(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model))
        optimizer.step()


def distance(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference between two models' parameters."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def names_by_group(groups: list[dict[str, Any]], model: nn.Module) -> dict[str, list[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}


def all_options(name: str) -> dict[str, Any]:
    """Return all boolean options as true, so that the optimizer has all possible state."""
    switches = {key: True for key, o in OPTIMIZERS[name].options.items() if o.default is False}
    return switches | ({"momentum": 0.5} if "momentum" in OPTIMIZERS[name].options else {})


def test_the_table_has_the_documented_optimizers() -> None:
    documented = "sgd momentum nesterov adagrad rmsprop adam adamw adadelta adamax nadam radam"
    assert {*documented.split(), "adafactor", "muon"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_is_halved_at_the_default_learning_rate(name: str) -> None:
    """Most need 50 to 100 steps; radam, with its small first steps, under 200."""
    model = tiny()
    before = loss_of(model).item()
    optimizer = optim.build(OptimConfig(name=name), model)
    losses = [before]
    while losses[-1] >= before / 2 and len(losses) < 20:
        take_steps(optimizer, model, 10)
        losses.append(loss_of(model).item())
    assert losses[-1] < before / 2, losses


class Weights(nn.Module):
    """A matrix, and a function of it to minimize."""

    def __init__(self, start: list[list[float]], loss: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))
        self.loss = loss

    def forward(self) -> torch.Tensor:
        return self.loss(self.weight)


class SRUProblem(nn.Module):
    """A small classifier; the label is the more frequent of two tokens."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"embedding_size": 8, "hidden": 4, "layers": 1, "dropout": 0.0}
        config = ModelConfig(**sizes)
        self.model = Classifier(config, VOCABULARY, 2)
        self.tokens = torch.randint(2, (60 * 5,), generator=torch.Generator().manual_seed(1))
        self.offsets = torch.arange(0, 301, 5)
        self.targets = (self.tokens.view(60, 5).sum(1) > 2).long()

    def forward(self) -> torch.Tensor:
        return nn.functional.cross_entropy(self.model(self.tokens, self.offsets), self.targets)


def _quadratic(w: torch.Tensor) -> torch.Tensor:
    return (torch.tensor([[1.0, 10.0], [3.0, 30.0]]) * (w - 1).square()).sum()


def _rosenbrock(w: torch.Tensor) -> torch.Tensor:
    x, y = w.flatten().unbind()
    return (1 - x).square() + 100 * (y - x.square()).square()


def _logistic(w: torch.Tensor) -> torch.Tensor:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    side = torch.where(x @ torch.tensor([2.0, -1.0]) > 0.3, 1.0, -1.0)
    return nn.functional.softplus(-side * (x @ w.flatten())).mean()


# A problem, the number of steps, and the share of the first loss to reach.
PROBLEMS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "quadratic": (lambda: Weights([[3.0, -2.0], [0.0, 2.0]], _quadratic), 200, 0.01),
    "rosenbrock": (lambda: Weights([[-0.5, 1.0]], _rosenbrock), 600, 0.1),
    "logistic": (lambda: Weights([[-1.0, 1.0]], _logistic), 200, 0.3),
    "sru": (SRUProblem, 60, 0.5),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_solves_every_problem_at_some_rate(name: str, problem: str) -> None:
    """At one of seventeen learning rates around the default, the nearest first."""
    make, steps, share = PROBLEMS[problem]
    reached = []
    for power in sorted(range(-8, 9), key=abs):
        torch.manual_seed(0)
        model = make()
        config = OptimConfig(name=name, lr=OPTIMIZERS[name].lr * 10 ** (power / 2), weight_decay=0)
        optimizer = optim.build(config, model)
        first = loss = model()
        for _ in range(steps):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss = model()
            if loss < share * first:
                return
            if not loss.isfinite():
                break
        reached.append((loss / first).item())
    pytest.fail(f"shares of the first loss: {reached}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_state_resumes_to_the_bit(name: str) -> None:
    """Groups are converted to JSON and back, as in a checkpoint."""
    config = OptimConfig(name=name, options=all_options(name), decay_embeddings=True)
    model, other = tiny(), tiny(seed=1)
    optimizer = optim.build(config, model)
    take_steps(optimizer, model, 5)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
    other.load_state_dict(model.state_dict())
    resumed = optim.build(config, other)
    resumed.load_state_dict(saved)
    take_steps(optimizer, model, 5)
    take_steps(resumed, other, 5)
    assert distance(model, other) == 0.0
    groups = names_by_group(resumed.param_groups, other)
    assert groups == names_by_group(optimizer.param_groups, model)
    assert all(group["initial_lr"] == OPTIMIZERS[name].lr for group in resumed.param_groups)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_table_explains_all_state(name: str) -> None:
    model = tiny()
    optimizer = optim.build(OptimConfig(name=name, options=all_options(name)), model)
    take_steps(optimizer, model, 2)
    kept = {key for state in optimizer.state.values() for key in state}
    assert kept == set(OPTIMIZERS[name].state)


@pytest.mark.parametrize("name", [name for name, row in OPTIMIZERS.items() if row.fused])
def test_fused_steps_equal_plain_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OptimConfig(name=name, weight_decay=0.01, options=all_options(name))
    fused, plain = tiny(), tiny()
    fast = optim.build(config, fused)
    row = dataclasses.replace(OPTIMIZERS[name], fused=frozenset())
    monkeypatch.setitem(OPTIMIZERS, name, row)
    slow = optim.build(config, plain)
    assert any(group.get("fused") for group in fast.param_groups)
    assert not any(group.get("fused") for group in slow.param_groups)
    for _ in range(10):  # from equal weights each time, so that rounding does not add up
        plain.load_state_dict(fused.state_dict())
        slow.load_state_dict(_unfused(fast.state_dict()))
        take_steps(fast, fused, 1)
        take_steps(slow, plain, 1)
        assert distance(fused, plain) < 1e-6


def _unfused(state: dict[str, Any]) -> dict[str, Any]:
    state = copy.deepcopy(state)
    for group in state["param_groups"]:
        if "fused" in group:
            group["fused"] = None
    return state


# The equations, as the papers write them: from gradient g (weight decay already added where it is
# coupled), memory s, step t counted from 1 and options o to the direction that lr scales, an
# array. What memory and options hold is of many types, and so is what is computed from them.


def _sgd(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    return g


def _momentum(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    fresh = g if t == 1 else (1 - o.get("dampening", 0.0)) * g
    s["v"] = o["momentum"] * s.get("v", 0.0) + fresh
    return s["v"]


def _nesterov(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    return g + o["momentum"] * _momentum(g, s, t, o)


def _adagrad(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    s["sum"] = s.get("sum", o["initial_accumulator_value"]) + g**2
    return g / (np.sqrt(s["sum"]) + o["eps"]) / (1 + (t - 1) * o["lr_decay"])


def _rmsprop(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    alpha = o["alpha"]
    s["square"] = alpha * s.get("square", 0.0) + (1 - alpha) * g**2
    s["mean"] = alpha * s.get("mean", 0.0) + (1 - alpha) * g
    variance = s["square"] - s["mean"] ** 2 if o["centered"] else s["square"]
    s["v"] = o["momentum"] * s.get("v", 0.0) + g / (np.sqrt(variance) + o["eps"])
    return s["v"]


def _moments(g: Array, s: dict[str, Any], o: dict[str, Any]) -> tuple[Array, Array]:
    b1, b2 = o["betas"]
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return s["m"], s["v"]


def _adam(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    (m, v), (b1, b2) = _moments(g, s, o), o["betas"]
    s["top"] = np.maximum(s.get("top", 0.0), v)
    v = s["top"] if o["amsgrad"] else v
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + o["eps"])


def _adam_nobias(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    m, v = _moments(g, s, o)
    s["top"] = np.maximum(s.get("top", 0.0), v)
    return m / (np.sqrt(s["top"] if o["amsgrad"] else v) + o["eps"])


def _lion(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    b1, b2 = o["betas"]
    mean = s.get("m", 0.0)
    s["m"] = b2 * mean + (1 - b2) * g
    return np.sign(b1 * mean + (1 - b1) * g)


def _adafactor(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    """Of a matrix; `w` is the weights before the step, which torch scales by what they were."""
    beta, (least, floor) = 1 - t ** o["beta2_decay"], o["eps"]
    s["row"] = beta * s.get("row", 0.0) + (1 - beta) * (g**2).mean(1, keepdims=True)
    s["column"] = beta * s.get("column", 0.0) + (1 - beta) * (g**2).mean(0, keepdims=True)
    square = s["row"] * s["column"] / np.maximum(s["row"].mean(), least)
    update = g / np.sqrt(np.maximum(square, least**2))
    update /= max(1.0, math.sqrt((update**2).mean()) / o["d"])
    size = max(floor, math.sqrt((s["w"] ** 2).mean()))
    return update * size * min(o["lr"], 1 / math.sqrt(t)) / o["lr"]


def _muon(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    keep = o["momentum"]
    s["v"] = keep * s.get("v", 0.0) + (1 - keep) * g
    step = keep * s["v"] + (1 - keep) * g if o["nesterov"] else s["v"]
    x = step.T if step.shape[0] > step.shape[1] else step
    x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(o["ns_steps"]):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    x = x.T if step.shape[0] > step.shape[1] else x
    return x * 0.2 * math.sqrt(max(step.shape))


def _adadelta(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    rho, eps = o["rho"], o["eps"]
    s["square"] = rho * s.get("square", 0.0) + (1 - rho) * g**2
    step = np.sqrt(s.get("steps", 0.0) + eps) / np.sqrt(s["square"] + eps) * g
    s["steps"] = rho * s.get("steps", 0.0) + (1 - rho) * step**2
    return step


def _adamax(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    b1, b2 = o["betas"]
    m, _ = _moments(g, s, o)
    s["u"] = np.maximum(b2 * s.get("u", 0.0), np.abs(g) + o["eps"])
    return m / (1 - b1**t) / s["u"]


def _nadam(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    (m, v), (b1, b2) = _moments(g, s, o), o["betas"]
    now, ahead = (b1 * (1 - 0.5 * 0.96 ** (i * o["momentum_decay"])) for i in (t, t + 1))
    s["product"] = s.get("product", 1.0) * now
    mean = (1 - now) * g / (1 - s["product"]) + ahead * m / (1 - s["product"] * ahead)
    return mean / (np.sqrt(v / (1 - b2**t)) + o["eps"])


def _radam(g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    (m, v), (b1, b2) = _moments(g, s, o), o["betas"]
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    if length <= 5:
        return m / (1 - b1**t)
    rest = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return math.sqrt(rest) * m / (1 - b1**t) * math.sqrt(1 - b2**t) / (np.sqrt(v) + o["eps"])


Rule = Callable[[Array, dict[str, Any], int, dict[str, Any]], Any]
EQUATIONS: dict[str, Rule] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adam-nobias": _adam_nobias,
    "adamw": _adam,
    "adafactor": _adafactor,
    "muon": _muon,
    "lion": _lion,
    "adadelta": _adadelta,
    "adamax": _adamax,
    "nadam": _nadam,
    "radam": _radam,
}
TRAJECTORIES = [
    *[(name, {}) for name in EQUATIONS],
    ("momentum", {"momentum": 0.5, "dampening": 0.3}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("rmsprop", {"alpha": 0.9, "momentum": 0.8, "centered": True}),
    ("adam", {"betas": (0.8, 0.9), "eps": 1e-3, "amsgrad": True}),
    ("radam", {"betas": (0.8, 0.9)}),
]


DECOUPLED = {"adamw", "adafactor", "muon", "lion"}
# torch keeps nadam's mu_product in float32, loses digits of rmsprop's variance, takes adafactor's
# sums of squares from norms, and makes muon's matrices orthogonal in bfloat16.
TOLERANCES = {"nadam": 1e-6, "rmsprop": 1e-10, "adafactor": 1e-8, "muon": 1e-2}


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "options"), TRAJECTORIES)
def test_the_trajectory_follows_the_equations(
    name: str, options: dict[str, Any], decay: float, clip: float
) -> None:
    """50 steps in float64 on sum(a (w - b)^2 / 2 - cos(3 w) / 10), which is not convex."""
    start, a, b = np.random.default_rng(3).normal(size=(3, 4, 5))
    a, lr, w, memory = np.abs(a), 0.05, start.copy(), {}
    tolerance = TOLERANCES.get(name, 1e-12)
    config = OptimConfig(name=name, lr=lr, weight_decay=decay, options=options)
    o = optim.resolve(config).options | {"lr": lr}
    model = nn.Linear(5, 4, bias=False, dtype=torch.float64)
    model.weight.data = torch.from_numpy(start.copy())
    optimizer = optim.build(config, model)
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    for t in range(1, 51):
        optimizer.zero_grad()
        bowl = ta * (model.weight - tb) ** 2 / 2
        torch.autograd.backward((bowl - torch.cos(3 * model.weight) / 10).sum())
        g = a * (w - b) + 0.3 * np.sin(3 * w)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            # torch adds 1e-6 to the norm.
            g = g * min(1.0, clip / (np.linalg.norm(g) + 1e-6))
        optimizer.step()
        memory["w"] = w
        if name in DECOUPLED:
            w = w * (1 - lr * decay)
        else:
            g = g + decay * w
        w = w - lr * EQUATIONS[name](g, memory, t, o)
        np.testing.assert_allclose(
            model.weight.detach().numpy(), w, rtol=10 * tolerance, atol=tolerance
        )
    assert np.abs(w - start).max() > 5e-3


def test_muon_orthogonalises_hidden_matrices_and_adamw_moves_the_rest() -> None:
    """The matrix moves by about lr * 0.2 sqrt(12) U V^T, where the gradient is U S V^T."""
    model, twin = nn.Linear(8, 12), nn.Linear(8, 12)
    twin.load_state_dict(model.state_dict())
    gradient = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    before = model.weight.detach().clone()
    for name, net in (("muon", model), ("adamw", twin)):
        optimizer = optim.build(OptimConfig(name=name, lr=0.01, weight_decay=0.0), net)
        net.weight.grad, net.bias.grad = gradient.clone(), gradient[:, 0].clone()
        optimizer.step()
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    step = (before - model.weight.detach()) / (0.01 * 0.2 * math.sqrt(12))
    assert torch.linalg.svdvals(step).sub(1).abs().max() < 0.5
    assert nn.functional.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0) > 0.95
    assert torch.equal(model.bias, twin.bias)


def test_muon_without_hidden_matrices_is_adamw() -> None:
    model, twin = nn.Sequential(nn.Embedding(20, 2)), nn.Sequential(nn.Embedding(20, 2))
    twin.load_state_dict(model.state_dict())
    for name, net in (("muon", model), ("adamw", twin)):
        optimizer = optim.build(OptimConfig(name=name, lr=0.01), net)
        net(IDS).square().sum().backward()
        optimizer.step()
    assert distance(model, twin) == 0.0


def test_every_parameter_is_in_one_group_by_the_rule() -> None:
    model = tiny()
    groups = optim.parameter_groups(model, 0.1)
    sorted_names = names_by_group(groups, model)
    assert sorted_names == {
        "embeddings": ["table.weight", "wide.weight", "buckets.weight"],
        "matrices": ["cell.W"],
        "kernels": ["conv.weight"],
        "head": ["head.0.weight", "head.2.weight"],
        "vectors": [
            *("conv.bias", "norm.weight", "norm.bias", "cell.bias", "cell.v"),
            *("head.0.bias", "head.2.bias"),
        ],
    }
    assert [group["name"] for group in groups] == list(optim.GROUPS)


def test_groups_of_the_classifier() -> None:
    """Both of an SRU's 2-d tensors of vectors escape decay, and no weight does."""
    model = Classifier(ModelConfig(), VOCABULARY, classes=3)
    groups = names_by_group(optim.parameter_groups(model, 0.1), model)
    assert set(groups) == {"embeddings", "matrices", "head", "vectors"}
    assert groups["embeddings"] == ["embedding.weight"]
    assert groups["head"] == ["head.weight"]
    assert {name.rpartition(".")[2] for name in groups["matrices"]} == {"weight"}
    assert {name.rpartition(".")[2] for name in groups["vectors"]} == {"v", "bias"}
    assert sum(map(len, groups.values())) == len(list(model.parameters()))


def test_groups_of_torch_encoders_and_of_tied_and_frozen_weights() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 3), "table": nn.Embedding(5, 4)})
    model["attention"] = nn.MultiheadAttention(4, 2, bias=False)
    model["out"] = nn.Linear(4, 5)
    model["out"].weight = model["table"].weight
    model["out"].bias.requires_grad_(False)
    groups = names_by_group(optim.parameter_groups(model, 0.1), model)
    assert groups == {
        "embeddings": ["table.weight"],
        "matrices": [
            *("rnn.weight_ih_l0", "rnn.weight_hh_l0"),
            *("attention.in_proj_weight", "attention.out_proj.weight"),
        ],
        "vectors": ["rnn.bias_ih_l0", "rnn.bias_hh_l0"],
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("embeddings", [False, True])
def test_decay_applies_to_the_right_groups(name: str, embeddings: bool) -> None:
    config = OptimConfig(name=name, weight_decay=0.3, decay_embeddings=embeddings)
    optimizer = optim.build(config, tiny())
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay.pop("vectors") == 0.0
    assert decay.pop("embeddings") == (0.3 if embeddings else 0.0)
    assert decay == {"matrices": 0.3, "kernels": 0.3, "head": 0.3}


def test_a_resolved_configuration_survives_its_dump() -> None:
    full = Config(optim=optim.resolve(OptimConfig(name="adamw")))
    again = build(yaml.safe_load(dump(full)), "dump").optim
    assert again.options["betas"] == [0.9, 0.999]
    assert optim.resolve(again) == full.optim


def test_decay_defaults_to_the_optimizers_own() -> None:
    assert optim.resolve(OptimConfig(name="adamw")).weight_decay == 0.01
    assert optim.resolve(OptimConfig(name="adamw", weight_decay=0.0)).weight_decay == 0.0
    assert optim.resolve(OptimConfig(name="sgd")).weight_decay == 0.0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("rmsprob", {}, ["optim.name", "'rmsprob'", "did you mean 'rmsprop'?"]),
        ("zzz", {}, ["optim.name", "known: sgd, momentum"]),
        ("adam", {"beta": [0.9, 0.99]}, ["optim.options.beta:", "did you mean 'betas'?"]),
        ("adam", {"fused": True}, ["optim.options.fused", "adam has no such option"]),
        ("sgd", {"momentum": 0.9}, ["optim.options.momentum", "takes none"]),
        ("adam", {"betas": [0.9]}, ["optim.options.betas = [0.9]", "list of 2 numbers"]),
        ("adam", {"betas": [0.9, 1.0]}, ["optim.options.betas", "at least 0 and below 1"]),
        ("adam", {"betas": [0.9, True]}, ["optim.options.betas"]),
        ("adam", {"betas": 0.9}, ["optim.options.betas = 0.9"]),
        ("adam", {"eps": "small"}, ["optim.options.eps = 'small'", "a number above 0"]),
        ("adam", {"eps": 0}, ["optim.options.eps = 0", "above 0"]),
        ("adam", {"eps": math.nan}, ["optim.options.eps"]),
        ("adam", {"eps": math.inf}, ["optim.options.eps"]),
        ("adam", {"eps": 10**400}, ["optim.options.eps"]),
        ("adam", {"eps": None}, ["optim.options.eps = None"]),
        ("adam", {"amsgrad": "yes"}, ["optim.options.amsgrad = 'yes'", "true or false"]),
        ("adadelta", {"rho": 2}, ["optim.options.rho = 2", "at least 0 and below 1"]),
        ("nesterov", {"momentum": 0.0}, ["optim.options.momentum", "above 0 and below 1"]),
        ("muon", {"ns_steps": 2.5}, ["optim.options.ns_steps = 2.5", "a whole number"]),
        ("adafactor", {"beta2_decay": 0.8}, ["optim.options.beta2_decay", "below 0"]),
    ],
)
def test_wrong_names_and_options_are_refused(
    name: str, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UsageError) as error:
        optim.validate(OptimConfig(name=name, options=options))
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_pass_their_own_check_and_reach_the_optimizer(name: str) -> None:
    row = OPTIMIZERS[name]
    given = {key: _as_yaml(option.default) for key, option in row.options.items()}
    config = optim.resolve(OptimConfig(name=name, options=given))
    assert config.options == {key: option.default for key, option in row.options.items()}
    groups = optim.build(OptimConfig(name=name, lr=0.125, options=given), tiny()).param_groups
    assert {group["lr"] for group in groups} == {group["initial_lr"] for group in groups} == {0.125}
    for key, value in config.options.items():
        assert any(group.get(key) == value for group in groups), key


def _as_yaml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_an_option_changes_what_is_built() -> None:
    config = OptimConfig(name="adam", options={"betas": [0.5, 0.75], "eps": 1})
    group = optim.build(config, tiny()).param_groups[0]
    assert group["betas"] == (0.5, 0.75)
    assert group["eps"] == 1.0


def test_rows_are_described_as_data() -> None:
    rows = [optim.describe(name) for name in OPTIMIZERS]
    assert json.loads(json.dumps(rows)) == rows
    adam = optim.describe("adam")
    assert adam["options"]["betas"]["default"] == [0.9, 0.999]
    assert "1412.6980" in adam["paper"]
    with pytest.raises(UsageError, match="unknown optimizer 'tiger'"):
        optim.describe("tiger")


def test_matching() -> None:
    assert optim.matching([]) == list(OPTIMIZERS)
    assert optim.matching(["fused", "VELOCITY"]) == ["momentum", "nesterov"]
    assert "adagrad" not in optim.matching(["exponential"])
    with pytest.raises(UsageError, match=r"described by 'adagard' .did you mean 'adagrad'"):
        optim.matching(["adagard"])


# --- other packages -------------------------------------------------------------------------

FREE = "schedulefree:AdamWScheduleFree"
LION = "pytorch_optimizer:Lion"


def external(name: str) -> str:
    pytest.importorskip(name.partition(":")[0])
    return name


@pytest.mark.parametrize(("name", "rate"), [(FREE, 0.05), (LION, 0.01)])
def test_optimizers_of_other_packages_learn(name: str, rate: float) -> None:
    model = tiny()
    optimizer = optim.build(OptimConfig(name=external(name), lr=rate), model)
    optim.set_mode(optimizer, training=True)
    before = loss_of(model).item()
    take_steps(optimizer, model, 60)
    optim.set_mode(optimizer, training=False)
    assert loss_of(model).item() < before / 2


def test_lion_equals_that_of_another_package() -> None:
    own, other = tiny(), tiny()
    for name, model in (("lion", own), (external(LION), other)):
        config = OptimConfig(name=name, lr=1e-3, weight_decay=0.1)
        take_steps(optim.build(config, model), model, 10)
    assert distance(own, other) < 1e-6


def test_schedule_free_weights_are_averages_in_evaluation_only() -> None:
    model = tiny()
    optimizer = optim.build(OptimConfig(name=external(FREE)), model)
    optim.set_mode(optimizer, training=True)
    take_steps(optimizer, model, 5)
    trained = copy.deepcopy(model)
    optim.set_mode(optimizer, training=False)
    assert distance(model, trained) > 1e-4
    optim.set_mode(optimizer, training=True)
    assert distance(model, trained) < 1e-6


def test_schedule_free_needs_no_schedule() -> None:
    name = external(FREE)
    assert optim.resolve(OptimConfig(name=name)).schedule == "constant"
    assert optim.resolve(OptimConfig(name=name, schedule="cosine")).schedule == "cosine"
    assert optim.resolve(OptimConfig(name=name)).lr == 0.0025


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("os:system", {}, "no optimizers are taken from 'os'"),
        ("schedulefre:X", {}, "did you mean 'schedulefree'"),
        ("schedulefree:AdamWScheduleFre", {}, "did you mean 'AdamWScheduleFree'"),
        ("schedulefree:torch", {}, "schedulefree has no optimizer 'torch'"),
        (FREE, {"beta": 1}, "no such option .did you mean 'betas'"),
        (FREE, {"fused": True}, "no such option"),
    ],
)
def test_unknown_names_of_other_packages_are_refused(
    name: str, options: dict[str, Any], said: str
) -> None:
    pytest.importorskip("schedulefree")
    with pytest.raises(UsageError, match=said):
        optim.validate(OptimConfig(name=name, options=options))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("betas", [], "betas = (): must be a list of 2 numbers"),
        ("betas", [0.9], "betas = (0.9,): must be a list of 2 numbers"),
        ("betas", [[0.9], [0.99]], "must be a list of 2 numbers"),
        ("betas", {"a": 1}, "betas = {'a': 1}: must be a list of 2 numbers"),
        ("betas", "ab", "betas = 'ab': must be a list of 2 numbers"),
        ("betas", None, "betas = None: must be a list of 2 numbers"),
        ("betas", b"hi", "betas = b'hi': must be a list of 2 numbers"),
        ("betas", [0.9, math.nan], "must be a list of 2 numbers"),
        ("warmup_steps", [1], "warmup_steps = (1,): must be a number"),
        ("warmup_steps", True, "warmup_steps = True: must be a number"),
        ("warmup_steps", 10**400, "must be a number"),
        ("eps", math.inf, "eps = inf: must be a number"),
        ("eps", "x" * 3_000_000, "...: must be a number"),
        ("foreach", {"a": {"b": []}}, "foreach = {'a': {'b': []}}: must be true or false"),
    ],
)
def test_options_of_other_packages_with_odd_types(key: str, value: object, said: str) -> None:
    """Their constructors accept most of these, and fail in a later step."""
    pytest.importorskip("schedulefree")
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        optim.validate(OptimConfig(name=FREE, options={key: value}))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pytorch_optimizer:Lookahead", "takes no lr, so srucli cannot use it"),
        ("pytorch_optimizer:A2Grad", "has no default, so give one"),
        ("schedulefree:AdamWScheduleFreeClosure", "cannot be used here: "),
    ],
)
def test_an_unusable_optimizer_gives_the_reason(kind: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        optim.validate(OptimConfig(name=external(kind)))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srucli.optim.external.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'srucli\[schedulefree\]'"):
        optim.validate(OptimConfig(name=FREE))


def test_checking_does_not_import_torch() -> None:
    code = (
        "import sys; from srucli import optim; from srucli.config import OptimConfig\n"
        "optim.validate(OptimConfig(name='muon')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_schedules_are_those_the_configuration_allows() -> None:
    allowed = typing.get_args(OptimConfig.model_fields["schedule"].annotation)
    assert set(optim.SCHEDULES) == set(allowed)


@pytest.mark.parametrize("schedule", optim.SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("total", [1, 2, 3, 10, 101])
def test_schedules_rise_to_the_peak_and_fall_to_zero(
    schedule: str, total: int, warmup: float
) -> None:
    rates = [optim.lr_factor(schedule, step, total, warmup) for step in range(total)]
    assert all(0.0 <= rate <= 1.0 for rate in rates)
    peak = warmup * (total - 1)
    rising = [rate for step, rate in enumerate(rates) if step < peak]
    falling = [rate for step, rate in enumerate(rates) if step >= peak]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert not rising or rising[0] == pytest.approx(1 / 25)
    if total == 1:
        assert rates == [1.0]
    elif schedule == "constant":
        assert set(falling) == {1.0}
    else:
        assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert optim.lr_factor(schedule, total + 5, total, warmup) == rates[-1]


@pytest.mark.parametrize(
    ("schedule", "step", "wanted"),
    [
        ("constant", 5, 0.04 + 0.96 * 0.25),
        ("constant", 60, 1.0),
        ("linear", 10, 0.04 + 0.96 * 0.5),
        ("linear", 20, 1.0),
        ("linear", 40, 0.75),
        ("linear", 99, 1 / 80),
        ("cosine", 10, 0.04 + 0.96 * 0.5),
        ("cosine", 40, (1 + math.cos(math.pi / 4)) / 2),
        ("one-cycle", 0, 0.04),
        ("one-cycle", 5, 0.04 + 0.96 * (1 - math.cos(math.pi / 4)) / 2),
        ("one-cycle", 10, 0.52),
        ("one-cycle", 20, 1.0),
        ("one-cycle", 60, 0.5),
        ("one-cycle", 100, 0.0),
    ],
)
def test_schedules_at_known_values(schedule: str, step: int, wanted: float) -> None:
    assert optim.lr_factor(schedule, step, 101, 0.2) == pytest.approx(wanted, abs=1e-12)


def test_one_cycle_equals_torch_except_for_the_last_value() -> None:
    """torch ends at a 10,000th of the initial rate, this schedule at 0."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, pct_start=0.21)
    peak = 0.21 * 101 - 1
    for step in range(101):
        rate = optim.lr_factor("one-cycle", step, 101, peak / 100)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=5e-6)
        optimizer.step()
        if step < 100:
            cycle.step()


def test_set_lr_scales_every_groups_peak() -> None:
    optimizer = optim.build(OptimConfig(name="muon", lr=0.5), tiny())
    optimizer.param_groups[0]["initial_lr"] = 2.0
    optim.set_lr(optimizer, 0.25)
    optim.set_lr(optimizer, 0.5)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [1.0] + [0.25] * (len(rates) - 1)


ENCODER_LAYERS = {"sru": 3, "lstm": 3, "gru": 3, "cnn": 1, "bag": 1}


@pytest.mark.parametrize("encoder", ENCODER_LAYERS)
def test_depths_of_layers(encoder: str) -> None:
    """The head and pooling are at the top, then come the layers, and the embedding is last."""
    layers = ENCODER_LAYERS[encoder]
    config = ModelConfig.model_validate(
        {"encoder": encoder, "layers": 3, "pooling": ["mean", "attention"], "head": "mlp"}
    )
    found = optim.depths(Classifier(config, VOCABULARY, classes=3))
    assert {found[name] for name in found if name.startswith(("head.", "pooling."))} == {0}
    inside = {name: depth for name, depth in found.items() if name.startswith("encoder.")}
    assert set(inside.values()) == set(range(1, layers + 1))
    assert found["embedding.weight"] == layers + 1
    if layers > 1:
        number = re.compile(r"layers\.(\d)|_l(\d)")
        for name, depth in inside.items():
            match = number.search(name)
            assert match
            assert depth == layers - int(match[1] or match[2]), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layer_decay_scales_the_rate_of_every_layer(name: str) -> None:
    """A step of the optimizer takes every weight along, at the rate of its layer."""
    torch.manual_seed(0)
    model = Classifier(ModelConfig(embedding_size=8, hidden=4), 20, classes=2)
    config = OptimConfig(name=name, lr=0.1, layer_decay=0.5)
    optimizer = optim.build(config, model)
    found, seen = optim.depths(model), 0
    names = {id(weight): key for key, weight in model.named_parameters()}
    optim.set_lr(optimizer, 0.5)
    for group in optimizer.param_groups:
        (depth,) = {found[names[id(weight)]] for weight in group["params"]}
        assert group["depth"] == depth
        assert group["initial_lr"] == 0.1 * 0.5**depth
        assert group["lr"] == 0.05 * 0.5**depth
        seen += len(group["params"])
    assert seen == len(names)
    assert optim.lr_of(optimizer) == 0.05
    undecayed = optim.build(config.model_copy(update={"layer_decay": 1.0}), model)
    plain = [{names[id(w)] for w in group["params"]} for group in undecayed.param_groups]
    kinds = {group["name"] for group in optimizer.param_groups}
    assert len(plain) == len(kinds) < len(optimizer.param_groups)


def test_layer_decay_of_sgd_shrinks_its_steps() -> None:
    torch.manual_seed(0)
    model = Classifier(ModelConfig(embedding_size=8, hidden=4), 20, classes=2).eval()
    twin = copy.deepcopy(model)
    tokens, offsets = torch.arange(12), torch.tensor([0, 5, 12])
    moves = []
    for net, decay in ((model, 1.0), (twin, 0.5)):
        before = {key: weight.detach().clone() for key, weight in net.named_parameters()}
        optimizer = optim.build(OptimConfig(name="sgd", lr=0.1, layer_decay=decay), net)
        net(tokens, offsets).square().sum().backward()
        optimizer.step()
        moves.append({key: w.detach() - before[key] for key, w in net.named_parameters()})
    for key, depth in optim.depths(model).items():
        torch.testing.assert_close(moves[1][key], moves[0][key] * 0.5**depth, rtol=1e-3, atol=1e-6)
