"""The training loop: epochs, evaluation, checkpoints, and what ends them.

Where texts, tokenizer and folder come from is decided in `run.py`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srucli import optim
from srucli.config import Config
from srucli.data.batch import Batch
from srucli.data.dataset import Corpus
from srucli.data.loader import DataLoader
from srucli.diagnostics.watch import Watch
from srucli.errors import DataError, DivergedError, InterruptedRun, SrucliError
from srucli.io.console import say
from srucli.io.files import COPY_AGAIN
from srucli.model.classifier import Classifier
from srucli.model.sru import use_kernel
from srucli.runs.checkpoints import TRAINING, TRAINING_TENSORS, Which
from srucli.runs.choice import choose, dev_values
from srucli.runs.model_card import model_card
from srucli.runs.run_dir import RunDir
from srucli.runs.tensors import check_fit, tensors_of
from srucli.runs.training_state import (
    OptimizerState,
    UnwritableError,
    from_files,
    random_states,
    set_random_states,
    to_files,
)
from srucli.tokenizer.model import Tokenizer
from srucli.training.anomaly import culprit
from srucli.training.interrupts import Interrupt
from srucli.training.logs import Log
from srucli.training.objectives import loss_function
from srucli.training.step import Step
from srucli.training.validation import Validation

Observer = Callable[[int, Mapping[str, float]], None]
# Steps in a row without a finite gradient that end a training; a search for the scale of fp16 takes
# up to 16.
MAX_SKIPPED = 20
# Settings that say how long training takes.
LENGTHS = ("epochs", "steps")
# What reading a stranger's state may raise.
_UNFIT = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError),
    AssertionError,
)


class Trainer:
    """One training: model, optimizer, data and what is done at each step and epoch."""

    def __init__(
        self,
        config: Config,
        device: torch.device,
        run: RunDir,
        tokenizer: Tokenizer,
        train: Corpus,
        dev: Corpus | None,
        labels: list[str],
        stop: Interrupt,
        observe: Observer | None = None,
    ) -> None:
        self.observe, self.stop = observe, stop
        classes = len(labels)
        self.config, self.device, self.run, self.tokenizer = config, device, run, tokenizer
        self.train_set, self.dev_set, self.labels = train, dev, labels
        torch.manual_seed(config.train.seed)
        self.model = Classifier(config.model, tokenizer.spelling, classes).to(device)
        use_kernel(self.model, config.train.kernel)
        loss = loss_function(config.train, train.targets, classes)
        self.step = Step(config.train, config.optim, self.model, loss)
        own = config.optim.name in optim.OPTIMIZERS
        self.optimizer_state = OptimizerState(self.model, self.step.optimizer, own=own)
        self.log = Log(run, tensorboard=config.train.tensorboard)
        self.saved = time.monotonic()
        # Whether the optimizer has put the weights in place that are evaluated.
        self.evaluating = False
        self.resumable = True
        # Steps and epochs of the checkpoint that there is.
        self.kept: tuple[int, int] | None = None
        # What the optimizer goes on from, until a step has shown that it can.
        self.unproven: str | None = None
        limits = self.model.limits(config.train)
        self.loader = DataLoader(config.train, train, tokenizer, limits, device)
        self.validation = Validation(
            *(config.metric, config.train.patience, self.model, self.step.objective),
            *(dev, tokenizer, limits),
        )
        if config.train.diagnose:
            self.step.watch = self._watch()

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _watch(self) -> Watch:
        """What looks at the optimizer; it begins while the weights are as they are made."""
        settings = self.config.optim
        counts = np.bincount(self.loader.tokenize(0).ids, minlength=self.tokenizer.vocab_size)
        moment = optim.second_moment(settings.name)
        return Watch(self.model, self.step.optimizer, moment, self.config.train.diagnose, counts)

    # ------------------------------------------------------------ an epoch

    def _rate(self, config: Config, step: int) -> float:
        """Of a step, from 0, as a share of the peak; by the texts so far, as batches vary in size.

        Those of the step are counted already, so that the last one comes to the schedule's end. The
        only step of a training is taken at the peak.
        """
        train, settings, position = config.train, config.optim, self.loader.position
        assert train.epochs is not None  # `complete` saw to it
        done, planned = position.texts, len(self.train_set.texts) * train.epochs
        if train.steps is not None:
            done, planned = step, train.steps
        elif not step and done >= planned:
            return 1.0
        return optim.lr_factor(settings.schedule, done, planned, settings.warmup)

    def epoch(self, steps: Iterable[list[Batch]]) -> None:
        """What is left of a pass over the texts, to its end or to the last step.

        Raises InterruptedRun where a stop was asked for, SrucliError where training diverges.
        """
        if not self.loader.position.batches:
            self.step.begin()
        self.model.train()
        optim.set_mode(self.step.optimizer, training=True)
        self.evaluating = False
        for batches in steps:
            self._step(batches)
            self._look(sum(batch.texts for batch in batches))
            if self.loader.is_exhausted:
                break
            if not self.loader.is_at_end_of_epoch:
                self._stop_if_asked()
                if self._is_due():
                    self.save({"last"})

    def _stop_if_asked(self) -> None:
        if self.stop.requested:
            self.save({"last"})
            raise self._interrupted()

    def _step(self, batches: Sequence[Batch]) -> None:
        """A step. Raises DataError where the first shows that it goes on from no such state."""
        try:
            self.step(batches, self._rate(self.config, self.loader.position.step - 1))
        except _UNFIT as error:
            if self.unproven is None:
                raise
            problem = f"does not fit this training ({type(error).__name__}: {error})"
            raise DataError(self.unproven, None, problem, COPY_AGAIN) from error
        self.unproven = None

    def _look(self, texts: int) -> None:
        """After a step: diagnostics, progress, and whether the numbers are still numbers."""
        if self.step.watch and (record := self.step.watch.taken()):
            self.log.add_diagnostics(record)
        self.log.advance(texts)
        if self.config.train.detect_anomaly and self.step.stats.skipped_in_a_row:
            raise self._anomaly()
        if self.loader.position.step % 20 == 0 and (stats := self.step.latest_stats()):
            if stats.skipped_in_a_row >= MAX_SKIPPED:
                row = stats.skipped_in_a_row
                raise self._diverged(f"{row} steps in a row had no finite gradient")
            self.log.show(stats.loss, self.loader.position.pieces)

    def _anomaly(self) -> SrucliError:
        """What is said of a step without a finite gradient: the text, where it is one text."""
        found = culprit(self.step, self.loader.store, self.loader.latest_step())
        if found is None:
            return self._diverged("a gradient is not finite, though no single text makes it so,")
        text, problem = found
        line = self.train_set.lines[text]
        remedy = "look at the text, and lower optim.lr if nothing is wrong with it"
        where = f"{problem} at step {self.loader.position.step}"
        return DataError(self.train_set.source, line, where, remedy)

    def _diverged(self, sign: str) -> DivergedError:
        rate = self.step.optimizer.param_groups[0]["initial_lr"]
        clip = self.config.optim.clip
        kept = ""
        if self.resumable and (self.run.path / "last").is_file():
            name = self.run.checkpoints.pointed("last")
            resume = f"srucli train --resume {shlex.quote(str(self.run.path))} --force"
            kept = f"; {resume} optim.lr={rate / 10:.3g} goes on from {name}"
        where = f"{sign} at step {self.loader.position.step}"
        return DivergedError(
            f"{where}: training diverged; lower optim.lr (now {rate:g}) "
            f"or {f'optim.clip (now {clip:g})' if clip else 'set optim.clip=1'}{kept}"
        )

    # ------------------------------------------------------------ its end

    def finish_epoch(self) -> dict[str, float]:
        """Evaluate, record, save. Raises SrucliError where training has diverged."""
        stats = self.step.stats
        steps = self.loader.steps_of_epoch
        searching = self.step.scaler.is_enabled()  # for the scale of fp16, by steps that fail
        if 2 * stats.skipped > steps and not searching:
            raise self._diverged(f"{stats.skipped} of {steps} steps had no finite gradient")
        if stats.skipped:
            say(f"{stats.skipped} of {steps} steps were skipped: they had no finite gradient")
        optim.set_mode(self.step.optimizer, training=False)
        self.evaluating = True
        self._check_weights()
        self.loader.end_epoch()
        figures = self.validation.fit_and_evaluate()
        self.log.add_epoch(
            step=(step := self.loader.position.step),
            epoch=self.loader.epoch_number,
            loss=stats.loss,
            lr=float(self.step.optimizer.param_groups[0]["lr"]),
            metrics=figures,
            tallies={"train": self.loader.tally, "dev": self.validation.tally},
            skipped=0 if searching else stats.skipped,
        )
        best = self.validation.improved(figures, step)
        self.save({"last", "best"} if best else {"last"})
        self._write_card()
        shown = "".join(f"  {name} {value:.4f}" for name, value in figures.items())
        dev = f"  dev{shown}{'  *' if best else ''}" if figures else ""
        epoch = f"epoch {self.loader.epoch_number}/{self.loader.epochs}"
        say(f"{epoch}  loss {stats.loss:.4f}{dev}  {self.log.seconds:.0f} s")
        return figures

    def _write_card(self) -> None:
        """The model card, of the weights that are used."""
        used = choose(self.run, self.config)
        step = self.run.step_of(used.name)
        records = self.run.records("metrics.jsonl")
        whole = (each for each in records if "epoch" in each and isinstance(each.get("dev"), dict))
        measured = next((each for each in whole if each.get("step") == step), None)
        facts, name, epochs = self.run.facts(), self.run.path.name, self.loader.epoch_number
        card = model_card(name, self.config, self.labels, facts, used, measured, epochs)
        self.run.write("README.md", card.encode(errors="backslashreplace"))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train: epochs, steps or patience are used up."""
        return self.loader.is_exhausted or self.validation.is_out_of_patience

    def train(self) -> None:
        """Train what is left. Raises InterruptedRun, with all saved, where a stop was asked for."""
        if self.is_over:
            say(f"{self.run.path}: is finished; {self._longer()}")
            self._write_card()
            self._conclude()
            return
        self.validation.announce()
        position, total = self.loader.position, len(self.train_set.texts) * self.loader.epochs
        with self.log.open(position.step, position.texts, total):
            self._stop_if_asked()
            for steps in self.loader.epochs_left():
                self.epoch(steps)
                figures = self.finish_epoch()
                if self.observe:
                    self.observe(self.loader.epoch_number, figures)
                if self.is_over:
                    break
                self._stop_if_asked()
        if verdict := self.validation.verdict():
            say(verdict)
        self._conclude()

    def _longer(self) -> str:
        """What lets a finished training go on."""
        settings, position, ways = self.config.train, self.loader.position, []
        if self.validation.is_out_of_patience:
            ways.append("a longer train.patience")
        if settings.steps:
            ways += ["a longer train.steps"] * (position.step >= settings.steps)
        elif position.epoch >= self.loader.epochs:
            ways.append("a longer --epochs")
        return f"{' and '.join(ways)} go{'es' * (len(ways) == 1)} on"

    def _conclude(self) -> None:
        """Say which weights are used, where one may think of others."""
        if said := choose(self.run, self.config).said:
            say(said)

    def _interrupted(self) -> InterruptedRun:
        position = self.loader.position
        further = f"to go on: srucli train --resume {shlex.quote(str(self.run.path))}"
        if not self.resumable:
            further = "the weights can be used, but not trained further"
        return InterruptedRun(
            f"{self.run.path}: stopped at step {position.step:,}, in epoch "
            f"{position.epoch + 1} of {self.loader.epochs}, and saved; {further}"
        )

    # ------------------------------------------------------------ checkpoints

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch."""
        steps, minutes = self.config.train.save_steps, self.config.train.save_minutes
        waited = time.monotonic() - self.saved
        return bool(steps and self.loader.position.step % steps == 0) or bool(
            minutes and waited > 60 * minutes
        )

    def _check_weights(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            raise self._diverged("a weight is not a number")

    def save(self, which: set[Which]) -> None:
        """A checkpoint, unless nothing was done since the one before.

        Raises OutputError, and SrucliError where the weights are no numbers.
        """
        position = self.loader.position
        if self.kept == (position.step, position.epoch):
            return
        self._check_weights()
        state: dict[str, Any] = {"epoch": position.epoch, "finished": self.is_over}
        if self.validation.thresholds is not None:
            state["thresholds"] = self.validation.thresholds
        keep = self.config.train.keep_checkpoints or (1 if self.is_over else 2)
        tree = self._tree()
        weights = self._averages(tree)
        try:
            training = to_files(tree)
        except UnwritableError as error:
            if self.resumable:
                say(f"this run cannot be resumed: of {self.config.optim.name}, {error}")
            self.resumable, training = False, {}
        self.run.save(position.step, weights, state, which, training, keep)
        self.saved, self.kept = time.monotonic(), (position.step, position.epoch)

    def _tree(self) -> dict[str, Any]:
        """All that going on needs besides the weights that predict."""
        watch, parts = self.step.watch, (self.loader, self.validation, self.log)
        states = [part.state_dict() for part in parts]
        progress = {key: value for state in states for key, value in state.pop("progress").items()}
        return {
            "progress": progress,
            "figures": self.step.totals,
            "optimizer": self.optimizer_state.tree(),
            "scaler": self.step.scaler.state_dict(),
            "random": random_states(self.device),
            "watch": watch.tree() if watch else None,
            **{key: value for state in states for key, value in state.items()},
            "weights": {},
        }

    def _averages(self, tree: dict[str, Any]) -> dict[str, Tensor]:
        """The weights that predict. Within an epoch some optimizers train others: those to `tree`.

        What they do to get from the ones to the others cannot be undone to the bit.
        """
        optimizer = self.step.optimizer
        if self.evaluating or not optim.has_averages(optimizer):
            return self.model.state_dict()
        kept = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        optim.set_mode(optimizer, training=False)
        weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        optim.set_mode(optimizer, training=True)
        self._set_weights(kept)
        tree["weights"] = kept
        return weights

    @torch.no_grad()
    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self.model.named_parameters():
            weight.copy_(weights[name])

    def _judge_anew(self, before: Mapping[str, str]) -> None:
        """By another metric or other dev texts, what is gone on from is the best so far."""
        now, step, values = self.validation.judge, self.loader.position.step, {}
        if before == now:
            return
        if before["dev"] == now["dev"]:
            values = dev_values(self.run.records("metrics.jsonl"), self.validation.metric)
        self.validation.start_over(step, values.get(f"step-{step}"))
        say("the metric or the dev texts are others now: the best so far is what is gone on from")

    def resume(self, name: str, before: Config) -> None:
        """Go on from a checkpoint that is whole. Raises DataError where it does not fit.

        `before` are its settings: of another optimizer there is nothing to go on from. Where the
        texts or their batches are others, the epoch begins anew.
        """
        saved = self.run.checkpoint(name, self.model.state_dict())
        self.model.load_state_dict(saved.weights)
        source = str(self.run.path / "checkpoints" / name / TRAINING)
        text = self.run.checkpoints.read(name, TRAINING)
        tensors = tensors_of(self.run.checkpoints.read(name, TRAINING_TENSORS), source)
        try:
            own, other = (each.optim.model_dump(mode="json") for each in (self.config, before))
            same = all(own[key] == other[key] for key in ("name", "options"))
            self._load(from_files(text, tensors), source, same)
        except _UNFIT as error:
            raise DataError(
                source, None, f"does not fit this training ({error})", COPY_AGAIN
            ) from error
        position = self.loader.position
        self.unproven, self.kept = source, (position.step, position.epoch)
        self._point(name)
        self._say_how_the_rate_changes(before)

    def _say_how_the_rate_changes(self, before: Config) -> None:
        """Where a training that gets another length was on the way to the end of its schedule."""
        longer = [getattr(before.train, key) != getattr(self.config.train, key) for key in LENGTHS]
        step = self.loader.position.step
        if not any(longer) or not step or self.is_over:
            return
        was, now = (
            self._rate(config, step) * (optim.resolve(config.optim).lr or 0.0)
            for config in (before, self.config)
        )
        say(
            f"the schedule has another length: the learning rate was {was:.3g} at step "
            f"{step:,}, and goes on from {now:.3g}"
        )

    def _point(self, name: str) -> None:
        """Let `last` and `best` name what they should; a kill may have come before that."""
        checkpoints = self.run.checkpoints
        checkpoints.point(name, {"last"})
        best = f"step-{self.validation.best.best_step}"
        if best in checkpoints.names():
            checkpoints.point(best, {"best"})
        if self.is_over:
            checkpoints.sweep(self.config.train.keep_checkpoints or 1)

    def _load(self, tree: Any, source: str, same_optimizer: bool) -> None:
        self.loader.load_state_dict(tree)
        if same_optimizer:
            self.optimizer_state.load(tree["optimizer"])
        self.step.scaler.load_state_dict(tree["scaler"])
        self.step.totals.copy_(tree["figures"])
        if tree["weights"]:
            parameters = dict(self.model.named_parameters())
            check_fit(tree["weights"], parameters, source)
            self._set_weights(tree["weights"])
        if self.step.watch and tree["watch"]:
            self.step.watch.load(tree["watch"])
        self.validation.load_state_dict(tree)
        set_random_states(tree["random"], self.device)
        self.log.load_state_dict(tree)
        self._judge_anew(tree.get("judge", self.validation.judge))
        if self.step.watch and not tree["watch"]:
            self.begin()

    def begin(self) -> None:
        """What a new training leaves before its first step: how to read its diagnostics."""
        if self.step.watch:
            settings = self.config.optim.model_dump(mode="json")
            self.log.add_diagnostics({"optimizer": settings, "counts": self.step.watch.counts})
