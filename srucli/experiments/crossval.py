"""Cross-validate a recipe: train on all folds but one and test on that, for each fold.

Each fold's run is what `srucli train` makes of a file with the other folds' examples and no dev
file, so the recipe's own validation data is held out of them. Which trials there are and what their
folder holds is in `fold_trials.py`, how folds are drawn in `srucli/data/folds.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.data.dataset import default_share, find_labels, read_as_written, with_names
from srucli.data.folds import check_count
from srucli.data.readers import Example
from srucli.errors import DataError, DivergedError, InterruptedRun, UsageError
from srucli.experiments.crossval_results import Crossval, lines, name_of, summarized, undefined
from srucli.experiments.fold_trials import OUT_OF_FOLD, Fold, FoldFolder, FoldResult, Plan, Task
from srucli.experiments.scheduler import Scheduler, check_system, default_jobs
from srucli.io.console import excerpt, progress_bar, say, warn
from srucli.io.files import write_files
from srucli.io.streams import Source, display_name
from srucli.metrics import METRICS, check_size
from srucli.runs.claim import Source as Read
from srucli.tokenizer.truncation import Notices, Tally
from srucli.training.defaults import check_settings
from srucli.training.effects import Setup, given_settings, no_effect

# The most trainings of a cross-validation.
MAX_TRAININGS = 1_000
# So many labels are named in a message.
_SHOWN = 6


def crossval(
    plan: Plan,
    source: Source,
    path: Path,
    *,
    jobs: int = 0,
    force: bool = False,
    reads: Sequence[Read] = (),
) -> Crossval:
    """Cross-validate on the labelled texts of a file, in the folder `path`.

    A cross-validation that was stopped there is resumed. jobs: folds at once, 0 for `default_jobs`.
    force: whether to replace another cross-validation. reads: other files that the command reads,
    which are never overwritten. Raises every kind of SrucliError.
    """
    check(plan)
    examples, _ = read_as_written(source, plan.config.data)
    how: dict[str, Any] = {"jobs": jobs, "force": force, "reads": (source, *reads)}
    return crossval_examples(plan, examples, path, source=display_name(source), **how)


def crossval_examples(
    plan: Plan,
    examples: Sequence[Example],
    path: Path,
    *,
    source: str = "examples",
    jobs: int = 0,
    force: bool = False,
    reads: Sequence[Read] = (),
) -> Crossval:
    """Cross-validate on examples that are read already; for the arguments see `crossval`.

    source: their name in messages. Examples with a group are never in two folds with others of it.
    """
    check(plan)
    task = _task(plan, examples, source)
    folds = task.folds(plan)
    say(*_described(plan, task, folds))
    warn(*_doubts(plan, task, folds), *_without_effect(plan, task))
    with FoldFolder.claim(path, task.facts(plan), reads, force) as folder:
        folder.prepare(plan, task, folds)
        results = _run_missing(folder, plan, jobs or default_jobs(plan.config))
        folder.remove_examples()
        found = summarized(plan, task, results, path / OUT_OF_FOLD)
        write_files(folder.place, {OUT_OF_FOLD: "".join(lines(task, found)).encode()})
    say(*_not_read(task, results))
    warn(*undefined(found))
    return found


def check(plan: Plan) -> None:
    """Raise UsageError or SrucliError, before any data is read, for what cannot be done."""
    check_system("cross-validation")
    check_settings(plan.config)
    check_count(plan.folds)
    if plan.repeats < 1:
        raise UsageError(f"{plan.repeats} repeats: 1 or more are needed")
    if plan.folds * plan.repeats > MAX_TRAININGS:
        fewer = f"--repeats {MAX_TRAININGS // plan.folds}"
        if plan.folds > MAX_TRAININGS:
            fewer = f"--folds {MAX_TRAININGS} --repeats 1"
        raise UsageError(
            f"{plan.folds * plan.repeats:,} trainings are more than anyone waits for; pass {fewer} "
            "or less"
        )


def _task(plan: Plan, examples: Sequence[Example], source: str) -> Task:
    """Return what is cross-validated. Raises DataError and UsageError."""
    named = with_names(examples, source, plan.config.data)
    groups = [example.group for example in named if example.group is not None]
    if groups and len(groups) < len(named):
        raise UsageError(f"{source}: some examples have no group; give one to each or to none")
    if len({*groups}) == 1:
        problem = f"all examples have the group {excerpt(groups[0])}"
        raise DataError(source, None, problem, "name another column with --group")
    labels = find_labels(named, source)
    check_size(len(named), len(labels), plan.config.data.multi_label, source)
    return Task(named, labels, groups or None, source)


def _described(plan: Plan, task: Task, folds: Mapping[Fold, Any]) -> Iterator[str]:
    sizes = [len(rows) for rows in folds.values()]
    groups = f", {len({*task.groups}):,} groups" if task.groups else ""
    least, most = min(sizes), max(sizes)
    size = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    again = f", drawn {plan.repeats:,} times" if plan.repeats > 1 else ""
    yield (
        f"data: {len(task.examples):,} examples, {len(task.labels):,} labels{groups}; "
        f"{plan.folds:,} folds of {size} examples{again}"
    )


def _doubts(plan: Plan, task: Task, folds: Mapping[Fold, NDArray[np.int64]]) -> Iterator[str]:
    """Yield what the labels do to the metrics; raise DataError if a fold has no two to train on."""
    total = Counter(label for example in task.examples for label in set(example.named))
    rare = {label: n for label, n in total.items() if n < plan.folds}
    if rare:
        what = "1 label has" if len(rare) == 1 else f"{len(rare):,} labels have"
        shown = ", ".join(f"{excerpt(name)} ({n})" for name, n in [*sorted(rare.items())][:_SHOWN])
        more = ", ..." if len(rare) > _SHOWN else ""
        yield f"{what} fewer examples than there are folds, so some folds test none: {shown}{more}"
    unknown: dict[str, None] = {}
    for fold, rows in folds.items():
        own = Counter(label for row in rows for label in set(task.examples[row].named))
        lost = [label for label, n in own.items() if n == total[label]]
        unknown |= dict.fromkeys(lost)
        if len(total) - len(lost) < 2:
            problem = f"all examples of {excerpt(lost[0])} are in fold {name_of(plan, fold)}"
            remedy = "the others have fewer than two labels to train on; add examples of it"
            if task.groups:
                remedy += ", or divide its group"
            raise DataError(task.source, None, problem, remedy)
    if unknown:
        what = "1 label has" if len(unknown) == 1 else f"{len(unknown):,} labels have"
        shown = ", ".join(map(excerpt, [*unknown][:_SHOWN])) + ", ..." * (len(unknown) > _SHOWN)
        yield (
            f"{what} all examples in one fold, whose run is not trained on it, so they count as "
            f"errors: {shown}"
        )


def _without_effect(plan: Plan, task: Task) -> Iterator[str]:
    """Yield a sentence for each given setting that has no effect."""
    config, share = plan.config, plan.config.train.dev_share
    if share is None:
        least = len(task.examples) - math.ceil(len(task.examples) / plan.folds)
        share = default_share(least, len(task.labels))
    soft = any(example.soft for example in task.examples)
    keys = [key for key in given_settings(config) if key != "data.group"]
    yield from no_effect(Setup(config, dev=share > 0, soft=soft), keys)


def _run_missing(folder: FoldFolder, plan: Plan, jobs: int) -> list[FoldResult]:
    """Run the folds that are missing, and return the results of all.

    Raises InterruptedRun, after which finished folds are kept, and DivergedError.
    """
    folds = [*folder.rows]
    missing = [fold for fold in folds if folder.result(fold) is None]
    done = len(folds) - len(missing)
    if done:
        say(f"{done:,} of {len(folds):,} folds are finished already")
    bar = progress_bar(total=len(folds), initial=done, unit="fold")

    def finished(result: FoldResult) -> None:
        nonlocal done
        done += 1
        bar.update()
        say(f"{_shown(plan, result)}; {done:,} of {len(folds):,} folds")

    try:
        with bar, Scheduler(folder, plan, jobs, finished) as scheduler:
            scheduler.run(missing)
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"{folder.path}: stopped; finished folds are kept", "the same command resumes"
        ) from None
    results = [result for fold in folds if (result := folder.result(fold)) is not None]
    for fold, measured, tested in results:
        if tested is None:
            raise DivergedError(f"fold {name_of(plan, fold)}: {measured.diverged}")
    return results


def _shown(plan: Plan, result: FoldResult) -> str:
    name, metric = name_of(plan, result.fold), plan.config.metric
    if result.tested is None:
        return f"fold {name}: diverged"
    value = METRICS[metric](result.tested.outcome)
    shown = f"{value:.4f}" if math.isfinite(value) else "undefined"
    return f"fold {name}: {metric} {shown} on {len(result.tested.rows):,} examples"


def _not_read(task: Task, results: Sequence[FoldResult]) -> Iterator[str]:
    """Yield how many of the tested texts were not fully read, in the first repeat."""
    tallies = [
        Tally.from_json(result.measured.reading["test"])
        for result in results
        if result.fold.repeat == 1 and "test" in result.measured.reading
    ]
    yield from Notices(task.source).last(reduce(add, tallies, Tally()))
