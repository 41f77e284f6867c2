"""Run trials in processes, some of them at the same time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from srucli.config import Config
from srucli.errors import OutOfMemoryError, SrucliError
from srucli.experiments.trials import R, T, TrialFolder
from srucli.io.children import Child, child
from srucli.io.console import say
from srucli.io.files import opened
from srucli.io.memory import KILLED, NO_MEMORY, ending
from srucli.runs.claim import Kind
from srucli.runtime import cores, resolve_device

F = TypeVar("F", contravariant=True)
S = TypeVar("S", contravariant=True)


def check_system(kind: Kind) -> None:
    """Raise SrucliError if this system cannot end a group of processes, which trials are."""
    if not hasattr(os, "killpg"):
        raise SrucliError(f"a {kind} needs Linux or macOS: Windows cannot end groups of processes")


def default_jobs(config: Config) -> int:
    """Return the number of trials at once: the number of cores, or one on a GPU."""
    return cores() if resolve_device(config.train.device).type == "cpu" else 1


class Plans(Protocol[F, S]):
    """What a scheduler needs of a plan: the arguments of `run_trial` about a trial."""

    def job(self, folder: F, trial: S, threads: int) -> dict[str, Any]: ...


class Scheduler(ExitStack, Generic[T, R]):
    """Run trials in processes, at most `jobs` at once; all of them end with the `with` block.

    `done` is called with the result of each finished trial.
    """

    def __init__(
        self, folder: TrialFolder[T, R], plan: Plans[Any, T], jobs: int, done: Callable[[R], None]
    ) -> None:
        super().__init__()
        self.folder, self.plan, self.jobs, self.done = folder, plan, jobs, done
        self.threads = max(cores() // jobs, 1)
        with opened(folder.place) as held:
            self.identity = held.identity
        self.server: Child | None = None
        self.said: set[str] = set()

    def run(self, trials: Sequence[T]) -> None:
        """Run trials. Raises SrucliError if one fails."""
        for number, trial in enumerate(trials):
            if number >= self.jobs:
                self._wait(trials)
            self._send(number, trial)
        for _ in range(min(self.jobs, len(trials))):
            self._wait(trials)

    def job(self, trial: T) -> dict[str, Any]:
        """Return the arguments of `run_trial`, as JSON can hold them."""
        return {
            "path": str(self.folder.path),
            "identity": self.identity,
            "trial": str(trial.folder),
            **self.plan.job(self.folder, trial, self.threads),
        }

    def start(self) -> Child:
        """Return the process that starts trials; start it at the first call."""
        if self.server is None:
            started = child("srucli.experiments.trial_process", own_stderr=False)
            self.server = self.enter_context(started)
        return self.server

    def _send(self, number: int, trial: T) -> None:
        """Send a trial to the process that starts it."""
        jobs = self.start().stdin
        with suppress(BrokenPipeError):  # `_wait` raises the error
            jobs.write(json.dumps([number, self.job(trial)]).encode() + b"\n")
            jobs.flush()

    def _pass_on(self, line: str) -> None:
        """Say once what one or more trials say to people."""
        if line not in self.said:
            self.said.add(line)
            say(line)

    def _wait(self, trials: Sequence[T]) -> None:
        """Wait until a running trial has ended. Raises SrucliError if it has no result."""
        server = self.start()
        while (answer := server.stdout.readline()) and not answer.startswith(b"["):
            self._pass_on(answer.decode().rstrip("\n"))
        if not answer:
            code = server.process.wait()
            raise SrucliError(f"the process that starts trials {ending(code)}")
        number, code = json.loads(answer)
        trial = trials[number]
        result = self.folder.result(trial)
        if result is None:
            with opened(self.folder.place) as folder:
                folder.check_in_place()
            raise self._failure(self.folder.path / trial.folder, code)
        self.done(result)

    def _failure(self, place: Path, code: int) -> SrucliError:
        """Return the error of a trial that has ended with an exit code, without a result."""
        try:
            error = (place / "error.txt").read_text(encoding="utf-8")
        except OSError:
            error = ending(code)
        message = f"{place}: {error}; see {place / 'log.txt'}"
        if code not in (NO_MEMORY, KILLED):
            return SrucliError(message)
        fewer = f"; trials share the memory: --jobs {self.jobs // 2}" if self.jobs > 1 else ""
        return OutOfMemoryError(message + fewer)
