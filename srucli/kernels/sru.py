"""The SRU layer as an operator with autograd: a GEMM and the recurrence of a back end.

For a token of one text, c' the state before it (Lei et al. 2018, arXiv 1709.02755, section 3):

    f = sigmoid(u1 + v_f * c' + b_f)      forget gate
    c = f * c' + (1 - f) * u0             state
    r = sigmoid(u2 + v_r * c' + b_r)      reset gate
    h = r * m * g(c) + (1 - r) * x'       highway; m a dropout mask, g identity or tanh

with u = W x, and x' = alpha x if u has three planes, or u3 if it has four. Layout: a batch is one
flat row of N tokens and B+1 offsets; u (N, k, D) has k planes per token; with two directions, the
second half of the D units runs backwards through each text.

The operator computes the product W x itself, so that nobody else has u: a back end may store there
what its backward pass needs, and then the gradient of u, and needs less memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from srucli.kernels import gemm
from srucli.kernels.backends import backend_for
from srucli.kernels.operator import is_watched, operator
from srucli.kernels.reference import Recurrence

# The fields of Recurrence in the syntax of torch's schemas.
_GIVEN = ", ".join(f"{kind.__name__} {name}" for name, kind in get_type_hints(Recurrence).items())
_TENSORS = list(get_type_hints(Recurrence).values()).count(Tensor)


def _highway(u: Tensor, x: Tensor, index: Tensor | None) -> Tensor | None:
    """Return the highway's input (N, D), unless u has a plane for it."""
    if u.shape[1] == 4:
        return None
    return x if index is None else x.index_select(0, index)


