"""Predict labels of a stream of texts: one output record per input, as early as possible."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.data.readers import Input
from srucli.data.soft import KEY
from srucli.errors import located
from srucli.inference.forward import batch_size
from srucli.inference.predictor import Predictor
from srucli.io.json_text import json_text
from srucli.metrics import decide

# How many batches, and characters, the reading thread may be ahead of the predictions, and how many
# characters are predicted at once. One input may be longer.
READ_AHEAD = 4
READ_AHEAD_CHARACTERS, BATCH_CHARACTERS = 2**23, 2**22


@dataclass(frozen=True)
class Style:
    """The format of an output record.

    top: print this many labels, each with its probability; None prints only the label. threshold:
    below this probability of the best label, print `reject` instead. with_input: append the input
    record.
    """

    probability: bool = False
    top: int | None = None
    threshold: float | None = None
    reject: str = "unknown"
    as_json: bool = False
    with_input: bool = False
    delimiter: str = ","


class _Queue:
    """Inputs that one thread adds and another takes, limited in number and in characters."""

    def __init__(self, most: int) -> None:
        """most: the number of inputs that are taken at once."""
        self.most = most
        self.changed = threading.Condition()
        self.waiting: deque[Input] = deque()
        self.characters = 0
        # Whether no more are added, and the exception that ended the source.
        self.ended = False
        self.error: Exception | None = None

    def add(self, inputs: Iterable[Input]) -> None:
        """Add inputs, each as soon as there is room. One of any length fits into an empty queue."""
        try:
            for item in inputs:
                size = _size(item)
                with self.changed:
                    while not self._has_room(size):
                        self.changed.wait()
                    self.waiting.append(item)
                    self.characters += size
                    self.changed.notify_all()
        except Exception as error:  # raised again where the queue is read
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _has_room(self, size: int) -> bool:
        fits = len(self.waiting) < READ_AHEAD * self.most
        return (fits and self.characters + size <= READ_AHEAD_CHARACTERS) or not self.waiting

    def take(self) -> list[Input]:
        """Return the next inputs, at least one unless the source has ended: then none."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.ended)
            group: list[Input] = []
            characters = 0
            while self.waiting and len(group) < self.most:
                characters += _size(self.waiting[0])
                if group and characters > BATCH_CHARACTERS:
                    break
                group.append(self.waiting.popleft())
                self.characters -= _size(group[-1])
            self.changed.notify_all()
        return group


def _size(item: Input) -> int:
    return len(item.text) + (0 if item.raw is item.text else len(item.raw))


def arriving(inputs: Iterable[Input], most: int) -> Iterator[list[Input]]:
    """Yield groups of inputs as they arrive: up to `most`, or fewer if the source pauses.

    A thread reads, so that the inputs so far can be processed while the next line is awaited. Its
    exceptions are raised here, after the inputs before them.
    """
    queue = _Queue(most)
    threading.Thread(target=queue.add, args=(inputs,), daemon=True).start()
    while group := queue.take():
        yield group
    if queue.error is not None:
        raise queue.error


def records(
    predictor: Predictor, inputs: Iterable[Input], style: Style, source: str = "-"
) -> Iterator[list[str]]:
    """Yield groups of output records: one line per input, in order, as early as possible.

    Line ends within the input record are written as \\n and \\r. source: the file's name in
    messages. Raises DataError for a text that cannot be read.
    """
    render, done = _renderer(predictor, style), 0
    most, _ = batch_size(predictor.device)
    rule = predictor.thresholds, predictor.multi_label, predictor.at_least_one
    for group in arriving(inputs, most):
        with located(source, [item.line for item in group].__getitem__):
            probabilities = predictor.probabilities([item.text for item in group])
        chosen = decide(probabilities, *rule)
        rows = zip(group, probabilities, chosen, strict=True)
        yield [render(number, *row) for number, row in enumerate(rows, done + 1)]
        done += len(group)


def predicted(
    given: Sequence[str],
    multi_label: bool,
    row: NDArray[np.float32],
    shown: Iterable[tuple[str, float]],
) -> dict[str, Any]:
    """Return the keys of a JSON record that say what is predicted for a text.

    given: the labels, one if not `multi_label`. row (C,): the probabilities. shown: labels with
    their probabilities, as `srucli train` reads them.
    """
    found: dict[str, Any] = {"labels": list(given)} if multi_label else {"label": given[0]}
    if not multi_label:
        found["probability"] = round(float(row.max()), 6)
    return {**found, KEY: {name: round(value, 6) for name, value in shown}}


_ONE_LINE = str.maketrans({"\n": "\\n", "\r": "\\r"})


def _renderer(predictor: Predictor, style: Style) -> Callable[[int, Input, Any, Any], str]:
    """Return a function from number (from 1), input, probabilities (C,) and decision to a line."""
    labels = np.array(predictor.labels, dtype=object)

    def names(row: NDArray[np.float32], decision: Any) -> list[str]:
        if predictor.multi_label:
            return [str(label) for label in labels[decision]]
        rejected = style.threshold is not None and row[decision] < style.threshold
        return [style.reject if rejected else str(labels[decision])]

    def ranked(row: NDArray[np.float32]) -> list[tuple[str, float]]:
        best = np.argsort(-row, kind="stable")[: style.top or 1]
        return [(str(labels[index]), round(float(row[index]), 6)) for index in best]

    def as_json(number: int, item: Input, row: NDArray[np.float32], decision: Any) -> str:
        given = names(row, decision)
        record = {"record": number, "line": item.line, "text": item.text}
        shown = ranked(row) if style.top else zip(labels, map(float, row), strict=True)
        return json_text(record | predicted(given, predictor.multi_label, row, shown))

    def as_text(row: NDArray[np.float32], decision: Any) -> str:
        if style.top:
            return "\t".join(f"{name}\t{value:.6f}" for name, value in ranked(row))
        text = style.delimiter.join(names(row, decision))
        if not style.probability:
            return text
        likely = row[decision] if predictor.multi_label else row.max(keepdims=True)
        return f"{text}\t{style.delimiter.join(f'{value:.6f}' for value in likely)}"

    def as_line(_number: int, item: Input, row: NDArray[np.float32], decision: Any) -> str:
        line = as_text(row, decision)
        return f"{line}\t{item.raw.translate(_ONE_LINE)}" if style.with_input else line

    return as_json if style.as_json else as_line
