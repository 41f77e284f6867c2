"""When a training saves a checkpoint, and what of its parts a checkpoint holds.

Each part has a `state_dict`. Together they are one tree, to whose keys each adds its own; the
values below "progress" are shared out among them. How the tree is written is `training_state.py`,
which files a checkpoint has `checkpoints.py`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from srucli.config import TrainConfig
from srucli.data.loader import DataLoader
from srucli.errors import DataError
from srucli.io.console import say
from srucli.io.files import COPY_AGAIN
from srucli.runs.checkpoints import TRAINING, TRAINING_TENSORS, Which
from srucli.runs.choice import dev_values
from srucli.runs.run_dir import RunDir
from srucli.runs.tensors import tensors_of
from srucli.runs.training_state import (
    UnwritableError,
    from_files,
    random_states,
    set_random_states,
    to_files,
)
from srucli.training.logs import Log
from srucli.training.step import Step
from srucli.training.validation import Validation

# What a state raises, of whomever it is, that does not fit this training.
_UNFIT = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError),
    AssertionError,
)


class Stateful(Protocol):
    """A part of a training that goes on from where it was."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Checkpointing:
    """Saves and restores the parts of a training in the folder of its run."""

    def __init__(
        self,
        settings: TrainConfig,
        run: RunDir,
        step: Step,
        loader: DataLoader,
        validation: Validation,
        log: Log,
    ) -> None:
        self.settings, self.run, self.step = settings, run, step
        self.loader, self.validation = loader, validation
        # The log comes last: it cuts its files.
        self.parts: tuple[Stateful, ...] = (loader, step, validation, log)
        self.log = log
        # Whether what the optimizer keeps can be written.
        self.resumable = True
        self._at = time.monotonic()
        # Step and epoch of the checkpoint that there is.
        self._kept: tuple[int, int] | None = None
        # The file that was restored, until a step has shown that it fits.
        self._unproven: str | None = None

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch."""
        steps, minutes = self.settings.save_steps, self.settings.save_minutes
        if steps and self.loader.position.step % steps == 0:
            return True
        return bool(minutes) and time.monotonic() - self._at > 60 * minutes

    def save(self, which: set[Which], *, finished: bool) -> None:
        """Save a checkpoint, unless nothing was done since the one before. Raises OutputError."""
        position = self.loader.position
        if self._kept == (position.step, position.epoch):
            return
        state: dict[str, Any] = {"epoch": position.epoch, "finished": finished}
        if self.validation.thresholds is not None:
            state["thresholds"] = self.validation.thresholds
        tree, training = self._tree(), {}
        try:
            training = to_files(tree)
        except UnwritableError as error:
            if self.resumable:
                say(f"this run cannot be resumed: of {self.step.settings.name}, {error}")
            self.resumable = False
        keep = self.settings.keep_checkpoints or (1 if finished else 2)
        self.run.save(position.step, self.step.weights(), state, which, training, keep)
        self._at, self._kept = time.monotonic(), (position.step, position.epoch)

    def _tree(self) -> dict[str, Any]:
        """All that resuming needs besides the weights that predict."""
        tree: dict[str, Any] = {"progress": {}, "random": random_states(self.step.device)}
        for part in self.parts:
            state = part.state_dict()
            tree["progress"] |= state.pop("progress", {})
            tree |= state
        return tree

    def load(self, name: str, *, same_optimizer: bool) -> None:
        """Restore a checkpoint that is whole, all but the state of another optimizer.

        Raises DataError where it does not fit.
        """
        saved = self.run.checkpoint(name, self.step.model.state_dict())
        self.step.model.load_state_dict(saved.weights)
        source = str(self.run.path / "checkpoints" / name / TRAINING)
        text = self.run.checkpoints.read(name, TRAINING)
        tensors = tensors_of(self.run.checkpoints.read(name, TRAINING_TENSORS), source)
        try:
            tree = from_files(text, tensors)
            if not same_optimizer:
                tree["optimizer"] = None
            set_random_states(tree["random"], self.step.device)
            for part in self.parts:
                part.load_state_dict(tree)
            self._compare_anew()
            if not tree["watch"]:
                self.begin_diagnostics()
        except _UNFIT as error:
            problem = f"does not fit this training ({error})"
            raise DataError(source, None, problem, COPY_AGAIN) from error
        position = self.loader.position
        self._unproven, self._kept = source, (position.step, position.epoch)

    def _compare_anew(self) -> None:
        """With another metric or other dev examples, the restored checkpoint is the best so far."""
        before, now = self.validation.judged_by, self.validation.judge
        if before == now:
            return
        step, values = self.loader.position.step, {}
        if before["dev"] == now["dev"]:
            values = dev_values(self.run.records("metrics.jsonl"), self.validation.metric)
        self.validation.start_over(step, values.get(f"step-{step}"))
        say("the metric or the dev texts are others now: the best so far is what is gone on from")

    def begin_diagnostics(self) -> None:
        """Write what tells how to read the diagnostics, where there will be any."""
        if self.step.watch:
            optimizer = self.step.settings.model_dump(mode="json")
            self.log.add_diagnostics({"optimizer": optimizer, "counts": self.step.watch.counts})

    def point(self, name: str, *, finished: bool) -> None:
        """Let `last` and `best` name what they should; a kill may have come before that."""
        checkpoints = self.run.checkpoints
        checkpoints.point(name, {"last"})
        best = f"step-{self.validation.best.best_step}"
        if best in checkpoints.names():
            checkpoints.point(best, {"best"})
        if finished:
            checkpoints.sweep(self.settings.keep_checkpoints or 1)

    @contextmanager
    def proving(self) -> Iterator[None]:
        """A block with a step. Raises DataError where the first shows that the state is unfit."""
        try:
            yield
        except _UNFIT as error:
            if self._unproven is None:
                raise
            problem = f"does not fit this training ({type(error).__name__}: {error})"
            raise DataError(self._unproven, None, problem, COPY_AGAIN) from error
        self._unproven = None

    def remedy(self, setting: str) -> str:
        """How a training that went wrong goes on with another setting, if it can: `; COMMAND`."""
        if not (self.resumable and (self.run.path / "last").is_file()):
            return ""
        name = self.run.checkpoints.pointed("last")
        command = f"srucli train --resume {shlex.quote(str(self.run.path))} --force {setting}"
        return f"; {command} goes on from {name}"

    def further(self) -> str:
        """How a training that was stopped goes on."""
        if not self.resumable:
            return "the weights can be used, but not trained further"
        return f"to go on: srucli train --resume {shlex.quote(str(self.run.path))}"
