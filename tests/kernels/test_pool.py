"""Ragged pooling of every back end that runs here, and its gradients."""

from __future__ import annotations

import importlib
import math

import pytest
import torch

from srucli.kernels.backends import BACKENDS
from srucli.kernels.pool import ragged_pool

# Triton's is in `test_triton.py`, since its interpreter needs a process of its own.
KERNELS = [name for name in BACKENDS if name != "triton"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_pooling(kernel: str) -> None:
    h = torch.tensor([[1.0, 5.0], [3.0, -2.0], [2.0, 7.0]], requires_grad=True)
    offsets = torch.tensor([0, 2, 2, 3])
    largest, mean = ragged_pool(h, offsets, kernel)
    assert largest.tolist() == [[3.0, 5.0], [0.0, 0.0], [2.0, 7.0]]
    assert mean.tolist() == [[2.0, 1.5], [0.0, 0.0], [2.0, 7.0]]
    (grad,) = torch.autograd.grad((10 * largest + mean).sum(), h)
    assert grad.tolist() == [[0.5, 10.5], [10.5, 0.5], [11.0, 11.0]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_pooling_keeps_the_first_nan(kernel: str) -> None:
    h = torch.tensor([[1.0], [math.nan], [7.0], [math.nan], [9.0]])
    module = importlib.import_module(BACKENDS[kernel].pool)
    largest, _, argument = module.pool(h, torch.tensor([0, 5]))
    assert largest.isnan().all()
    assert argument.tolist() == [[1]]
