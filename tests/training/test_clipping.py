"""The ways of clipping and skipping, which CPU and GPU take, all on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from srucli import optim
from srucli.config import OptimConfig
from srucli.optim import OPTIMIZERS
from srucli.training import clipping
from srucli.training.clipping import is_finite
from tests.poison import poison

INF, NAN = torch.inf, torch.nan
# What multiplies the gradients of each step, from a first one that is skipped on.
STEPS = (NAN, 0.01, 30.0, NAN, 1.0, INF, -INF, 0.5)
NOT_TOLD = {"adam-nobias", "momentum", "muon", "nesterov"}
FUSED = [name for name, row in OPTIMIZERS.items() if row.fused and name not in NOT_TOLD]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))


def train(model: nn.Module, name: str, way: Callable[..., Any], limit: float) -> list[Tensor]:
    """Take STEPS with gradients that depend on nothing else; return weights and counts of steps."""
    optimizer = optim.build(OptimConfig(name=name, lr=0.1), model)
    weights = list(model.parameters())
    generator = torch.Generator().manual_seed(1)
    for factor in STEPS:
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        assert weights[0].grad is not None
        weights[0].grad[0] *= factor
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        with way(optimizer, gradients, norm, limit) as taken:
            if taken:
                optimizer.step()
    assert not {"grad_scale", "found_inf"} & vars(optimizer).keys()
    counts = [state["step"] for state in optimizer.state.values() if "step" in state]
    return [*(weight.detach().clone() for weight in weights), *counts]


@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("name", FUSED)
def test_a_fused_step_is_clipped_and_skipped_as_on_a_cpu(
    name: str, limit: float, model: nn.Module
) -> None:
    start = {key: value.clone() for key, value in model.state_dict().items()}
    expected = train(model, name, clipping._reading, limit)
    model.load_state_dict(start)
    with poison():
        found = train(model, name, clipping._telling, limit)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert all(bool(is_finite(each).all()) for each in found)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_other_optimizers_step_with_a_gradient_of_zero(limit: float, model: nn.Module) -> None:
    start = {key: value.clone() for key, value in model.state_dict().items()}
    expected = train(model, "sgd", clipping._reading, limit)
    model.load_state_dict(start)
    found = train(model, "sgd", clipping._zeroing, limit)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_fused_optimizers_are_told(name: str, model: nn.Module) -> None:
    optimizer, gradients = optim.build(OptimConfig(name=name), model), [torch.ones(2).to("meta")]
    with clipping.clipped(optimizer, gradients, torch.ones((), device="meta"), 1.0) as taken:
        assert taken
        told = {"grad_scale", "found_inf"} & vars(optimizer).keys()
        assert len(told) == 2 * (name in FUSED)
