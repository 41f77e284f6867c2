"""Optimizers of other packages by name, as `schedulefree:AdamWScheduleFree`.

Only the packages listed here are allowed, so that a configuration cannot import arbitrary code.
Options are whatever the optimizers' constructors take.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from srucli.errors import UsageError, did_you_mean
from srucli.io.console import MAX_REASON, beginning, excerpt
from srucli.io.memory import ran_out
from srucli.optim.options import check_names

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from srucli.config import OptimConfig

PACKAGES = ["schedulefree", "pytorch_optimizer"]
# Arguments of a constructor that are no options.
RESERVED = ("self", "params", "lr", "weight_decay", "kwargs")


def is_external(name: str) -> bool:
    """Return whether an optimizer's name refers to another package."""
    return ":" in name


def _find(name: str) -> type[Optimizer]:
    """Return the class that `package:Class` names. Raises UsageError."""
    package, _, class_name = name.partition(":")
    module = package.replace("-", "_")
    if module not in PACKAGES:
        hint = did_you_mean(package, PACKAGES)
        raise UsageError(f"optim.name: no optimizers are taken from '{package}'{hint}")
    if not find_spec(module):
        extra = module.replace("_", "-")
        raise UsageError(f"optim.name: {name} needs {extra}: pip install 'srucli[{extra}]'")
    from torch.optim import Optimizer

    classes = {
        key: value
        for key, value in vars(import_module(module)).items()
        if inspect.isclass(value) and issubclass(value, Optimizer)
    }
    if class_name not in classes:
        hint = did_you_mean(class_name, list(classes))
        raise UsageError(f"optim.name: {package} has no optimizer '{class_name}'{hint}")
    return classes[class_name]


def resolve(config: OptimConfig) -> OptimConfig:
    """As `srucli.optim.resolve`. A schedule-free optimizer has no schedule unless one is set."""
    optimizer = _find(config.name)
    parameters = inspect.signature(optimizer.__init__).parameters
    check_names(config, (name for name in parameters if name not in RESERVED))
    update: dict[str, Any] = {
        "options": {
            key: _checked(f"optim.options.{key}", value, parameters[key].default)
            for key, value in config.options.items()
        }
    }
    for field in ("lr", "weight_decay"):
        if field not in parameters:
            raise UsageError(f"optim.name: {config.name} takes no {field}, so srucli cannot use it")
        if getattr(config, field) is None:
            default = parameters[field].default
            if not isinstance(default, int | float):
                raise UsageError(f"optim.{field}: {config.name} has no default, so give one")
            update[field] = float(default)
    if hasattr(optimizer, "eval") and "schedule" not in config.model_fields_set:
        update["schedule"] = "constant"
    return config.model_copy(update=update)


def _checked(key: str, value: Any, default: Any) -> Any:
    """Return an option's value, a list as a tuple, if it is of the kind of the default.

    If there is none, or it is None, numbers, strings, true, false and lists of numbers are taken.
    Raises UsageError with `key` in its message.
    """
    value = tuple(value) if isinstance(value, list | tuple) else value
    numbers = isinstance(value, tuple) and all(map(_is_number, value))
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int | float):
        fits, wanted = _is_number(value), "a number"
    elif isinstance(default, list | tuple):
        fits = numbers and len(value) == len(default)
        wanted = f"a list of {len(default)} numbers"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a string"
    else:
        fits = value is None or isinstance(value, bool | str) or _is_number(value) or numbers
        wanted = "a number, a string, true, false or a list of numbers"
    if not fits:
        raise UsageError(f"{key} = {excerpt(value)}: must be {wanted}")
    return value


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def try_step(config: OptimConfig) -> None:
    """Take one step of a resolved optimizer, for a vector and a matrix. Raises UsageError."""
    import torch

    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, 2))]
    group = {"params": weights, "weight_decay": config.weight_decay or 0.0}
    optimizer = build(config, [group])
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    try:
        set_mode(optimizer, training=True)
        optimizer.step()
        set_mode(optimizer, training=False)
    except Exception as error:  # other packages may raise anything
        if ran_out(error):
            raise
        raise _unusable(config, error) from error


def _unusable(config: OptimConfig, error: Exception) -> UsageError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    shown = beginning(reason, MAX_REASON)
    return UsageError(f"optim.name: {config.name} cannot be used here: {shown}")


def build(config: OptimConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """Return the optimizer over the groups. Raises UsageError if it rejects the options."""
    try:
        return _find(config.name)(groups, lr=config.lr, **config.options)  # type: ignore[call-arg]
    except Exception as error:  # other packages may raise anything
        if ran_out(error):
            raise
        raise _unusable(config, error) from error


def set_mode(optimizer: Optimizer, *, training: bool) -> None:
    """Put the weights for training or for evaluation into the model.

    A schedule-free optimizer (Defazio et al. 2024, arXiv 2405.15682) evaluates averages of the
    weights; others use the same weights for both.
    """
    if has_averages(optimizer):
        switch: Any = optimizer
        switch.train() if training else switch.eval()


def has_averages(optimizer: Optimizer) -> bool:
    """Return whether the optimizer evaluates other weights than it trains."""
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")
