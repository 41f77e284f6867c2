"""Evaluate a predictor on labelled examples: metrics, intervals, classes, confusions.

The metrics are defined in `srucli/metrics/`; plots are drawn in `experiments/plots.py`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from srucli import metrics
from srucli.data.labels import Known, Spellings, notes
from srucli.errors import DataError, located
from srucli.io.console import abridged, escaped, fitting_table, is_narrow, text_table
from srucli.metrics import Array, ClassMetrics, Floats, Outcome
from srucli.tokenizer.truncation import Tally

if TYPE_CHECKING:
    from srucli.data.readers import Example

CHUNK, CHUNK_CHARACTERS = 4096, 2**22
SMALL_MATRIX, LARGE_MATRIX = 10, 2_000
CONFUSIONS = 10
# Of more classes, only those that occur have a row; of more unknown labels, the first are named.
MAX_ROWS, MAX_UNKNOWN = 1_000, 50
# The width of the longest label that is shown whole: two of them and a count fill a line.
MAX_LABEL = 34


class Scorer(Protocol):
    """What an evaluation needs of a model; `predictor.Predictor` is one."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def multi_label(self) -> bool: ...
    @property
    def thresholds(self) -> Floats | None: ...
    @property
    def at_least_one(self) -> bool: ...
    @property
    def tally(self) -> Tally: ...
    def probabilities(self, texts: Sequence[str], /) -> Array: ...


