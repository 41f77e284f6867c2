"""From settings to an optimizer. torch is imported only when one is built."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from srucli.optim import external
from srucli.optim.groups import parameter_groups
from srucli.optim.options import check_names
from srucli.optim.rows import set_sparse
from srucli.optim.table import OPTIMIZERS, row_named

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from srucli.config import OptimConfig


def resolve(config: OptimConfig) -> OptimConfig:
    """Return `config` with learning rate, weight decay and every option set. Raises UsageError."""
    if external.is_external(config.name):
        return external.resolve(config)
    row = row_named(config.name)
    check_names(config, row.options)
    options = {
        key: option.checked(f"optim.options.{key}", config.options.get(key, option.default))
        for key, option in row.options.items()
    }
    lr = row.lr if config.lr is None else config.lr
    decay = row.weight_decay if config.weight_decay is None else config.weight_decay
    return config.model_copy(update={"lr": lr, "weight_decay": decay, "options": options})


def validate(config: OptimConfig) -> None:
    """Raise UsageError for an unknown optimizer or option, or a value that it does not take."""
    config = resolve(config)
    if external.is_external(config.name):
        external.try_step(config)


def can_be_captured(config: OptimConfig) -> bool:
    """Return whether a CUDA graph can capture the optimizer's step. Raises UsageError."""
    if external.is_external(config.name):
        return False
    corrected = resolve(config).options.get("bias_correction", True)
    return row_named(config.name).captured is not None and bool(corrected)


def build(
    config: OptimConfig, model: nn.Module, *, captured: bool = False, by_depth: bool = False
) -> Optimizer:
    """Return the optimizer of `config` over the trainable parameters of `model`.

    Its groups are those of `parameter_groups`, each with its peak learning rate, `initial_lr`: that
    of the head, times the layer decay for every layer further down (Howard & Ruder 2018, arXiv
    1801.06146, section 3.2, where it is 1 / 2.6). With `captured`, CUDA graphs can capture steps,
    and learning rates are tensors on the parameters' device, which groups share. by_depth: no group
    has parameters of several depths, as is needed if they get gradients from different steps on. It
    is also decided which embeddings of the model have sparse gradients. Raises UsageError.
    """
    config = resolve(config)
    assert config.lr is not None
    assert config.weight_decay is not None
    decay = config.weight_decay, config.decay_embeddings
    groups = parameter_groups(model, *decay, by_depth=by_depth or config.layer_decay != 1.0)
    set_sparse(model, groups, config.name in OPTIMIZERS and OPTIMIZERS[config.name].rows)
    if external.is_external(config.name):
        optimizer = external.build(config, groups)
    else:
        optimizer = _build(config, groups, captured)
    rates: dict[float, Any] = {}
    for group in optimizer.param_groups:
        peak = config.lr * config.layer_decay ** group.get("depth", 0)
        group["initial_lr"] = peak
        if captured and peak not in rates:
            rates[peak] = group["params"][0].new_tensor(peak)
        group["lr"] = rates.get(peak, peak)
    if captured:
        # The first step of each shape is not captured on purpose: torch need not warn.
        optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def _build(config: OptimConfig, groups: list[dict[str, Any]], captured: bool) -> Optimizer:
    row = OPTIMIZERS[config.name]
    arguments = {**row.fixed, **config.options}
    if {weight.device.type for group in groups for weight in group["params"]} <= row.fused:
        arguments["fused"] = True
    if captured:
        assert row.captured is not None
        arguments |= row.captured
    module, _, name = row.target.partition(":")
    optimizer: Any = getattr(import_module(module), name)(groups, lr=config.lr, **arguments)
    if any(group.get("momentum") for group in optimizer.param_groups):
        # torch's kernel leaves the velocity uninitialized in a first step that it is told to skip.
        optimizer._step_supports_amp_scaling = False
    return cast("Optimizer", optimizer)
