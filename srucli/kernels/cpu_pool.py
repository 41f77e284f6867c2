"""Ragged pooling on a CPU, compiled by Numba: float32 only. A task is a text."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srucli.kernels.jit import array, kernel
from srucli.kernels.threads import by_rows, run

_F = np.float32
_U = np.uint64
# The units that take as long as one of the recurrence.
_UNITS = 8


@kernel()
def _pool(first, end, h, offsets, largest, argument, mean):  # type: ignore[no-untyped-def]
    for text in range(_U(first), _U(end)):
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        for d in range(_U(h.shape[1])):
            if start == stop:
                largest[text, d] = _F(0.0)
                mean[text, d] = _F(0.0)
                argument[text, d] = -1
            else:
                largest[text, d] = h[start, d]
                mean[text, d] = h[start, d]
                argument[text, d] = start
        for row in range(start + _U(1), stop):
            for d in range(_U(h.shape[1])):
                value, most = h[row, d], largest[text, d]
                mean[text, d] += value
                # The first NaN wins, as in torch.max: it compares as false with everything.
                if not value <= most and most == most:
                    largest[text, d] = value
                    argument[text, d] = row
        scale = _F(1.0) / _F(max(stop - start, _U(1)))
        for d in range(_U(h.shape[1])):
            mean[text, d] *= scale


@kernel()
def _pool_backward(first, end, grad_largest, grad_mean, argument, offsets, grad_h):  # type: ignore[no-untyped-def]
    for text in range(_U(first), _U(end)):
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        if start == stop:
            continue
        scale = _F(1.0) / _F(stop - start)
        for row in range(start, stop):
            for d in range(_U(grad_h.shape[1])):
                grad_h[row, d] = grad_mean[text, d] * scale
        for d in range(_U(grad_h.shape[1])):
            grad_h[argument[text, d], d] += grad_largest[text, d]


def pool(h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.pool`."""
    shape = (offsets.numel() - 1, h.shape[1])
    largest, mean = torch.empty(shape), torch.empty(shape)
    argument = torch.empty(shape, dtype=torch.int64)
    outputs = largest.numpy(), argument.numpy(), mean.numpy()
    run(_pool, by_rows(offsets, h.shape[1] // _UNITS), array(h), array(offsets), *outputs)
    return largest, mean, argument


def pool_backward(
    grad_largest: Tensor, grad_mean: Tensor, argument: Tensor, offsets: Tensor, rows: int
) -> Tensor:
    """As `reference.pool_backward`."""
    grad_h = torch.empty(rows, grad_mean.shape[1])
    inputs = map(array, (grad_largest, grad_mean, argument, offsets))
    run(_pool_backward, by_rows(offsets, grad_h.shape[1] // _UNITS), *inputs, grad_h.numpy())
    return grad_h
