"""What a training writes down as it goes: metrics.jsonl, diagnostics.jsonl, TensorBoard, progress.

The files only grow. When a training resumes, whatever was added after its checkpoint is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from srucli.runs.run_dir import LOGS, RunDir
from srucli.tokenizer.truncation import Tally
from srucli.training.tensorboard import Board


class Log:
    """The log of one run. seconds: spent on training, by this process and those before it."""

    def __init__(self, run: RunDir, *, tensorboard: bool) -> None:
        self.run, self.tensorboard = run, tensorboard
        self.board: Board | None = None
        self.bar: tqdm[Any] | None = None
        self._before, self._started = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    @contextmanager
    def open(self, step: int, texts: int, total: int) -> Iterator[None]:
        """Show progress for a block, from a step and a number of texts on, of `total` texts.

        Raises OutputError where TensorBoard's file cannot be written.
        """
        if self.tensorboard:
            self.board = Board(self.run.place, step)
        how: dict[str, Any] = {"unit": "text", "unit_scale": True, "disable": None, "leave": False}
        with tqdm(total=total, initial=texts, **how) as self.bar:
            yield

    def advance(self, texts: int) -> None:
        """Count the texts of a step."""
        assert self.bar is not None
        self.bar.update(texts)

    def show(self, loss: float, pieces: int) -> None:
        """Show the loss, and how many tokens a second `pieces` tokens in all are."""
        assert self.bar is not None
        speed = pieces / max(self.seconds, 1e-9)
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:,.0f} pieces/s", refresh=False)

    def add_diagnostics(self, record: Mapping[str, Any]) -> None:
        """Add a line to diagnostics.jsonl. Raises OutputError."""
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
        """Add an epoch to metrics.jsonl, and to TensorBoard's file. Raises OutputError.

        metrics: on dev examples. tallies: of train and dev examples that were not read whole.
        """
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        lost = {part: t.to_json() for part, t in tallies.items() if t and t.sentences()}
        record = {
            "step": step,
            "epoch": epoch,
            "train_loss": loss,
            "lr": lr,
            "seconds": round(self.seconds, 3),
            "dev": known,
            **({"reading": lost} if lost else {}),
            **({"skipped": skipped} if skipped else {}),
        }
        self.run.add("metrics.jsonl", record)
        if self.board is not None:
            scalars = {"train/loss": loss, "train/lr": lr}
            self.board.add(scalars | {f"dev/{name}": x for name, x in metrics.items()}, step)

    def state_dict(self) -> dict[str, Any]:
        """The time that was spent, and the sizes of the files in bytes."""
        sizes = {name: self.run.size(name) for name in LOGS}
        return {"progress": {"seconds": self.seconds}, "logs": sizes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the files to their sizes. Raises LookupError, TypeError, ValueError, OutputError."""
        sizes = {name: int(state["logs"][name]) for name in LOGS}
        self._before = float(state["progress"]["seconds"])
        for name, size in sizes.items():
            self.run.cut(name, size)
