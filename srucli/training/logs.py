"""The log of a training: metrics.jsonl, diagnostics.jsonl, TensorBoard, and what people see.

Lines are only appended. A training that resumes first cuts off the lines after its checkpoint.
TensorBoard's own writer opens its files by path and would follow links, so it is not used.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from srucli.io.console import WIDTH, progress_bar, say
from srucli.io.files import Place, writing
from srucli.runs.run_dir import LOGS, RunDir
from srucli.tokenizer.truncation import Tally

TENSORBOARD = "tensorboard"
# What marks an epoch that is better than all before it, and the width of the epochs' column.
BEST, _EPOCH = "best so far", 7


class Board:
    """An event file of TensorBoard for the steps after `step`. Its methods raise OutputError."""

    def __init__(self, run: Place, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self.run = run
        now = time.time()
        self.name = f"events.out.tfevents.{now:.6f}.{platform.node()}.{os.getpid()}"
        # A new session replaces later steps that an interrupted process recorded.
        start = SessionLog(status=SessionLog.START)
        self._write(
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=step + 1, session_log=start),
        )

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the metrics after a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        data = BytesIO()
        records = RecordWriter(data)
        for event in events:
            records.write(event.SerializeToString())
        with writing(self.run, TENSORBOARD) as run, run.child(TENSORBOARD, make=True) as folder:
            folder.append(self.name, data.getvalue())


class Log:
    """The log of one run."""

    def __init__(self, run: RunDir, *, tensorboard: bool) -> None:
        self.run, self.tensorboard = run, tensorboard
        self.board: Board | None = None
        self.bar = progress_bar(disable=True)
        self._seconds_before, self._started = 0.0, time.monotonic()
        self._has_heading = False

    @property
    def seconds(self) -> float:
        """The seconds spent on this training, including those before it was resumed."""
        return self._seconds_before + time.monotonic() - self._started

    @contextmanager
    def open(self, step: int, examples: int, total: int) -> Iterator[None]:
        """Show a progress bar during a block that starts at `examples` of `total` examples.

        Raises OutputError if TensorBoard's file cannot be written.
        """
        if self.tensorboard:
            self.board = Board(self.run.place, step)
        style = {"unit": " examples", "unit_scale": True}
        with progress_bar(total=total, initial=examples, **style) as self.bar:
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
        """Append an epoch to metrics.jsonl and to TensorBoard's file. Raises OutputError.

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
        self.run.add("metrics.jsonl", record)
        if self.board is not None:
            scalars = {"train/loss": loss, "train/lr": lr}
            self.board.add(scalars | {f"dev/{name}": x for name, x in metrics.items()}, step)

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
        """Return the seconds spent, and the sizes of the files in bytes."""
        sizes = {name: self.run.size(name) for name in LOGS}
        return {"progress": {"seconds": self.seconds}, "logs": sizes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the files to their sizes. Raises LookupError, TypeError, ValueError, OutputError."""
        sizes = {name: int(state["logs"][name]) for name in LOGS}
        self._seconds_before = float(state["progress"]["seconds"])
        for name, size in sizes.items():
            self.run.cut(name, size)
