"""The object through which a training is asked to stop. Signal handlers are not installed here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Interrupt:
    """A request to stop, made by a signal handler or another thread.

    requested: the training should save after the current step and raise InterruptedRun.
    checked: the training checks `requested` from now on. Before that it has nothing to save, and
    its process may be killed.
    """

    requested: bool = False
    checked: bool = False
