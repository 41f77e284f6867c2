"""Start and stop Python child processes.

They import what this process would, but nothing from the current folder, where anybody may have put
a `yaml.py`. A process runs `child.py`, and then the module that it was started for.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import IO, TYPE_CHECKING, NamedTuple

from srucli.io.system_limits import no_process

if TYPE_CHECKING:
    import subprocess

PACKAGE = Path(__file__).resolve().parent
# The processes that each thread runs.
_of_threads: dict[int, list[subprocess.Popen[bytes]]] = {}


class Child(NamedTuple):
    """A process and its pipes. stderr: None if it shares this process's."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes] | None


def isolate(environment: MutableMapping[str, str]) -> None:
    """Let Python processes with this environment import nothing from the current folder.

    Empty and relative entries of PYTHONPATH, which lead there, are removed.
    """
    environment["PYTHONSAFEPATH"] = "1"
    entries = environment.pop("PYTHONPATH", "").split(os.pathsep)
    if absolute := list(filter(os.path.isabs, entries)):
        environment["PYTHONPATH"] = os.pathsep.join(absolute)


def inherited_path() -> list[str]:
    """Return the entries of `sys.path` for a child, without the current folder."""
    here = os.path.realpath(os.curdir)
    return [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]


def kill_children_of(thread: int) -> None:
    """Kill the processes that a thread runs, so that it waits for none of them."""
    for process in [*_of_threads.get(thread, ())]:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the group of a process."""
    with suppress(OSError):  # it has ended
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # Windows
            process.kill()


@contextmanager
def child(module: str, *, own_stderr: bool) -> Iterator[Child]:
    """Run `main` of a module of this package in a process that ends with this block.

    It has its own process group, so that Ctrl-C reaches only this process. The whole group is
    killed at the end of the block.
    """
    import json
    import subprocess

    environment = dict(os.environ)
    isolate(environment)
    command = [sys.executable, "-I" if sys.flags.isolated else "-P", str(PACKAGE / "child.py")]
    try:
        process = subprocess.Popen(
            [*command, json.dumps(inherited_path()), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if own_stderr else None,
            env=environment,
            process_group=0,
        )
    except OSError as error:
        raise no_process(error) from error
    assert process.stdin is not None
    assert process.stdout is not None
    running = _of_threads.setdefault(get_ident(), [])
    running.append(process)
    try:
        yield Child(process, process.stdin, process.stdout, process.stderr)
    finally:
        running.remove(process)
        if not running:
            del _of_threads[get_ident()]
        if process.returncode is None:
            _kill(process)
            process.wait()
        process.stdout.read()  # until the last process of the group has ended
        process.stdout.close()
        with suppress(OSError):  # unread input
            process.stdin.close()
