"""Cross-entropy as an operator, on a CPU. Triton's is in `test_triton.py`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srucli.kernels.loss import cross_entropy
from srucli.training.objectives import CrossEntropy

LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.tensor([3, 0, 3, 1, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_gradients_are_those_of_torch(smoothing: float) -> None:
    ones = torch.ones(4, dtype=torch.float64)
    logits = LOGITS.clone().requires_grad_()
    own = cross_entropy(logits, TARGETS, ones, smoothing)
    torchs = nn.functional.cross_entropy(
        logits, TARGETS, label_smoothing=smoothing, reduction="none"
    )
    torch.testing.assert_close(own, torchs)
    factors = torch.arange(5.0, dtype=torch.float64)
    grads = [torch.autograd.grad((factors * each).sum(), logits) for each in (own, torchs)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_objective_of_a_cpu(smoothing: float) -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    objective = CrossEntropy(weights, smoothing)
    logits = LOGITS.float().requires_grad_()
    results = []
    for each in (
        objective.each(logits, TARGETS),
        cross_entropy(logits, TARGETS, weights, smoothing),
    ):
        results.append([each, *torch.autograd.grad(each.sum(), logits)])
    torch.testing.assert_close(*results)


def test_the_operator_is_registered_right() -> None:
    given = LOGITS.float().requires_grad_(), TARGETS, torch.ones(4), 0.1, "auto"
    torch.library.opcheck(torch.ops.srucli.cross_entropy.default, given)
