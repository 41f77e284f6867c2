"""Which parameters an optimizer treats alike, and to which of them weight decay applies.

The groups depend on module types and names, never on shapes alone, because an SRU stores its
vectors in 2-d tensors. torch is imported only when there is a model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

GROUPS: dict[str, str] = {
    "embeddings": "tables of nn.Embedding and nn.EmbeddingBag",
    "matrices": "weights with two dimensions",
    "kernels": "weights with more than two dimensions: convolutions",
    "head": "weights of any module called 'head'",
    "vectors": "everything else: biases, gains, an SRU's v",
}

# The number of a layer in a parameter's name: of a list `layers`, or as torch's recurrent ones.
_LAYER = re.compile(r"\.layers\.(\d+)\.|_l(\d+)(?:_reverse)?$")


def _group_name(name: str, parameter: nn.Parameter) -> str:
    """Return the group of a parameter that is no embedding, by its dotted name and dimensions.

    A weight has at least two dimensions and is called `W`, or has the word `weight` in its name
    (`weight`, `weight_ih_l0`, `in_proj_weight`).
    """
    *path, leaf = name.split(".")
    if parameter.ndim < 2 or (leaf != "W" and "weight" not in leaf.split("_")):
        return "vectors"
    if "head" in path:
        return "head"
    return "matrices" if parameter.ndim == 2 else "kernels"


def depths(model: nn.Module) -> dict[str, int]:
    """Return how far each parameter is below the head, by its name.

    0: the head, and everything else that is neither encoder nor embedding. 1: the top layer of the
    encoder; then the layers below it, and the embedding last. An encoder whose parts have no
    numbers of layers is one layer.
    """
    layers = {}
    for name, _ in model.named_parameters():
        if name.startswith("encoder."):
            number = _LAYER.search(name)
            layers[name] = int(number[1] or number[2]) if number else 0
    top = max(layers.values(), default=-1)
    found = {name: 1 + top - layer for name, layer in layers.items()}
    return {
        name: top + 2 if name.startswith("embedding.") else found.get(name, 0)
        for name, _ in model.named_parameters()
    }


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_embeddings: bool = False,
    *,
    by_depth: bool = False,
) -> list[dict[str, Any]]:
    """Return every trainable parameter of `model` in exactly one group, as torch.optim takes them.

    Groups have `name`, `params` and `weight_decay`, and come in the order of GROUPS without empty
    ones. Parameters keep the model's order. With `by_depth`, each is divided into groups of one
    `depth` (see `depths`), which have the same name.
    """
    from torch import nn

    tables = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            table = id(parameter) in tables
            members["embeddings" if table else _group_name(name, parameter)].append(parameter)
    undecayed = {"vectors"} if decay_embeddings else {"vectors", "embeddings"}
    groups = [
        {"name": name, "params": params, "weight_decay": 0.0 if name in undecayed else weight_decay}
        for name, params in members.items()
        if params
    ]
    return [part for group in groups for part in _divided(model, group)] if by_depth else groups


def _divided(model: nn.Module, group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a group's parts of equal depth, the highest first."""
    found, names = depths(model), {id(weight): name for name, weight in model.named_parameters()}
    parts: dict[int, list[nn.Parameter]] = {}
    for weight in group["params"]:
        parts.setdefault(found[names[id(weight)]], []).append(weight)
    return [
        {**group, "params": weights, "depth": depth} for depth, weights in sorted(parts.items())
    ]
