"""Sums of the table rows that hashed n-grams select, on a CPU, compiled by Numba: float32 only.

In the forward pass, a task is one text. In the backward pass, it is some columns of the table over
all texts in order, so that sums do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from srucli.kernels.hashing import BITS, HASH, MIX
from srucli.kernels.jit import array, kernel
from srucli.kernels.operator import operator
from srucli.kernels.threads import by_rows, evenly, run

_U = np.uint64
_HASH, _MIX, _BITS = _U(HASH), _U(MIX), _U(BITS)
# The columns of a task of the backward pass.
_COLUMNS = 16
# The numbers added in the time of a step of the recurrence of one unit.
_ADDED, _ADDED_BACK = 2, 8


@kernel()
def _forward(first, end, table, symbols, offsets, grams, sums):  # type: ignore[no-untyped-def]
    buckets = _U(table.shape[0])
    for text in range(_U(first), _U(end)):
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        for d in range(_U(table.shape[1])):
            sums[text, d] = np.float32(0.0)
        for row in range(start, stop):
            value = _U(0)
            for n in range(_U(grams.shape[1])):
                if row < start + n:
                    grams[row, n] = -1
                    continue
                value = ((value + _U(symbols[row - n]) + _U(1)) * _HASH) & _BITS
                mixed = (((value ^ (value >> _U(15))) * _MIX) & _BITS) >> _U(8)
                bucket = mixed % buckets
                grams[row, n] = bucket
                for d in range(_U(table.shape[1])):
                    sums[text, d] += table[bucket, d]


@kernel()
def _backward(first, end, grad, grams, offsets, grad_table):  # type: ignore[no-untyped-def]
    width = _U(grad.shape[1])
    for task in range(_U(first), _U(end)):
        low = task * _U(_COLUMNS)
        high = min(low + _U(_COLUMNS), width)
        for text in range(_U(offsets.size - 1)):
            for row in range(_U(offsets[text]), _U(offsets[text + _U(1)])):
                for n in range(_U(grams.shape[1])):
                    if grams[row, n] >= 0:
                        bucket = _U(grams[row, n])
                        for d in range(low, high):
                            grad_table[bucket, d] += grad[text, d]


def _ngram_sums_fake(
    table: Tensor, symbols: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    sums = table.new_empty(offsets.shape[0] - 1, table.shape[1])
    return sums, symbols.new_empty(symbols.shape[0], longest, dtype=torch.int32)


@operator("ngram_sums", _ngram_sums_fake, device="cpu")
def ngram_sums(
    table: Tensor, symbols: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """Return the sums (B, W) of `srucli.kernels.ngrams`, and the added rows (N, n) int32."""
    grams = torch.empty(symbols.numel(), longest, dtype=torch.int32)
    sums = torch.empty(offsets.numel() - 1, table.shape[1])
    shares = by_rows(offsets, longest * table.shape[1] // _ADDED)
    inputs = map(array, (table, symbols, offsets))
    run(_forward, shares, *inputs, grams.numpy(), sums.numpy())
    return sums, grams


def _ngram_sums_backward_fake(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    return grad.new_empty(buckets, grad.shape[1])


@operator("ngram_sums_backward", _ngram_sums_backward_fake, device="cpu")
def _ngram_sums_backward(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    grad_table = torch.zeros(buckets, grad.shape[1])
    width = grad.shape[1]
    shares = evenly(-(-width // _COLUMNS), grams.numel() * width // _ADDED_BACK)
    run(_backward, shares, *map(array, (grad, grams, offsets)), grad_table.numpy())
    return grad_table


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    table, _, offsets, _ = inputs
    ctx.buckets = table.shape[0]
    ctx.save_for_backward(output[1], offsets)


@once_differentiable
def _gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    return _ngram_sums_backward(grad, *ctx.saved_tensors, ctx.buckets), None, None, None


torch.library.register_autograd("srucli::ngram_sums", _gradient, setup_context=_save)
