"""Ragged pooling, maximum and mean over each text's rows, as an operator with autograd."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from srucli.kernels.backends import backend_for
from srucli.kernels.operator import operator


def _pool_fake(h: Tensor, offsets: Tensor, kernel: str) -> tuple[Tensor, Tensor, Tensor]:
    largest = h.new_empty(offsets.shape[0] - 1, h.shape[1])
    return largest, torch.empty_like(largest), torch.empty_like(largest, dtype=torch.int64)


@operator("pool", _pool_fake)
def _pool(h: Tensor, offsets: Tensor, kernel: str) -> tuple[Tensor, Tensor, Tensor]:
    largest, mean, argument = import_module(backend_for(kernel, h).pool).pool(h, offsets)
    return largest, mean, argument


def _pool_backward_fake(
    grad_largest: Tensor, grad_mean: Tensor, argument: Tensor, *rest: Any
) -> Tensor:
    return grad_mean.new_empty(rest[1], grad_mean.shape[1])


@operator("pool_backward", _pool_backward_fake)
def _pool_backward(
    grad_largest: Tensor,
    grad_mean: Tensor,
    argument: Tensor,
    offsets: Tensor,
    rows: int,
    kernel: str,
) -> Tensor:
    run = import_module(backend_for(kernel, grad_mean).pool).pool_backward
    grad: Tensor = run(grad_largest, grad_mean, argument, offsets, rows)
    return grad


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    h, offsets, ctx.kernel = inputs
    ctx.rows = h.shape[0]
    ctx.save_for_backward(output[2], offsets)


@once_differentiable
def _gradient(ctx: Any, grad_largest: Tensor, grad_mean: Tensor, _: Tensor) -> tuple[Any, ...]:
    grad = _pool_backward(grad_largest, grad_mean, *ctx.saved_tensors, ctx.rows, ctx.kernel)
    return grad, None, None


torch.library.register_autograd("srucli::pool", _gradient, setup_context=_save)


def ragged_pool(h: Tensor, offsets: Tensor, kernel: str = "auto") -> tuple[Tensor, Tensor]:
    """Return maximum and mean over each text's rows of h (N, D), (B, D) each; zeros for no rows.

    offsets (B + 1,) int64, rising from 0 to N. Raises UsageError for a kernel that cannot run here.
    """
    largest, mean, _ = _pool(h, offsets, kernel)
    return largest, mean
