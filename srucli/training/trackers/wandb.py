"""Weights & Biases: a run of its own, so that others in the process go on.

Its service is a process that the first run of a process starts, with a variable, threads and an
exception hook. They are removed with the run, unless the caller of srucli had started them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from srucli.config import flat
from srucli.io.console import say
from srucli.training.trackers.tracker import Start


class WandB:
    """A run of Weights & Biases, new or continued."""

    def __init__(self, start: Start) -> None:
        import wandb

        self._is_first = "WANDB_SERVICE" not in os.environ
        self._hook = sys.excepthook
        # Offline, Weights & Biases does not know the steps that an earlier process logged.
        self._last = start.logged if start.id else -1
        is_online = os.environ.get("WANDB_MODE", "online") == "online"
        try:
            if is_online and not wandb.api.api_key:
                raise RuntimeError("no API key; run `wandb login`, or set WANDB_MODE=offline")
            self.run = wandb.init(
                id=start.id,
                resume="allow" if is_online else None,
                reinit="create_new",
                name=start.run.path.absolute().name,
                config=flat(start.run.config().model_dump(mode="json")),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except BaseException:
            self._restore()
            raise
        self.id = self.run.id
        say(f"wandb: {self.run.settings.sync_dir if self.run.offline else self.run.url}")

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Send the metrics after a step, unless the run has them."""
        if step > self._last:
            self.run.log(dict(scalars), step=step, commit=True)

    def close(self, *, finished: bool) -> None:
        """Send the rest, and restore the process."""
        try:
            self.run.finish(exit_code=0 if finished else 1)
        finally:
            self._restore()

    def _restore(self) -> None:
        import wandb

        if self._is_first:
            wandb.teardown()
            sys.excepthook = self._hook
