"""A trainer and its parts, from a configuration; new, or as a checkpoint left them."""

from __future__ import annotations

import numpy as np
import torch

from srucli import optim
from srucli.config import Config
from srucli.data.dataset import Dataset
from srucli.data.loader import DataLoader
from srucli.diagnostics.watch import Watch
from srucli.io.console import say
from srucli.model.classifier import Classifier
from srucli.model.sru import use_kernel
from srucli.runs.run_dir import RunDir
from srucli.tokenizer.model import Tokenizer
from srucli.training.checkpointing import Checkpointing
from srucli.training.interrupts import Interrupt
from srucli.training.logs import Log
from srucli.training.objectives import loss_function
from srucli.training.schedule import Schedule
from srucli.training.step import Step
from srucli.training.trainer import Trainer
from srucli.training.validation import Validation


def build(
    config: Config,
    run: RunDir,
    tokenizer: Tokenizer,
    data: Dataset,
    dev: Dataset | None,
    device: torch.device,
    stop: Interrupt,
) -> Trainer:
    """A trainer with new weights, for a complete configuration."""
    train = config.train
    torch.manual_seed(train.seed)
    model = Classifier(config.model, tokenizer.spelling, len(data.labels)).to(device)
    use_kernel(model, train.kernel)
    loss = loss_function(train, data.targets, len(data.labels))
    step, limits = Step(train, config.optim, model, loss), model.limits(train)
    loader = DataLoader(train, data, tokenizer, limits, device)
    validation = Validation(config.metric, train.patience, model, loss, dev, tokenizer, limits)
    if train.diagnose:
        counts = np.bincount(loader.tokenize(0).ids, minlength=tokenizer.vocab_size)
        moment = optim.second_moment(config.optim.name)
        step.watch = Watch(model, step.optimizer, moment, train.diagnose, counts)
    log = Log(run, tensorboard=train.tensorboard)
    checkpoints = Checkpointing(train, run, step, loader, validation, log)
    schedule = Schedule.of(config.optim, train, len(data))
    return Trainer(train, step, schedule, loader, validation, log, checkpoints, stop)


def restore(trainer: Trainer, name: str, config: Config, before: Config) -> None:
    """Restore a checkpoint that is whole. Raises DataError where it does not fit.

    `before` are its settings: of another optimizer there is nothing to restore. With other examples
    or batches the epoch begins anew.
    """
    # As JSON has them: options from a file are lists where defaults are tuples.
    own, other = (each.optim.model_dump(mode="json") for each in (config, before))
    same = all(own[key] == other[key] for key in ("name", "options"))
    trainer.checkpoints.load(name, same_optimizer=same)
    trainer.checkpoints.point(name, finished=trainer.is_over)
    position, now = trainer.loader.position, trainer.schedule
    was = Schedule.of(before.optim, before.train, now.examples)
    if now.is_as_long_as(was) or not position.step or trainer.is_over:
        return
    rates = [
        schedule.factor(position.step, position.texts) * (optim.resolve(each.optim).lr or 0.0)
        for schedule, each in ((was, before), (now, config))
    ]
    say(
        f"the schedule has another length: the learning rate was {rates[0]:.3g} at step "
        f"{position.step:,}, and goes on from {rates[1]:.3g}"
    )
