"""Clip gradients, and leave non-finite ones out of a step.

On a CPU a step with a non-finite gradient is not taken. Reading the norm on a GPU would mean
waiting for it. Optimizers of torch that support it are therefore told there what to divide
gradients by and whether to skip the step, as for mixed precision (`torch.amp.GradScaler`), and a
skipped step changes nothing. Others take a step with a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def is_finite(value: Tensor) -> Tensor:
    """Return whether values are neither NaN nor Inf, by two kernels; `isfinite` launches four.

    >>> is_finite(torch.tensor([0.0, 3e38, torch.inf, torch.nan])).tolist()
    [True, True, False, False]
    """
    return (value - value) == 0


def clipped(
    optimizer: Optimizer, gradients: list[Tensor], norm: Tensor, limit: float
) -> AbstractContextManager[bool]:
    """Clip gradients for the optimizer's step in the block, whose value says whether to take it.

    norm (): that of all gradients together. limit: the largest norm; 0 for none.
    """
    if norm.device.type == "cpu":
        way = _reading
    elif getattr(optimizer, "_step_supports_amp_scaling", False):
        way = _telling
    else:
        way = _zeroing
    return way(optimizer, gradients, norm, limit)


def _scale(norm: Tensor, limit: float) -> Tensor:
    return (limit / (norm + 1e-6)).clamp(max=1.0) if limit else torch.ones_like(norm)


@contextmanager
def _reading(optimizer: Any, gradients: list[Tensor], norm: Tensor, limit: float) -> Iterator[bool]:
    if limit:
        torch._foreach_mul_(gradients, _scale(norm, limit))
    yield bool(is_finite(norm))


@contextmanager
def _telling(optimizer: Any, gradients: list[Tensor], norm: Tensor, limit: float) -> Iterator[bool]:
    if limit:
        optimizer.grad_scale = (norm / limit).clamp(min=1.0)
    optimizer.found_inf = (~is_finite(norm)).to(norm.dtype)
    try:
        yield True
    finally:
        for name in ("grad_scale", "found_inf"):  # a GradScaler deletes them itself
            vars(optimizer).pop(name, None)


@contextmanager
def _zeroing(optimizer: Any, gradients: list[Tensor], norm: Tensor, limit: float) -> Iterator[bool]:
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0)
    scale = torch.where(is_finite(norm), _scale(norm, limit), 0.0)
    torch._foreach_mul_(gradients, scale)
    yield True
