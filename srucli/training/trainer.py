"""The training loop: steps, epochs, and what ends them.

Each part that it drives has a file of its own; `build.py` makes them from a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from srucli.config import TrainConfig
from srucli.data.batch import Batch
from srucli.data.loader import DataLoader
from srucli.errors import DivergedError
from srucli.io.console import say, warn
from srucli.runs.checkpoints import Which
from srucli.training.anomaly import anomaly_error
from srucli.training.checkpointing import Checkpointing
from srucli.training.interrupts import Interrupt
from srucli.training.logs import Log
from srucli.training.schedule import Schedule
from srucli.training.step import Step
from srucli.training.validation import Validation

# Called after each epoch with its number, from 1, and its metrics on the dev examples.
OnEpoch = Callable[[int, Mapping[str, float]], None]
# Consecutive skipped steps that end a training. The search for the loss scale of fp16 skips up to
# 16.
MAX_SKIPPED = 20


class Trainer:
    """The loop over epochs and their steps, with validation and checkpoints."""

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
        """Whether the epochs, the steps or the patience are used up."""
        return bool(self.spent)

    @property
    def spent(self) -> list[str]:
        """The settings that ended the training; empty if it has not ended."""
        return [name for name in (self.validation.spent, self.loader.spent) if name]

    def train(self, on_epoch: OnEpoch | None = None) -> None:
        """Train until the end. Raises InterruptedRun, after saving, if a stop was requested.

        Raises DivergedError if gradients or weights become non-finite.
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
                if on_epoch:
                    on_epoch(self.loader.epoch_number, metrics)
                if self.is_over:
                    break
                self._stop_if_requested()
        message = self.validation.early_stop_message()
        if message and not self.loader.is_exhausted:
            say(message)

    def _train_epoch(self, steps: Iterable[list[Batch]]) -> None:
        """Train the rest of an epoch, or until the last step of the training."""
        if not self.loader.position.batches:
            self.step.begin_epoch()
        self.step.set_mode(training=True)
        self.step.unfreeze(self.loader.position.epoch)
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
            problem = "a gradient is not finite, but no single example causes it,"
            raise anomaly_error(self.step, self.loader) or self._diverged(problem)
        if position.step % 20 == 0 and (stats := self.step.latest_stats()):
            if stats.skipped_in_a_row >= MAX_SKIPPED:
                count = stats.skipped_in_a_row
                raise self._diverged(f"{count} steps in a row had non-finite gradients")
            self.log.show(stats.loss, position.pieces)

    def _end_epoch(self) -> dict[str, float]:
        """Evaluate on the dev examples, log, save a checkpoint; return the metrics."""
        stats, steps = self.step.stats, self.loader.steps_of_epoch
        searching = self.step.scaler.is_enabled()  # fp16 skips steps to find its loss scale
        if 2 * stats.skipped > steps and not searching:
            raise self._diverged(f"{stats.skipped} of {steps} steps had non-finite gradients")
        if stats.skipped:
            warn(f"{stats.skipped} of {steps} steps were skipped because of non-finite gradients")
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
            tallies={"train": self.loader.store.tally, "dev": self.validation.tally},
            skipped=0 if searching else stats.skipped,
        )
        best = self.validation.improved(metrics, self.loader.position.step)
        self._save({"last", "best"} if best else {"last"})
        self.log.say_epoch(self.loader.epoch_number, self.loader.epochs, stats.loss, metrics, best)
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
        raise self.checkpoints.interrupted(f"{path}: stopped at {where}, and saved")

    def _check_weights(self) -> None:
        if not self.step.has_finite_weights():
            raise self._diverged("a weight is NaN or Inf")

    def _diverged(self, problem: str) -> DivergedError:
        """Return the error that says what to change and how to resume."""
        rate, clip = self.step.peak_lr, self.step.clip
        limit = f"optim.clip (now {clip:g})" if clip else "set optim.clip=1"
        resume = self.checkpoints.remedy(f"optim.lr={rate / 10:.3g}")
        return DivergedError(
            f"{problem} at step {self.loader.position.step}: training diverged; "
            f"lower optim.lr (now {rate:g}) or {limit}{resume}"
        )
