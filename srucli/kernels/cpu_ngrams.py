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
from srucli.kernels.jit import array, launch_threads, njit, prange
from srucli.kernels.operator import operator

launch_threads()

_U = np.uint64
_HASH, _MIX, _BITS = _U(HASH), _U(MIX), _U(BITS)
_COLUMNS = _U(16)


@njit(parallel=True, cache=True, error_model="numpy")
def _forward(table, symbols, offsets, grams, sums):  # type: ignore[no-untyped-def]
    buckets = _U(table.shape[0])
    for text in prange(offsets.size - 1):
        start, stop = _U(offsets[text]), _U(offsets[text + 1])
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


@njit(parallel=True, cache=True, error_model="numpy")
def _backward(grad, grams, offsets, grad_table):  # type: ignore[no-untyped-def]
    width = _U(grad.shape[1])
    for task in prange((width + _COLUMNS - _U(1)) // _COLUMNS):
        low = _U(task) * _COLUMNS
        high = min(low + _COLUMNS, width)
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
    _forward(array(table), array(symbols), array(offsets), grams.numpy(), sums.numpy())
    return sums, grams


def _ngram_sums_backward_fake(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    return grad.new_empty(buckets, grad.shape[1])


@operator("ngram_sums_backward", _ngram_sums_backward_fake, device="cpu")
def _ngram_sums_backward(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    grad_table = torch.zeros(buckets, grad.shape[1])
    _backward(array(grad), array(grams), array(offsets), grad_table.numpy())
    return grad_table


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    table, _, offsets, _ = inputs
    ctx.buckets = table.shape[0]
    ctx.save_for_backward(output[1], offsets)


@once_differentiable
def _gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    return _ngram_sums_backward(grad, *ctx.saved_tensors, ctx.buckets), None, None, None


torch.library.register_autograd("srucli::ngram_sums", _gradient, setup_context=_save)
