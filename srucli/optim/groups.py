"""Which parameters an optimizer treats alike, and which of them weight decay shrinks.

The rule goes by module type and by name, never by shape alone, because an SRU keeps its vectors in
2-d tensors. No torch is imported until a model is there to be sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

GROUPS: dict[str, str] = {
    "embeddings": "tables of nn.Embedding and nn.EmbeddingBag, and what the caller names as such",
    "matrices": "weights with two dimensions",
    "kernels": "weights with more than two dimensions: convolutions",
    "head": "weights of any module called 'head'",
    "vectors": "everything else: biases, gains, an SRU's v",
}


def kind(name: str, parameter: nn.Parameter) -> str:
    """The group of a parameter that is no embedding, by its dotted name and number of dimensions.

    A weight has at least two dimensions and is called `W`, or has the word `weight` in its name
    (`weight`, `weight_ih_l0`, `in_proj_weight`).
    """
    *path, leaf = name.split(".")
    if parameter.ndim < 2 or (leaf != "W" and "weight" not in leaf.split("_")):
        return "vectors"
    if "head" in path:
        return "head"
    return "matrices" if parameter.ndim == 2 else "kernels"


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_embeddings: bool = False,
    embeddings: Iterable[nn.Parameter] = (),
) -> list[dict[str, Any]]:
    """Sort every trainable parameter of `model` into exactly one group, as torch.optim takes it.

    Groups have `name`, `params` and `weight_decay`; they come in the order of GROUPS, parameters in
    the model's order, and a group without parameters is left out. `embeddings` are parameters that
    are embeddings although no nn.Embedding holds them.
    """
    from torch import nn

    tables = {id(parameter) for parameter in embeddings} | {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "embeddings" if id(parameter) in tables else kind(name, parameter)
            members[group].append(parameter)
    decay = dict.fromkeys(GROUPS, weight_decay) | {"vectors": 0.0}
    if not decay_embeddings:
        decay["embeddings"] = 0.0
    return [
        {"name": name, "params": parameters, "weight_decay": decay[name]}
        for name, parameters in members.items()
        if parameters
    ]