def _sru_fake(
    x: Tensor, weight: Tensor, product: Tensor | None, index: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *fields, save, _, _ = rest
    given = Recurrence(*fields)
    rows, width = (x if index is None else index).shape[0], given.v.shape[1]
    planes = weight.shape[0] // width
    h, c = x.new_empty(rows, width), x.new_empty(rows if save else 0, width)
    u = x.new_empty((rows, planes, width) if save else (0,))
    return h, torch.empty_like(given.initial), c, u


def _forward(
    x: Tensor, weight: Tensor, product: Tensor | None, index: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, last states, c and u; the last two are for the backward pass."""
    *fields, save, _, kernel = rest
    given = Recurrence(*fields)
    u = gemm.product(x, weight) if product is None else product
    u = u if index is None else u.index_select(0, index)
    width = given.v.shape[1]
    u = u.view(u.shape[0], u.shape[1] // width, width)
    row = backend_for(kernel, u)
    wide = row.widened(u, _highway(u, x, index))
    h, c, last = import_module(row.sru).forward(*wide, given, save)
    return h.to(u.dtype), last, c.to(u.dtype), u if save else u.new_empty(0)


_sru = operator(
    "sru",
    _sru_fake,
    f"(Tensor x, Tensor weight, Tensor? product, Tensor? index, {_GIVEN}, "
    "bool save, bool private, str kernel) -> (Tensor, Tensor, Tensor, Tensor)",
)(_forward)


def _sru_backward_fake(
    grad_h: Tensor, grad_last: Tensor, c: Tensor, u: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, weight, _, *fields, wants_x, _ = rest
    given = Recurrence(*fields)
    grad_x = x.new_empty(x.shape if wants_x else (0,))
    grads = map(torch.empty_like, (weight, given.v, given.bias, given.initial))
    return grad_x, *grads


def _backward(
    grad_h: Tensor, grad_last: Tensor, c: Tensor, u: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x (empty if not wanted), weight, v, bias and initial."""
    x, weight, index, *fields, wants_x, kernel = rest
    highway = _highway(u, x, index)
    row = backend_for(kernel, u)
    wide_h, *wide = row.widened(grad_h, u, highway, c)
    back = import_module(row.sru).backward
    grad_u, grad_x, *grads = back(wide_h, grad_last, *wide, Recurrence(*fields))
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


_sru_backward = operator(
    "sru_backward",
    _sru_backward_fake,
    "(Tensor grad_h, Tensor grad_last, Tensor c, Tensor(a!) u, Tensor x, Tensor weight, "
    f"Tensor? index, {_GIVEN}, bool wants_x, str kernel) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)(_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, index, *fields, _, ctx.private, ctx.kernel = inputs
    ctx.settings = fields[_TENSORS:]
    ctx.save_for_backward(*output[2:], x, weight, index, *fields[:_TENSORS])
    ctx.set_materialize_grads(False)


@once_differentiable
def _gradient(
    ctx: Any, grad_h: Tensor | None, grad_last: Tensor | None, *_: None
) -> tuple[Any, ...]:
    c, u, x, weight, index, *tensors = ctx.saved_tensors
    given = Recurrence(*tensors, *ctx.settings)
    grad_h = torch.zeros_like(c) if grad_h is None else grad_h
    grad_last = torch.zeros_like(given.initial) if grad_last is None else grad_last
    retained = torch._C._autograd._get_current_graph_task_keep_graph()
    traced = type(u) is not Tensor
    if retained or traced or not ctx.private:
        u = u.clone()
    wants_x = ctx.needs_input_grad[0]
    run = _sru_backward if is_watched(u, grad_h, grad_last) else _backward
    grad_x, grad_weight, *grads = run(
        grad_h, grad_last, c, u, x, weight, index, *given, wants_x, ctx.kernel
    )
    others = [None] * 8  # mask, offsets and the arguments that are no tensors
    return grad_x if wants_x else None, grad_weight, None, None, *grads, *others


torch.library.register_autograd("srucli::sru", _gradient, setup_context=_save)


class _Direct(torch.autograd.Function):
    """The operator without torch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output[0], output[1]

    backward = staticmethod(_gradient)  # type: ignore[assignment]


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
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run one SRU layer over a ragged batch; gradients reach x, weight, v, bias and initial.

    x (N, E): the layer's input.
    weight (k D, E): of the candidate, the forget gate, the reset gate and, if k = 4, the highway;
    k = 3 needs E = D.
    v, bias (2, D): of the forget and the reset gate.
    offsets (B + 1,) int64, rising from 0 to N.
    index (N,) int64: the row of x of each token, if tokens share rows; x is then (M, E).
    product (M, k D): x times the weights, if it is already known; needs `index`.
    initial (B, D): states before the first token; default zeros.
    mask (B, D): dropout of g(c), one per text; default ones.
    v, bias, initial and mask are float32 if x has a smaller dtype. Under autocast, x and weight are
    converted to its dtype.
    Returns h (N, D) and the last states (B, D): after a text's last token for the first direction,
    after its first token for the second. Raises ValueError for shapes that do not fit, UsageError
    for a kernel that cannot run here.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    state = torch.promote_types(x.dtype, torch.float32)
    width, texts = v.shape[1], offsets.numel() - 1
    initial = v.new_zeros(texts, width) if initial is None else initial
    mask = v.new_ones(texts, width) if mask is None else mask
    _check_shapes(x, weight, v, bias, directions)
    if mask.shape != initial.shape or mask.shape[1] != width:
        raise ValueError(f"initial and mask must be (texts, {width})")
    if product is not None and index is None:
        raise ValueError("a product needs the index of its rows")
    v, bias, initial, mask = (each.to(state) for each in (v, bias, initial, mask))
    trained = (x, weight, v, bias, initial)
    save = torch.is_grad_enabled() and any(each.requires_grad for each in trained)
    given = Recurrence(v, bias, initial, mask, offsets, directions, tanh, alpha)
    # Nobody else has u, so the backward pass may overwrite it.
    inputs = (x, weight, product, index, *given, save, True, kernel)
    if x.device.type == "cpu" and not is_watched(x, weight, v, bias, initial, mask):
        direct: tuple[Tensor, Tensor] = _Direct.apply(*inputs)  # type: ignore[no-untyped-call]
        return direct
    h, last, _, _ = _sru(*inputs)
    return h, last


def _check_shapes(x: Tensor, weight: Tensor, v: Tensor, bias: Tensor, directions: int) -> None:
    width, size = v.shape[1], x.shape[1]
    if weight.shape not in ((4 * width, size), (3 * width, width)) or size != weight.shape[1]:
        raise ValueError(
            f"weight is {tuple(weight.shape)}; it must be {(4 * width, size)} or, for an input"
            f" of {width} features, {(3 * width, width)}"
        )
    if width % directions or v.shape != (2, width) or bias.shape != (2, width):
        raise ValueError(f"v {tuple(v.shape)} and bias {tuple(bias.shape)} must be (2, {width})")
