"""The learning rate over one training, as a share of its peak: how far along a step is.

The curves are those of `optim/schedules.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from srucli import optim
from srucli.config import OptimConfig, TrainConfig


class Schedule(NamedTuple):
    """A curve over the steps of a training, or over its examples, since batches vary in size.

    steps: how many there are, where the settings say so. epochs, examples: how many epochs of how
    many examples.
    """

    name: str
    warmup: float
    steps: int | None
    epochs: int
    examples: int

    @classmethod
    def of(cls, optimizer: OptimConfig, train: TrainConfig, examples: int) -> Schedule:
        """The schedule of complete settings for so many examples an epoch."""
        assert train.epochs is not None  # `complete` saw to it
        return cls(optimizer.schedule, optimizer.warmup, train.steps, train.epochs, examples)

    def factor(self, step: int, examples: int) -> float:
        """The rate of a step, from 0, as a share of the peak.

        examples: those of all steps so far, of this one too, so that the last step is at the
        schedule's end. The only step of a training is at the peak.
        """
        done, planned = examples, self.epochs * self.examples
        if self.steps is not None:
            done, planned = step, self.steps
        elif not step and done >= planned:
            return 1.0
        return optim.lr_factor(self.name, done, planned, self.warmup)

    def is_as_long_as(self, other: Schedule) -> bool:
        """Whether the settings give both the same number of epochs and of steps."""
        return (self.steps, self.epochs) == (other.steps, other.epochs)
