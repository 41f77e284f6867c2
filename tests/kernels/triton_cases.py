"""Batches for Triton's kernels, their results, and the error that these may have.

Of the tests and of `random_cases.py`. If TRITON_INTERPRET is 1 before the first import, kernels run
in Triton's interpreter, else on a GPU.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from srucli.kernels import reference, triton_pool, triton_sru, triton_walk
from srucli.kernels.reference import Recurrence

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
FORWARD = ("h", "c", "last")
BACKWARD = ("grad_u", "grad_x", "grad_v", "grad_bias", "grad_initial")
NAMES = [*FORWARD, *BACKWARD]
# Inputs that the kernels read in a small dtype; all others are float32.
SMALL = ("grad_h", "u", "x")
# Results in a small dtype.
STORED = ("h", "c", "grad_u", "grad_x")


@dataclass(frozen=True)
class Case:
    """A batch of random texts with values that `dtype` can represent.

    block: the columns of a program, or None for those that the kernels choose.
    """

    lengths: tuple[int, ...]
    units: int
    directions: int
    planes: int
    tanh: bool
    dtype: torch.dtype = torch.float32
    block: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        shape = f"{self.units}x{self.directions}x{self.planes}"
        lengths = "-".join(map(str, self.lengths)) or "none"
        block = "" if self.block is None else f",block {self.block}"
        return f"{lengths},{shape}{',tanh' * self.tanh},{str(self.dtype)[6:]}{block}"

    def tensors(self) -> dict[str, Tensor]:
        generator = self.generator()
        width, rows, texts = self.units * self.directions, sum(self.lengths), len(self.lengths)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(self.dtype).double()

        return {
            "grad_h": draw(rows, width),
            "grad_last": draw(texts, width),
            "u": draw(rows, self.planes, width),
            "x": draw(rows, width),
            # Halved: stronger feedback can double a rounding error at every step, so that the
            # largest error is chance.
            "v": draw(2, width) / 2,
            "bias": draw(2, width),
            "initial": draw(texts, width),
            "mask": (draw(texts, width) > 0).double() * 2,
            "offsets": self.offsets(),
        }

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 10_000 + self.units * 31 + self.planes)

    def offsets(self) -> Tensor:
        return torch.tensor([0, *self.lengths]).cumsum(0)


@contextmanager
def blocks_of(block: int | None) -> Iterator[None]:
    """Run the kernels with so many columns per program, or with those that they choose."""
    choose = triton_walk._block
    with patch.object(triton_walk, "_block", lambda *args: block or choose(*args)):
        yield


def recurrence_of(
    given: Mapping[str, Tensor], directions: int, tanh: bool, alpha: float = 1.3
) -> Recurrence:
    fields = (given[name] for name in ("v", "bias", "initial", "mask", "offsets"))
    v, bias, initial, mask, offsets = fields
    return Recurrence(v, bias, initial, mask, offsets, directions, tanh, alpha)


Arguments = tuple[Tensor, Tensor | None, Recurrence]


def _arguments(
    case: Case,
    tensors: Mapping[str, Tensor],
    device: str,
    dtype: torch.dtype,
    wide: torch.dtype,
) -> tuple[Arguments, tuple[Tensor, Tensor]]:
    """Return those of a forward pass, and the gradients of h and last; SMALL in `dtype`."""
    given = {
        name: each.to(device, dtype if name in SMALL else wide)
        if each.is_floating_point()
        else each.to(device)
        for name, each in tensors.items()
    }
    x = None if case.planes == 4 else given["x"]
    recurrence = recurrence_of(given, case.directions, case.tanh)
    return (given["u"], x, recurrence), (given["grad_h"], given["grad_last"])


def kernel_results(case: Case, tensors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return outputs and gradients of the kernels, with gradients of both outputs."""
    (u, x, recurrence), grads = _arguments(
        case, tensors or case.tensors(), DEVICE, case.dtype, torch.float32
    )
    with blocks_of(case.block):
        h, c, last = triton_sru.forward(u, x, recurrence, True)
        back = triton_sru.backward(*grads, u.clone(), x, c, recurrence)
    return {name: each.cpu() for name, each in zip(NAMES, (h, c, last, *back), strict=True)}


def rounding(dtype: torch.dtype) -> float:
    """Return the largest error of a store, relative to the value."""
    if dtype == torch.float32:
        return 0.0
    whole = INTERPRETED and dtype == torch.bfloat16  # it truncates
    return torch.finfo(dtype).eps / (1 if whole else 2)


