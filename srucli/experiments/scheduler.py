"""Run trials in processes, several at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from srucli.errors import SrucliError
from srucli.experiments.trials import Folder, Plan, Trial
from srucli.io.children import Child, child
from srucli.io.files import opened
from srucli.runtime import cores as available_cores


def threads_each(cores: int, jobs: int) -> int:
    """Return the threads of each trial if `jobs` run at once."""
    return max(cores // jobs, 1)


class Scheduler:
    """Runs trials in processes, at most `jobs` at once; all of them end with the `with` block.

    `done` is called with each finished trial.
    """

    def __init__(
        self, folder: Folder, plan: Plan, jobs: int, done: Callable[[Trial], None]
    ) -> None:
        self.folder, self.plan, self.jobs, self.done = folder, plan, jobs, done
        self.threads = threads_each(available_cores(), jobs)
        with opened(folder.place) as held:
            self.identity = held.identity
        self.open = ExitStack()
        self.server: Child | None = None

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *error: object) -> None:
        self.open.close()

    def run(self, trials: Sequence[Trial]) -> None:
        """Run all of these. Raises SrucliError when one fails."""
        running = 0
        for number in range(len(trials)):
            if running == self.jobs:
                self._wait(trials)
                running -= 1
            self._send(number, trials[number])
            running += 1
        for _ in range(running):
            self._wait(trials)

    def job(self, trial: Trial) -> dict[str, Any]:
        """Return the arguments of `run_trial`, as JSON can hold them."""
        shared = None if self.plan.own_tokenizers else str(self.folder.tokenizer)
        config = self.plan.config_of(trial, self.threads)
        return {
            "path": str(self.folder.path),
            "identity": self.identity,
            "config": config.model_dump(mode="json", exclude_unset=True),
            "trial": trial,
            "tokenizer": shared,
        }

    def start(self) -> Child:
        """Return the process that forks trials; start it the first time."""
        if self.server is None:
            started = child("srucli.experiments.trial_server", own_stderr=False)
            self.server = self.open.enter_context(started)
        return self.server

    def _send(self, number: int, trial: Trial) -> None:
        """Send a trial to that process."""
        jobs = self.start().stdin
        with suppress(BrokenPipeError):  # `_wait` says why
            jobs.write(json.dumps([number, self.job(trial)]).encode() + b"\n")
            jobs.flush()

    def _wait(self, trials: Sequence[Trial]) -> None:
        """Wait until one of the running trials has ended."""
        server = self.start()
        answer = server.stdout.readline()
        if not answer:
            code = server.process.wait()
            raise SrucliError(f"the process that starts trainings ended with {code}")
        number, code = json.loads(answer)
        trial = trials[number]
        if self.folder.result(trial) is None:
            with opened(self.folder.place) as folder:
                folder.check_in_place()
            raise SrucliError(_failure(self.folder.path / trial.folder, code))
        self.done(trial)


def _failure(place: Path, code: int) -> str:
    try:
        said = (place / "error.txt").read_text(encoding="utf-8")
    except OSError:
        said = f"ended with {code}"
    return f"{place}: {said}; see {place / 'log.txt'}"
