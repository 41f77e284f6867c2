"""A trained run applied to texts: probabilities for a list, records for a stream of lines."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.batch import TokenStore, order
from srucli.data.layout import Names
from srucli.data.readers import Input
from srucli.metrics import decide
from srucli.model.classifier import Classifier, shapes
from srucli.runs.choice import choose, unfinished
from srucli.runs.run_dir import RunDir
from srucli.runtime import resolve_device
from srucli.tokenizer.truncation import Tally

# A stream is answered at the latest after this many texts, and at once where it pauses.
BATCH_TEXTS = 256
READ_AHEAD = 4 * BATCH_TEXTS


def logits_to_probabilities(logits: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """(B, C) -> (B, C): softmax for one label a text, sigmoid for several."""
    return logits.sigmoid() if multi_label else logits.softmax(dim=-1)


@torch.inference_mode()
def branch_logits(model: Classifier, store: TokenStore, device: torch.device) -> torch.Tensor:
    """Logits (n, B, C) of each branch for the texts of a store; the model is left in eval."""
    model.eval()
    rows: list[torch.Tensor] = []
    batches = order(store.lengths, BATCH_TEXTS, batch_tokens=16_384, seed=None)
    for texts in batches:
        batch = store.batch(texts).to(device)
        rows.append(torch.stack(model.branches(batch.tokens, batch.offsets, part=batch.part)))
    joined = torch.cat(rows, dim=1)
    logits = torch.empty_like(joined)
    logits[:, torch.from_numpy(np.concatenate(batches)).to(device)] = joined
    return logits


def blended(logits: torch.Tensor, blend: torch.Tensor, multi_label: bool) -> NDArray[np.float32]:
    """Logits (n, B, C) of the branches and how much each counts (n,) -> probabilities (B, C)."""
    mixed = torch.tensordot(blend, logits, dims=1)
    probabilities: NDArray[np.float32] = logits_to_probabilities(mixed, multi_label).cpu().numpy()
    return probabilities


class Predictor:
    """A run, loaded: what `eval` and `predict` use. `tally` counts the texts that it was given."""

    def __init__(self, run: RunDir, device: torch.device) -> None:
        self.config = run.config()
        self.labels = run.labels()
        self.multi_label = self.config.data.multi_label
        columns = run.facts().columns
        self.names = None if columns is None else Names(columns.get("text"), columns.get("label"))
        self.tokenizer = run.tokenizer()
        self.device = device
        self.choice = choose(run, self.config)
        # Sentences on the weights, for people.
        self.said = [said for said in (self.choice.said, unfinished(run)) if said]
        classes, pieces = len(self.labels), self.tokenizer.vocab_size
        checkpoint = run.checkpoint(self.choice.name, shapes(self.config.model, pieces, classes))
        self.thresholds = checkpoint.thresholds(classes, str(run.path))
        self.model = Classifier(self.config.model, self.tokenizer.spelling, classes)
        self.model.load_state_dict(checkpoint.weights)
        self.model.to(device).eval().tabulate()
        self.tally = Tally(limits=self.model.limits(self.config.train))

    @classmethod
    def load(cls, run: Path, device: str = "auto") -> Predictor:
        """Load a run's folder. Raises UsageError, InputMissingError, DataError."""
        found = resolve_device(device)
        return cls(RunDir.open(run), found)

    def probabilities(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """B texts -> (B, C) float32: of each label; they sum to 1 in a single-label model."""
        if not texts:
            return np.empty((0, len(self.labels)), np.float32)
        store = TokenStore.encode(self.tokenizer, texts, limits=self.tally.limits)
        self.tally += store.tally
        logits = branch_logits(self.model, store, self.device)
        return blended(logits, self.model.blend, self.multi_label)


@dataclass(frozen=True)
class Style:
    """How a record of output looks.

    top: how many labels, with their probabilities; None for the label alone. threshold: a text
    whose likeliest label is less likely gets the label `reject`. with_input: append the
    input's record.
    """

    probability: bool = False
    top: int | None = None
    threshold: float | None = None
    reject: str = "unknown"
    as_json: bool = False
    with_input: bool = False
    delimiter: str = ","


def arriving(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Group inputs as they come: up to BATCH_TEXTS, fewer where the source pauses.

    A thread reads, so that what has arrived is answered while the next line is awaited. Its
    exceptions are raised here, after the inputs before them.
    """
    waiting: queue.Queue[Input | Exception | None] = queue.Queue(READ_AHEAD)

    def read() -> None:
        try:
            for item in inputs:
                waiting.put(item)
            waiting.put(None)
        except Exception as error:  # it is raised again where the queue is read
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        group: list[Input] = []
        end = waiting.get()
        while isinstance(end, Input):
            group.append(end)
            if len(group) == BATCH_TEXTS or waiting.empty():
                break
            end = waiting.get()
        if group:
            yield group
        if isinstance(end, Exception):
            raise end
        if end is None:
            return


def records(predictor: Predictor, inputs: Iterable[Input], style: Style) -> Iterator[list[str]]:
    """Groups of output records, one for each input, in order, as soon as they can be.

    They are lines: where a kept record of the input has line ends, they are written as \\n and \\r.
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
    """A function from an input, its number from 1, probabilities (C,) and decision to a record."""
    labels = np.array(predictor.labels, dtype=object)

    def names(row: NDArray[np.float32], decision: Any) -> list[str]:
        if predictor.multi_label:
            found: list[str] = labels[decision].tolist()
            return found
        if style.threshold is not None and row[decision] < style.threshold:
            return [style.reject]
        return [str(labels[decision])]

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
        return json.dumps(record, ensure_ascii=False)

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
