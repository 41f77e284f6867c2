"""The fuzzer's target `comparisons`: mutated folders of comparisons, resumed and reported.

A finished comparison gets another plan, results, logs, diagnostics or run.json. Then the command's
function resumes it: missing trials get a made-up result instead of a training. The table, the
conclusions and the JSON are made of what was read, and for some inputs the page with its plots.
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

from srucli.experiments import grid
from srucli.experiments.compare import Comparison, compare, to_json
from srucli.experiments.page import PAGE, write_page
from srucli.experiments.report import HEADER, sentences, table_rows
from srucli.experiments.trials import Candidate, Folder, Plan, Result, Trial
from srucli.io.console import text_table
from srucli.io.json_text import json_text
from tests.robustness.mutate import VALUES, mutate_file, mutate_lines
from tests.robustness.targets.printed import check_json, check_printed
from tests.robustness.targets.seeds import Seeds
from tests.robustness.watch import watched

NAMES = ("adam", "sgd")
# Shares of the files that are mutated.
FILES = ("result.json",) * 5 + ("plan.json", "run.json", "diagnostics.jsonl", "metrics.jsonl")
NUMBERS = (0, 1, -1, 0.5, 1e308, -1e308, 1e-320, 2**31, 2**63, 10**30, 10**400)
DRAWN = 0.02


def plan(seeds: Seeds) -> Plan:
    """Return a plan of two candidates, three rates and two seeds."""
    candidates = [Candidate(name, {"optim.name": name}) for name in NAMES]
    return Plan(seeds.bases.config, candidates, "accuracy", 3, 2, None)


class Trials(contextlib.ExitStack):
    """Writes a made-up result for each trial, in place of `scheduler.Scheduler`."""

    def __init__(
        self, folder: Folder, plan: Plan, jobs: int, done: Callable[[Result], None]
    ) -> None:
        super().__init__()
        self.folder, self.done = folder, done

    def run(self, trials: Sequence[Trial]) -> None:
        """Write the results, which are best in the middle of a grid."""
        for trial in trials:
            value = 0.9 - abs(trial.lr - 0.002) + 0.01 * trial.seed
            metrics = {"accuracy": value, "macro_f1": value, "log_loss": 1 - value}
            record = {"step": 2, "seconds": 1.5, "train_loss": 1.0, "dev": metrics}
            history = [record, {**record, "step": 4, "seconds": 3.0}]
            result: dict[str, Any] = {
                "dev": metrics,
                "test": metrics,
                "history": history,
                "diverged": None,
            }
            place = self.folder.path / trial.folder
            place.mkdir(parents=True, exist_ok=True)
            (place / "result.json").write_text(json.dumps(result))
            self.done(Result(trial=trial, **result))


def run(seeds: Seeds, place: Path, show: Callable[[Folder, Comparison], None]) -> Comparison:
    """Run or resume the comparison in a folder. Raises SrucliError."""
    sources = {"train": str(seeds.bases.texts), "dev": None, "test": None}
    with seeds.bases.no_tokenizer_trained(), patch.object(grid, "Scheduler", Trials):
        return compare(plan(seeds), sources, place, jobs=1, show=show)


def prepare(seeds: Seeds) -> None:
    """Make the valid comparison, with a run of each candidate and rate."""
    place = seeds.folder / "comparison"
    with contextlib.redirect_stderr(io.StringIO()):
        run(seeds, place, lambda folder, comparison: None)
        for cells in sorted((place / "cells").glob("*/*/seed-0")):
            shutil.copytree(seeds.bases.folder / "finished", cells / "run")


def try_comparison(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate the files of a comparison, resume it and report it."""
    place = folder / "comparison"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(seeds.folder / "comparison", place)
    other = random.choice(seeds.bases.files).read_bytes()
    for _ in range(random.choice((1, 1, 2, 5))):
        wanted = random.choice(FILES)
        found = sorted(place.rglob(wanted))
        if found:
            mutate(random, random.choice(found), other)
    drawn = random.random() < DRAWN

    def show(opened: Folder, comparison: Comparison) -> None:
        check_report(comparison)
        if drawn:
            write_page(opened, plan(seeds), comparison, "srucli compare")
            assert (place / PAGE).read_text().endswith("</html>\n")

    said = io.StringIO()
    with watched(place), contextlib.redirect_stderr(said):
        run(seeds, place, show)
    check_printed(said.getvalue())


def mutate(random: Random, path: Path, other: bytes) -> None:
    """Change a number of a result, or a file as its type allows; or remove it."""
    data = path.read_bytes()
    if random.random() < 0.1:
        path.unlink()
    elif path.name == "result.json" and random.random() < 0.5:
        with contextlib.suppress(ValueError, TypeError, LookupError):  # already mutated
            value = json.loads(data)
            _change_number(random, value)
            path.write_text(json.dumps(value))
    elif path.suffix == ".jsonl":
        path.write_bytes(mutate_lines(random, data, other))
    else:
        path.write_bytes(mutate_file(random, path.name, data, other))


def _change_number(random: Random, value: Any) -> None:
    """Change one value of a result, whose structure stays."""
    places = [value["dev"], value["test"], *value["history"]]
    places += [record["dev"] for record in value["history"]]
    chosen = random.choice(places)
    key = random.choice([*chosen])
    number = random.choice((*NUMBERS, float("nan"), float("inf"), random.choice(VALUES)))
    if not isinstance(chosen[key], dict):
        chosen[key] = number
    if random.random() < 0.1:
        value["history"] = random.choice(([], value["history"] * 3, value["history"][:1]))


def check_report(comparison: Comparison) -> None:
    """Make the table, the conclusions and the JSON of a comparison, and check them."""
    for text in (*text_table([HEADER, *table_rows(comparison)]), *sentences(comparison)):
        check_printed(text)
    check_json(json_text(to_json(comparison)))
