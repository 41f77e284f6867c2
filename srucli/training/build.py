"""Build a trainer and its parts from a configuration, and restore them from a checkpoint."""

from __future__ import annotations

import numpy as np
import torch

from srucli import optim
from srucli.config import Config
from srucli.data.dataset import Split
from srucli.data.loader import DataLoader
from srucli.diagnostics.watch import Watch
from srucli.io.console import say
from srucli.model.classifier import Classifier
from srucli.model.sru import use_kernel
from srucli.runs.run_dir import RunDir
from srucli.tokenizer.model import Tokenizer
from srucli.training.base import Base
from srucli.training.checkpointing import Checkpointing
from srucli.training.defaults import check_size
from srucli.training.interrupts import Interrupt
from srucli.training.logs import Log
from srucli.training.ngrams import Ngrams
from srucli.training.objectives import loss_function
from srucli.training.schedule import Schedule
from srucli.training.step import Step
from srucli.training.trackers import TRACKERS
from srucli.training.trainer import Trainer
from srucli.training.validation import Validation


def build(
    config: Config,
    run: RunDir,
    tokenizer: Tokenizer,
    split: Split,
    device: torch.device,
    stop: Interrupt,
    ngrams: Ngrams | None = None,
    base: Base | None = None,
) -> Trainer:
    """Return a trainer with newly initialized weights. The configuration must be complete.

    ngrams: the linear model, if there is one. base: an earlier run, whose weights are taken.

    Raises UsageError for too large a network.
    """
    train, data = config.train, split.train
    check_size(config.model, tokenizer.vocab_size, len(data.labels))
    torch.manual_seed(train.seed)
    model = Classifier(config.model, tokenizer.vocab_size, len(data.labels))
    if base is not None:
        base.fill(model, data)
    model.to(device)
    use_kernel(model, train.kernel)
    if ngrams is not None:
        model.blend.copy_(torch.tensor([ngrams.network, ngrams.weight]))
    kind = {"multi_label": data.multi_label, "soft": data.soft is not None}
    loss = loss_function(train, data.learned, len(data.labels), **kind)
    step, limits = Step(train, config.optim, model, loss), model.limits(train)
    loader = DataLoader(train, data, tokenizer, limits, device)
    always = data.multi_label and not split.without_labels
    judged = model, loss, split.dev, tokenizer, limits, ngrams.scores if ngrams else None, always
    validation = Validation(config.metric, train.patience, *judged)
    if train.diagnose:
        counts = np.bincount(loader.tokenize(0).ids, minlength=tokenizer.vocab_size)
        moment = optim.second_moment(config.optim.name)
        step.watch = Watch(model, step.optimizer, moment, train.diagnose, counts)
    log = Log(run, [name for name in TRACKERS if getattr(train, name)])
    checkpoints = Checkpointing(train, run, step, loader, validation, log)
    schedule = Schedule.of(config.optim, train, len(data))
    return Trainer(train, step, schedule, loader, validation, log, checkpoints, stop)


def restore(trainer: Trainer, name: str, config: Config, old_config: Config) -> None:
    """Restore a valid checkpoint that was saved with `old_config`. Raises DataError.

    The state of another optimizer, or of other parameter groups, is not restored. Other examples or
    batches restart the epoch.
    """
    # As JSON, because options from a file are lists where the defaults are tuples.
    new, old = (each.optim.model_dump(mode="json") for each in (config, old_config))
    same = all(new[key] == old[key] for key in ("name", "options", "layer_decay"))
    if not trainer.checkpoints.load(name, same_optimizer=same) and not trainer.is_over:
        say(
            "the optimizer starts anew from the saved weights, since its state was removed: the "
            "training ends with other weights than with it"
        )
    trainer.checkpoints.repair_pointers(name, finished=trainer.is_over)
    position, schedule = trainer.loader.position, trainer.schedule
    old_schedule = Schedule.of(old_config.optim, old_config.train, schedule.examples)
    same = (schedule.steps, schedule.epochs) == (old_schedule.steps, old_schedule.epochs)
    if same or not position.step or trainer.is_over:
        return
    before, after = (
        curve.factor(position.step, position.texts) * (optim.resolve(each.optim).lr or 0.0)
        for curve, each in ((old_schedule, old_config), (schedule, config))
    )
    say(
        f"the length of the schedule changed: the learning rate was {before:.3g} at step "
        f"{position.step:,}, and continues from {after:.3g}"
    )