OnChunk = Callable[[Sequence["Example"], Array], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of a model on one file.

    names: the K classes, first those of the model, then unknown ones. unknown: the number of
    examples by unknown label. intervals: 95%, NaN if there is none. seconds: spent by the model,
    including tokenization. tally: counts of truncated texts. notes: sentences on how its labels
    were read.
    """

    source: str
    outcome: Outcome
    names: list[str]
    unknown: dict[str, int]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: list[ClassMetrics]
    seconds: float
    tally: Tally
    notes: list[str]

    def __repr__(self) -> str:
        found = f"{self.examples:,} texts: accuracy {self.metrics['accuracy']:.4f}"
        return f"<Evaluation of {self.source}, {found}>"

    @property
    def examples(self) -> int:
        return len(self.outcome.targets)

    @property
    def unscored(self) -> int:
        """The number of examples that log loss excludes, because their label is unknown."""
        return 0 if self.outcome.multi_label else sum(self.unknown.values())

    @property
    def remarks(self) -> list[str]:
        """Sentences on texts that were not fully read, and on labels that are all unknown."""
        remarks = [*self.tally.sentences().values()]
        if not any(row.support for row in self.per_class[: self.outcome.known]) and self.unknown:
            remarks.append(
                "no example has a label that the model knows, so the metrics say nothing about "
                "it: is this the column of the labels, and the model for this file?"
            )
        return remarks

    @cached_property
    def calibration_by_chance(self) -> float:
        """The calibration error below which a model may be perfectly calibrated."""
        return metrics.calibration_by_chance(self.outcome)

    @property
    def examples_per_second(self) -> float:
        return self.examples / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return everything as values for `json_text`, which writes undefined ones as null."""
        found: dict[str, Any] = {
            "file": self.source,
            "texts": self.examples,
            "multi_label": self.outcome.multi_label,
            "metrics": self.metrics,
            "intervals": self.intervals,
            "calibration_error_by_chance": self.calibration_by_chance,
            "unknown_labels": self.unknown,
            "texts_without_log_loss": self.unscored,
            "seconds": self.seconds,
            "texts_per_second": self.examples_per_second,
            "reading": self.tally.to_json(),
            "per_class": [
                {"label": name, **asdict(row)}
                for name, row in zip(self.names, self.per_class, strict=True)
            ],
        }
        if not self.outcome.multi_label:
            found["confusion"] = {"labels": self.names, **_confusion_json(self.outcome)}
        return found

    def to_text(self) -> str:
        """Return tables for people, with escaped labels and without a final line end."""
        return "\n".join(map(escaped, _report(self)))


def evaluate(
    predictor: Scorer,
    examples: Iterable[Example],
    *,
    source: str = "-",
    on_chunk: OnChunk | None = None,
    merge: bool = False,
) -> Evaluation:
    """Evaluate `predictor` on labelled `examples`, which are read once, in chunks.

    `source` is the file's name in messages. `on_chunk(examples, probabilities (b, C))` is called
    for every chunk. `merge` replaces a label by a similar one of the model. Raises DataError for an
    example that does not fit the task, SrucliError for no examples and for NaN or Inf.
    """
    known, spellings = Known(predictor.labels, merge=merge), Spellings()
    gold: list[tuple[str, ...]] = []
    found: list[Array] = []
    seconds, before, classes = 0.0, predictor.tally, len(predictor.labels)
    for written in _chunks(examples):
        metrics.check_size(len(gold) + len(written), classes, predictor.multi_label, source)
        for example in written:
            spellings.add(example)
        chunk = [each._replace(labels=known.names(each.labels)) for each in written]
        if not predictor.multi_label:
            _check_single(chunk, source)
        texts = [example.text for example in chunk]
        with located(source, [example.line for example in chunk].__getitem__):
            if not found:
                predictor.probabilities(texts[:1])  # compiles kernels, which is not throughput
                before = predictor.tally
            start = time.perf_counter()
            found.append(predictor.probabilities(texts))
            seconds += time.perf_counter() - start
        gold.extend(example.labels for example in chunk)
        if on_chunk is not None:
            on_chunk(chunk, found[-1])
    tally = predictor.tally - before
    targets, names = metrics.encode(gold, predictor.labels, predictor.multi_label, source)
    scores = np.concatenate(found) if found else np.empty((0, classes), np.float32)
    outcome = Outcome(scores, targets, predictor.thresholds, predictor.at_least_one)
    per_class = metrics.per_class(outcome)
    rows = zip(names[classes:], per_class[classes:], strict=True)
    return Evaluation(
        source=source,
        outcome=outcome,
        names=names,
        unknown={name: row.support for name, row in rows},
        metrics=metrics.measure(outcome),
        intervals=metrics.confidence_intervals(outcome),
        per_class=per_class,
        seconds=seconds,
        tally=tally,
        notes=[f"{source}: {note}" for note in notes(spellings, known.name, known)],
    )


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield up to CHUNK examples at a time, of about CHUNK_CHARACTERS characters or fewer."""
    chunk: list[Example] = []
    characters = 0
    for example in examples:
        chunk.append(example)
        characters += len(example.text)
        if len(chunk) >= CHUNK or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _check_single(chunk: Sequence[Example], source: str) -> None:
    """Check that every example has one label. Raises DataError."""
    for example in chunk:
        if len(example.labels) != 1:
            problem = f"{len(example.labels)} labels, but the model gives each text exactly one"
            remedy = "give each text one label, or train with --multi-label"
            raise DataError(source, example.line, problem, remedy)


def _report(result: Evaluation) -> Iterator[str]:
    speed = f"{result.examples_per_second:,.0f} examples/s"
    yield f"{result.source}: {result.examples:,} examples, {speed}"
    yield ""
    rows = [
        [name, _number(value), _span(result.intervals.get(name, (math.nan, math.nan)), 4)]
        for name, value in result.metrics.items()
    ]
    yield from text_table([("metric", "value", "95% interval"), *rows])
    notes = [*result.remarks, *_unknown_labels(result), *_caveats(result)]
    if notes:
        yield from ("", *notes)
    yield ""
    classes = list(zip(result.names, result.per_class, strict=True))
    if len(classes) > MAX_ROWS:
        classes = [(name, row) for name, row in classes if row.support or row.predicted]
    rows = [
        [
            abridged(name, MAX_LABEL),
            *(_number(value) for value in (row.precision, row.recall, row.f1)),
            f"{row.support:,}",
            _span(row.precision_interval, 2),
            _span(row.recall_interval, 2),
        ]
        for name, row in classes
    ]
    heads = ("class", "precision", "recall", "F1", "support", "95% of precision", "95% of recall")
    yield from fitting_table(heads, rows, droppable=[{5, 6}])
    if others := len(result.names) - len(rows):
        yield f"not shown: {others:,} classes that are neither true nor predicted here"
    if not result.outcome.multi_label:
        yield from ("", *_confusion_lines(result))


def _span(interval: tuple[float, float], digits: int) -> str:
    low, high = interval
    return f"{low:.{digits}f} to {high:.{digits}f}" if math.isfinite(low) else ""


def _unknown_labels(result: Evaluation) -> Iterator[str]:
    if not result.unknown:
        return
    named = [f"{name} ({count})" for name, count in result.unknown.items()]
    if (more := len(named) - MAX_UNKNOWN) > 0:
        named[MAX_UNKNOWN:] = [f"and {more:,} more"]
    yield f"labels that the model does not know, counted as errors: {', '.join(named)}"
    if result.unscored:
        yield f"log_loss excludes these examples: {result.unscored:,} of {result.examples:,}"


def _caveats(result: Evaluation) -> Iterator[str]:
    """Say which metrics these examples cannot support, and why."""
    undefined = [name for name, value in result.metrics.items() if not math.isfinite(value)]
    if undefined:
        yield f"undefined for the labels of these examples: {', '.join(undefined)}"
    intervals = result.intervals.items()
    bare = [name for name, (low, _) in intervals if not math.isfinite(low)]
    if bare := [name for name in bare if name not in undefined]:
        why = "the value is the same in every resample of these examples"
        if result.examples < metrics.MIN_RESAMPLED:
            why = f"{result.examples} examples are too few to resample"
        yield f"no interval for {', '.join(bare)}: {why}"
    if result.metrics["calibration_error"] <= result.calibration_by_chance:
        yield (
            f"calibration_error: a perfectly calibrated model reaches up to "
            f"{result.calibration_by_chance:.4f} by chance on {result.examples:,} examples, so "
            "this value shows no miscalibration"
        )


def _confusion_json(outcome: Outcome) -> dict[str, Any]:
    """Return the confusion matrix; of more than LARGE_MATRIX classes, only the pairs that occur."""
    if outcome.classes <= LARGE_MATRIX:
        return {"counts": metrics.confusion(outcome).tolist()}
    cells, counts = metrics.confused(outcome)
    return {"pairs": np.column_stack([cells, counts]).tolist()}


def _confusion_lines(result: Evaluation) -> Iterator[str]:
    labels = [abridged(name, MAX_LABEL) for name in result.names]
    if len(labels) <= SMALL_MATRIX:
        counts = metrics.confusion(result.outcome)
        rows = [[label, *map(str, row)] for label, row in zip(labels, counts, strict=True)]
        matrix = list(text_table([["true \\ predicted", *labels], *rows]))
        if is_narrow(matrix):
            yield from matrix
            return
    pairs = (each.tolist() for each in metrics.confused(result.outcome))
    wrong = Counter({(i, j): count for (i, j), count in zip(*pairs, strict=True) if i != j})
    rows = [[labels[i], labels[j], f"{n:,}"] for (i, j), n in wrong.most_common(CONFUSIONS)]
    yield from text_table([("most confused: true", "predicted", "examples"), *rows], left=(0, 1))


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"
