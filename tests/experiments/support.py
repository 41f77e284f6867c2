"""Plans and results of comparisons without training, and commands that are stopped meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from srucli.config import resolve
from srucli.experiments.trials import Candidate, Folder, Plan, Trial
from tests.support import Tiny, child_environment

ADAMS = (Candidate("adam", {"optim.name": "adam"}), Candidate("sgd", {"optim.name": "sgd"}))


def plan(grid: int = 3, seeds: int = 2, candidates: tuple[Candidate, ...] = ADAMS) -> Plan:
    return Plan(resolve(), candidates, "accuracy", grid, seeds, None)


def metrics_of(value: float) -> dict[str, float]:
    return {"accuracy": value, "macro_f1": value, "log_loss": 1 - value}


def finish(
    folder: Path,
    trial: Trial,
    accuracy: float | None,
    test: float | None = None,
    reached: tuple[int, float] = (10, 2.0),
    **more: object,
) -> None:
    """Write a trial's result, None if it diverged. reached: step and seconds of the accuracy."""
    place = folder / trial.folder
    place.mkdir(parents=True)
    dev = {} if accuracy is None else metrics_of(accuracy)
    step, seconds = reached
    record = {"step": step, "epoch": 1, "train_loss": 1.0, "seconds": seconds, "dev": dev, **more}
    history = [] if accuracy is None else [{**record, "step": 5, "dev": {"accuracy": 0.1}}, record]
    diverged = "training diverged" if accuracy is None else None
    measured = dev if test is None else metrics_of(test)
    found = {"dev": dev, "test": measured, "history": history, "diverged": diverged}
    (place / "result.json").write_text(json.dumps(found))


def with_data(tiny: Tiny, folder: Path) -> Folder:
    """Return the folder of a comparison, with the same texts in dev and test."""
    found = Folder(folder)
    (folder / "data").mkdir()
    rows = [line.split("\t") for line in tiny.train.read_text().splitlines()]
    lines = [json.dumps({"text": text, "label": label}) + "\n" for label, text in rows]
    found.data["train"].write_text("".join(lines[90:]))
    for part in ("dev", "test"):
        found.data[part].write_text("".join(lines[:90]))
    shutil.copy(tiny.run / "tokenizer.model", found.tokenizer)
    return found


def results(folder: Path) -> dict[Path, int]:
    """Return the results of finished trials or folds, with the time of each."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}


def started(words: Sequence[object], folder: Path, *, finished: int) -> subprocess.Popen[str]:
    """Start a command, and return when this many trials or folds are finished."""
    process = subprocess.Popen(
        [sys.executable, "-m", "srucli", *map(str, words)],
        env=child_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(results(folder)) < finished:
        assert process.poll() is None
        time.sleep(0.05)
    return process
