"""The results of a cross-validation: metrics of each fold and of all, and the predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.experiments.fold_trials import Fold, FoldResult, Plan, Task
from srucli.inference.stream import predicted
from srucli.io.json_text import json_text
from srucli.metrics import METRICS, Portion, measure, pooled


class FoldScore(NamedTuple):
    """The metrics of one fold, NaN if undefined. rows (n,): the indices of its examples."""

    fold: Fold
    rows: NDArray[np.int64]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """A metric over all folds of all repeats; folds where it is undefined are left out.

    mean, sd: of the folds' values, NaN if there is no value, or for sd only one. pooled, low, high:
    the metric of all out-of-fold predictions together and its 95% interval, NaN if there is none.
    worst, best: of the folds' values. undefined: the number of folds without a value.
    """

    mean: float
    sd: float
    pooled: float
    low: float
    high: float
    worst: float
    best: float
    undefined: int


@dataclass(frozen=True, eq=False)
class Crossval:
    """The results of a cross-validation of B examples with C labels and R repeats.

    scores: of the folds, in order. repeats (R, B, C) float32: the probabilities of each example by
    the run that was not trained on it, 0 for a label that this run does not know; decisions
    (R, B, C) bool: the labels it predicts. predictions: the file with these, None if no
    folder was kept.
    """

    plan: Plan
    labels: list[str]
    scores: list[FoldScore]
    summary: dict[str, Summary]
    repeats: NDArray[np.float32]
    decisions: NDArray[np.bool_]
    groups: int | None
    predictions: Path | None

    def __repr__(self) -> str:
        own = self.summary["accuracy"]
        many = f"{self.plan.folds} folds of {self.repeats.shape[1]:,} texts"
        return f"<Crossval, {many}: accuracy {own.mean:.4f}, sd {own.sd:.4f}>"

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The out-of-fold probabilities (B, C), the mean over repeats."""
        if len(self.repeats) == 1:
            return np.asarray(self.repeats[0])
        return np.asarray(self.repeats.mean(axis=0), np.float32)

    @property
    def means(self) -> dict[str, float]:
        """The mean over folds of each metric."""
        return {name: each.mean for name, each in self.summary.items()}

    def to_json(self) -> dict[str, Any]:
        """Return everything but the predictions as values for `json_text`."""
        rows = {}
        for name, each in self.summary.items():
            values: dict[str, Any] = asdict(each)
            span = [values.pop("low"), values.pop("high")]
            rows[name] = {**values, "interval": None if math.isnan(span[0]) else span}
        return {
            "folds": self.plan.folds,
            "repeats": self.plan.repeats,
            "texts": self.repeats.shape[1],
            "groups": self.groups,
            "labels": self.labels,
            "metrics": rows,
            "per_fold": [
                {
                    "repeat": score.fold.repeat,
                    "fold": score.fold.number,
                    "texts": len(score.rows),
                    "metrics": dict(score.metrics),
                }
                for score in self.scores
            ],
            "predictions": None if self.predictions is None else str(self.predictions),
        }


def name_of(plan: Plan, fold: Fold) -> str:
    """Return how a fold is called: by its number, and that of its repeat if there are several."""
    return str(fold.number) if plan.repeats == 1 else f"{fold.repeat}.{fold.number}"


def summarized(
    plan: Plan, task: Task, results: Sequence[FoldResult], predictions: Path
) -> Crossval:
    """Return the results of all folds, none of which diverged; predictions: their file."""
    tests = [result.tested for result in results if result.tested is not None]
    scores = [
        FoldScore(result.fold, test.rows, measure(test.outcome))
        for result, test in zip(results, tests, strict=True)
    ]
    units = None
    if task.groups is not None:
        units = np.unique(np.array(task.groups, dtype=object), return_inverse=True)[1]
    together = pooled(tests, units)
    summary = {}
    for name in scores[0].metrics:
        values = sorted(s.metrics[name] for s in scores if math.isfinite(s.metrics[name]))
        ends, whole = (values or [math.nan]), together.get(name)
        low, high = ends[0], ends[-1]
        larger = METRICS[name].larger_is_better
        summary[name] = Summary(
            mean=fmean(values) if values else math.nan,
            sd=stdev(values) if len(values) > 1 else math.nan,
            pooled=whole.value if whole else math.nan,
            low=whole.low if whole else math.nan,
            high=whole.high if whole else math.nan,
            worst=low if larger else high,
            best=high if larger else low,
            undefined=len(scores) - len(values),
        )
    groups = None if task.groups is None else len({*task.groups})
    arrays = _out_of_fold(plan, task, tests)
    return Crossval(plan, [*task.labels], scores, summary, *arrays, groups, predictions)


def _out_of_fold(
    plan: Plan, task: Task, tests: Sequence[Portion]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return probabilities and decisions (R, B, C)."""
    shape = plan.repeats, len(task.examples), len(task.labels)
    place = {label: number for number, label in enumerate(task.labels)}
    probabilities, decisions = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for test in tests:
        outcome, repeat = test.outcome, test.repeat - 1
        columns = np.array([place[name] for name in test.names[: outcome.known]])
        probabilities[repeat, test.rows[:, None], columns] = outcome.probabilities
        chosen = outcome.predictions
        if outcome.multi_label:
            decisions[repeat, test.rows[:, None], columns] = chosen[:, : outcome.known]
        else:
            decisions[repeat, test.rows, columns[chosen]] = True
    return probabilities, decisions


def lines(task: Task, found: Crossval) -> Iterator[str]:
    """Yield the out-of-fold predictions as JSON lines, by repeat, in the order of the examples."""
    multi_label, labels = found.plan.config.data.multi_label, found.labels
    fold_of = {
        (score.fold.repeat, row): score.fold.number for score in found.scores for row in score.rows
    }
    for repeat, (rows, decisions) in enumerate(zip(found.repeats, found.decisions, strict=True), 1):
        for number, (example, row, chosen) in enumerate(
            zip(task.examples, rows, decisions, strict=True)
        ):
            given = [labels[index] for index in np.flatnonzero(chosen)]
            record = {
                "record": number + 1,
                "line": example.line,
                "repeat": repeat,
                "fold": fold_of[repeat, number],
                **({} if example.group is None else {"group": example.group}),
                "text": example.text,
                "gold": list(example.labels) if multi_label else example.labels[0],
                **predicted(given, multi_label, row, zip(labels, map(float, row), strict=True)),
            }
            yield json_text(record) + "\n"


def undefined(found: Crossval) -> Iterator[str]:
    """Yield the metrics that are undefined on some folds."""
    names = {name: each.undefined for name, each in found.summary.items() if each.undefined}
    for count in sorted(set(names.values())):
        shown = ", ".join(name for name, n in names.items() if n == count)
        some = f"{count:,} of {len(found.scores):,} folds, which mean and sd leave out"
        where = some if count < len(found.scores) else "every fold, because of their labels"
        yield f"{shown}: undefined on {where}"


def table_rows(found: Crossval) -> tuple[Sequence[str], list[list[str]]]:
    """Return the headings and the rows of the table of metrics."""
    rows = []
    for name, each in found.summary.items():
        span = "" if math.isnan(each.low) else f"{each.low:.4f} to {each.high:.4f}"
        whole = "" if math.isnan(each.pooled) else f"{each.pooled:.4f}"
        ends = [_number(each.worst), _number(each.best)]
        rows.append([name, _number(each.mean), _number(each.sd), whole, span, *ends])
    return ("metric", "mean", "sd", "pooled", "95% interval", "worst", "best"), rows


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"
