"""Checks before training, and the defaults that depend on the data."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec

import torch

from srucli import optim
from srucli.config import MAX_DROPOUT, Config, ModelConfig, TrainConfig
from srucli.errors import UsageError
from srucli.kernels import backends
from srucli.metrics import metric_named
from srucli.model.classifier import sets_size, shapes
from srucli.model.encoders import ENCODERS
from srucli.runs.checkpoints import MAX_BYTES, MODEL
from srucli.runtime import resolve_device
from srucli.tokenizer.training import as_setting, check_rules
from srucli.training.trackers import TRACKERS

# The least number of examples in all epochs together, by default.
MIN_EXAMPLES = 16_000


def check_settings(config: Config) -> torch.device:
    """Check everything that can be checked before the data is read; return the device.

    Raises UsageError.
    """
    encoder = ENCODERS[config.model.encoder]
    check_size(config.model, vocab_size=1, classes=2)
    check_rules(config.tokenizer, as_setting)
    optim.validate(config.optim)
    metric_named(config.metric, config.data.multi_label)
    device = resolve_device(config.train.device)
    if config.train.precision != "float32" and device.type == "cpu":
        raise UsageError(f"train.precision={config.train.precision} needs a GPU; use float32")
    if "train.kernel" in encoder.settings:
        backends.choose(config.train.kernel, device.type)
    if os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1"):  # set by torchrun
        raise UsageError("srucli trains in one process; start it with --nproc-per-node 1, or alone")
    for name in TRACKERS:
        if getattr(config.train, name) and not find_spec(name):
            raise UsageError(f"train.{name} needs {name}: pip install 'srucli[{name}]'")
    return device


def check_size(model: ModelConfig, vocab_size: int, classes: int) -> None:
    """Raise UsageError for weights that no run may have, before they take memory."""
    weights = shapes(model, vocab_size, classes)
    size = sum(tensor.nbytes for tensor in weights.values())
    if size > MAX_BYTES[MODEL]:
        raise UsageError(
            f"the network would have weights of {size / 2**30:,.1f} GiB, and at most "
            f"{MAX_BYTES[MODEL] >> 30} GiB are possible; lower {sets_size(model, weights)}"
        )


def epochs(train: TrainConfig, examples: int, classes: int) -> int:
    """Return the configured number of epochs, or 400 / sqrt(examples per class), from 3 to 30.

    All epochs together have at least MIN_EXAMPLES, so that small data sets get enough steps, and at
    most 400,000. The rule was fitted to cross-validation on small sets. If `train.steps` is
    given, return the number of epochs that these steps need.
    """
    if train.steps is not None:
        return math.ceil(train.steps * train.batch_size * train.accumulate / examples)
    if train.epochs is not None:
        return train.epochs
    wanted = min(
        max(400 / math.sqrt(examples / classes), MIN_EXAMPLES / examples), 400_000 / examples
    )
    return min(max(round(wanted), 3), 30)


def complete(config: Config, examples: int, classes: int, *, based: bool = False) -> Config:
    """Return the configuration with all defaults that depend on the data or the optimizer set.

    The default dropout is 0.5 for up to 10,000 examples and 50 / sqrt(examples) for more. Unless an
    earlier run is fine-tuned (`based`), the settings for that have no effect.
    """
    dropout = config.model.dropout
    if dropout is None:
        dropout = round(MAX_DROPOUT * min(math.sqrt(10_000 / examples), 1.0), 3)
    update: dict[str, object] = {
        "epochs": epochs(config.train, examples, classes),
        "use_checkpoint": config.train.used_checkpoint,
    }
    train = config.train.model_copy(update=update if based else update | {"freeze": "none"})
    model = config.model.model_copy(update={"dropout": dropout})
    optimizer = optim.resolve(config.optim)
    if not based:
        optimizer = optimizer.model_copy(update={"layer_decay": 1.0})
    return config.model_copy(update={"model": model, "train": train, "optim": optimizer})
