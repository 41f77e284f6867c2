"""The SRU recurrence on a GPU, compiled by Triton: float32, bfloat16, float16.

Programs walk over texts as `triton_walk.py` explains. The backward pass walks in the opposite
direction and recomputes the gates from the saved states. Its recurrence is linear and could be a
scan over tiles of time, but that takes more instructions, all registers and a barrier per stage;
with a walk, every result is elementwise over units. Multiplications and additions are fused only
where the source says so. So a text's h, c, last and gradients depend neither on its batch nor on
the size of a block, to the bit. Parameter gradients are stored per text and summed in order,
without atomics. States and arithmetic are float32 for all dtypes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from srucli.kernels.reference import Recurrence
from srucli.kernels.triton_walk import STAGES, STEPS, kernel, launch, place

# sigmoid(z) = 1 / (1 + 2^(_SCALE z))
_SCALE = tl.constexpr(-1.4426950408889634)
# Whether kernels may contain NVIDIA's instructions: not in Triton's interpreter, nor on AMD.
_ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret and torch.version.hip is None)


@triton.jit
def _reciprocal(y):
    """1 / y for y >= 1, within a unit in the last place: one instruction instead of eight."""
    if _ASSEMBLY:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [y], dtype=tl.float32, is_pure=True, pack=1
        )
    return 1.0 / y


@triton.jit
def _sigmoid(z):
    """sigmoid(z), for z times _SCALE."""
    return _reciprocal(1.0 + tl.exp2(z))


@triton.jit
def _gates(u1, u2, before, gates):
    """The forget and the reset gate of a token; `gates` comes from `_parameters`."""
    vf, vr, bf, br = gates
    forget = _sigmoid(tl.fma(vf, before, tl.fma(u1, _SCALE, bf)))
    return forget, _sigmoid(tl.fma(vr, before, tl.fma(u2, _SCALE, br)))


@triton.jit
def _activation(c, TANH: tl.constexpr):
    return tl.fma(_sigmoid(c * (2 * _SCALE)), 2.0, -1.0) if TANH else c


@triton.jit
def _parameters(v, bias, d, live, WIDTH: tl.constexpr):
    """v and bias of the forget and the reset gate at columns d, times _SCALE."""
    return (
        tl.load(v + d, live, 0.0) * _SCALE,
        tl.load(v + WIDTH + d, live, 0.0) * _SCALE,
        tl.load(bias + d, live, 0.0) * _SCALE,
        tl.load(bias + WIDTH + d, live, 0.0) * _SCALE,
    )


@triton.jit
def _inputs(u, x, alpha, there, WIDTH: tl.constexpr, PLANES: tl.constexpr):
    """The three planes of u and the highway of a token; zeros if it does not exist."""
    u0 = tl.load(u, there, 0.0).to(tl.float32)
    u1 = tl.load(u + WIDTH, there, 0.0).to(tl.float32)
    u2 = tl.load(u + 2 * WIDTH, there, 0.0).to(tl.float32)
    if PLANES == 4:
        return u0, u1, u2, tl.load(u + 3 * WIDTH, there, 0.0).to(tl.float32)
    return u0, u1, u2, tl.load(x, there, 0.0).to(tl.float32) * alpha


@kernel
def _forward(
    u,
    x,
    v,
    bias,
    initial,
    mask,
    offsets,
    alpha,
    h,
    c,
    last,
    PLANES: tl.constexpr,
    TANH: tl.constexpr,
    SAVE: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
    UNITS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDTH: tl.constexpr = UNITS * DIRECTIONS
    text, d, live, row, way, length = place(offsets, False, UNITS, DIRECTIONS, BLOCK)
    ends = tl.where(live, length, 0)
    gates = _parameters(v, bias, d, live, WIDTH)
    drop = tl.load(mask + text * WIDTH + d, live, 0.0)
    state = tl.load(initial + text * WIDTH + d, live, 0.0)
    end = state
    u, at = u + row * (PLANES * WIDTH) + d, row * WIDTH + d
    x, h, c = x + at, h + at, c + at
    u_way, way = way * (PLANES * WIDTH), way * WIDTH
    for step in tl.range(0, length, STEPS, num_stages=STAGES):
        group = ()
        for i in tl.static_range(STEPS):
            there = step + i < ends
            group += (_inputs(u + i * u_way, x + i * way, alpha, there, WIDTH, PLANES),)
        for i in tl.static_range(STEPS):
            there = step + i < ends
            u0, u1, u2, highway = group[i]
            forget, reset = _gates(u1, u2, state, gates)
            state = tl.fma(forget, state - u0, u0)
            swing = tl.fma(drop, _activation(state, TANH), -highway)
            tl.store(h + i * way, tl.fma(reset, swing, highway).to(h.dtype.element_ty), there)
            if SAVE:
                tl.store(c + i * way, state.to(c.dtype.element_ty), there)
            # Selected outside the chain of states; steps past the end do not matter.
            end = tl.where(step + i < ends, state, end)
        u += STEPS * u_way
        x, h, c = x + STEPS * way, h + STEPS * way, c + STEPS * way
    tl.store(last + text * WIDTH + d, end, live)


@triton.jit
def _token_back(grad, before, inputs, gates, vf, vr, drop, adjoint, there, TANH: tl.constexpr):
    """A token's gradients of u0, u1, u2 and the highway, and the adjoint of the state before it."""
    u0, u1, u2, highway = inputs
    forget, reset = _gates(u1, u2, before, gates)
    lead, keep = before - u0, 1.0 - forget
    g = _activation(tl.fma(forget, lead, u0), TANH)
    slope = drop * tl.fma(-g, g, 1.0) if TANH else drop
    through = grad * reset
    grad_reset = through * (1.0 - reset) * tl.fma(drop, g, -highway)
    # Zero past the end: the adjoint may be infinite there and must not reach the sums.
    grad_c = tl.where(there, tl.fma(through, slope, adjoint), 0.0)
    swing = lead * (forget * keep)
    adjoint = tl.where(there, tl.fma(tl.fma(vf, swing, forget), grad_c, grad_reset * vr), adjoint)
    return grad_c * keep, grad_c * swing, grad_reset, grad - through, adjoint


