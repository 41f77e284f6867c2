"""Python processes that srucli starts: what they import, and how they are ended.

They import what this process would, except from the current folder, where a stranger may have put a
`yaml.py`: not by Python's own habit, and not by a `sys.path` that is handed on. What runs in one is
`child.py`, then the module that it was started for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

PACKAGE = Path(__file__).resolve().parent


class Child(NamedTuple):
    """A process and its pipes; `stderr` is None where it writes to this process's own."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes] | None


def isolate(environment: MutableMapping[str, str]) -> None:
    """Let the Python processes that get this environment import nothing from the current folder.

    Every empty or relative entry of PYTHONPATH means that folder or one of its own. The folder by
    its full name stays: somebody wrote that on purpose.
    """
    environment["PYTHONSAFEPATH"] = "1"
    entries = environment.pop("PYTHONPATH", "").split(os.pathsep)
    if kept := [entry for entry in entries if os.path.isabs(entry)]:
        environment["PYTHONPATH"] = os.pathsep.join(kept)


def handed_on() -> list[str]:
    """What of this process's `sys.path` a child gets. It finds srucli without it."""
    here = os.path.realpath(os.curdir)
    return [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]


@contextmanager
def child(module: str, *, own_stderr: bool) -> Iterator[Child]:
    """A process that runs `main` of a module of this package, and ends with this block.

    It has a process group of its own, so that Ctrl-C reaches this process alone; the whole group
    ends with the block.
    """
    environment = dict(os.environ)
    isolate(environment)
    isolated = ["-I"] if sys.flags.isolated else ["-P"]
    process = subprocess.Popen(
        [sys.executable, *isolated, str(PACKAGE / "child.py"), json.dumps(handed_on()), module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if own_stderr else None,
        env=environment,
        process_group=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Child(process, process.stdin, process.stdout, process.stderr)
    finally:
        if process.returncode is None:
            with suppress(OSError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.read()  # ends when the last of the group is gone
        process.stdout.close()
        with suppress(OSError):  # what it did not read
            process.stdin.close()
