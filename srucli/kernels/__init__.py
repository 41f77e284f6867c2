"""The SRU recurrence and ragged pooling behind two operators that autograd knows.

This is the only bridge between the back ends and autograd. A back end is a module with `forward`,
`backward`, `pool` and `pool_backward`, and one row of BACK_ENDS.

For a token of one text, c' the state before it (Lei et al. 2018, arXiv 1709.02755, section 3):

    f = sigmoid(u1 + v_f * c' + b_f)      forget gate
    c = f * c' + (1 - f) * u0             state
    r = sigmoid(u2 + v_r * c' + b_r)      reset gate
    h = r * m * g(c) + (1 - r) * x'       highway; m a dropout mask, g identity or tanh

with x' = alpha x where u has three planes, or u3 where it has four. Layout: a batch is one flat row
of N tokens and B+1 offsets; u (N, k, D) is planar; where there are two directions, the second half
of the D units runs backwards through each text.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from typing import Any, Literal

import torch
from torch import Tensor

BackEnd = Literal["auto", "reference", "cpu"]

BACK_ENDS = {
    "reference": "srucli.kernels.reference",
    "cpu": "srucli.kernels.cpu",
}


def set_threads(threads: int) -> None:
    """Use `threads` CPU threads in torch and in Numba alike.

    Numba's first parallel launch changes torch's number, hence the order here.
    """
    if importlib.util.find_spec("numba"):
        import numba

        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        numba.set_num_threads(min(threads, most))
        module = importlib.import_module(BACK_ENDS["cpu"])
        module.pool(torch.zeros(1, 1), torch.tensor([0, 1]))
    torch.set_num_threads(threads)


@functools.cache
def fastest(device: str, dtype: torch.dtype) -> str:
    """The back end for tensors of this device type and dtype; warns where it need not be slow."""
    if device == "cpu" and dtype == torch.float32:
        if importlib.util.find_spec("numba"):
            return "cpu"
        warnings.warn(
            "Numba is not installed: the SRU runs as a loop in torch, several times slower; "
            "`pip install numba`",
            stacklevel=4,
        )
    return "reference"


def _module(kernel: str, like: Tensor) -> Any:
    name = fastest(like.device.type, like.dtype) if kernel == "auto" else kernel
    return importlib.import_module(BACK_ENDS[name])


@torch.library.custom_op("srucli::sru", mutates_args=())
def _sru(
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
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    run = _module(kernel, u).forward
    result: tuple[Tensor, Tensor, Tensor] = run(
        u, x, v, bias, initial, mask, offsets, directions, tanh, alpha
    )
    return result


@_sru.register_fake
def _(
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
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    h = u.new_empty(u.shape[0], u.shape[2])
    return h, torch.empty_like(h), u.new_empty(initial.shape)


@torch.library.custom_op("srucli::sru_backward", mutates_args=())
def _sru_backward(
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
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    run = _module(kernel, u).backward
    grads: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = run(
        grad_h, grad_last, u, x, v, bias, initial, mask, c, offsets, directions, tanh, alpha
    )
    return grads


@_sru_backward.register_fake
def _(
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
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x = u.new_empty(0) if x is None else torch.empty_like(x)
    return (
        torch.empty_like(u),
        grad_x,
        torch.empty_like(v),
        torch.empty_like(bias),
        torch.empty_like(initial),
    )


def _sru_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, x, v, bias, initial, mask, offsets, *ctx.settings = inputs
    ctx.save_for_backward(u, x, v, bias, initial, mask, output[1], offsets)


def _sru_gradient(ctx: Any, grad_h: Tensor, _: Tensor, grad_last: Tensor) -> tuple[Any, ...]:
    x = ctx.saved_tensors[1]
    grad_u, grad_x, grad_v, grad_bias, grad_initial = _sru_backward(
        grad_h, grad_last, *ctx.saved_tensors, *ctx.settings
    )
    wanted_x = grad_x if x is not None else None
    return grad_u, wanted_x, grad_v, grad_bias, grad_initial, *[None] * 6


_sru.register_autograd(_sru_gradient, setup_context=_sru_save)


def sru_recurrence(
    u: Tensor,
    x: Tensor | None,
    v: Tensor,
    bias: Tensor,
    offsets: Tensor,
    *,
    directions: int = 1,
    initial: Tensor | None = None,
    mask: Tensor | None = None,
    tanh: bool = False,
    alpha: float = 1.0,
    kernel: BackEnd = "auto",
) -> tuple[Tensor, Tensor]:
    """Run one SRU layer over a ragged batch; gradients reach every tensor but mask and offsets.

    u (N, k, D): candidate, forget and reset planes, and where k = 4 the highway.
    x (N, D): the highway's input where k = 3, else None.
    v, bias (2, D): of the forget and the reset gate.
    offsets (B + 1,) int64, rising from 0 to N.
    initial (B, D): states before the first token; zeros where None.
    mask (B, D): dropout of g(c), one per text; ones where None.
    Returns h (N, D) and the last states (B, D): after a text's last token for the first direction,
    after its first token for the second. Raises ValueError for shapes that do not fit.
    """
    rows, planes, width = u.shape
    texts = offsets.numel() - 1
    if planes != (4 if x is None else 3):
        raise ValueError(f"u has {planes} planes; it needs 3 with x, or 4 without")
    if width % directions or v.shape != (2, width) or bias.shape != (2, width):
        raise ValueError(f"v {tuple(v.shape)} and bias {tuple(bias.shape)} must be (2, {width})")
    if x is not None and x.shape != (rows, width):
        raise ValueError(f"x is {tuple(x.shape)}, it must be {(rows, width)}")
    initial = u.new_zeros(texts, width) if initial is None else initial
    mask = u.new_ones(texts, width) if mask is None else mask
    if initial.shape != (texts, width) or mask.shape != (texts, width):
        raise ValueError(f"initial and mask must be {(texts, width)}")
    h, _, last = _sru(u, x, v, bias, initial, mask, offsets, directions, tanh, alpha, kernel)
    return h, last


@torch.library.custom_op("srucli::pool", mutates_args=())
def _pool(h: Tensor, offsets: Tensor, kernel: str) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = _module(kernel, h).pool(h, offsets)
    return result


@_pool.register_fake
def _(h: Tensor, offsets: Tensor, kernel: str) -> tuple[Tensor, Tensor, Tensor]:
    largest = h.new_empty(offsets.shape[0] - 1, h.shape[1])
    return largest, torch.empty_like(largest), torch.empty_like(largest, dtype=torch.int64)


@torch.library.custom_op("srucli::pool_backward", mutates_args=())
def _pool_backward(
    grad_largest: Tensor,
    grad_mean: Tensor,
    argument: Tensor,
    offsets: Tensor,
    rows: int,
    kernel: str,
) -> Tensor:
    run = _module(kernel, grad_mean).pool_backward
    result: Tensor = run(grad_largest, grad_mean, argument, offsets, rows)
    return result


@_pool_backward.register_fake
def _(
    grad_largest: Tensor,
    grad_mean: Tensor,
    argument: Tensor,
    offsets: Tensor,
    rows: int,
    kernel: str,
) -> Tensor:
    return grad_mean.new_empty(rows, grad_mean.shape[1])


def _pool_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    h, offsets, ctx.kernel = inputs
    ctx.rows = h.shape[0]
    ctx.save_for_backward(output[2], offsets)


def _pool_gradient(ctx: Any, grad_largest: Tensor, grad_mean: Tensor, _: Tensor) -> tuple[Any, ...]:
    argument, offsets = ctx.saved_tensors
    grad = _pool_backward(grad_largest, grad_mean, argument, offsets, ctx.rows, ctx.kernel)
    return grad, None, None


_pool.register_autograd(_pool_gradient, setup_context=_pool_save)


def ragged_pool(h: Tensor, offsets: Tensor, kernel: BackEnd = "auto") -> tuple[Tensor, Tensor]:
    """Maximum and mean over each text's rows of h (N, D): two tensors (B, D), zeros for no rows."""
    largest, mean, _ = _pool(h, offsets, kernel)
    return largest, mean
