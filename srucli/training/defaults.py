"""What a training decides before its first step: checks, and what depends on the data."""

from __future__ import annotations

import math
from importlib.util import find_spec

import torch

from srucli import optim
from srucli.config import MAX_DROPOUT, Config
from srucli.data.formats import format_named
from srucli.errors import UsageError
from srucli.kernels import backends
from srucli.metrics import metric_named
from srucli.model.encoders import encoder_named
from srucli.runtime import resolve_device


def check(config: Config) -> torch.device:
    """Refuse, before any data is read, what can be seen to be wrong. Returns the device."""
    encoder = encoder_named(config.model.encoder)
    optim.validate(config.optim)
    format_named(config.data.format)
    metric_named(config.metric, config.data.multi_label)
    device = resolve_device(config.train.device)
    if config.train.precision != "float32" and device.type == "cpu":
        raise UsageError(f"train.precision={config.train.precision} needs a GPU; use float32")
    if "train.kernel" in encoder.settings:
        backends.choose(config.train.kernel, device.type)
    if config.train.tensorboard and not find_spec("tensorboard"):
        raise UsageError("train.tensorboard needs TensorBoard: pip install 'srucli[tensorboard]'")
    return device


def epochs(config: Config, texts: int, classes: int) -> int:
    """The configured number, or 400 / sqrt(texts of a class): many passes over few texts.

    They make at least 32,000 texts in all, so that small sets get steps enough, and at most
    400,000; from 3 to 30 epochs. The rule was fitted to cross-validation on small sets. Where the
    steps are given, as many epochs as those may take.
    """
    settings = config.train
    if settings.steps is not None:
        return math.ceil(settings.steps * settings.batch_size * settings.accumulate / texts)
    if settings.epochs is not None:
        return settings.epochs
    wanted = min(max(400 / math.sqrt(texts / classes), 32_000 / texts), 400_000 / texts)
    return min(max(round(wanted), 3), 30)


def dropout(config: Config, texts: int) -> float:
    """The configured share, or 0.5 for up to 10,000 texts and 50 / sqrt(texts) for more."""
    if config.model.dropout is not None:
        return config.model.dropout
    return round(MAX_DROPOUT * min(math.sqrt(10_000 / texts), 1.0), 3)


def complete(config: Config, texts: int, classes: int) -> Config:
    """The configuration with what depends on the data, and on the optimizer, filled in."""
    model = config.model.model_copy(update={"dropout": dropout(config, texts)})
    update = {
        "epochs": epochs(config, texts, classes),
        "use_checkpoint": config.train.used_checkpoint,
    }
    train = config.train.model_copy(update=update)
    optimizer = optim.resolve(config.optim)
    return config.model_copy(update={"model": model, "train": train, "optim": optimizer})
