"""The log of a training: metrics.jsonl, diagnostics.jsonl, trackers, and what people see.

Lines are only appended. A training that resumes first cuts off the lines after its checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from srucli.io.console import WIDTH, progress_bar, say
from srucli.runs.run_dir import LOGS, RunDir
from srucli.tokenizer.truncation import Tally
from srucli.training.trackers import Trackers

# What marks an epoch that is better than all before it, and the width of the epochs' column.
BEST, _EPOCH = "best so far", 7


class Log:
    """The log of one run. trackers: the names of those that get its metrics too."""

    def __init__(self, run: RunDir, trackers: Sequence[str] = ()) -> None:
        self.run, self.trackers = run, Trackers(run, trackers)
        self.bar = progress_bar(disable=True)
        self._seconds_before, self._started = 0.0, time.monotonic()
        self._has_heading = False

    @property
    def seconds(self) -> float:
        """The seconds spent on this training, including those before it was resumed."""
        return self._seconds_before + time.monotonic() - self._started

    @contextmanager
    def open(self, step: int, examples: int, total: int) -> Iterator[None]:
        """Show a progress bar during a block that starts at `examples` of `total` examples."""
        style = {"unit": " examples", "unit_scale": True}
        bar = progress_bar(total=total, initial=examples, **style)
        with self.trackers.open(step), bar as self.bar:
            yield

    def advance(self, examples: int) -> None:
        """Move the progress bar by the examples of a step."""
        self.bar.update(examples)

    def show(self, loss: float, tokens: int) -> None:
        """Show the loss, and the speed if `tokens` were trained on in all."""
        speed = tokens / max(self.seconds, 1e-9)
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:,.0f} tokens/s", refresh=False)

    def add_diagnostics(self, record: Mapping[str, Any]) -> None:
        """Append a line to diagnostics.jsonl. Raises OutputError."""
        self.run.add("diagnostics.jsonl", record)

    def add_epoch(
        self,
        step: int,
        epoch: int,
        loss: float,
        lr: float,
        metrics: Mapping[str, float],
        tallies: Mapping[str, Tally | None],
        skipped: int,
    ) -> None:
        """Send an epoch to the trackers, and append it to metrics.jsonl. Raises OutputError.

        metrics: on the dev examples. tallies: counts of truncated train and dev examples.
        """
        defined = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        truncated = {part: t.to_json() for part, t in tallies.items() if t and t.sentences()}
        record = {
            "step": step,
            "epoch": epoch,
            "train_loss": loss,
            "lr": lr,
            "seconds": round(self.seconds, 3),
            "dev": defined,
            **({"reading": truncated} if truncated else {}),
            **({"skipped": skipped} if skipped else {}),
        }
        scalars = {"train/loss": loss, "train/lr": lr}
        self.trackers.add(scalars | {f"dev/{name}": x for name, x in metrics.items()}, step)
        # After the trackers: after a kill, this line says that they have the epoch.
        self.run.add("metrics.jsonl", record)

    def say_epoch(
        self, epoch: int, epochs: int, loss: float, metrics: Mapping[str, float], best: bool
    ) -> None:
        """Write a row of the table of epochs to stderr, and before the first its heading.

        metrics: on the dev examples, the deciding one first; those that fit are shown. best:
        whether the epoch is the best so far.
        """
        heading = f"{'epoch':>{_EPOCH}}  {'loss':>7}  {'time':>8}"
        row = f"{f'{epoch}/{epochs}':>{_EPOCH}}  {loss:7.4f}  {f'{self.seconds:,.0f} s':>8}"
        mark = f"  {BEST}" if best and metrics else ""
        for number, (name, value) in enumerate(metrics.items()):
            head = name if number else f"dev {name}"
            if len(heading) + len(head) + 4 + len(BEST) <= WIDTH:
                heading += f"  {head}"
                row += f"  {value:{len(head)}.4f}"
        if not self._has_heading:
            say(heading)
            self._has_heading = True
        say(row, good=mark)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent, the sizes of the files in bytes, and what trackers need."""
        sizes = {name: self.run.size(name) for name in LOGS}
        tracked = {"trackers": ids} if (ids := self.trackers.state_dict()) else {}
        return {"progress": {"seconds": self.seconds}, "logs": sizes, **tracked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the files to their sizes. Raises LookupError, TypeError, ValueError, OutputError."""
        sizes = {name: int(state["logs"][name]) for name in LOGS}
        self._seconds_before = float(state["progress"]["seconds"])
        if ids := state.get("trackers"):
            steps = [record.get("step") for record in self.run.records("metrics.jsonl")]
            self.trackers.load_state_dict(ids, max([s for s in steps if isinstance(s, int)] or [0]))
        for name, size in sizes.items():
            self.run.cut(name, size)
