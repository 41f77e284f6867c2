"""The SRU recurrence and ragged pooling as plain loops in torch: the reference for all back ends.

It also runs on machines without Numba and on a GPU without Triton. It is written for clarity, not
for speed: one vectorized step over all texts of a batch for each time step. It computes in its
caller's dtype. `sru.py` explains layout and equations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Recurrence(NamedTuple):
    """The arguments of every back end's `forward` and `backward` other than u, x and gradients.

    v, bias (2, D): of the forget and the reset gate. initial (B, D): states before the first token.
    mask (B, D): dropout of g(c). All four are float32 if u has a smaller dtype.
    offsets (B + 1,): int64. tanh: whether g is tanh, not the identity. alpha: the scale of the
    highway's input if that is x.
    """

    v: Tensor
    bias: Tensor
    initial: Tensor
    mask: Tensor
    offsets: Tensor
    directions: int
    tanh: bool
    alpha: float


def _longest(offsets: Tensor) -> int:
    return int(offsets.diff().max()) if offsets.numel() > 1 else 0


def _rows(offsets: Tensor, step: int, backwards: bool) -> tuple[Tensor, Tensor]:
    """Return the texts that have a token at time `step`, and the rows of these tokens."""
    lengths = offsets.diff()
    texts = (lengths > step).nonzero().squeeze(1)
    first = offsets[:-1].index_select(0, texts)
    last = offsets[1:].index_select(0, texts) - 1
    return texts, last - step if backwards else first + step


def _by_direction(given: Recurrence) -> Iterator[tuple[slice, bool, Recurrence]]:
    """Yield the columns of each direction, whether it runs backwards, and its units' arguments."""
    units = given.v.shape[1] // given.directions
    for direction in range(given.directions):
        d = slice(direction * units, (direction + 1) * units)
        own = {name: getattr(given, name)[:, d] for name in ("v", "bias", "initial", "mask")}
        yield d, direction == 1, given._replace(**own)


def _gates(u1: Tensor, u2: Tensor, before: Tensor, given: Recurrence) -> tuple[Tensor, Tensor]:
    forget = torch.sigmoid(u1 + given.v[0] * before + given.bias[0])
    return forget, torch.sigmoid(u2 + given.v[1] * before + given.bias[1])


