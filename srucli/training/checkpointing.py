"""When a training saves a checkpoint, and how the states of its parts are put together.

The state dicts of all parts are merged into one tree; the values below "progress" are shared.
`runs/training_state.py` converts the tree to files, and `runs/checkpoints.py` writes them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from srucli.config import TrainConfig
from srucli.data.loader import DataLoader
from srucli.errors import DataError, InterruptedRun
from srucli.io.console import say, shell_word
from srucli.io.files import COPY_AGAIN
from srucli.io.memory import ran_out
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

# What our parts, torch and optimizers of other packages raise for a state that does not fit.
_DOES_NOT_FIT = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError),
    AssertionError,
)

# The states that have tensors. Without these, they are as at the start of a training.
_OF_TENSORS = {"random", "figures", "watch", "weights"}


class Checkpointing:
    """Saves and restores the parts of a training in the folder of its run.

    resumable: whether the state of the optimizer could be saved.
    """

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
        self.loader, self.validation, self.log = loader, validation, log
        # The log comes last because it cuts off lines of its files.
        self.parts: tuple[DataLoader | Step | Validation | Log, ...]
        self.parts = loader, step, validation, log
        self.resumable = True
        self._saved_at = time.monotonic()
        # Step and epoch of the newest checkpoint.
        self._newest: tuple[int, int] | None = None
        # The restored file, until a first step has succeeded with its state.
        self._unproven: str | None = None

    def is_due(self) -> bool:
        """Return whether it is time for a checkpoint within the epoch."""
        steps, minutes = self.settings.save_steps, self.settings.save_minutes
        if steps and self.loader.position.step % steps == 0:
            return True
        return bool(minutes) and time.monotonic() - self._saved_at > 60 * minutes

    def save(self, which: set[Which], *, finished: bool) -> None:
        """Save a checkpoint, unless there is one of this step already. Raises OutputError."""
        position = self.loader.position
        if self._newest == (position.step, position.epoch):
            return
        state: dict[str, Any] = {"epoch": position.epoch, "finished": finished}
        if self.validation.thresholds is not None:
            state["thresholds"] = self.validation.thresholds
        tree, training = self._tree(), {}
        try:
            training = to_files(tree)
        except UnwritableError as error:
            if self.resumable:
                name = self.step.settings.name
                say(f"this run cannot be resumed: the state of {name} contains {error}")
            self.resumable = False
        keep = self.settings.keep_checkpoints or (1 if finished else 2)
        self.run.save(position.step, self.step.weights(), state, which, training, keep)
        self._saved_at, self._newest = time.monotonic(), (position.step, position.epoch)

    def _tree(self) -> dict[str, Any]:
        """Return everything that resuming needs besides the weights for prediction."""
        tree: dict[str, Any] = {"progress": {}, "random": random_states(self.step.device)}
        for part in self.parts:
            state = part.state_dict()
            tree["progress"] |= state.pop("progress", {})
            tree |= state
        return tree

    def load(self, name: str, *, same_optimizer: bool) -> bool:
        """Restore a valid checkpoint; the optimizer's state only if it is the same optimizer.

        Returns whether the checkpoint has such a state (see `RunDir.slim`). Raises DataError if it
        does not fit this training.
        """
        saved = self.run.checkpoint(name, self.step.model.state_dict())
        self.step.model.load_state_dict(saved.weights)
        source = str(self.run.path / "checkpoints" / name / TRAINING)
        text = self.run.checkpoints.read(name, TRAINING)
        tensors = None
        if self.run.checkpoints.lists(name, TRAINING_TENSORS):
            tensors = tensors_of(self.run.checkpoints.read(name, TRAINING_TENSORS), source)
        try:
            tree = from_files(text, tensors)
            if tensors is None:
                tree |= {key: value for key, value in self._tree().items() if key in _OF_TENSORS}
            if tensors is None or not same_optimizer:
                tree["optimizer"] = None
            set_random_states(tree["random"], self.step.device)
            for part in self.parts:
                part.load_state_dict(tree)
            self._reset_best_if_not_comparable()
        except _DOES_NOT_FIT as error:
            if ran_out(error):
                raise
            problem = f"does not fit this training ({error})"
            raise DataError(source, None, problem, COPY_AGAIN) from error
        position = self.loader.position
        self._unproven, self._newest = source, (position.step, position.epoch)
        return tensors is not None

    def _reset_best_if_not_comparable(self) -> None:
        """If the metric or the dev examples changed, make the restored checkpoint the best."""
        before, now = self.validation.restored_basis, self.validation.basis
        if before == now:
            return
        step, values = self.loader.position.step, {}
        if before["dev"] == now["dev"]:
            values = dev_values(self.run.records("metrics.jsonl"), self.validation.metric)
        self.validation.reset_best(step, values.get(f"step-{step}"))
        say("the metric or the dev examples changed: the resumed checkpoint is the best so far")

    def begin_diagnostics(self) -> None:
        """Begin diagnostics.jsonl with the record that is needed to interpret the others."""
        if self.step.watch and not self.run.size("diagnostics.jsonl"):
            optimizer = self.step.settings.model_dump(mode="json")
            first = {"optimizer": optimizer, "counts": self.step.watch.counts}
            self.log.add_diagnostics(first | {"rows": self.step.model.embedding.sparse})

    def repair_pointers(self, name: str, *, finished: bool) -> None:
        """Point `last` and `best` at their checkpoints; a kill may have prevented that."""
        checkpoints = self.run.checkpoints
        checkpoints.point(name, {"last"})
        best = f"step-{self.validation.best.best_step}"
        if best in checkpoints.names():
            checkpoints.point(best, {"best"})
        if finished:
            checkpoints.sweep(self.settings.keep_checkpoints or 1)

    @contextmanager
    def proving(self) -> Iterator[None]:
        """Run a block with a step. Raises DataError if the first one fails on a restored state."""
        try:
            yield
        except _DOES_NOT_FIT as error:
            if self._unproven is None or ran_out(error):
                raise
            problem = f"does not fit this training ({type(error).__name__}: {error})"
            raise DataError(self._unproven, None, problem, COPY_AGAIN) from error
        self._unproven = None

    def remedy(self, setting: str) -> str:
        """Return how to resume a diverged training with another setting, if it can be resumed."""
        if not (self.resumable and (self.run.path / "last").is_file()):
            return ""
        name = self.run.checkpoints.pointed("last")
        command = f"srucli train --resume {shell_word(str(self.run.path))} --force {setting}"
        return f"; {command} resumes from {name}"

    def interrupted(self, stopped: str) -> InterruptedRun:
        """Return the error of an interrupted training, which says how to resume it."""
        if not self.resumable:
            unusable = "the weights can be used, but the training cannot be resumed"
            return InterruptedRun(f"{stopped}; {unusable}")
        how = f"to resume: srucli train --resume {shell_word(str(self.run.path))}"
        return InterruptedRun(stopped, how)
