"""Register functions as torch operators, without the cost of `torch.library.custom_op`.

The operators of `custom_op` import torch._dynamo at their first call, which doubles the CPU time of
starting `srucli predict`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode


def is_watched(*tensors: Tensor) -> bool:
    """Return whether operators on these tensors are traced, recorded or transformed.

    Otherwise their functions may be called directly. Dispatching takes a fifth of the time of an
    SRU layer on a batch of one token per text.
    """
    return (
        torch.compiler.is_compiling()
        or any(type(each) not in (Tensor, nn.Parameter) for each in tensors)
        or torch._C._get_tracing_state() is not None
        or _get_current_dispatch_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def operator(
    name: str, fake: Callable[..., Any], schema: str | None = None, device: str = "default"
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes a function the operator `srucli::name`, for one device or all.

    `fake` returns empty tensors of the same shapes and dtypes, for tracing. Without a schema, one
    that mutates no argument is inferred from the function's types.
    """

    def register(function: Callable[..., Any]) -> Any:
        qualified = f"srucli::{name}"
        inferred = schema or torch.library.infer_schema(function, mutates_args=())
        torch.library.define(qualified, inferred)
        torch.library.impl(qualified, device, function)
        torch.library.register_fake(qualified, fake)
        return getattr(torch.ops.srucli, name).default

    return register
