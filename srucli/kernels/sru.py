"""The SRU layer and ragged pooling behind two operators that autograd knows.

This is the only bridge between the back ends and autograd. A back end is a module with `forward`,
`backward`, `pool` and `pool_backward`, and one row of BACK_ENDS.

For a token of one text, c' the state before it (Lei et al. 2018, arXiv 1709.02755, section 3):

    f = sigmoid(u1 + v_f * c' + b_f)      forget gate
    c = f * c' + (1 - f) * u0             state
    r = sigmoid(u2 + v_r * c' + b_r)      reset gate
    h = r * m * g(c) + (1 - r) * x'       highway; m a dropout mask, g identity or tanh

with u = W x, and x' = alpha x where u has three planes, or u3 where it has four. Layout: a batch is
one flat row of N tokens and B+1 offsets; u (N, k, D) is planar; where there are two directions, the
second half of the D units runs backwards through each text.

The product W x is made inside the operator, so that u is the operator's own: a back end may leave
there what its backward pass needs, and then its gradient, instead of filling more memory.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from srucli.errors import UsageError
from srucli.kernels import gemm

BackEnd = Literal["auto", "reference", "cpu", "triton"]

BACK_ENDS = {
    "reference": "srucli.kernels.reference",
    "cpu": "srucli.kernels.cpu",
    "triton": "srucli.kernels.triton",
}
# What a back end needs besides torch, and the tensors it takes; the reference takes all there are.
NEEDS = {"cpu": "numba", "triton": "triton"}
TAKES = {
    "cpu": ("cpu", (torch.float32,)),
    "triton": ("cuda", (torch.float32, torch.bfloat16, torch.float16)),
}


@functools.cache
def fastest(device: str, dtype: torch.dtype) -> str:
    """The back end for tensors of this device type and dtype; warns where it need not be slow."""
    for name, (takes_device, dtypes) in TAKES.items():
        if device == takes_device and dtype in dtypes:
            if importlib.util.find_spec(NEEDS[name]):
                return name
            warnings.warn(
                f"{NEEDS[name]} is not installed: the SRU runs as a loop in torch, several times "
                f"slower; `pip install {NEEDS[name]}`",
                stacklevel=4,
            )
    return "reference"


def check(kernel: str, device: str, dtype: torch.dtype = torch.float32) -> str:
    """The back end that `kernel` means here. Raises UsageError where it cannot be had, and why."""
    if kernel == "auto":
        return fastest(device, dtype)
    if kernel not in BACK_ENDS:
        raise UsageError(f"kernel {kernel}: there are auto, {', '.join(BACK_ENDS)}")
    if kernel in NEEDS:
        if not importlib.util.find_spec(NEEDS[kernel]):
            raise UsageError(f"kernel {kernel} needs {NEEDS[kernel]}: pip install {NEEDS[kernel]}")
        takes_device, dtypes = TAKES[kernel]
        if device != takes_device and not _interpreted(kernel):
            raise UsageError(f"kernel {kernel} runs on a {takes_device} device, not on {device}")
        if dtype not in dtypes:
            names = ", ".join(str(each).removeprefix("torch.") for each in dtypes)
            raise UsageError(f"kernel {kernel} takes {names}, not {dtype}")
    return kernel


def _interpreted(kernel: str) -> bool:
    """Whether Triton runs its kernels in Python, on any device, as for tests."""
    if kernel != "triton":
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)


def _module(kernel: str, like: Tensor) -> Any:
    return importlib.import_module(BACK_ENDS[check(kernel, like.device.type, like.dtype)])


def _wide(module: Any, *tensors: Tensor | None) -> list[Tensor | None]:
    """What the reference computes in: its caller's dtype, but float32 where that is a smaller one.

    The other back ends read small dtypes and compute in float32 themselves.
    """
    if not module.__name__.endswith("reference"):
        return list(tensors)
    return [
        tensor.float() if tensor is not None and tensor.dtype.itemsize == 2 else tensor
        for tensor in tensors
    ]


def _make_u(
    x: Tensor, weight: Tensor, product: Tensor | None, index: Tensor | None, width: int
) -> tuple[Tensor, Tensor | None]:
    """u (N, k, D) of the operator's own, and where k = 3 the highway's input (N, D)."""
    made = gemm.product(x, weight) if product is None else product
    if index is not None:
        made = made.index_select(0, index)
    u = made.view(made.shape[0], made.shape[1] // width, width)
    return u, _highway(u, x, index)


def _highway(u: Tensor, x: Tensor, index: Tensor | None) -> Tensor | None:
    """The highway's input (N, D) where u has no plane of its own for it."""
    if u.shape[1] == 4:
        return None
    return x if index is None else x.index_select(0, index)


