"""The table of trackers, and those of one training.

A tracker is a row here, a setting `train.NAME`, and the extra NAME of pyproject.toml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from srucli.errors import SrucliError
from srucli.io.console import MAX_REASON, beginning, warn
from srucli.io.memory import ran_out
from srucli.runs.run_dir import RunDir
from srucli.training.trackers.mlflow import MLflow
from srucli.training.trackers.tensorboard import TensorBoard
from srucli.training.trackers.tracker import Start, Tracker
from srucli.training.trackers.wandb import WandB

# By the package that each needs.
TRACKERS: dict[str, Callable[[Start], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


class Trackers:
    """The trackers of one training, each opened when it gets its first metrics.

    An error of one ends that tracker with a warning, and not the training. OutputError does end it:
    then the run's folder cannot be written.
    """

    def __init__(self, run: RunDir, names: Sequence[str]) -> None:
        self.run, self.names = run, list(names)
        self._ids: dict[str, str] = {}
        self._open: dict[str, Tracker] = {}
        self._step = self._logged = 0

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Close the trackers at the end of a block that trains from this step on."""
        self._step, finished = step, False
        try:
            yield
            finished = True
        finally:
            while self._open:
                name, tracker = self._open.popitem()
                with self._going_on(name):
                    tracker.close(finished=finished)

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Send the metrics after a step. Raises OutputError."""
        for name in list(self.names):
            with self._going_on(name):
                if name not in self._open:
                    start = Start(self.run, self._step, self._ids.get(name), self._logged)
                    self._open[name] = TRACKERS[name](start)
                    self._ids[name] = self._open[name].id
                self._open[name].add(scalars, step)

    @contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        """Drop a tracker that fails in a block."""
        try:
            yield
        except Exception as error:
            if isinstance(error, SrucliError) or ran_out(error):
                raise
            if name not in self.names:  # it failed before, and now fails to close
                return
            self.names.remove(name)
            reason = beginning(" ".join(str(error).split()), MAX_REASON) or type(error).__name__
            warn(f"train.{name} failed, so the training goes on without it: {reason}")

    def state_dict(self) -> dict[str, str]:
        """Return what the trackers call this training."""
        return dict(self._ids)

    def load_state_dict(self, ids: Mapping[str, str], logged: int) -> None:
        """Continue what an earlier process sent, the last time after step `logged`.

        Raises ValueError, TypeError.
        """
        for name, found in ids.items():
            if name not in TRACKERS or not re.fullmatch(r"\w[\w-]{0,127}", found, re.ASCII):
                raise ValueError("trackers")
        self._ids, self._logged = dict(ids), logged
