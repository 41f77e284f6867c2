"""What a training needs to go on to the same weights, as JSON and safetensors: no pickle.

A tree of plain values and tensors becomes JSON in which a tensor is {"tensor": its name}, and the
tensors. Trees hold what optimizers keep: numbers, text, None, lists, tuples, dicts with text or
numbers as keys. When to save, and what a run's folder holds, is not known here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from srucli.errors import SrucliError
from srucli.runs.checkpoints import TRAINING, TRAINING_TENSORS

# What a group's learning rate is made of anew in every step, and where it is.
_APPLIED = {"params", "lr", "initial_lr"}


class UnwritableError(SrucliError):
    """A value that is no plain one."""


def to_files(tree: Any) -> dict[str, bytes]:
    """The files of a checkpoint that hold a tree. Raises UnwritableError."""
    tensors: dict[str, Tensor] = {}
    plain = _plain(tree, "", tensors)
    # Copies, for a file holds no two tensors that share memory.
    whole = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    return {
        TRAINING: json.dumps(plain, allow_nan=True).encode() + b"\n",
        TRAINING_TENSORS: save_tensors(whole),
    }


def from_files(text: bytes, tensors: Mapping[str, Tensor]) -> Any:
    """The tree of `to_files`. Raises ValueError, TypeError, LookupError, RecursionError."""
    return _tree(json.loads(text), tensors)


def _plain(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"{len(tensors)}{path}"
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        rows = [_plain(part, f"{path}.{place}", tensors) for place, part in enumerate(value)]
        return rows if isinstance(value, list) else {"tuple": rows}
    if isinstance(value, Mapping):
        pairs = [
            [_key(key, path), _plain(part, f"{path}.{key}", tensors)] for key, part in value.items()
        ]
        return {"dict": pairs}
    raise UnwritableError(f"{path.lstrip('.')}: a {type(value).__name__} cannot be written")


def _key(key: Any, path: str) -> str | int | float:
    if isinstance(key, str | int | float):
        return key
    raise UnwritableError(f"{path.lstrip('.')}: the key {key!r} cannot be written")


def _tree(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(plain, list):
        return [_tree(part, tensors) for part in plain]
    if isinstance(plain, dict):
        ((kind, held),) = plain.items()
        if kind == "tensor":
            return tensors[held]
        if kind == "tuple":
            return tuple(_tree(held, tensors))
        if kind == "dict":
            return {key: _tree(part, tensors) for key, part in held}
        raise ValueError(f"{kind!r} is no kind of value")
    return plain


# ---------------------------------------------------------------- optimizers


class OptimizerState:
    """What an optimizer has learned since it was made, parameters by name.

    Of its groups that is what differs from how it was made: what the settings say stays theirs.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, own: bool = True) -> None:
        """`own` tells whether it is of srucli's table, whose states can be broadcast to weights."""
        self.optimizer, self.fits = optimizer, _broadcasts if own else _is_of_sizes
        self.names: dict[Tensor, str] = {
            parameter: name for name, parameter in model.named_parameters()
        }
        self.made = [dict(group) for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """For `to_files`. Raises UnwritableError."""
        groups = [
            {
                key: value
                for key, value in group.items()
                if key not in _APPLIED and not _same(value, made.get(key))
            }
            for group, made in zip(self.optimizer.param_groups, self.made, strict=True)
        ]
        state: dict[str, dict[Any, Any]] = {"weights": {}, "others": {}}
        for key, kept in self.optimizer.state.items():
            own = self.names.get(key) if isinstance(key, Tensor) else None
            state["others" if own is None else "weights"][own or key] = kept
        return {"groups": groups, **state}

    def load_state_dict(self, tree: Any) -> None:
        """Restore it. Raises ValueError, TypeError, LookupError, AttributeError.

        So it does for state that is no parameter's, or does not fit its parameter.
        """
        whole = self.optimizer.state_dict()
        self._check_shapes(tree["weights"])
        for group, learned in zip(whole["param_groups"], tree["groups"], strict=True):
            group.update({key: learned[key] for key in learned if key not in _APPLIED})
        places = self._places(whole["param_groups"])
        weights = {places[name]: kept for name, kept in tree["weights"].items()}
        whole["state"] = weights | {str(key): kept for key, kept in tree["others"].items()}
        self.optimizer.load_state_dict(whole)

    def _places(self, numbered: list[dict[str, Any]]) -> dict[str, int]:
        """The number that a state_dict has for each parameter."""
        groups = zip(self.optimizer.param_groups, numbered, strict=True)
        return {
            self.names[parameter]: place
            for group, numbers in groups
            for parameter, place in zip(group["params"], numbers["params"], strict=True)
        }

    def _check_shapes(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        shapes = {name: parameter.shape for parameter, name in self.names.items()}
        for name, kept in state.items():
            for value in kept.values():
                if isinstance(value, Tensor) and not self.fits(value.shape, shapes[name]):
                    raise ValueError(f"{name}: {tuple(value.shape)} for {tuple(shapes[name])}")


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(other, Tensor) and torch.equal(value, other)
    return type(value) is type(other) and bool(value == other)


def _broadcasts(shape: torch.Size, wanted: torch.Size) -> bool:
    if len(shape) > len(wanted):
        return False
    tail = wanted[len(wanted) - len(shape) :]
    return all(size in (1, whole) for size, whole in zip(shape, tail, strict=True))


def _is_of_sizes(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a weight's sizes, in any order, are all that there is: as much as is known."""
    return all(size in (1, *wanted) for size in shape)


# ---------------------------------------------------------------- randomness


@contextmanager
def keep_random_states(device: torch.device) -> Iterator[None]:
    """Put the generators back after a block, in the state that they had before it."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(states, device)


def random_states(device: torch.device) -> dict[str, Any]:
    """The generators of Python, NumPy and torch, and of the GPU where there is one."""
    numpy: Any = np.random.get_state()
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (numpy[0], [int(word) for word in numpy[1]], *numpy[2:]),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Put them back. Raises ValueError, TypeError, LookupError, RuntimeError, OverflowError."""
    setters: dict[str, Callable[[Any], None]] = {
        "python": random.setstate,
        "numpy": np.random.set_state,
        "torch": torch.set_rng_state,
    }
    for name, setter in setters.items():
        setter(states[name])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