@torch.library.custom_op("srucli::sru", mutates_args=())
def _sru(
    x: Tensor,
    weight: Tensor,
    product: Tensor | None,
    index: Tensor | None,
    v: Tensor,
    bias: Tensor,
    initial: Tensor,
    mask: Tensor,
    offsets: Tensor,
    directions: int,
    tanh: bool,
    alpha: float,
    save: bool,
    private: bool,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u, highway = _make_u(x, weight, product, index, v.shape[1])
    module = _module(kernel, u)
    h, c, last = module.forward(
        *_wide(module, u, highway), v, bias, initial, mask, offsets, directions, tanh, alpha, save
    )
    return h.to(u.dtype), last, c.to(u.dtype), u if save else u.new_empty(0)


@_sru.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    product: Tensor | None,
    index: Tensor | None,
    v: Tensor,
    bias: Tensor,
    initial: Tensor,
    mask: Tensor,
    offsets: Tensor,
    directions: int,
    tanh: bool,
    alpha: float,
    save: bool,
    private: bool,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, width = (x if index is None else index).shape[0], v.shape[1]
    planes = weight.shape[0] // width
    h, c = x.new_empty(rows, width), x.new_empty(rows if save else 0, width)
    u = x.new_empty((rows, planes, width) if save else (0,))
    return h, torch.empty_like(initial), c, u


@torch.library.custom_op("srucli::sru_backward", mutates_args={"u"})
def _sru_backward(
    grad_h: Tensor,
    grad_last: Tensor,
    c: Tensor,
    u: Tensor,
    x: Tensor,
    weight: Tensor,
    index: Tensor | None,
    v: Tensor,
    bias: Tensor,
    initial: Tensor,
    mask: Tensor,
    offsets: Tensor,
    directions: int,
    tanh: bool,
    alpha: float,
    wants_x: bool,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    highway = _highway(u, x, index)
    module = _module(kernel, u)
    wide_h, wide_c, wide_u, wide_x = _wide(module, grad_h, c, u, highway)
    shape = directions, tanh, alpha
    grad_u, grad_x, *grads = module.backward(
        wide_h, grad_last, wide_u, wide_x, v, bias, initial, mask, wide_c, offsets, *shape
    )
    grad_u, grad_x = grad_u.to(u.dtype).flatten(1), grad_x.to(u.dtype)
    if index is not None:
        grad_u = grad_u.new_zeros(x.shape[0], grad_u.shape[1]).index_add_(0, index, grad_u)
        if highway is not None:
            grad_x = torch.zeros_like(x).index_add_(0, index, grad_x)
    grad_weight = gemm.weight_gradient(grad_u, x)
    if not wants_x:
        grad_x = x.new_empty(0)
    else:
        grad_x = gemm.input_gradient(grad_u, weight, None if highway is None else grad_x)
    return grad_x, grad_weight, *grads


@_sru_backward.register_fake
def _(
    grad_h: Tensor,
    grad_last: Tensor,
    c: Tensor,
    u: Tensor,
    x: Tensor,
    weight: Tensor,
    index: Tensor | None,
    v: Tensor,
    bias: Tensor,
    initial: Tensor,
    mask: Tensor,
    offsets: Tensor,
    directions: int,
    tanh: bool,
    alpha: float,
    wants_x: bool,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x = x.new_empty(x.shape if wants_x else (0,))
    grads = map(torch.empty_like, (weight, v, bias, initial))
    return grad_x, *grads  # type: ignore[return-value]


def _sru_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, index, *rest, _, ctx.private, ctx.kernel = inputs
    *tensors, directions, tanh, alpha = rest
    ctx.settings = directions, tanh, alpha
    ctx.save_for_backward(*output[2:], x, weight, index, *tensors)
    ctx.set_materialize_grads(False)


def _sru_gradient(
    ctx: Any, grad_h: Tensor | None, grad_last: Tensor | None, *_: None
) -> tuple[Any, ...]:
    c, u, *tensors = ctx.saved_tensors
    grad_h = torch.zeros_like(c) if grad_h is None else grad_h
    grad_last = torch.zeros_like(tensors[5]) if grad_last is None else grad_last
    kept = torch._C._autograd._get_current_graph_task_keep_graph()
    traced = type(u) is not Tensor
    if kept or traced or not ctx.private:
        u = u.clone()
    wants_x = ctx.needs_input_grad[0]
    grad_x, grad_weight, *grads = _sru_backward(
        grad_h, grad_last, c, u, *tensors, *ctx.settings, wants_x, ctx.kernel
    )
    return grad_x if wants_x else None, grad_weight, None, None, *grads, *[None] * 8


_sru.register_autograd(_sru_gradient, setup_context=_sru_save)


def sru_layer(
    x: Tensor,
    weight: Tensor,
    v: Tensor,
    bias: Tensor,
    offsets: Tensor,
    *,
    index: Tensor | None = None,
    product: Tensor | None = None,
    directions: int = 1,
    initial: Tensor | None = None,
    mask: Tensor | None = None,
    tanh: bool = False,
    alpha: float = 1.0,
    kernel: BackEnd = "auto",
) -> tuple[Tensor, Tensor]:
    """One SRU layer over a ragged batch; gradients reach x, weight, v, bias and initial.

    x (N, E): the layer's input. weight (k D, E): of the candidate, the forget and the reset gate,
    and where k = 4 the highway; k = 3 needs E = D.
    v, bias (2, D): of the forget and the reset gate.
    offsets (B + 1,) int64, rising from 0 to N.
    index (N,) int64: rows of x that are the tokens', where some are the same; x is (M, E) then.
    product (M, k D): x times the weights where that is known already; needs `index`.
    initial (B, D): states before the first token; zeros where None.
    mask (B, D): dropout of g(c), one per text; ones where None.
    v, bias, initial and mask are float32 where x is of a smaller dtype; under autocast x and weight
    are brought to its dtype.
    Returns h (N, D) and the last states (B, D): after a text's last token for the first direction,
    after its first token for the second. Raises ValueError for shapes that do not fit, UsageError
    for a kernel that cannot be had.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    state = torch.promote_types(x.dtype, torch.float32)
    width, texts = v.shape[1], offsets.numel() - 1
    initial = v.new_zeros(texts, width) if initial is None else initial
    mask = v.new_ones(texts, width) if mask is None else mask
    _check_shapes(x, weight, v, bias, directions, initial, mask)
    if product is not None and index is None:
        raise ValueError("a product needs the index of its rows")
    v, bias, initial, mask = (each.to(state) for each in (v, bias, initial, mask))
    save = torch.is_grad_enabled() and any(
        each.requires_grad for each in (x, weight, v, bias, initial)
    )
    # Nobody else sees u, so the backward pass may overwrite it.
    settings = directions, tanh, alpha, save, True, kernel
    h, last, _, _ = _sru(x, weight, product, index, v, bias, initial, mask, offsets, *settings)
    return h, last


def _check_shapes(
    x: Tensor,
    weight: Tensor,
    v: Tensor,
    bias: Tensor,
    directions: int,
    initial: Tensor,
    mask: Tensor,
) -> None:
    width, size = v.shape[1], x.shape[1]
    if weight.shape not in ((4 * width, size), (3 * width, width)) or size != weight.shape[1]:
        raise ValueError(
            f"weight is {tuple(weight.shape)}, it must be {(4 * width, size)}, or where the input "
            f"has {width} features {(3 * width, width)}"
        )
    if width % directions or v.shape != (2, width) or bias.shape != (2, width):
        raise ValueError(f"v {tuple(v.shape)} and bias {tuple(bias.shape)} must be (2, {width})")
    if mask.shape != initial.shape or mask.shape[1] != width:
        raise ValueError(f"initial and mask must be (texts, {width})")


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
