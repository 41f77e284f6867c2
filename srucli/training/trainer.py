"""The training loop: steps, epochs, and what ends them.

Each part that it drives has a file of its own; `run.py` makes them from a configuration and files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from srucli.config import TrainConfig
from srucli.data.batch import Batch
from srucli.data.loader import DataLoader
from srucli.errors import DivergedError, InterruptedRun
from srucli.io.console import say
from srucli.runs.checkpoints import Which
from srucli.training.anomaly import anomaly
from srucli.training.checkpointing import Checkpointing
from srucli.training.interrupts import Interrupt
from srucli.training.logs import Log
from srucli.training.schedule import Schedule
from srucli.training.step import Step
from srucli.training.validation import Validation

# Called after each epoch with its number, from 1, and its metrics on dev examples.
Observer = Callable[[int, Mapping[str, float]], None]
# Steps in a row without a finite gradient that end a training; a search for the scale of fp16 takes
# up to 16.
MAX_SKIPPED = 20


class Trainer:
    """The loop over the steps of each epoch, its validation, its checkpoint."""

    def __init__(
        self,
        settings: TrainConfig,
        step: Step,
        schedule: Schedule,
        loader: DataLoader,
        validation: Validation,
        log: Log,
        checkpoints: Checkpointing,
        stop: Interrupt,
    ) -> None:
        self.settings, self.step, self.schedule, self.loader = settings, step, schedule, loader
        self.validation, self.log, self.checkpoints = validation, log, checkpoints
        self.stop = stop

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train: epochs, steps or patience are used up."""
        return bool(self.spent)

    @property
    def spent(self) -> list[str]:
        """The settings that ended the training, if it has ended."""
        return [name for name in (self.validation.spent, self.loader.spent) if name]

    def train(self, observe: Observer | None = None) -> None:
        """Train what is left. Raises InterruptedRun, with all saved, where a stop was asked for.

        Raises DivergedError where the gradients, or the weights, do not stay finite.
        """
        if self.is_over:
            return
        self.validation.announce()
        position = self.loader.position
        with self.log.open(position.step, position.texts, self.loader.planned_texts):
            self._stop_if_requested()
            for steps in self.loader.epochs_left():
                self._train_epoch(steps)
                metrics = self._end_epoch()
                if observe:
                    observe(self.loader.epoch_number, metrics)
                if self.is_over:
                    break
                self._stop_if_requested()
        if verdict := self.validation.verdict():
            say(verdict)

    def _train_epoch(self, steps: Iterable[list[Batch]]) -> None:
        """Train what is left of an epoch, or until the last step of the training."""
        if not self.loader.position.batches:
            self.step.begin()
        self.step.set_mode(training=True)
        for batches in steps:
            self._step(batches)
            if self.loader.is_exhausted:
                return
            if not self.loader.is_at_end_of_epoch:
                self._stop_if_requested()
                if self.checkpoints.is_due():
                    self._save({"last"})

    def _step(self, batches: Sequence[Batch]) -> None:
        position = self.loader.position
        with self.checkpoints.proving():
            self.step(batches, self.schedule.factor(position.step - 1, position.texts))
        if self.step.watch and (record := self.step.watch.pop_record()):
            self.log.add_diagnostics(record)
        self.log.advance(sum(batch.texts for batch in batches))
        if self.settings.detect_anomaly and self.step.stats.skipped_in_a_row:
            sign = "a gradient is not finite, though no single text makes it so,"
            raise anomaly(self.step, self.loader) or self._diverged(sign)
        if position.step % 20 == 0 and (stats := self.step.latest_stats()):
            if stats.skipped_in_a_row >= MAX_SKIPPED:
                row = stats.skipped_in_a_row
                raise self._diverged(f"{row} steps in a row had no finite gradient")
            self.log.show(stats.loss, position.pieces)

    def _end_epoch(self) -> dict[str, float]:
        """Measure the dev examples, write the log, save a checkpoint; return the metrics."""
        stats, steps = self.step.stats, self.loader.steps_of_epoch
        searching = self.step.scaler.is_enabled()  # for the scale of fp16, by steps that fail
        if 2 * stats.skipped > steps and not searching:
            raise self._diverged(f"{stats.skipped} of {steps} steps had no finite gradient")
        if stats.skipped:
            say(f"{stats.skipped} of {steps} steps were skipped: they had no finite gradient")
        self.step.set_mode(training=False)
        self._check_weights()
        self.loader.end_epoch()
        metrics = self.validation.fit_and_evaluate()
        self.log.add_epoch(
            step=self.loader.position.step,
            epoch=self.loader.epoch_number,
            loss=stats.loss,
            lr=self.step.lr,
            metrics=metrics,
            tallies={"train": self.loader.tally, "dev": self.validation.tally},
            skipped=0 if searching else stats.skipped,
        )
        best = self.validation.improved(metrics, self.loader.position.step)
        self._save({"last", "best"} if best else {"last"})
        shown = "".join(f"  {name} {value:.4f}" for name, value in metrics.items())
        dev = f"  dev{shown}{'  *' if best else ''}" if metrics else ""
        epoch = f"epoch {self.loader.epoch_number}/{self.loader.epochs}"
        say(f"{epoch}  loss {stats.loss:.4f}{dev}  {self.log.seconds:.0f} s")
        return metrics

    def _save(self, which: set[Which]) -> None:
        self._check_weights()
        self.checkpoints.save(which, finished=self.is_over)

    def _stop_if_requested(self) -> None:
        if not self.stop.requested:
            return
        self._save({"last"})
        position, path = self.loader.position, self.checkpoints.run.path
        where = f"step {position.step:,}, in epoch {position.epoch + 1} of {self.loader.epochs}"
        further = self.checkpoints.further()
        raise InterruptedRun(f"{path}: stopped at {where}, and saved; {further}")

    def _check_weights(self) -> None:
        if not self.step.has_finite_weights():
            raise self._diverged("a weight is not a number")

    def _diverged(self, sign: str) -> DivergedError:
        """The error that says what to change, and how to go on from before it went wrong."""
        rate, clip = self.step.peak_lr, self.step.clip
        limit = f"optim.clip (now {clip:g})" if clip else "set optim.clip=1"
        kept = self.checkpoints.remedy(f"optim.lr={rate / 10:.3g}")
        return DivergedError(
            f"{sign} at step {self.loader.position.step}: training diverged; "
            f"lower optim.lr (now {rate:g}) or {limit}{kept}"
        )
