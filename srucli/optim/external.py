"""Optimizers of other packages by name, as `schedulefree:AdamWScheduleFree`.

Only of the packages named here: a configuration must not be able to import whatever it likes. What
they compute is theirs; their options are what their constructors take.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from srucli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from srucli.config import OptimConfig

# module -> the extra of srucli that installs it
PACKAGES = {"schedulefree": "schedulefree", "pytorch_optimizer": "pytorch-optimizer"}
# What srucli gives each constructor itself.
OWN = ("self", "params", "lr", "weight_decay", "kwargs")


def is_external(name: str) -> bool:
    """Whether a name is one of another package."""
    return ":" in name


def find(name: str) -> type[Optimizer]:
    """The class that `package:Class` names. Raises UsageError."""
    package, _, kind = name.partition(":")
    module = package.replace("-", "_")
    if module not in PACKAGES:
        hint = did_you_mean(package, list(PACKAGES))
        raise UsageError(f"optim.name: no optimizers are taken from '{package}'{hint}")
    if not find_spec(module):
        extra = PACKAGES[module]
        raise UsageError(f"optim.name: {name} needs {extra}: pip install 'srucli[{extra}]'")
    from torch.optim import Optimizer

    found = getattr(import_module(module), kind, None)
    if not (inspect.isclass(found) and issubclass(found, Optimizer)):
        names = [
            each
            for each, value in vars(import_module(module)).items()
            if inspect.isclass(value) and issubclass(value, Optimizer)
        ]
        raise UsageError(
            f"optim.name: {package} has no optimizer '{kind}'{did_you_mean(kind, names)}"
        )
    return found


def options(kind: type[Optimizer]) -> dict[str, Any]:
    """The options of a class with their defaults."""
    parameters = inspect.signature(kind.__init__).parameters
    return {key: each.default for key, each in parameters.items() if key not in OWN}


def resolve(config: OptimConfig) -> OptimConfig:
    """As `srucli.optim.resolve`. A schedule-free optimizer has no schedule unless one is set."""
    kind = find(config.name)
    known = options(kind)
    for key in config.options:
        if key not in known:
            hint = did_you_mean(key, list(known))
            raise UsageError(f"optim.options.{key}: {config.name} has no such option{hint}")
    parameters = inspect.signature(kind.__init__).parameters
    update: dict[str, Any] = {
        "options": {
            key: tuple(value) if isinstance(value, list) else value
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
    if hasattr(kind, "eval") and "schedule" not in config.model_fields_set:
        update["schedule"] = "constant"
    return config.model_copy(update=update)


def try_step(config: OptimConfig) -> None:
    """Take one step with a vector and a matrix. Raises UsageError where that cannot be done.

    `config` is resolved.
    """
    import torch

    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, 2))]
    group = {"params": weights, "weight_decay": config.weight_decay or 0.0}
    optimizer = build(config, [group])
    set_mode(optimizer, training=True)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    try:
        optimizer.step()
    except Exception as error:  # whatever a stranger's optimizer raises
        raise _unusable(config, error) from error


def _unusable(config: OptimConfig, error: Exception) -> UsageError:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return UsageError(f"optim.name: {config.name} cannot be used here: {said}")


def build(config: OptimConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer over the groups. Raises UsageError where it does not take the options."""
    try:
        return find(config.name)(groups, lr=config.lr, **config.options)  # type: ignore[call-arg]
    except Exception as error:  # whatever a stranger's constructor raises
        raise _unusable(config, error) from error


def set_mode(optimizer: Optimizer, *, training: bool) -> None:
    """Put the weights that training or evaluation needs into the model.

    Those of a schedule-free optimizer (Defazio et al. 2024, arXiv 2405.15682) are averages in
    evaluation; all others know only one set of weights.
    """
    if has_averages(optimizer):
        switch: Any = optimizer
        switch.train() if training else switch.eval()


def has_averages(optimizer: Optimizer) -> bool:
    """Whether it evaluates other weights than it trains."""
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")
