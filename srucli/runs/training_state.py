"""The state of a training as JSON and safetensors, so that resuming gives the same weights.

A tree of plain values and tensors becomes JSON, in which a tensor is {"tensor": its name}, and the
named tensors. A tree holds what optimizers keep: numbers, strings, None, lists, tuples, and dicts
with strings or numbers as keys. There is no pickle.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from srucli.errors import SrucliError
from srucli.runs.checkpoints import TRAINING, TRAINING_TENSORS
from srucli.runs.tensors import file_of

# Entries of a parameter group that are set again in every step, or are its parameters.
_APPLIED = {"params", "lr", "initial_lr"}


class UnwritableError(SrucliError):
    """A value that cannot be saved. The message names it and its path in the tree."""


def to_files(tree: Any) -> dict[str, bytes]:
    """Return the content of a checkpoint's files for a tree. Raises UnwritableError."""
    tensors: dict[str, Tensor] = {}
    plain = _plain(tree, "", tensors)
    # Copies, because safetensors refuses tensors that share memory.
    whole = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    return {
        TRAINING: json.dumps(plain, allow_nan=True).encode() + b"\n",
        TRAINING_TENSORS: file_of(whole),
    }


def from_files(text: bytes, tensors: Mapping[str, Tensor] | None) -> Any:
    """Return the tree that `to_files` saved; without tensors, each of them is None.

    Raises ValueError, TypeError, LookupError, RecursionError.
    """
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
        pairs = []
        for key, part in value.items():
            if not isinstance(key, str | int | float):
                raise UnwritableError(f"the key {key!r} at {path.lstrip('.')}")
            pairs.append([key, _plain(part, f"{path}.{key}", tensors)])
        return {"dict": pairs}
    raise UnwritableError(f"a {type(value).__name__} at {path.lstrip('.')}")


def _tree(plain: Any, tensors: Mapping[str, Tensor] | None) -> Any:
    if isinstance(plain, list):
        return [_tree(part, tensors) for part in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "tensor":
        return None if tensors is None else tensors[content]
    if kind == "tuple":
        return tuple(_tree(content, tensors))
    if kind == "dict":
        return {key: _tree(part, tensors) for key, part in content}
    raise ValueError(f"{kind!r} is no kind of value")


class OptimizerState:
    """The state of an optimizer with parameters by name, and what it changed in its groups.

    Unchanged entries of a group are not saved, so that they stay as the settings say.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, own: bool = True) -> None:
        """`own` optimizers are those of srucli's table; their states broadcast to the weights."""
        self.optimizer, self.fits = optimizer, _broadcasts if own else _permutes
        self.names: dict[Tensor, str] = {w: name for name, w in model.named_parameters()}
        self.initial = [dict(group) for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return a tree for `to_files`."""
        groups = [
            {
                key: value
                for key, value in group.items()
                if key not in _APPLIED and not _same(value, initial.get(key))
            }
            for group, initial in zip(self.optimizer.param_groups, self.initial, strict=True)
        ]
        state: dict[str, dict[Any, Any]] = {"weights": {}, "others": {}}
        for key, value in self.optimizer.state.items():
            name = self.names.get(key) if isinstance(key, Tensor) else None
            state["others" if name is None else "weights"][name or key] = value
        return {"groups": groups, **state}

    def load_state_dict(self, tree: Any) -> None:
        """Restore the state. Raises ValueError, TypeError, LookupError, AttributeError.

        These are also raised for a state of unknown parameters, or of another shape.
        """
        whole = self.optimizer.state_dict()
        self._check_shapes(tree["weights"])
        for group, saved in zip(whole["param_groups"], tree["groups"], strict=True):
            group.update({key: saved[key] for key in saved if key not in _APPLIED})
        numbers = self._numbers(whole["param_groups"])
        weights = {numbers[name]: state for name, state in tree["weights"].items()}
        whole["state"] = weights | {str(key): state for key, state in tree["others"].items()}
        self.optimizer.load_state_dict(whole)

    def _numbers(self, numbered: list[dict[str, Any]]) -> dict[str, int]:
        """Return the number of each parameter in a state_dict."""
        return {
            self.names[parameter]: number
            for group, numbers in zip(self.optimizer.param_groups, numbered, strict=True)
            for parameter, number in zip(group["params"], numbers["params"], strict=True)
        }

    def _check_shapes(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        shapes = {name: parameter.shape for parameter, name in self.names.items()}
        for name, state in states.items():
            for value in state.values():
                if isinstance(value, Tensor) and not self.fits(value.shape, shapes[name]):
                    raise ValueError(f"{name}: {tuple(value.shape)} for {tuple(shapes[name])}")


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(other, Tensor) and torch.equal(value, other)
    return type(value) is type(other) and bool(value == other)


def _broadcasts(shape: torch.Size, wanted: torch.Size) -> bool:
    last = wanted[len(wanted) - len(shape) :]
    sizes = zip(shape, last, strict=False)
    return len(shape) == len(last) and all(size in (1, whole) for size, whole in sizes)


def _permutes(shape: torch.Size, wanted: torch.Size) -> bool:
    """Return whether all sizes are sizes of the weight, in any order: no more is known."""
    return all(size in (1, *wanted) for size in shape)


@contextmanager
def keep_random_states(device: torch.device) -> Iterator[None]:
    """Restore the random number generators after a block."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(states, device)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the generators of Python, NumPy and torch, and of the device's GPU."""
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
    """Restore them. Raises ValueError, TypeError, LookupError, RuntimeError, OverflowError."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
