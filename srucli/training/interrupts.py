"""How a training is asked to stop. Who asks, and by what signal, is not known here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Interrupt:
    """A request to stop, which a signal handler or another thread makes.

    requested: the training saves after the step it is in and raises InterruptedRun.
    checked: the training looks at `requested` from now on. Before that it has nothing to save, and
    its process may be ended at any instant.
    """

    requested: bool = False
    checked: bool = False
