"""A process that trains for another one, set up as that of a command.

It reads a pickled `Job` from stdin, and writes pickled messages to stdout: each epoch, and the end.
It ends with the process that started it, and may change its file descriptors and threads.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from srucli.errors import InterruptedRun, SrucliError
from srucli.io.openmp import sleep_soon
from srucli.io.python_warnings import show_warnings

if TYPE_CHECKING:
    from srucli.training.interrupts import Interrupt

# The number of bytes of the size of a job, which comes before it.
SIZE = 8


def main() -> None:
    """Run the job on stdin."""
    sleep_soon()
    show_warnings()
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what packages print is no message
    from srucli.runtime import tune_process
    from srucli.training.interrupts import Interrupt

    def send(*message: Any) -> None:
        pickle.dump(message, messages)
        messages.flush()

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        send("epoch", epoch, dict(metrics))

    size = int.from_bytes(_read(SIZE), "big")
    job, stop = pickle.loads(_read(size)), Interrupt()
    threading.Thread(target=_listen, args=(stop,), daemon=True).start()
    try:
        tune_process(job.config.train.threads)
        job.run(stop, on_epoch)
        send("end", None)
    except SrucliError as error:
        send("end", error)


def _read(size: int) -> bytes:
    """Read bytes from stdin, without a buffer that a thread might hold when the process ends."""
    parts = []
    while size:
        parts.append(os.read(0, size))
        size -= len(parts[-1])
        if not parts[-1]:
            os._exit(1)
    return b"".join(parts)


def _listen(stop: Interrupt) -> None:
    """Request a stop when the other process asks for it; end with that process."""
    if os.read(0, 1):
        stop.requested = True
        if not stop.checked:
            os._exit(InterruptedRun.exit_code)
        os.read(0, 1)
    os._exit(1)
