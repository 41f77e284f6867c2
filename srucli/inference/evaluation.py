"""Evaluate a predictor on labelled texts: metrics, intervals, classes, confusions.

The metrics are defined in `srucli/metrics/`. Not here: reading files (`data/readers.py`), the model
(`predictor.py`), pictures (`experiments/plots.py`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from srucli import metrics
from srucli.data.labels import Known, Spellings, notes
from srucli.errors import DataError
from srucli.io.console import escaped, text_table
from srucli.metrics import Array, ClassMetrics, Floats, Outcome
from srucli.tokenizer.truncation import Notices, Tally

if TYPE_CHECKING:
    from srucli.data.readers import Example

CHUNK = 4096
SMALL_MATRIX = 10
CONFUSIONS = 10


class Scorer(Protocol):
    """What an evaluation needs of a model; `predictor.Predictor` is one."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def multi_label(self) -> bool: ...
    @property
    def thresholds(self) -> Floats | None: ...
    @property
    def tally(self) -> Tally: ...
    def probabilities(self, texts: Sequence[str], /) -> Array: ...


OnChunk = Callable[[Sequence["Example"], Array], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model was measured to do on one file.

    names: the K classes, those of the model and then the unknown ones; unknown: texts by label
    that the model does not know; unscored: texts that log loss leaves out for that; intervals:
    95%, NaN where there is none to give; seconds: spent by the model, tokenizing included; tally:
    of texts that were not read whole; notes: sentences on how the file was read.
    """

    source: str
    outcome: Outcome
    names: list[str]
    unknown: dict[str, int]
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: list[ClassMetrics]
    seconds: float
    tally: Tally
    notes: list[str]

    @property
    def texts(self) -> int:
        return len(self.outcome.targets)

    @property
    def unscored(self) -> int:
        return 0 if self.outcome.multi_label else sum(self.unknown.values())

    @cached_property
    def calibration_by_chance(self) -> float:
        """The calibration error below which a model may be perfectly calibrated."""
        return metrics.calibration_by_chance(self.outcome)

    @property
    def texts_per_second(self) -> float:
        return self.texts / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; undefined figures are None."""
        found: dict[str, Any] = {
            "file": self.source,
            "texts": self.texts,
            "multi_label": self.outcome.multi_label,
            "metrics": self.figures,
            "intervals": self.intervals,
            "calibration_error_by_chance": self.calibration_by_chance,
            "unknown_labels": self.unknown,
            "texts_without_log_loss": self.unscored,
            "seconds": self.seconds,
            "texts_per_second": self.texts_per_second,
            "reading": self.tally.to_json(),
            "per_class": [
                {"label": name, **asdict(row)}
                for name, row in zip(self.names, self.per_class, strict=True)
            ],
        }
        if not self.outcome.multi_label:
            counts = metrics.confusion(self.outcome).tolist()
            found["confusion"] = {"labels": self.names, "counts": counts}
        plain: dict[str, Any] = _without_nan(found)
        return plain

    def to_text(self) -> str:
        """The same as tables for people, labels escaped, without a line end."""
        return "\n".join(_report(self))


def evaluate(
    predictor: Scorer,
    examples: Iterable[Example],
    *,
    source: str = "-",
    on_chunk: OnChunk | None = None,
    merge: bool = False,
) -> Evaluation:
    """Measure `predictor` on labelled `examples`, which are read once, a chunk at a time.

    `source` is the file's name for people; `on_chunk(examples, probabilities (b, C))` sees every
    chunk; `merge` takes a label for the one of the model that it is like. Raises DataError for an
    example that does not fit the task, SrucliError where there are none or where a probability is
    not a number.
    """
    known, spellings = Known(predictor.labels, merge=merge), Spellings()
    gold: list[tuple[str, ...]] = []
    found: list[Array] = []
    seconds, before = 0.0, predictor.tally
    for written in _chunks(examples):
        for example in written:
            spellings.add(example)
        chunk = [each._replace(labels=known.names(each.labels)) for each in written]
        if not predictor.multi_label:
            _check_single(chunk, source)
        texts = [example.text for example in chunk]
        if not found:
            predictor.probabilities(texts[:1])  # what compiles on first use is not throughput
            before = predictor.tally
        start = time.perf_counter()
        found.append(predictor.probabilities(texts))
        seconds += time.perf_counter() - start
        gold.extend(example.labels for example in chunk)
        if on_chunk is not None:
            on_chunk(chunk, found[-1])
    tally = predictor.tally - before
    targets, names = metrics.encode(gold, predictor.labels, predictor.multi_label)
    classes = len(predictor.labels)
    scores = np.concatenate(found) if found else np.empty((0, classes), np.float32)
    outcome = Outcome(scores, targets, predictor.thresholds)
    per_class = metrics.per_class(outcome)
    rows = zip(names[classes:], per_class[classes:], strict=True)
    return Evaluation(
        source=source,
        outcome=outcome,
        names=names,
        unknown={name: row.support for name, row in rows},
        figures=metrics.measure(outcome),
        intervals=metrics.confidence_intervals(outcome),
        per_class=per_class,
        seconds=seconds,
        tally=tally,
        notes=[
            *(f"{escaped(source)}: {note}" for note in notes(spellings, known.name, known)),
            *Notices(escaped(source)).last(tally),
        ],
    )


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    left = iter(examples)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def _check_single(chunk: Sequence[Example], source: str) -> None:
    for example in chunk:
        if len(example.labels) != 1:
            raise DataError(
                source,
                example.line,
                f"{len(example.labels)} labels, but the model gives each text exactly one",
                "give each text one label, or train with --multi-label",
            )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _report(result: Evaluation) -> Iterator[str]:
    name = escaped(result.source)
    yield f"{name}: {result.texts:,} texts, {result.texts_per_second:,.0f} texts/s"
    yield ""
    yield from text_table([("metric", "value", "95% interval"), *_figure_rows(result)])
    yield from _notes(result)
    yield ""
    rows = [
        [
            escaped(name),
            *(_number(value) for value in (row.precision, row.recall, row.f1)),
            f"{row.support:,}",
            _span(row.precision_interval, 2),
            _span(row.recall_interval, 2),
        ]
        for name, row in zip(result.names, result.per_class, strict=True)
    ]
    heads = ("class", "precision", "recall", "F1", "support", "95% of precision", "95% of recall")
    yield from text_table([heads, *rows])
    if not result.outcome.multi_label:
        yield ""
        yield from _confusion_lines(result)


def _figure_rows(result: Evaluation) -> Iterator[list[str]]:
    for name, value in result.figures.items():
        yield [name, _number(value), _span(result.intervals.get(name, (math.nan, math.nan)), 4)]


def _span(interval: tuple[float, float], digits: int) -> str:
    low, high = interval
    return f"{low:.{digits}f} to {high:.{digits}f}" if math.isfinite(low) else ""


def _notes(result: Evaluation) -> Iterator[str]:
    """What of the figures needs a word, after an empty line."""
    read = result.tally.sentences().values()
    notes = [*read, *_unknown_labels(result), *_doubts(result)]
    if notes:
        yield ""
        yield from notes


def _unknown_labels(result: Evaluation) -> Iterator[str]:
    if not result.unknown:
        return
    named = ", ".join(f"{escaped(name)} ({count})" for name, count in result.unknown.items())
    yield f"labels that the model does not know, counted as errors: {named}"
    if result.unscored:
        yield f"log_loss leaves out their texts: {result.unscored:,} of {result.texts:,}"


def _doubts(result: Evaluation) -> Iterator[str]:
    """Which figures these texts do not carry, and why."""
    undefined = [name for name, value in result.figures.items() if not math.isfinite(value)]
    if undefined:
        yield f"not defined on these texts, by the labels that they have: {', '.join(undefined)}"
    bare = [name for name, (low, _) in result.intervals.items() if not math.isfinite(low)]
    if bare := [name for name in bare if name not in undefined]:
        why = "the same in every resample of these texts, which says nothing of others"
        if result.texts < metrics.MIN_RESAMPLED:
            why = f"{result.texts} texts are too few to resample"
        yield f"no interval of {', '.join(bare)}: {why}"
    if result.figures["calibration_error"] <= result.calibration_by_chance:
        yield (
            f"calibration_error: up to {result.calibration_by_chance:.4f} comes by chance on "
            f"{result.texts:,} texts, so whether the model is miscalibrated cannot be told"
        )


def _confusion_lines(result: Evaluation) -> Iterator[str]:
    counts = metrics.confusion(result.outcome)
    labels = [escaped(name) for name in result.names]
    if len(labels) <= SMALL_MATRIX:
        rows = [[label, *map(str, row)] for label, row in zip(labels, counts, strict=True)]
        yield from text_table([["true \\ predicted", *labels], *rows])
        return
    wrong = Counter({(i, j): int(counts[i, j]) for i, j in np.argwhere(counts).tolist() if i != j})
    rows = [[labels[i], labels[j], f"{n:,}"] for (i, j), n in wrong.most_common(CONFUSIONS)]
    yield from text_table([("most confused: true", "predicted", "texts"), *rows], left=(0, 1))


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"
