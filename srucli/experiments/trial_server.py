"""The process that the trainings of a comparison are forked from, so that each starts at once.

It has imported torch but run nothing, so no thread is forked. `cells.Trials` starts it by
`children.child`, and it is nobody else's to call. It reads jobs, a line of JSON each, and answers
each with the job's number and exit code once it has ended. When standard input closes, it ends, and
with it all of its process group.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from importlib import import_module
from select import select
from typing import Any

from srucli.experiments.trials import run_cell

PRELOADED = ("srucli.training.run", "srucli.inference.evaluation")


def _start(job: dict[str, Any]) -> tuple[int, int]:
    """Fork a training. Returns its process number and a pipe's end that closes when it ends."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        return number, reading
    try:
        code = run_cell(**job)
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
