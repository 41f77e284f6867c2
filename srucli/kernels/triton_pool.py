"""Ragged pooling on a GPU, forward and backward, compiled by Triton: float32, bfloat16, float16."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from srucli.kernels.triton_walk import STAGES, STEPS, kernel, launch, place


@kernel
def _pool(
    h,
    offsets,
    largest,
    mean,
    argument,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
    UNITS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    text, d, live, row, _, length = place(offsets, False, UNITS, DIRECTIONS, BLOCK)
    ends = tl.where(live, length, 0)
    h += row * UNITS + d
    best = tl.load(h, ends > 0, 0.0).to(tl.float32)
    where = tl.zeros((BLOCK,), tl.int64) + tl.where(length > 0, row, -1)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in tl.range(0, length, STEPS, num_stages=STAGES):
        group = ()
        for i in tl.static_range(STEPS):
            there = step + i < ends
            group += (tl.load(h + i * UNITS, there, 0.0).to(tl.float32),)
        for i in tl.static_range(STEPS):
            value = group[i]
            # The first NaN wins, as in torch.max, and else the first of equal values.
            better = (value > best) | ((value != value) & (best == best))
            better = better & (step + i < ends)
            best, where = tl.where(better, value, best), tl.where(better, row + step + i, where)
            total += value
        h += STEPS * UNITS
    at = text * UNITS + d
    kind = largest.dtype.element_ty
    tl.store(largest + at, best.to(kind), live)
    tl.store(mean + at, (total / tl.maximum(length, 1).to(tl.float32)).to(kind), live)
    tl.store(argument + at, where, live)


@kernel
def _pool_backward(
    grad_largest,
    grad_mean,
    argument,
    offsets,
    grad_h,
    UNITS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    text, d, live, row, _, length = place(offsets, False, UNITS, DIRECTIONS, BLOCK)
    at = text * UNITS + d
    peak = tl.load(grad_largest + at, live, 0.0).to(tl.float32)
    where = tl.load(argument + at, live, -1)
    share = tl.load(grad_mean + at, live, 0.0).to(tl.float32)
    share = share / tl.maximum(length, 1).to(tl.float32)
    grad_h += row * UNITS + d
    for step in range(length):
        grad = tl.where(where == row + step, share + peak, share)
        tl.store(grad_h, grad.to(grad_h.dtype.element_ty), live)
        grad_h += UNITS


def pool(h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.pool`."""
    texts, width = offsets.shape[0] - 1, h.shape[1]
    largest, mean = h.new_empty(texts, width), h.new_empty(texts, width)
    argument = torch.empty(texts, width, dtype=torch.int64, device=h.device)
    grid, settings = launch(texts, width, 1, h)
    with torch.cuda.device_of(h):
        outputs = largest, mean, argument
        _pool[grid](h.contiguous(), offsets, *outputs, STEPS=2 * STEPS, STAGES=STAGES, **settings)
    return largest, mean, argument


def pool_backward(
    grad_largest: Tensor, grad_mean: Tensor, argument: Tensor, offsets: Tensor, rows: int
) -> Tensor:
    """As `reference.pool_backward`, in grad_mean's dtype."""
    texts, width = grad_mean.shape
    grad_h = grad_mean.new_empty(rows, width)
    grid, settings = launch(texts, width, 1, grad_mean)
    with torch.cuda.device_of(grad_mean):
        inputs = (each.contiguous() for each in (grad_largest, grad_mean, argument))
        _pool_backward[grid](*inputs, offsets, grad_h, **settings)
    return grad_h
