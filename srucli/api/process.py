"""Set up the process of a program for speed, as commands do."""

from __future__ import annotations

import sys

from srucli.io.openmp import sleep_soon


def tune_process(threads: int = 0) -> None:
    """Set up this whole process for speed, permanently, as `srucli` does for its commands.

    No other call changes the process. This one sets torch's number of threads (0: one per core),
    flushes denormal numbers to zero, lets glibc keep freed memory, and says when kernels are
    compiled. If torch is not loaded yet, it also lets waiting threads sleep soon, without which
    training is several times slower on a busy machine: call it before torch is imported.

    Raises UsageError for far more threads than processors.
    """
    if "torch" not in sys.modules:
        sleep_soon()
    from srucli.runtime import tune_process as tune

    tune(threads)
