"""Soft labels: read the probabilities of a text's labels from JSON.

`targets.py` makes the targets of training from them.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

from srucli.data.layout import ReadTask
from srucli.data.records import Record, check_labels, valid_string
from srucli.io.console import excerpt
from srucli.io.json_text import json_text

# The key of an object {label: probability} in JSON, as `srucli predict --json` writes it.
KEY = "probabilities"
# The sum may be below 1 because labels were left out, and above 1 because of rounding.
MIN_SUM, MAX_SUM = 0.5, 1.05


class Soft(NamedTuple):
    """The probabilities of a text's labels, float32.

    They have the sum 1, unless the task is multi-label. beside: the text also has a label.
    """

    names: tuple[str, ...]
    values: array[float]
    beside: bool

    def likely(self, multi_label: bool) -> tuple[str, ...]:
        """Return the most likely label, or of a multi-label text those of 0.5 or more."""
        if not multi_label:
            return (self.names[self.values.index(max(self.values))],)
        pairs = zip(self.names, self.values, strict=True)
        return tuple(name for name, value in pairs if value >= 0.5)

    def renamed(self, names: Mapping[str, str], multi_label: bool) -> Soft:
        """Return the probabilities by other names; of labels that become one, sum or maximum."""
        new = tuple(names[name] for name in self.names)
        if new == self.names:
            return self
        merged: dict[str, float] = {}
        for name, value in zip(new, self.values, strict=True):
            before = merged.get(name, 0.0)
            merged[name] = max(before, value) if multi_label else before + value
        return self._replace(names=tuple(merged), values=array("f", merged.values()))


def is_soft(value: Any) -> bool:
    """Whether a JSON value is an object with numbers."""
    return isinstance(value, dict) and any(map(_is_number, value.values()))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, float) else json_text(value)


class SoftLabels:
    """Reads the probabilities of the records of a file."""

    def __init__(self, task: ReadTask) -> None:
        self.task = task
        # The labels for the keys of an object, which are the same in most records.
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def read(self, record: Record, *, beside: bool) -> Soft | None:
        """Return the probabilities of a record, None if it has none.

        beside: the record has a label; then a value that is no object with numbers means something
        else. Raises DataError.
        """
        if not is_soft(record.soft):
            if record.soft is None or beside:
                return None
            shown = excerpt(json_text(record.soft))
            problem = f"no label, and the probabilities are {shown}"
            remedy = 'write an object, as {"good": 0.9, "bad": 0.1}'
            raise self.task.error(record.line, problem, remedy)
        given: dict[str, Any] = record.soft
        for name, value in given.items():
            if not (_is_number(value) and 0 <= value <= 1):
                problem = f"the probability of {excerpt(name)} is {excerpt(_shown(value))}"
                raise self.task.error(record.line, problem, "write a number from 0 to 1")
        names, values = self._labels(record, tuple(given)), list(map(float, given.values()))
        if not self.task.config.multi_label:
            total = sum(values)
            if not MIN_SUM <= total <= MAX_SUM:
                problem = f"the probabilities have the sum {total:.4g}, not 1"
                remedy = "write those of all labels, or pass --multi-label if each is independent"
                raise self.task.error(record.line, problem, remedy)
            values = [value / total for value in values]
        return Soft(names, array("f", values), beside)

    def _labels(self, record: Record, keys: tuple[str, ...]) -> tuple[str, ...]:
        names = self._names.get(keys)
        if names is None:
            found = (valid_string(self.task, record.line, key) for key in keys)
            names = check_labels(self.task, record, found)
            if twice := [name for name in names if names.count(name) > 1]:
                problem = f"the probabilities have the label {excerpt(twice[0])} twice"
                raise self.task.error(record.line, problem, "write each label once")
            self._names[keys] = names
        return names