@triton.jit
def _store_planes(u, x, grads, alpha, there, WIDTH: tl.constexpr, PLANES: tl.constexpr):
    """Write a token's four gradients where `_inputs` reads."""
    g0, g1, g2, way = grads
    kind = u.dtype.element_ty
    tl.store(u, g0.to(kind), there)
    tl.store(u + WIDTH, g1.to(kind), there)
    tl.store(u + 2 * WIDTH, g2.to(kind), there)
    if PLANES == 4:
        tl.store(u + 3 * WIDTH, way.to(kind), there)
    else:
        tl.store(x, (way * alpha).to(kind), there)


@kernel
def _backward(
    u,
    x,
    v,
    bias,
    initial,
    mask,
    offsets,
    alpha,
    grad_h,
    grad_last,
    c,
    grad_x,
    partial,
    grad_initial,
    PLANES: tl.constexpr,
    TANH: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
    UNITS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Overwrites u with its gradient: each row is read by the program that writes it, before."""
    WIDTH: tl.constexpr = UNITS * DIRECTIONS
    text, d, live, row, way, length = place(offsets, True, UNITS, DIRECTIONS, BLOCK)
    ends = tl.where(live, length, 0)
    gates = _parameters(v, bias, d, live, WIDTH)
    vf, vr = tl.load(v + d, live, 0.0), tl.load(v + WIDTH + d, live, 0.0)
    drop = tl.load(mask + text * WIDTH + d, live, 0.0)
    adjoint = tl.load(grad_last + text * WIDTH + d, live, 0.0)
    first = tl.load(initial + text * WIDTH + d, live, 0.0)
    none = tl.zeros((BLOCK,), tl.float32)
    sum_vf, sum_vr, sum_bf, sum_br = none, none, none, none
    u, at = u + row * (PLANES * WIDTH) + d, row * WIDTH + d
    x, grad_x, grad_h, c = x + at, grad_x + at, grad_h + at, c + at
    u_way, way = way * (PLANES * WIDTH), way * WIDTH
    for step in tl.range(0, length, STEPS, num_stages=STAGES):
        group = ()
        for i in tl.static_range(STEPS):
            there = step + i < ends
            inputs = _inputs(u + i * u_way, x + i * way, alpha, there, WIDTH, PLANES)
            grad = tl.load(grad_h + i * way, there, 0.0).to(tl.float32)
            # The state before the first token is not in c.
            there = step + i + 1 < ends
            before = tl.load(c + (i + 1) * way, there, 0.0).to(tl.float32)
            group += ((grad, before, inputs),)
        for i in tl.static_range(STEPS):
            there = step + i < ends
            grad, before, inputs = group[i]
            before = tl.where(step + i + 1 == length, first, before)
            g0, g1, g2, highway, adjoint = _token_back(
                grad, before, inputs, gates, vf, vr, drop, adjoint, there, TANH
            )
            grads = (g0, g1, g2, highway)
            _store_planes(u + i * u_way, grad_x + i * way, grads, alpha, there, WIDTH, PLANES)
            sum_vf, sum_vr = tl.fma(g1, before, sum_vf), tl.fma(g2, before, sum_vr)
            sum_bf, sum_br = sum_bf + g1, sum_br + g2
        u += STEPS * u_way
        x, grad_x = x + STEPS * way, grad_x + STEPS * way
        grad_h, c = grad_h + STEPS * way, c + STEPS * way
    tl.store(grad_initial + text * WIDTH + d, adjoint, live)
    partial += text * (4 * WIDTH) + d
    tl.store(partial, sum_vf, live)
    tl.store(partial + WIDTH, sum_vr, live)
    tl.store(partial + 2 * WIDTH, sum_bf, live)
    tl.store(partial + 3 * WIDTH, sum_br, live)


def _launch(run, u, x, given, *others, **constants):
    """Run a kernel on the arguments that both kernels start with, and `others`."""
    planes, width = u.shape[1:]
    texts, directions = given.initial.shape[0], given.directions
    grid, settings = launch(texts, width // directions, directions, u)
    settings |= {"PLANES": planes, "TANH": given.tanh, "STEPS": STEPS, "STAGES": STAGES}
    inputs = (u if x is None else x, given.v, given.bias, given.initial, given.mask)
    contiguous = (each.contiguous() for each in inputs)
    with torch.cuda.device_of(u):
        run[grid](u, *contiguous, given.offsets, given.alpha, *others, **settings, **constants)


def forward(
    u: Tensor, x: Tensor | None, given: Recurrence, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.forward`; without `save`, c is empty."""
    rows, _, width = u.shape
    h = u.new_empty(rows, width)
    c = u.new_empty(rows if save else 0, width)
    last = torch.empty_like(given.initial, memory_format=torch.contiguous_format)
    _launch(_forward, u.contiguous(), x, given, h, c, last, SAVE=save)
    return h, c, last


def backward(
    grad_h: Tensor, grad_last: Tensor, u: Tensor, x: Tensor | None, c: Tensor, given: Recurrence
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `reference.backward`. Overwrites u, which must be contiguous, with its gradient."""
    if not u.is_contiguous():
        raise ValueError("the backward pass overwrites u, which must be contiguous")
    grad_x = u.new_empty(0 if x is None else x.shape)
    grad_initial = torch.empty_like(given.initial, memory_format=torch.contiguous_format)
    partial = given.initial.new_empty(given.initial.shape[0], 2, 2, u.shape[2])
    grads = grad_h.contiguous(), grad_last.contiguous()
    _launch(_backward, u, x, given, *grads, c, grad_x, partial, grad_initial)
    return u, grad_x, partial[:, 0].sum(dim=0), partial[:, 1].sum(dim=0), grad_initial
