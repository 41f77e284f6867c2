"""The fuzzer's target `crossvals`: mutated folders of cross-validations, resumed and reported.

A finished cross-validation gets another plan, results or predictions. Then the command's function
resumes it: missing folds get made-up predictions instead of a training.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import torch

from srucli.config import Config, with_settings
from srucli.experiments import crossval
from srucli.experiments.crossval_results import Crossval, table_rows
from srucli.experiments.fold_trials import Fold, FoldFolder, FoldResult, Plan
from srucli.io.console import text_table
from srucli.io.json_text import json_text
from srucli.runs.tensors import file_of
from tests.robustness.mutate import mutate_file
from tests.robustness.targets.printed import check_json, check_printed
from tests.robustness.targets.seeds import Seeds
from tests.robustness.watch import watched

# Shares of the files that are mutated.
FILES = ("result.json",) * 4 + ("predictions.safetensors",) * 3 + ("plan.json",)
KINDS = {"single": False, "several": True}


def plan(config: Config, multi_label: bool) -> Plan:
    """Return a plan of three folds."""
    return Plan(with_settings(config, {"data.multi_label": multi_label}), folds=3)


class Trials(contextlib.ExitStack):
    """Writes a made-up result for each fold, in place of `scheduler.Scheduler`."""

    def __init__(
        self, folder: FoldFolder, plan: Plan, jobs: int, done: Callable[[FoldResult], None]
    ) -> None:
        super().__init__()
        self.folder, self.plan, self.done = folder, plan, done

    def run(self, folds: Sequence[Fold]) -> None:
        """Write the predictions of each fold, and its result."""
        labels = list(self.folder.task.labels)
        metrics = {"accuracy": 0.5, "macro_f1": 0.5, "log_loss": 1.0}
        record = {"step": 2, "seconds": 1.5, "train_loss": 1.0, "dev": metrics}
        thresholds = [0.4] * len(labels) if self.plan.config.data.multi_label else None
        result: dict[str, Any] = {
            "dev": metrics,
            "test": metrics,
            "history": [record],
            "diverged": None,
        }
        result |= {"labels": labels, "thresholds": thresholds, "at_least_one": True}
        for fold in folds:
            self.plan.job(self.folder, fold, 1)
            place = self.folder.path / fold.folder
            rows = len(self.folder.rows[fold])
            found = torch.rand(rows, len(labels), generator=torch.Generator().manual_seed(rows))
            file = place / "predictions.safetensors"
            file.write_bytes(file_of({"probabilities": found.softmax(dim=1)}))
            (place / "result.json").write_text(json.dumps(result))
            finished = self.folder.result(fold)
            assert finished is not None
            self.done(finished)


def run(seeds: Seeds, place: Path, *, multi_label: bool) -> Crossval:
    """Run or resume the cross-validation in a folder. Raises SrucliError."""
    with patch.object(crossval, "Scheduler", Trials):
        wanted = plan(seeds.bases.config, multi_label)
        return crossval.crossval(wanted, str(seeds.bases.texts), place, jobs=1)


def prepare(seeds: Seeds) -> None:
    """Make the valid cross-validations."""
    with contextlib.redirect_stderr(io.StringIO()):
        for name, multi_label in KINDS.items():
            run(seeds, seeds.folder / f"crossval-{name}", multi_label=multi_label)


def try_crossval(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate the files of a cross-validation, resume it and report it."""
    name = random.choice([*KINDS])
    place = folder / "crossval"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(seeds.folder / f"crossval-{name}", place)
    other = random.choice(seeds.bases.files).read_bytes()
    for _ in range(random.choice((1, 1, 2, 5))):
        if found := sorted(place.rglob(random.choice(FILES))):
            path = random.choice(found)
            if random.random() < 0.1:
                path.unlink()
            else:
                path.write_bytes(mutate_file(random, path.name, path.read_bytes(), other))
    said = io.StringIO()
    with watched(place), contextlib.redirect_stderr(said):
        result = run(seeds, place, multi_label=KINDS[name])
    check_printed(said.getvalue())
    heads, rows = table_rows(result)
    for text in text_table([heads, *rows]):
        check_printed(text)
    check_json(json_text(result.to_json()))
    assert result.predictions is not None
    for line in result.predictions.read_text(encoding="utf-8").splitlines():
        check_json(line)
