"""The SRU recurrence, ragged pooling and sums of n-grams on a CPU, compiled by Numba: float32 only.

One task of the parallel loops is one text in one direction, so the result of a text depends neither
on its batch nor on the number of threads. Parameter gradients are kept per text and summed in
order. The gates are recomputed in the backward pass from the saved states. `np.exp` does not
vectorise under Numba, so the sigmoid is a polynomial of our own. `fastmath` leaves out `nnan`: NaN
stays NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from srucli.kernels.ngrams import BITS, HASH, MIX

_F = np.float32
_U = np.uint64
_HASH, _MIX, _BITS = _U(HASH), _U(MIX), _U(BITS)
_COLUMNS = _U(16)
_ONE = _F(1.0)
_LOG2E = _F(1.4426950408889634)
_LOG2E_REST = _F(1.4426950408889634 - float(_LOG2E))
_LIMIT = _F(87.0)
_FLAGS = {"nsz", "arcp", "contract", "afn"}
# 2**f on [-1/2, 1/2], least squares on 400 Chebyshev nodes: relative error 1.9e-9 before rounding.
_P0 = _F(1.0000000005920204)
_P1 = _F(0.69314720560051)
_P2 = _F(0.2402264660871264)
_P3 = _F(0.055503289975166334)
_P4 = _F(0.009618519534462645)
_P5 = _F(0.0013399860363243084)
_P6 = _F(0.00015337576811610712)


@njit(inline="always", fastmath=_FLAGS, error_model="numpy")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)); exp(-x) = 2**n 2**f, with 2**n made from its bits."""
    x = _LIMIT if x > _LIMIT else x
    x = -_LIMIT if x < -_LIMIT else x
    n = np.floor(_F(0.5) - x * _LOG2E)
    f = -(x * _LOG2E + n) - x * _LOG2E_REST
    p = (((((_P6 * f + _P5) * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0
    scale = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return _ONE / (_ONE + p * scale)


@njit(inline="always", fastmath=_FLAGS, error_model="numpy")
def _tanh(x):  # type: ignore[no-untyped-def]
    return _F(2.0) * _sigmoid(_F(2.0) * x) - _ONE


# What makes the inner loops vectorise: unsigned indices, since Numba wraps signed ones around; and
# no views of arrays inside a parallel loop, since Numba then cannot tell LLVM that none overlap.


@njit(parallel=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def _forward(  # type: ignore[no-untyped-def]
    u, ways, way0, alpha, v, bias, initial, mask, offsets, directions, tanh, h, c, last
):
    width = _U(h.shape[1])
    units = width // directions
    for task in prange((offsets.size - 1) * directions):
        text = _U(task) // directions
        lo = (_U(task) % directions) * units
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        for j in range(units):
            last[text, lo + j] = initial[text, lo + j]
        for step in range(stop - start):
            row = start + step if lo == _U(0) else stop - _U(1) - step
            for j in range(units):
                d = lo + j
                u0 = u[row, d]
                before = last[text, d]
                forget = _sigmoid(u[row, width + d] + v[_U(0), d] * before + bias[_U(0), d])
                reset = _sigmoid(u[row, _U(2) * width + d] + v[_U(1), d] * before + bias[_U(1), d])
                now = u0 + forget * (before - u0)
                g = (_tanh(now) if tanh else now) * mask[text, d]
                highway = alpha * ways[row, way0 + d]
                h[row, d] = highway + reset * (g - highway)
                c[row, d] = now
                last[text, d] = now


@njit(parallel=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def _backward(  # type: ignore[no-untyped-def]
    grad_h,
    grad_last,
    u,
    ways,
    way0,
    alpha,
    v,
    bias,
    initial,
    mask,
    c,
    offsets,
    directions,
    tanh,
    grad_u,
    grad_ways,
    grad_parameters,
    grad_initial,
    previous,
):
    width = _U(c.shape[1])
    units = width // directions
    for task in prange((offsets.size - 1) * directions):
        text = _U(task) // directions
        lo = (_U(task) % directions) * units
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        for j in range(units):
            grad_initial[text, lo + j] = grad_last[text, lo + j]
            for kind in range(_U(4)):
                grad_parameters[text, kind, lo + j] = _F(0.0)
        for step in range(stop - start):
            row = stop - _U(1) - step if lo == _U(0) else start + step
            if step + _U(1) == stop - start:
                for j in range(units):
                    previous[text, lo + j] = initial[text, lo + j]
            else:
                earlier = row - _U(1) if lo == _U(0) else row + _U(1)
                for j in range(units):
                    previous[text, lo + j] = c[earlier, lo + j]
            for j in range(units):
                d = lo + j
                before = previous[text, d]
                u0 = u[row, d]
                forget = _sigmoid(u[row, width + d] + v[_U(0), d] * before + bias[_U(0), d])
                reset = _sigmoid(u[row, _U(2) * width + d] + v[_U(1), d] * before + bias[_U(1), d])
                g = _tanh(c[row, d]) if tanh else c[row, d]
                slope = _ONE - g * g if tanh else _ONE
                out = grad_h[row, d]
                drop = mask[text, d]
                swing = drop * g - alpha * ways[row, way0 + d]
                grad_reset = out * swing * reset * (_ONE - reset)
                grad_c = grad_initial[text, d] + out * reset * drop * slope
                grad_forget = grad_c * (before - u0) * forget * (_ONE - forget)
                grad_u[row, d] = grad_c * (_ONE - forget)
                grad_u[row, width + d] = grad_forget
                grad_u[row, _U(2) * width + d] = grad_reset
                grad_ways[row, way0 + d] = alpha * out * (_ONE - reset)
                grad_initial[text, d] = (
                    grad_c * forget + grad_forget * v[_U(0), d] + grad_reset * v[_U(1), d]
                )
                grad_parameters[text, _U(0), d] += grad_forget * before
                grad_parameters[text, _U(1), d] += grad_reset * before
                grad_parameters[text, _U(2), d] += grad_forget
                grad_parameters[text, _U(3), d] += grad_reset


@njit(parallel=True, cache=True, error_model="numpy")
def _pool(h, offsets, largest, argument, mean):  # type: ignore[no-untyped-def]
    for text in prange(offsets.size - 1):
        start, stop = _U(offsets[text]), _U(offsets[text + 1])
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
                value = h[row, d]
                mean[text, d] += value
                # NaN wins, as in torch.max: it compares false with everything.
                if not value <= largest[text, d]:
                    largest[text, d] = value
                    argument[text, d] = row
        scale = _ONE / _F(max(stop - start, _U(1)))
        for d in range(_U(h.shape[1])):
            mean[text, d] *= scale


@njit(parallel=True, cache=True, error_model="numpy")
def _pool_backward(grad_largest, grad_mean, argument, offsets, grad_h):  # type: ignore[no-untyped-def]
    for text in prange(offsets.size - 1):
        start, stop = _U(offsets[text]), _U(offsets[text + 1])
        if start == stop:
            continue
        scale = _ONE / _F(stop - start)
        for row in range(start, stop):
            for d in range(_U(grad_h.shape[1])):
                grad_h[row, d] = grad_mean[text, d] * scale
        for d in range(_U(grad_h.shape[1])):
            grad_h[argument[text, d], d] += grad_largest[text, d]


@njit(parallel=True, cache=True, error_model="numpy")
def _ngram_sums(table, symbols, offsets, grams, sums):  # type: ignore[no-untyped-def]
    buckets = _U(table.shape[0])
    for text in prange(offsets.size - 1):
        start, stop = _U(offsets[text]), _U(offsets[text + 1])
        for d in range(_U(table.shape[1])):
            sums[text, d] = _F(0.0)
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


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _highway(u: np.ndarray, x: Tensor | None, width: int) -> tuple[np.ndarray, np.uint64]:
    """The array that holds x', and the column where it begins: x itself, or u's fourth plane."""
    return (u, _U(3 * width)) if x is None else (_array(x), _U(0))


def forward(
    u: Tensor,
    x: Tensor | None,
    v: Tensor,
    bias: Tensor,
    initial: Tensor,
    mask: Tensor,
    offsets: Tensor,
    directions: int,
    tanh: bool,
    alpha: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.forward`, not differentiable by itself."""
    planes = _array(u).reshape(u.shape[0], u.shape[1] * u.shape[2])
    ways, way0 = _highway(planes, x, v.shape[1])
    h = torch.empty(u.shape[0], v.shape[1])
    c = torch.empty_like(h)
    last = torch.empty(initial.shape)
    _forward(
        planes,
        ways,
        way0,
        _F(1.0 if x is None else alpha),
        _array(v),
        _array(bias),
        _array(initial),
        _array(mask),
        _array(offsets),
        _U(directions),
        tanh,
        h.numpy(),
        c.numpy(),
        last.numpy(),
    )
    return h, c, last


def backward(
    grad_h: Tensor,
    grad_last: Tensor,
    u: Tensor,
    x: Tensor | None,
    v: Tensor,
    bias: Tensor,
    initial: Tensor,
    mask: Tensor,
    c: Tensor,
    offsets: Tensor,
    directions: int,
    tanh: bool,
    alpha: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `reference.backward`."""
    planes = _array(u).reshape(u.shape[0], u.shape[1] * u.shape[2])
    ways, way0 = _highway(planes, x, v.shape[1])
    grad_u = torch.empty(u.shape)
    flat = grad_u.numpy().reshape(planes.shape)
    grad_x = torch.empty(0) if x is None else torch.empty(x.shape)
    grad_initial = torch.empty(initial.shape)
    partial = torch.empty(initial.shape[0], 4, v.shape[1])
    _backward(
        _array(grad_h),
        _array(grad_last),
        planes,
        ways,
        way0,
        _F(1.0 if x is None else alpha),
        _array(v),
        _array(bias),
        _array(initial),
        _array(mask),
        _array(c),
        _array(offsets),
        _U(directions),
        tanh,
        flat,
        flat if x is None else grad_x.numpy(),
        partial.numpy(),
        grad_initial.numpy(),
        torch.empty_like(grad_initial).numpy(),
    )
    sums = partial.numpy().sum(axis=0)
    grad_v, grad_bias = torch.from_numpy(sums[:2].copy()), torch.from_numpy(sums[2:].copy())
    return grad_u, grad_x, grad_v, grad_bias, grad_initial


def pool(h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum, mean (B, D) and the rows of the maxima (B, D) of each text; zeros for none."""
    shape = (offsets.numel() - 1, h.shape[1])
    largest, mean = torch.empty(shape), torch.empty(shape)
    argument = torch.empty(shape, dtype=torch.int64)
    _pool(_array(h), _array(offsets), largest.numpy(), argument.numpy(), mean.numpy())
    return largest, mean, argument


def pool_backward(
    grad_largest: Tensor, grad_mean: Tensor, argument: Tensor, offsets: Tensor, rows: int
) -> Tensor:
    """The gradient of h (rows, D)."""
    grad_h = torch.empty(rows, grad_mean.shape[1])
    _pool_backward(
        _array(grad_largest), _array(grad_mean), _array(argument), _array(offsets), grad_h.numpy()
    )
    return grad_h


def ngram_sums(
    table: Tensor, symbols: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """The sums (B, W) of `srucli.kernels.ngrams`, and the rows that were added (N, n) int32."""
    grams = torch.empty(symbols.numel(), longest, dtype=torch.int32)
    sums = torch.empty(offsets.numel() - 1, table.shape[1])
    _ngram_sums(_array(table), _array(symbols), _array(offsets), grams.numpy(), sums.numpy())
    return sums, grams


def ngram_sums_backward(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    """The gradient of the table (buckets, W)."""
    grad_table = torch.zeros(buckets, grad.shape[1])
    _ngram_sums_backward(_array(grad), _array(grams), _array(offsets), grad_table.numpy())
    return grad_table