def _one_direction(
    u: Tensor, highway: Tensor, given: Recurrence, backwards: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the H units of a direction: u (N, 3, H), highway (N, H) -> h, c (N, H), last (B, H)."""
    state = given.initial
    rows, outputs, states = [], [], []
    for step in range(_longest(given.offsets)):
        texts, row = _rows(given.offsets, step, backwards)
        before = state.index_select(0, texts)
        u0, u1, u2 = u.index_select(0, row).unbind(1)
        forget, reset = _gates(u1, u2, before, given)
        c = forget * before + (1 - forget) * u0
        g = given.mask.index_select(0, texts) * (torch.tanh(c) if given.tanh else c)
        outputs.append(reset * g + (1 - reset) * highway.index_select(0, row))
        states.append(c)
        rows.append(row)
        state = state.index_copy(0, texts, c)
    if not rows:
        return u[:, 0], u[:, 0], state
    order = torch.cat(rows).argsort()
    return torch.cat(outputs)[order], torch.cat(states)[order], state


def forward(
    u: Tensor, x: Tensor | None, given: Recurrence, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence over the texts: u (N, k, D), and x (N, D) if k = 3, else None.

    Returns h (N, D) and c (N, D) in u's dtype and the last states (B, D). c is for `backward`.
    Without `save`, other back ends leave it empty; with it, they may store values in u.
    """
    highway = u[:, 3] if x is None else given.alpha * x
    parts = (
        _one_direction(u[:, :3, d], highway[:, d], own, backwards)
        for d, backwards, own in _by_direction(given)
    )
    h, c, last = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return h, c, last


def _one_direction_back(
    grad_h: Tensor,
    grad_last: Tensor,
    u: Tensor,
    highway: Tensor,
    c: Tensor,
    given: Recurrence,
    backwards: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u (N, 3, H), highway (N, H), v and bias (4, H), initial (B, H)."""
    grad_u, grad_highway = torch.empty_like(u), torch.empty_like(highway)
    sums = u.new_zeros(4, u.shape[2])
    adjoint = grad_last.clone()
    for step in reversed(range(_longest(given.offsets))):
        texts, row = _rows(given.offsets, step, backwards)
        previous = row + 1 if backwards else row - 1
        before = given.initial[texts] if step == 0 else c[previous]
        u0, u1, u2 = u[row].unbind(1)
        forget, reset = _gates(u1, u2, before, given)
        mask = given.mask[texts]
        g = torch.tanh(c[row]) if given.tanh else c[row]
        slope = 1 - g * g if given.tanh else 1.0
        grad_reset = grad_h[row] * (mask * g - highway[row]) * reset * (1 - reset)
        grad_c = adjoint[texts] + grad_h[row] * reset * mask * slope
        grad_forget = grad_c * (before - u0) * forget * (1 - forget)
        grad_u[row] = torch.stack((grad_c * (1 - forget), grad_forget, grad_reset), dim=1)
        grad_highway[row] = grad_h[row] * (1 - reset)
        adjoint[texts] = grad_c * forget + grad_forget * given.v[0] + grad_reset * given.v[1]
        parts = (grad_forget * before, grad_reset * before, grad_forget, grad_reset)
        sums += torch.stack([part.sum(dim=0) for part in parts])
    return grad_u, grad_highway, sums, adjoint


def backward(
    grad_h: Tensor, grad_last: Tensor, u: Tensor, x: Tensor | None, c: Tensor, given: Recurrence
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, x (empty if x is None), v, bias and initial, given the states c.

    With known states, the adjoint is linear: gc' = f gc + v_f gf + v_r gr, with the gates' terms
    gf = gc (c' - u0) f (1 - f) and gr = gh (m g(c) - x') r (1 - r).
    """
    highway = u[:, 3] if x is None else given.alpha * x
    parts = (
        _one_direction_back(
            grad_h[:, d], grad_last[:, d], u[:, :3, d], highway[:, d], c[:, d], own, backwards
        )
        for d, backwards, own in _by_direction(given)
    )
    grad_u, grad_highway, sums, grad_initial = (
        torch.cat(part, dim=-1) for part in zip(*parts, strict=True)
    )
    if x is None:
        grad_u = torch.cat((grad_u, grad_highway.unsqueeze(1)), dim=1)
    grad_x = u.new_empty(0) if x is None else given.alpha * grad_highway
    return grad_u, grad_x, sums[:2].clone(), sums[2:].clone(), grad_initial


def pool(h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return maximum, mean and row of the maximum (B, D) of each text; 0, 0 and -1 if empty."""
    shape = (offsets.numel() - 1, h.shape[1])
    largest, mean = h.new_zeros(shape), h.new_zeros(shape)
    argument = torch.full(shape, -1, dtype=torch.int64, device=h.device)
    for text, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        if start < stop:
            largest[text], argument[text] = h[start:stop].max(dim=0)
            mean[text] = h[start:stop].mean(dim=0)
            argument[text] += start
    return largest, mean, argument


def pool_backward(
    grad_largest: Tensor, grad_mean: Tensor, argument: Tensor, offsets: Tensor, rows: int
) -> Tensor:
    """Return the gradient of h (rows, D)."""
    lengths = offsets.diff()
    shares = grad_mean / lengths.clamp(min=1).unsqueeze(1)
    grad_h = shares.repeat_interleave(lengths, dim=0, output_size=rows)
    full = lengths > 0
    return grad_h.scatter_add_(0, argument[full], grad_largest[full])


def sum_rows(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """Return (rows, E): the sum of the gradients (N, E) of all places of index (N,) with a row."""
    found: Tensor = torch.ops.aten.embedding_dense_backward(grad, index, rows, -1, False)
    return found


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the losses (B,) as in `loss.py`, and the gradient (B, C) of each by its logits."""
    logs, weight = logits.log_softmax(dim=1), weights.index_select(0, targets)
    rest, own = smoothing / logits.shape[1], targets.unsqueeze(1)
    right = (1 - smoothing) * logs.gather(1, own).squeeze(1)
    if smoothing:
        right = right + smoothing * logs.mean(dim=1)
    wanted = torch.full_like(logs, rest).scatter_(1, own, rest + 1 - smoothing)
    return -weight * right, weight.unsqueeze(1) * (logs.exp() - wanted)
