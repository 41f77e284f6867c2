"""What a tracker is: it receives the metrics of a training beside the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from srucli.runs.run_dir import RunDir


@dataclass(frozen=True)
class Start:
    """The training that a tracker receives the metrics of.

    step: the step from which this process trains. id: the tracker's name for the training, if an
    earlier process began it. logged: the last step of which that one sent metrics, which may be
    after `step` if it was killed before it saved a checkpoint.
    """

    run: RunDir
    step: int
    id: str | None = None
    logged: int = 0


class Tracker(Protocol):
    """One training in a tracking service, made from its `Start`. All methods may raise any error.

    id: what a later process needs to continue it.
    """

    id: str

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Send the metrics after a step, unless an earlier process sent them."""

    def close(self, *, finished: bool) -> None:
        """End what this process sends. finished: whether the training has ended."""
