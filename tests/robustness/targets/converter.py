"""The fuzzer's target `converter`: mutated weights of the `sru` package for `from_sru_weights`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from srucli.errors import UsageError
from srucli.model.convert import from_sru_weights
from tests.robustness.targets.seeds import Seeds
from tests.robustness.watch import watched

DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool),
    *(torch.complex64, torch.uint8, torch.float8_e4m3fn),
)
KEYS = (
    *("rnn_lst.0.weight", "rnn_lst.1.weight", "rnn_lst.00.bias", "rnn_lst.٠.weight_c", "weight"),
    *("rnn_lst.99999999999.bias", "rnn_lst.0.weight_proj", "rnn_lst.0.layer_norm.bias", ""),
    *("rnn_lst.0.custom_m.x", "input_to_hidden.weight", "a.rnn_lst.0.bias", "rnn_lst.-1.bias"),
)
VALUES = (0.0, -1.0, math.nan, math.inf, 1e30, 1e308)
Weights = dict[str, Any]


def valid(random: Random) -> tuple[Weights, dict[str, Any]]:
    """Return the weights of one to three layers as `sru` names them, and their options."""
    bidirectional, hidden = random.random() < 0.5, random.choice((1, 2, 3))
    width, size = hidden * (2 if bidirectional else 1), random.choice((1, 2, 4, 6))
    scale, projected = random.choice((1.0, 1.0, 1.7)), random.random() < 0.3
    weights: Weights = {}
    for number in range(random.choice((1, 1, 2, 3))):
        planes, inner = 3 if size == width else 4, size
        layer = f"rnn_lst.{number}."
        if projected:
            inner = 2
            weights[f"{layer}weight_proj"] = torch.ones(size, inner)
        weights[f"{layer}weight"] = torch.full((inner, planes * width), 0.1)
        weights[f"{layer}weight_c"] = torch.zeros(2 * width)
        weights[f"{layer}bias"] = torch.zeros(2 * width)
        weights[f"{layer}scale_x"] = torch.tensor([scale])
        size = width
    return weights, {"bidirectional": bidirectional, "use_tanh": random.random() < 0.5}


def _shape(random: Random, tensor: Tensor) -> Any:
    size = tensor.shape[0] if tensor.ndim else 1
    return random.choice(
        (
            lambda: tensor.t() if tensor.ndim == 2 else tensor[None],
            lambda: tensor.reshape(-1),
            lambda: tensor[..., :0] if tensor.ndim else tensor,
            lambda: tensor[: size // 2] if tensor.ndim else tensor,
            lambda: tensor.sum(),
            lambda: tensor[None, None],
            lambda: torch.cat([tensor, tensor]) if tensor.ndim else tensor,
            lambda: torch.zeros(()).expand(2**9, 2**9),
            lambda: torch.zeros(()).expand(2**20),
        )
    )()


def _values(random: Random, tensor: Tensor) -> Any:
    return (
        torch.tensor(random.choice(VALUES), dtype=torch.float64)
        .expand(tensor.shape)
        .to(tensor.dtype)
    )


def _kind(random: Random, tensor: Tensor) -> Any:
    return random.choice(
        (
            lambda: tensor.to(random.choice(DTYPES)),
            lambda: tensor.to("meta"),
            lambda: tensor.to_sparse(),
            lambda: tensor.requires_grad_() if tensor.is_floating_point() else tensor,
            lambda: tensor.tolist(),
            lambda: None,
        )
    )()


CHANGES: tuple[Callable[[Random, Tensor], Any], ...] = (_shape, _shape, _values, _kind, _kind)


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has not become one that few operators take."""
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.dtype != DTYPES[-1]


def mutate_weights(random: Random, weights: Weights) -> None:
    """Change up to three tensors or keys."""
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        key = random.choice(list(weights))
        way = random.randrange(8)
        if way == 0:
            del weights[key]
        elif way == 1:
            weights[random.choice(KEYS)] = weights[key]
        elif way == 2:
            weights[random.choice(KEYS)] = weights.pop(key)
        elif isinstance(weights[key], Tensor) and _is_plain(weights[key]):
            weights[key] = random.choice(CHANGES)(random, weights[key])
        if not weights:
            return


def try_converter(_seeds: Seeds, random: Random, folder: Path) -> None:
    """Convert mutated weights, and apply the module. Raises UsageError for a ValueError."""
    weights, options = valid(random)
    mutate_weights(random, weights)
    prefix = random.choice(("", "", "", "a."))
    if prefix and random.random() < 0.7:
        weights = {f"{prefix}{key}": value for key, value in weights.items()}
    options["bidirectional"] ^= random.random() < 0.1
    with watched(folder):
        try:
            module = from_sru_weights(weights, prefix=prefix, **options)
        except ValueError as error:
            raise UsageError(str(error)) from None
        first = next(module.parameters())
        if first.is_meta:
            return
        output, state = module(torch.ones(3, 2, module.input_size, dtype=first.dtype))
        assert output.shape[:2] == (3, 2)
        assert state.shape[1] == 2


def prepare(_seeds: Seeds) -> None:
    """Compile the kernels for the dtypes that a module may have."""
    for number in range(40):
        weights, options = valid(Random(number))
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            module = from_sru_weights({k: v.to(dtype) for k, v in weights.items()}, **options)
            module(torch.ones(3, 2, module.input_size, dtype=dtype))
