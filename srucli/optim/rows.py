"""Optimizer steps on the rows of a table that have a gradient, and on no others.

A batch has some hundred of a vocabulary's tokens, so most rows of an embedding have a gradient of
zero. On a CPU embeddings therefore have sparse gradients, if the optimizer's row of the table says
so: a step leaves rows without a gradient, and their state, as they are. For an optimizer with
momentum or means of squares this is another rule than the paper's, under which these decay in every
step: they decay in the steps in which their row has a gradient (as in torch.optim.SparseAdam).

torch is imported only when there is a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


def set_sparse(model: nn.Module, groups: list[dict[str, Any]], wanted: bool) -> None:
    """Give embeddings sparse gradients if `wanted`, or dense ones.

    Dense in any case: embeddings on a GPU, where CUDA graphs need fixed shapes, and with weight
    decay, which changes every row.
    """
    from torch import nn

    undecayed = {id(w) for group in groups if not group["weight_decay"] for w in group["params"]}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            weight = module.weight
            module.sparse = wanted and weight.device.type == "cpu" and id(weight) in undecayed


def values_of(weight: Tensor) -> Tensor:
    """Return the values of a weight's gradient, which share its memory; of a sparse one, its rows.

    Each row is there once, so that the norm of the values is that of the gradient.
    """
    assert weight.grad is not None
    if not weight.grad.is_sparse:
        return weight.grad
    weight.grad = weight.grad.coalesce()
    return weight.grad.values()


@contextmanager
def on_rows(optimizer: Optimizer) -> Iterator[None]:
    """Let rows stand for each weight with a sparse gradient in a step that is taken in the block.

    The state of a weight consists of tensors of its shape, by row, and of others.
    """
    swapped = []
    for group in optimizer.param_groups:
        for place, weight in enumerate(group["params"]):
            if weight.grad is not None and weight.grad.is_sparse:
                values = values_of(weight)
                rows = weight.grad.indices()[0]
                part = weight.detach().index_select(0, rows)
                part.grad = values
                group["params"][place] = part
                optimizer.state[part] = {
                    key: value.index_select(0, rows) if _by_row(value, weight) else value
                    for key, value in optimizer.state[weight].items()
                }
                swapped.append((group["params"], place, weight, rows, part))
    try:
        yield
    finally:
        for parameters, place, weight, rows, part in swapped:
            parameters[place] = weight
            weight.detach().index_copy_(0, rows, part)
            whole = optimizer.state[weight]
            for key, value in optimizer.state.pop(part).items():
                if not _by_row(value, part):
                    whole[key] = value
                else:
                    if key not in whole:
                        whole[key] = value.new_zeros(weight.shape)
                    whole[key].index_copy_(0, rows, value)


def _by_row(value: Any, weight: Tensor) -> bool:
    return getattr(value, "shape", None) == weight.shape
