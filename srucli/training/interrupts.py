"""How a caller asks a training to stop. Signal handlers are not installed here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Interrupt:
    """A request to stop, set by a signal handler or another thread.

    requested: the training should save after the current step and raise InterruptedRun.
    checked: the training checks `requested` from now on. Before that it has nothing to save, and
    its process may be killed.
    """

    requested: bool = False
    checked: bool = False
