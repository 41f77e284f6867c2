"""Looked-up rows of a table, as an operator whose gradient a back end sums."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from srucli.kernels.backends import backend_for
from srucli.kernels.operator import operator


def _take_fake(table: Tensor, index: Tensor, kernel: str) -> Tensor:
    return table.new_empty(index.shape[0], table.shape[1])


@operator("take_rows", _take_fake)
def _take(table: Tensor, index: Tensor, kernel: str) -> Tensor:
    return table.index_select(0, index)


def _sum_fake(grad: Tensor, index: Tensor, rows: int, kernel: str) -> Tensor:
    return grad.new_empty(rows, grad.shape[1])


@operator("sum_rows", _sum_fake)
def _sum(grad: Tensor, index: Tensor, rows: int, kernel: str) -> Tensor:
    found: Tensor = import_module(backend_for(kernel, grad).rows).sum_rows(grad, index, rows)
    return found


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    table, index, ctx.kernel = inputs
    ctx.rows = table.shape[0]
    ctx.save_for_backward(index)


@once_differentiable
def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _sum(grad, *ctx.saved_tensors, ctx.rows, ctx.kernel), None, None


torch.library.register_autograd("srucli::take_rows", _gradient, setup_context=_save)


def take_rows(table: Tensor, index: Tensor, kernel: str = "auto") -> Tensor:
    """Return rows `index` (N,) int64 of a table (M, E): (N, E). Gradients reach the table.

    Raises UsageError for a kernel that cannot run here.
    """
    found: Tensor = _take(table, index, kernel)
    return found
