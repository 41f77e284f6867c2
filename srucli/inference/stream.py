"""Predict labels of a stream of texts: one output record per input, as early as possible."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.data.readers import Input
from srucli.inference.forward import BATCH_TEXTS
from srucli.inference.predictor import Predictor
from srucli.io.json_text import json_text
from srucli.metrics import decide

# How many inputs the reading thread may be ahead of the predictions.
READ_AHEAD = 4 * BATCH_TEXTS


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


def arriving(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Yield groups of inputs as they arrive: up to BATCH_TEXTS, or fewer if the source pauses.

    A thread reads, so that the inputs so far can be processed while the next line is awaited. Its
    exceptions are raised here, after the inputs before them.
    """
    waiting: queue.Queue[Input | Exception | None] = queue.Queue(READ_AHEAD)

    def read() -> None:
        try:
            for item in inputs:
                waiting.put(item)
            waiting.put(None)
        except Exception as error:  # raised again where the queue is read
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    item = waiting.get()
    while isinstance(item, Input):
        group = [item]
        while len(group) < BATCH_TEXTS and not waiting.empty():
            item = waiting.get()
            if not isinstance(item, Input):
                break
            group.append(item)
        yield group
        if isinstance(item, Input):
            item = waiting.get()
    if item is not None:
        raise item


def records(predictor: Predictor, inputs: Iterable[Input], style: Style) -> Iterator[list[str]]:
    """Yield groups of output records: one line per input, in order, as early as possible.

    Line ends within the input record are written as \\n and \\r.
    """
    render, done = _renderer(predictor, style), 0
    for group in arriving(inputs):
        probabilities = predictor.probabilities([item.text for item in group])
        chosen = decide(probabilities, predictor.thresholds, predictor.multi_label)
        rows = zip(group, probabilities, chosen, strict=True)
        yield [render(number, *row) for number, row in enumerate(rows, done + 1)]
        done += len(group)


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
        record: dict[str, Any] = {"record": number, "line": item.line}
        record |= {"labels": given} if predictor.multi_label else {"label": given[0]}
        if not predictor.multi_label:
            record["probability"] = round(float(row.max()), 6)
        if style.top or predictor.multi_label:
            shown = ranked(row) if style.top else zip(labels, map(float, row), strict=True)
            record["probabilities"] = {name: round(value, 6) for name, value in shown}
        return json_text(record)

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
