"""The trials of a cross-validation: one training for each fold, tested once on the fold.

A fold's training reads a file of the examples of the other folds, which exists as long as it runs.
Its predictions are kept exactly, so that all metrics can be computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as pydantic_dataclass

from srucli.config import Config, dump, with_settings
from srucli.data.dataset import data_hash
from srucli.data.folds import folds
from srucli.data.readers import Example
from srucli.experiments.trials import (
    LEFTOVERS,
    PREDICTIONS,
    STRICT,
    Measured,
    Measurement,
    TrialFolder,
    json_lines,
)
from srucli.io.files import read_within, to_json, write_files, writing
from srucli.metrics import Outcome, Portion, encode
from srucli.runs.claim import Layout, clear
from srucli.runs.tensors import check_fit, max_bytes, tensors_of

# What a cross-validation's folder holds (see `claim.Layout`).
_EXAMPLES: Layout = {r"(train|test)\.jsonl": None}
_FOLD: Layout = {
    r"result\.json": None,
    r"predictions\.safetensors": None,
    **LEFTOVERS,
    **_EXAMPLES,
    r"log\.txt": None,
}
OUT_OF_FOLD = "predictions.jsonl"
LAYOUT: Layout = {
    r"predictions\.jsonl": None,
    "folds": {r"repeat-[0-9]+": {r"fold-[0-9]+": _FOLD}},
    r"plan\.json": None,
}


class Fold(NamedTuple):
    """A fold, which one training is tested on. Both numbers count from 1."""

    repeat: int
    number: int

    @property
    def folder(self) -> Path:
        """The fold's folder, relative to the folder of the cross-validation."""
        return Path("folds") / f"repeat-{self.repeat}" / f"fold-{self.number}"


@dataclass(frozen=True)
class Plan:
    """How to cross-validate: settings, the number of folds, and how often folds are drawn."""

    config: Config
    folds: int = 5
    repeats: int = 1

    def job(self, folder: FoldFolder, fold: Fold, threads: int) -> dict[str, Any]:
        """Write the examples of a fold, and return what `run_trial` needs to know about it."""
        files = folder.write_examples(fold, self.config)
        threads = self.config.train.threads or threads
        config = with_settings(self.config, {"train.threads": threads})
        return {
            "config": config.model_dump(mode="json", exclude_unset=True),
            "files": {**files, "dev": None, "tokenizer": None},
            "keep": True,
        }


class Task(NamedTuple):
    """The B examples of a cross-validation, their C labels, and their name in messages.

    groups (B): the group of each example, None without groups.
    """

    examples: Sequence[Example]
    labels: Sequence[str]
    groups: Sequence[str] | None
    source: str

    def folds(self, plan: Plan) -> dict[Fold, NDArray[np.int64]]:
        """Return the indices of the examples of each fold. Raises UsageError."""
        labels, found = [example.labels for example in self.examples], {}
        for repeat in range(1, plan.repeats + 1):
            seed = plan.config.train.seed + repeat - 1
            for number, rows in enumerate(folds(labels, plan.folds, seed, self.groups), 1):
                found[Fold(repeat, number)] = rows
        return found

    def facts(self, plan: Plan) -> dict[str, Any]:
        """Return what identifies a cross-validation, as plan.json has it: not the repeats."""
        data = {"examples": data_hash(self.examples)}
        if self.groups is not None:
            data["groups"] = sha256("\0".join(self.groups).encode()).hexdigest()
        return {"settings": dump(plan.config), "data": data, "folds": plan.folds}


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class FoldMeasurement(Measurement):
    """What a fold's trial measured: also the labels of its run, and how it decides on them."""

    labels: list[str] = field(default_factory=list)
    thresholds: list[Measured] | None = None
    at_least_one: bool = False


class FoldResult(NamedTuple):
    """The result of a fold; tested is None if its training diverged."""

    fold: Fold
    measured: FoldMeasurement
    tested: Portion | None


class FoldFolder(TrialFolder[Fold, FoldResult]):
    """The folder of a cross-validation: its folds, and the predictions for all examples."""

    kind, layout = "cross-validation", LAYOUT
    task: Task
    rows: dict[Fold, NDArray[np.int64]]

    def prepare(self, plan: Plan, task: Task, rows: dict[Fold, NDArray[np.int64]]) -> None:
        """Write the plan, and take what belongs to it. Raises OutputError."""
        write_files(self.place, {"plan.json": to_json(task.facts(plan))})
        self.task, self.rows, self.multi_label = task, rows, plan.config.data.multi_label

    def write_examples(self, fold: Fold, config: Config) -> dict[str, str]:
        """Write the files to train and to test on, and return their paths. Raises OutputError."""
        tested = set(self.rows[fold].tolist())
        parts: dict[str, list[Example]] = {"train": [], "test": []}
        for number, example in enumerate(self.task.examples):
            parts["test" if number in tested else "train"].append(example)
        files = {f"{part}.jsonl": json_lines(own, config.data) for part, own in parts.items()}
        write_files(self.place, files, within=str(fold.folder))
        return {part: str(self.path / fold.folder / f"{part}.jsonl") for part in parts}

    def remove_examples(self) -> None:
        """Remove the files of the examples of all folds. Raises OutputError."""
        with writing(self.place, "folds") as top:
            for fold in self.rows:
                with suppress(FileNotFoundError), top.below(str(fold.folder)) as place:
                    clear(place, _EXAMPLES)

    def checked(self, trial: Fold, stored: Any) -> FoldResult:
        measured = FoldMeasurement(**stored)
        if measured.diverged is not None:
            return FoldResult(trial, measured, None)
        labels, thresholds = measured.labels, None
        if not {*labels} <= {*self.task.labels} or labels != sorted({*labels}):
            raise ValueError("labels of other examples")
        if self.multi_label and measured.thresholds is not None:
            thresholds = np.array(measured.thresholds, np.float64).reshape(len(labels))
        probabilities = self._probabilities(trial, len(labels))
        own = [self.task.examples[row] for row in self.rows[trial].tolist()]
        truth, multi_label = [example.labels for example in own], self.multi_label
        targets, names = encode(truth, labels, multi_label, self.task.source)
        outcome = Outcome(probabilities, targets, thresholds, measured.at_least_one)
        return FoldResult(trial, measured, Portion(outcome, names, self.rows[trial], trial.repeat))

    def _probabilities(self, fold: Fold, classes: int) -> NDArray[np.float32]:
        """Return the probabilities (n, C) of a fold's run. Raises SrucliError, ValueError."""
        name = f"{fold.folder}/{PREDICTIONS}"
        shapes = {"probabilities": torch.empty((len(self.rows[fold]), classes), device="meta")}
        found = tensors_of(read_within(self.place, name, max_bytes(shapes)), name)
        check_fit(found, shapes, name)
        probabilities: NDArray[np.float32] = found["probabilities"].numpy()
        if not classes or not 0 <= probabilities.min() <= probabilities.max() <= 1 + 1e-6:
            raise ValueError("no probabilities")
        return probabilities
