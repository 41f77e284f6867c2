"""Steps on the rows of an embedding that have a gradient, against the equations in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from srucli import optim
from srucli.config import OptimConfig
from srucli.optim.rows import values_of
from srucli.optim.table import OPTIMIZERS
from tests.optim.test_optim import EQUATIONS, Tiny, tiny

TOKENS, WIDTH, STEPS = 9, 4, 30
BY_ROWS = [name for name, row in OPTIMIZERS.items() if row.rows]


def ids(step: int) -> torch.Tensor:
    """Return tokens of a batch; some occur twice, and the last token of all never."""
    return torch.from_numpy(np.random.default_rng(step).integers(0, TOKENS - 1, 5))


def table(seed: int = 0) -> nn.Embedding:
    torch.manual_seed(seed)
    return nn.Embedding(TOKENS, WIDTH, dtype=torch.float64)


def loss_of(model: nn.Embedding, step: int) -> torch.Tensor:
    made: torch.Tensor = model(ids(step))
    return (torch.cos(3 * made) + made.square()).sum()


def test_which_optimizers_step_on_rows() -> None:
    assert BY_ROWS == ["adam", "adam-nobias"]
    model = table()
    for name in OPTIMIZERS:
        optim.build(OptimConfig(name=name), model)
        assert model.sparse is (name in BY_ROWS)
    optim.build(OptimConfig(name="adam", weight_decay=0.1), model)
    assert model.sparse
    optim.build(OptimConfig(name="adam", weight_decay=0.1, decay_embeddings=True), model)
    assert not model.sparse
    on_gpu = model.to("meta")
    optim.build(OptimConfig(name="adam"), on_gpu)
    assert not on_gpu.sparse


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", BY_ROWS)
def test_rows_with_a_gradient_follow_the_equations(name: str, amsgrad: bool) -> None:
    """Rows remember their own gradients; t counts all steps. Other rows stay as they are."""
    model, config = table(), OptimConfig(name=name, lr=0.05, options={"amsgrad": amsgrad})
    options, optimizer = optim.resolve(config).options, optim.build(config, model)
    wanted = model.weight.detach().numpy().copy()
    memories: list[dict[str, Any]] = [{} for _ in range(TOKENS)]
    for t in range(1, STEPS + 1):
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model, t))
        tokens, counts = np.unique(ids(t), return_counts=True)
        for token, count in zip(tokens, counts, strict=True):
            w = wanted[token]
            g = count * (2 * w - 3 * np.sin(3 * w))
            wanted[token] = w - 0.05 * EQUATIONS[name](g, memories[token], t, options)
        optimizer.step()
        np.testing.assert_allclose(model.weight.detach().numpy(), wanted, rtol=1e-11, atol=1e-12)
    assert torch.equal(model.weight[-1], table().weight[-1])
    state = optimizer.state[model.weight]
    assert set(state) == set(OPTIMIZERS[name].state) - (set() if amsgrad else {"max_exp_avg_sq"})
    assert not state["exp_avg_sq"][-1].any()
    assert list(optimizer.state) == [model.weight]
    assert optimizer.param_groups[0]["params"] == [model.weight]


def test_a_step_on_all_rows_is_a_dense_one() -> None:
    sparse, dense = tiny(), tiny()
    both = [(model, optim.build(OptimConfig(name="adam"), model)) for model in (sparse, dense)]
    dense.table.sparse = dense.buckets.sparse = False
    every = torch.arange(20).repeat(2).view(4, 10)
    for _ in range(5):
        for model, optimizer in both:
            optimizer.zero_grad()
            model(every).square().sum().backward()
            optimizer.step()
    for one, other in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_values_have_each_row_once_and_share_memory() -> None:
    """So the norm is that of the dense gradient, and clipping is seen by the optimizer."""
    sparse, dense = table(), table()
    sparse.sparse = True
    for model in (sparse, dense):
        for step in (1, 2):  # accumulated
            torch.autograd.backward(loss_of(model, step))
    values, whole = values_of(sparse.weight), values_of(dense.weight)
    assert len(values) == len(np.union1d(ids(1), ids(2))) < 10
    torch.testing.assert_close(values.norm(), whole.norm())
    torch._foreach_mul_([values, whole], 0.5)
    assert sparse.weight.grad is not None
    torch.testing.assert_close(sparse.weight.grad.to_dense(), dense.weight.grad)


def test_an_error_in_a_step_leaves_the_optimizer_whole() -> None:
    model = Tiny()
    optimizer = optim.build(OptimConfig(name="adam"), model)
    torch.autograd.backward(model(torch.arange(6)[None]).sum())
    before = [list(group["params"]) for group in optimizer.param_groups]
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        optimizer.step()
    assert [list(group["params"]) for group in optimizer.param_groups] == before
    assert set(optimizer.state) <= set(model.parameters())