def gradients(case: Case, states: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the gradients in `dtype` by autograd, as a pass that reads stored states has them.

    A token's forget gate, reset gate and state are functions of the stored state before it.
    """
    given = {
        name: each.to(dtype) if each.is_floating_point() else each
        for name, each in case.tensors().items()
    }
    leaves = [given[name].requires_grad_() for name in ("u", "x", "v", "bias", "initial")]
    u, x, v, bias, initial = leaves
    highway = u[:, 3] if case.planes == 4 else 1.3 * x
    outputs, output_grads = [], []
    for text, (start, stop) in enumerate(itertools.pairwise(given["offsets"].tolist())):
        for direction in range(case.directions):
            d = slice(direction * case.units, (direction + 1) * case.units)
            c = before = initial[text, d]
            for row in reversed(range(start, stop)) if direction else range(start, stop):
                u0, u1, u2 = u[row, :3, d].unbind()
                forget = torch.sigmoid(u1 + v[0, d] * before + bias[0, d])
                reset = torch.sigmoid(u2 + v[1, d] * before + bias[1, d])
                c = forget * before + (1 - forget) * u0
                g = given["mask"][text, d] * (torch.tanh(c) if case.tanh else c)
                outputs.append(reset * g + (1 - reset) * highway[row, d])
                output_grads.append(given["grad_h"][row, d])
                before = states[row, d].to(dtype) + (c - c.detach())  # the value is the stored one
            outputs.append(c)
            output_grads.append(given["grad_last"][text, d])
    if not outputs:
        grads = [torch.zeros_like(leaf) for leaf in leaves]
    else:
        grads = list(
            torch.autograd.grad(
                torch.cat(outputs), leaves, torch.cat(output_grads), materialize_grads=True
            )
        )
    if case.planes == 4:
        grads[1] = grads[1].new_zeros(0)
    return dict(zip(BACKWARD, grads, strict=True))


def sru_errors(case: Case, unsaved: bool = False) -> dict[str, float]:
    """Return the largest error of each result in units of the allowed one; infinite if it is NaN.

    Allowed is twice the error of the same computation in float32 by torch, plus 2e-6 of the largest
    value (on a GPU errors of up to 5e-7 were seen), and for a result in a small dtype the rounding
    of its store: loads are exact, and arithmetic is float32. Gradients are those for the states
    that the kernel stored. With `unsaved`, the forward pass that saves none must be equal.
    """
    got = kernel_results(case)
    wanted, plain = (
        {
            **dict(zip(FORWARD, _forward(reference, case, dtype, dtype, True), strict=True)),
            **gradients(case, got["c"], dtype),
        }
        for dtype in (torch.float64, torch.float32)
    )
    errors = {}
    for name, want in wanted.items():
        dtype = case.dtype if name in STORED else torch.float32
        assert got[name].dtype == dtype, name
        assert got[name].shape == want.shape, name
        errors[name] = 0.0
        if want.numel():
            floor = (2e-6 + rounding(dtype)) * max(1.0, want.abs().max().item())
            allowed = 2 * (plain[name].double() - want).abs().max() + floor
            errors[name] = _largest((got[name].double() - want).abs() / allowed)
    if unsaved:
        h, c, last = _forward(triton_sru, case, case.dtype, torch.float32, False)
        same = c.numel() == 0 and torch.equal(h, got["h"]) and torch.equal(last, got["last"])
        errors["unsaved"] = 0.0 if same else math.inf
    return errors


def _forward(
    back_end: Any, case: Case, dtype: torch.dtype, wide: torch.dtype, save: bool
) -> tuple[Tensor, ...]:
    device = DEVICE if back_end is triton_sru else "cpu"
    given, _ = _arguments(case, case.tensors(), device, dtype, wide)
    with blocks_of(case.block):
        return tuple(each.cpu() for each in back_end.forward(*given, save))


def pool_errors(case: Case, whole: bool) -> dict[str, float]:
    """As `sru_errors`, for pooling of one direction; with `whole`, whole numbers, so equal maxima.

    Of equal maxima the first is selected. Maxima are exact. Allowed for the others is 1e-6, and
    twice the rounding of a store.
    """
    generator, offsets = case.generator(), case.offsets()
    texts, rows = len(case.lengths), sum(case.lengths)
    h = torch.randn(rows, case.units, generator=generator).mul(2)
    h = (h.round() if whole else h).to(case.dtype)
    grads = torch.randn(2, texts, case.units, generator=generator).to(case.dtype)
    peak, share = grads.to(DEVICE)
    with blocks_of(case.block):
        pooled = triton_pool.pool(h.to(DEVICE), offsets.to(DEVICE))
        back = triton_pool.pool_backward(peak, share, pooled[2], offsets.to(DEVICE), rows).cpu()
    largest, mean, argument = (each.cpu() for each in pooled)
    want_largest, want_mean, some = reference.pool(h.double(), offsets)
    peak, share = grads.double()
    want_back = reference.pool_backward(peak, share, argument, offsets, rows)
    assert {largest.dtype, mean.dtype, back.dtype} == {case.dtype}
    exact = torch.equal(largest, want_largest.to(case.dtype))
    first = torch.equal(argument, _first(h, offsets, some))
    return {
        "largest": 0.0 if exact else math.inf,
        "mean": _relative(mean, want_mean),
        "argument": 0.0 if first else math.inf,
        "grad_h": _relative(back, want_back),
    }


def _relative(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    allowed = 1e-6 + torch.finfo(got.dtype).eps * want.abs()
    return _largest((got.double() - want).abs() / allowed)


def _largest(errors: Tensor) -> float:
    return errors.nan_to_num(nan=math.inf).max().item() if errors.numel() else 0.0


def _first(h: Tensor, offsets: Tensor, argument: Tensor) -> Tensor:
    """Return the first row of each maximum, which torch.max does not guarantee."""
    first = argument.clone()
    for text, (start, stop) in enumerate(itertools.pairwise(offsets)):
        if start < stop:
            rows = h[start:stop]
            first[text] = (rows == rows.amax(dim=0)).int().argmax(dim=0) + start
    return first
