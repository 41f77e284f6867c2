"""The sums of a table's rows that hashed n-grams choose, on a CPU, compiled by Numba: float32 only.

Forward, one task is one text. Backward, one task is some columns of the table over all texts in
order, so that sums do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srucli.kernels.hashing import BITS, HASH, MIX
from srucli.kernels.jit import array, launch_threads, njit, prange

launch_threads()

_U = np.uint64
_HASH, _MIX, _BITS = _U(HASH), _U(MIX), _U(BITS)
_COLUMNS = _U(16)


@njit(parallel=True, cache=True, error_model="numpy")
def _ngram_sums(table, symbols, offsets, grams, sums):  # type: ignore[no-untyped-def]
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
def _ngram_sums_backward(grad, grams, offsets, grad_table):  # type: ignore[no-untyped-def]
    """Each task adds up some columns, over the texts in their order."""
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


def ngram_sums(
    table: Tensor, symbols: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """The sums (B, W) of `srucli.kernels.ngrams`, and the rows that were added (N, n) int32."""
    grams = torch.empty(symbols.numel(), longest, dtype=torch.int32)
    sums = torch.empty(offsets.numel() - 1, table.shape[1])
    _ngram_sums(array(table), array(symbols), array(offsets), grams.numpy(), sums.numpy())
    return sums, grams


def ngram_sums_backward(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    """The gradient of the table (buckets, W)."""
    grad_table = torch.zeros(buckets, grad.shape[1])
    _ngram_sums_backward(array(grad), array(grams), array(offsets), grad_table.numpy())
    return grad_table
