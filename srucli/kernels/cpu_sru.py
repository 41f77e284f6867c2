"""The SRU recurrence on a CPU, forward and backward, compiled by Numba: float32 only.

A task is one text in one direction, so the result of a text depends neither on its batch nor on the
number of threads. Parameter gradients are stored per text and summed in order. If gradients are
needed, the forward pass replaces the gates' pre-activations in u by the gates, and the backward
pass replaces u by its gradient. `np.exp` is not vectorized under Numba, so the sigmoid uses a
polynomial. `fastmath` is without `nnan`: NaN stays NaN.

The inner loops are vectorized because indices are unsigned (Numba wraps signed ones around), each
plane is a flat array of its own (LLVM is told that they do not overlap), and no loop has a branch.
Options are therefore `None` or not: Numba compiles a version for each and drops the other branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srucli.kernels.jit import array, kernel, njit
from srucli.kernels.reference import Recurrence
from srucli.kernels.threads import Shares, by_rows, run

_F = np.float32
_U = np.uint64
_ONE = _F(1.0)
_LOG2E = _F(1.4426950408889634)
_LOG2E_REST = _F(1.4426950408889634 - float(_LOG2E))
# sigmoid(43) is 1 in float32, and the product of two times 1 + exp(43) is not yet infinite.
_LIMIT = _F(43.0)
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
def _one_and_exp(x):  # type: ignore[no-untyped-def]
    """1 + exp(-x), where exp(-x) = 2**n 2**f, with 2**n built from its bits."""
    x = _LIMIT if x > _LIMIT else x
    x = -_LIMIT if x < -_LIMIT else x
    n = np.rint(-x * _LOG2E)
    f = -(x * _LOG2E + n) - x * _LOG2E_REST
    p = (((((_P6 * f + _P5) * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0
    return _ONE + p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", fastmath=_FLAGS, error_model="numpy")
def _sigmoids(x, y):  # type: ignore[no-untyped-def]
    """The sigmoids of two numbers, with one division."""
    a, b = _one_and_exp(x), _one_and_exp(y)
    inverse = _ONE / (a * b)
    return b * inverse, a * inverse


@njit(inline="always", fastmath=_FLAGS, error_model="numpy")
def _tanh(x):  # type: ignore[no-untyped-def]
    return _F(2.0) / _one_and_exp(_F(2.0) * x) - _ONE


@kernel(fastmath=_FLAGS)
def _forward(  # type: ignore[no-untyped-def]
    first,
    end,
    u0,
    u1,
    u2,
    ways,
    u_row,
    way_row,
    alpha,
    v_forget,
    v_reset,
    initial,
    mask,
    offsets,
    directions,
    tanh,
    b_forget,
    b_reset,
    h,
    c,
    last,
):
    texts = _U(offsets.size - 1)
    width = _U(v_forget.size)
    units = width // directions
    for task in range(_U(first), _U(end)):
        text = task % texts
        lo = (task // texts) * units
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        own = text * width + lo
        for j in range(units):
            last[own + j] = initial[own + j]
        for step in range(stop - start):
            row = start + step if lo == _U(0) else stop - _U(1) - step
            at, to, way = row * u_row + lo, row * width + lo, row * way_row + lo
            for j in range(units):
                before = last[own + j]
                forget, reset = _sigmoids(
                    u1[at + j] + v_forget[lo + j] * before + b_forget[lo + j],
                    u2[at + j] + v_reset[lo + j] * before + b_reset[lo + j],
                )
                candidate = u0[at + j]
                now = candidate + forget * (before - candidate)
                g = now
                if tanh is not None:
                    g = _tanh(g)
                g *= mask[own + j]
                highway = alpha * ways[way + j]
                h[to + j] = highway + reset * (g - highway)
                last[own + j] = now
                if c is not None:
                    c[to + j] = now
                    u1[at + j] = forget
                    u2[at + j] = reset


@kernel(fastmath=_FLAGS)
def _backward(  # type: ignore[no-untyped-def]
    first,
    end,
    u0,
    u1,
    u2,
    ways,
    u_row,
    way_row,
    alpha,
    v_forget,
    v_reset,
    initial,
    mask,
    offsets,
    directions,
    tanh,
    grad_h,
    c,
    grad_ways,
    grad_parameters,
    adjoint,
    previous,
):
    """u1 and u2 are the gates; the gradients of all planes replace them.

    adjoint: of the last states, and at the end of the initial ones. grad_ways: None if the highway
    is a plane of u.
    """
    texts = _U(offsets.size - 1)
    width = _U(v_forget.size)
    units = width // directions
    for task in range(_U(first), _U(end)):
        text = task % texts
        lo = (task // texts) * units
        start, stop = _U(offsets[text]), _U(offsets[text + _U(1)])
        own, sums = text * width + lo, text * _U(4) * width + lo
        for kind in range(_U(4)):
            for j in range(units):
                grad_parameters[sums + kind * width + j] = _F(0.0)
        for step in range(stop - start):
            row = stop - _U(1) - step if lo == _U(0) else start + step
            at, to, way = row * u_row + lo, row * width + lo, row * way_row + lo
            if step + _U(1) == stop - start:
                for j in range(units):
                    previous[own + j] = initial[own + j]
            else:
                earlier = (row - _U(1) if lo == _U(0) else row + _U(1)) * width + lo
                for j in range(units):
                    previous[own + j] = c[earlier + j]
            for j in range(units):
                before, forget, reset = previous[own + j], u1[at + j], u2[at + j]
                g, slope = c[to + j], mask[own + j]
                if tanh is not None:
                    g = _tanh(g)
                    slope = slope * (_ONE - g * g)
                out = grad_h[to + j]
                lose, keep = _ONE - forget, _ONE - reset
                swing = mask[own + j] * g - alpha * ways[way + j]
                grad_reset = out * swing * reset * keep
                grad_c = adjoint[own + j] + out * reset * slope
                grad_forget = grad_c * (before - u0[at + j]) * forget * lose
                u0[at + j] = grad_c * lose
                u1[at + j] = grad_forget
                u2[at + j] = grad_reset
                if grad_ways is None:
                    ways[way + j] = out * keep
                else:
                    grad_ways[way + j] = alpha * out * keep
                adjoint[own + j] = (
                    grad_c * forget + grad_forget * v_forget[lo + j] + grad_reset * v_reset[lo + j]
                )
                grad_parameters[sums + j] += grad_forget * before
                grad_parameters[sums + width + j] += grad_reset * before
                grad_parameters[sums + _U(2) * width + j] += grad_forget
                grad_parameters[sums + _U(3) * width + j] += grad_reset


def _flat(tensor: Tensor) -> np.ndarray:
    return array(tensor).reshape(-1)


def _shares(given: Recurrence) -> Shares:
    units = given.v.shape[1] // given.directions
    return by_rows(given.offsets, units, given.directions)


def _arguments(u: Tensor, x: Tensor | None, given: Recurrence) -> Iterator[Any]:
    """Yield the arguments that both kernels start with, up to `tanh`.

    These are the planes of u and of the highway, from their first elements on, and the distance of
    rows in them; then flat tensors and the rest of `given`, without biases.
    """
    _, planes, width = u.shape
    flat = u.view(-1).numpy()
    yield from (flat, flat[width:], flat[2 * width :])
    yield flat[3 * width :] if x is None else _flat(x)
    yield from (_U(planes * width), _U(planes * width if x is None else width))
    yield _ONE if x is None else _F(given.alpha)
    yield from map(_flat, (*given.v, given.initial, given.mask, given.offsets))
    yield _U(given.directions)
    yield True if given.tanh else None


def forward(
    u: Tensor, x: Tensor | None, given: Recurrence, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.forward`. With `save`, the gates replace planes 1 and 2 of u."""
    rows, _, width = u.shape
    h = torch.empty(rows, width)
    c = torch.empty(rows if save else 0, width)
    last = torch.empty(given.initial.shape)
    biases, states = map(_flat, given.bias), _flat(c) if save else None
    run(_forward, _shares(given), *_arguments(u, x, given), *biases, _flat(h), states, _flat(last))
    return h, c, last


def backward(
    grad_h: Tensor, grad_last: Tensor, u: Tensor, x: Tensor | None, c: Tensor, given: Recurrence
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `reference.backward`, with u as `forward` left it; its gradient replaces it."""
    grad_x = torch.empty(0) if x is None else torch.empty(x.shape)
    adjoint = grad_last.clone(memory_format=torch.contiguous_format)
    partial = torch.empty(given.initial.shape[0], 4, given.v.shape[1])
    run(
        _backward,
        _shares(given),
        *_arguments(u, x, given),
        *map(_flat, (grad_h, c)),
        None if x is None else _flat(grad_x),
        _flat(partial),
        _flat(adjoint),
        np.empty(adjoint.numel(), np.float32),
    )
    sums = torch.from_numpy(partial.numpy().sum(axis=0))
    return u, grad_x, sums[:2].clone(), sums[2:].clone(), adjoint
