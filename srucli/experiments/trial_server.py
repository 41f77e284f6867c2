"""The process from which trials are forked, so that each starts at once.

It imports torch but runs nothing, so it has no threads that a fork would lose. It reads jobs from
stdin, one JSON line each, and writes the number and the exit code of each job that ends. When stdin
closes, it ends, with its whole process group. Only `scheduler.py` starts it.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from importlib import import_module
from select import select
from typing import Any

from srucli.experiments.trial_process import run_trial

PRELOADED = ("srucli.training.run", "srucli.inference.evaluation")


def _start(job: dict[str, Any]) -> tuple[int, int]:
    """Fork a trial. Return its process id, and the end of a pipe that closes when it ends."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        return number, reading
    try:
        code = run_trial(**job)
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def main() -> None:
    """Serve until standard input closes."""
    for module in PRELOADED:
        import_module(module)
    running: dict[int, tuple[int, int]] = {}
    with open(0, "rb", buffering=0) as jobs:
        while True:
            for ready in select([0, *running], [], [])[0]:
                if ready:
                    os.close(ready)
                    number, process = running.pop(ready)
                    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                    print(json.dumps([number, code]), flush=True)
                elif line := jobs.readline():
                    number, job = json.loads(line)
                    process, pipe = _start(job)
                    running[pipe] = number, process
                else:
                    os.killpg(0, signal.SIGKILL)
