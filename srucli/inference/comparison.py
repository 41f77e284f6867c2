"""Two runs on one file: which one is better, by how much, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from srucli import metrics
from srucli.errors import DataError, UsageError
from srucli.inference.evaluation import Evaluation, Scorer
from srucli.io.console import escaped, excerpt, text_table
from srucli.metrics import Difference

# The line and the labels of an example.
Labelled = tuple[int, tuple[str, ...]]
# Where McNemar's p is below it, and the interval of the difference excludes zero, one is better.
LEVEL = 0.05


def check_same_labels(one: Scorer, other: Scorer, names: tuple[str, str]) -> None:
    """Raise UsageError if two runs, of these names, do not predict the same labels."""
    if one.multi_label != other.multi_label:
        kind = {True: "any number of labels", False: "one label"}
        said = " and ".join(
            f"{escaped(name)} gives a text {kind[run.multi_label]}"
            for name, run in zip(names, (one, other), strict=True)
        )
        raise UsageError(f"--against: {said}; compare runs of the same kind")
    known = [{*one.labels}, {*other.labels}]
    if known[0] == known[1]:
        return
    said = " and ".join(
        f"only {escaped(name)} has {excerpt(', '.join(sorted(mine - others)))}"
        for name, mine, others in zip(names, known, reversed(known), strict=True)
        if mine - others
    )
    raise UsageError(f"--against: the labels differ: {said}; compare runs with the same labels")


@dataclass(frozen=True)
class Comparison:
    """The evaluations of two runs on the same examples; names: the runs', as given."""

    names: tuple[str, str]
    one: Evaluation
    other: Evaluation

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Every metric of the first run minus the second's."""
        return metrics.differences(self.one.outcome, self.other.outcome)

    @cached_property
    def counts(self) -> tuple[int, int, int, int]:
        """How many examples both got right, only the first run, only the second, and none."""
        one, other = (metrics.correct(each.outcome) for each in (self.one, self.other))
        parts = (one & other, one & ~other, ~one & other, ~one & ~other)
        both, only_one, only_other, neither = (int(part.sum()) for part in parts)
        return both, only_one, only_other, neither

    @property
    def p(self) -> float:
        """McNemar's p."""
        return metrics.mcnemar(*self.counts[1:3])

    def sentence(self) -> str:
        """Say which run has the higher accuracy, or that no difference could be shown."""
        difference = self.differences["accuracy"]
        better = self.names[difference.value < 0]
        value, low, high = difference
        if value < 0:
            value, low, high = -value, -high, -low
        span = "" if math.isnan(low) else f"95% interval {_points(low)} to {_points(high)}; "
        points = f"{_points(value)} points ({span}McNemar p {_p(self.p)})"
        if not difference.is_certain or self.p >= LEVEL:
            return f"no difference could be shown: the accuracies differ by {points}"
        return f"{escaped(better)} is better by {points}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as values for `json_text`; an interval that does not exist is None."""
        both, only_one, only_other, neither = self.counts
        return {
            "runs": [*self.names],
            "metrics": [self.one.metrics, self.other.metrics],
            "differences": {name: d.value for name, d in self.differences.items()},
            "intervals": {
                name: None if math.isnan(d.low) else [d.low, d.high]
                for name, d in self.differences.items()
            },
            "right": {
                "both": both,
                "only_first": only_one,
                "only_second": only_other,
                "neither": neither,
            },
            "mcnemar_p": self.p,
            "sentence": self.sentence(),
        }

    def to_text(self) -> str:
        """Return a table for people, without a final line end."""
        one, other = (escaped(name) for name in self.names)
        lines = [f"{escaped(self.one.source)}: {self.one.examples:,} examples"]
        lines += [f"A is {one}", f"B is {other}", ""]
        rows = []
        for name, difference in self.differences.items():
            values = (self.one.metrics[name], self.other.metrics[name], difference.value)
            shown = ["-" if math.isnan(value) else f"{value:.4f}" for value in values]
            span = f"{difference.low:.4f} to {difference.high:.4f}"
            rows.append([name, *shown, "" if math.isnan(difference.low) else span])
        lines += text_table([("metric", "A", "B", "A - B", "95% interval"), *rows])
        both, only_one, only_other, neither = self.counts
        what = "exactly right" if self.one.outcome.multi_label else "right"
        lines += ["", f"{what}: both {both:,}, only A {only_one:,}, only B {only_other:,}, "]
        lines[-1] += f"neither {neither:,}"
        return "\n".join([*lines, self.sentence()])


def check_same_examples(
    source: str, one: Sequence[Labelled], other: Sequence[Labelled], names: tuple[str, str]
) -> None:
    """Raise DataError if two runs have read a file as different examples.

    Their texts may come from different columns.
    """
    remedy = "say how to read it with --format, --label and --text"
    for (line, labels), (their_line, their_labels) in zip(one, other, strict=False):
        if (line, {*labels}) != (their_line, {*their_labels}):
            shown = [excerpt(", ".join(each)) for each in (labels, their_labels)]
            problem = f"{names[0]} reads the label {shown[0]}, {names[1]} reads {shown[1]}"
            if line != their_line:
                late = names[line > their_line], names[line < their_line]
                problem = f"{late[0]} reads an example here, {late[1]} does not"
            raise DataError(source, min(line, their_line), problem, remedy)
    if len(one) != len(other):
        problem = f"{names[0]} reads {len(one):,} examples, {names[1]} reads {len(other):,}"
        raise DataError(source, None, problem, remedy)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _p(p: float) -> str:
    return f"= {p:.2g}" if p >= 0.0001 else "< 0.0001"
