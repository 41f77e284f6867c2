"""How far along a training a step is, and its learning rate as a fraction of the peak.

The curves are those of `optim/schedules.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from srucli import optim
from srucli.config import OptimConfig, TrainConfig


class Schedule(NamedTuple):
    """A curve over the steps of a training, or over its examples, because batch sizes vary.

    steps: the number of steps, if `train.steps` is set. examples: the examples of one epoch.
    """

    name: str
    warmup: float
    steps: int | None
    epochs: int
    examples: int

    @classmethod
    def of(cls, optimizer: OptimConfig, train: TrainConfig, examples: int) -> Schedule:
        """Return the schedule for complete settings and the number of examples of an epoch."""
        assert train.epochs is not None  # set by `complete`
        return cls(optimizer.schedule, optimizer.warmup, train.steps, train.epochs, examples)

    def factor(self, step: int, examples: int) -> float:
        """Return the learning rate of a step (from 0) as a fraction of the peak.

        examples: the number in all steps so far, including this one, so that the last step is at
        the end of the schedule. A training of a single step takes it at the peak.
        """
        done, planned = examples, self.epochs * self.examples
        if self.steps is not None:
            done, planned = step, self.steps
        elif not step and done >= planned:
            return 1.0
        return optim.lr_factor(self.name, done, planned, self.warmup)
