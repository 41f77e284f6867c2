"""Read files of labelled or raw text, one record at a time.

Nothing is shuffled, tokenized or kept here. All formats have these rules in common:

- Delimiter, quotes, header and columns of tables, and the keys of JSON, are those configured, or
  are guessed from the first rows. The result is the `layout` of a `Reading`.
- Labels are returned as written, without spaces around them. Texts are returned unchanged.
- Blank lines, and rows without a filled cell, are skipped and counted. Only if each line is a text
  is a blank line an empty text.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Generic, NamedTuple

from srucli.config import OF_COLUMNS, DataConfig
from srucli.data.cells import label_parts
from srucli.data.formats import FORMAT_SPECIFIC, FORMATS, format_of, format_shown
from srucli.data.given import Given, Source, display_name
from srucli.data.json_reader import read_given
from srucli.data.labels import UnquotedLabel, clean
from srucli.data.layout import NO_NAMES, OF_TRAINING, ColumnNames, Columns, Layout, ReadTask, listed
from srucli.data.names import KNOWN, find_names, fold, is_other
from srucli.data.records import SAMPLE, InputFile, Record, T, check_labels, is_blank, peek
from srucli.data.soft import Soft, SoftLabels
from srucli.data.tables import MAX_COLUMNS
from srucli.errors import SrucliError, UsageError
from srucli.io.console import excerpt
from srucli.io.encodings import encoding_notes, replacement_notes
from srucli.io.streams import Source as File


class Example(NamedTuple):
    """A labelled text, its labels as written, and the line (from 1) where its record starts.

    soft: the probabilities of its labels, if they are learned; `labels` are the most likely ones
    then, unless they are given too. weight: how many examples it counts as in training. group: what
    it has in common with others, such as its author.
    """

    text: str
    labels: tuple[str, ...]
    line: int
    soft: Soft | None = None
    weight: float = 1.0
    group: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """All labels: those of the text, and the others that its probabilities name."""
        if self.soft is None:
            return self.labels
        return *self.labels, *(name for name in self.soft.names if name not in self.labels)


class Input(NamedTuple):
    """A text to label, and the whole record that contains it (without its line end)."""

    text: str
    line: int
    raw: str


class Reading(Iterator[T], Generic[T]):
    """The records of a file, one by one. layout: how they are read, None without any record."""

    def __init__(self, task: ReadTask, layout: Layout | None, records: Iterator[T]) -> None:
        self.task, self.layout, self.records = task, layout, records

    def __next__(self) -> T:
        return next(self.records)

    def reported(self, say: Callable[[str], None], given: Iterable[str] = ()) -> Iterator[T]:
        """Yield the records; `say` gets the layout with the first, what is missing after the last.

        If the first cannot be read, its error says more than the layout, which may be wrong.

        given: settings of `DataConfig` that the user set; those without effect are reported.
        """
        task, config = self.task, self.task.config

        def report(notes: Iterable[str]) -> None:
            for note in notes:
                say(f"{task.source}: {note}")

        early = list(encoding_notes(task.counts, config.encoding))
        try:
            first = list(islice(self, 1))
            if self.layout is not None:
                idle = FORMAT_SPECIFIC - FORMATS[task.format].settings
                report([str(self.layout)])
                report(f"data.{key} has no effect on {task.format}" for key in given if key in idle)
            report(early)
            yield from first
            yield from self
        except SrucliError:
            report(self._stray_returns())  # they may be the reason
            raise
        report(self.dropped())
        if not early:
            report(encoding_notes(task.counts, config.encoding))

    def dropped(self) -> Iterator[str]:
        """Yield messages about what was skipped or replaced so far."""
        if blank := self.task.counts["blank"]:
            yield f"{_count(blank, 'blank line')} skipped"
        if repeated := self.task.counts["header"]:
            yield f"{_count(repeated, 'row')} skipped: the header again"
        yield from self._stray_returns()
        encoding = self.layout.encoding if self.layout else self.task.config.encoding
        yield from replacement_notes(self.task.counts, encoding, self.task.config.errors)

    def _stray_returns(self) -> Iterator[str]:
        """Yield a message about carriage returns within lines, which may be meant as line ends."""
        count, layout = self.task.counts["CR"], self.layout
        if not count or layout is None or layout.format.startswith("JSON"):
            return
        if layout.dialect is None or not layout.dialect.quotes:
            returns = _count(count, "carriage return")
            yield f"{returns} within lines; they do not end lines, since the file has line feeds"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number > 1)}"


def _open(source: Source, task: ReadTask, count: int = SAMPLE) -> Reading[Record]:
    task = replace(task, counts=Counter())
    if isinstance(source, Given):
        task = replace(task, format="jsonl")
        return Reading(task, *read_given(task, source, count))
    file = InputFile(source, task.config, task)
    task = replace(task, format=format_of(file, task))
    _check_columns(task)
    return Reading(task, *FORMATS[task.format].read(task, file, count))


def _tasks(
    source: Source,
    config: DataConfig,
    known: Iterable[str],
    requested: DataConfig | None,
    names: ColumnNames | None,
) -> tuple[ReadTask, ReadTask]:
    """Return how to read a file like the training file; and, if it may differ, how to read it then.

    In the second, the training file's settings apply only if they fit, and its header proves none
    here unless its column names are unknown. For the arguments see `read_examples`.
    """
    labels = frozenset(map(clean, known))
    task = ReadTask(display_name(source), "", config, True, labels, names=names or NO_NAMES)
    if requested is None:
        return task, task
    if requested.encoding != config.encoding:
        task = replace(task, inherited=frozenset({"encoding"}))
    if names is not None:
        config = config.model_copy(update={"header": requested.header})
    settings = (*OF_COLUMNS, "delimiter", "quotes")
    inherited = {key for key in settings if getattr(requested, key) is None}
    return task, replace(task, config=config, inherited=task.inherited | inherited)


# So that sums of weights stay finite in float32.
MAX_WEIGHT = 1e9


def _labels(
    task: ReadTask, record: Record, probabilities: SoftLabels
) -> tuple[tuple[str, ...], Soft | None]:
    """Return the labels of a record as written, in order; exactly one in single-label mode.

    If it has only probabilities, the most likely ones. The second value are the probabilities, if
    they are learned.
    """
    parts, multi_label = record.label, task.config.multi_label
    if parts is None or (isinstance(parts, str) and not clean(parts)):
        parts = []
    elif isinstance(parts, str):
        is_joined = multi_label and not isinstance(parts, UnquotedLabel)
        parts = parts.split(task.config.label_delimiter) if is_joined else [parts]
    labels, soft = check_labels(task, record, parts), None
    beside = bool(labels) or (multi_label and record.label is not None)
    if task.training or not beside:
        soft = probabilities.read(record, beside=beside)
    if soft and not beside:
        labels = soft.likely(multi_label)
    if not labels and not multi_label:
        problem = f"no label for the text {excerpt(record.text)}"
        raise task.error(record.line, problem, "add a label or remove the line")
    if len(set(labels)) > 1 and not multi_label:
        problem = f"{len(labels)} labels: {excerpt(', '.join(labels))}"
        raise task.error(record.line, problem, "keep one, or train with --multi-label")
    return labels, soft if task.training else None


def _weight(task: ReadTask, record: Record) -> float:
    """Return the weight of a record; 1 without a column of weights. Raises DataError."""
    if task.config.weight is None or not task.training:
        return 1.0
    try:
        weight = math.nan if isinstance(record.weight, bool) else float(record.weight)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 <= weight <= MAX_WEIGHT:
        missing = record.weight is None or is_blank(str(record.weight))
        shown = "missing" if missing else excerpt(str(record.weight))
        problem = f"the weight of {excerpt(record.text)} is {shown}"
        raise task.error(record.line, problem, f"write a number from 0 to {MAX_WEIGHT:,.0f}")
    return weight


def _group(task: ReadTask, record: Record) -> str | None:
    """Return the group of a record; None without a column of groups. Raises DataError."""
    if task.config.group is None or not task.training:
        return None
    value = record.group
    if isinstance(value, str):
        value = value.strip()
    if value in (None, "") or (isinstance(value, float) and not math.isfinite(value)):
        problem = f"the group of {excerpt(record.text)} is missing"
        raise task.error(record.line, problem, "name it, or remove the line")
    if isinstance(value, (list, dict)):
        problem = f"the group of {excerpt(record.text)} is {excerpt(str(value))}"
        raise task.error(record.line, problem, "make it a string or a number")
    return str(value)


def _check_columns(task: ReadTask) -> None:
    """Raise UsageError if weights or groups are asked for in a format that has none."""
    for what in OF_TRAINING if task.training else ():
        wanted = getattr(task.config, what) is not None
        if wanted and what not in FORMATS[task.format].settings:
            raise UsageError(
                f"{task.source}: --{what} names a column, but {task.format} lines have none; use "
                "tsv, csv or jsonl"
            )


def read_examples(
    source: Source,
    config: DataConfig,
    known: Iterable[str] = (),
    requested: DataConfig | None = None,
    names: ColumnNames | None = None,
    *,
    training: bool = False,
) -> Reading[Example]:
    """Read the labelled texts of a file, one by one.

    known: the labels of a model, which help to find the label column. requested: the settings given
    for this file, if `config` is the training file's, which then applies if it fits. names: the
    training file's columns, None if unknown. training: also read weights, groups, and probabilities
    beside labels. Raises what `Lines` raises; UsageError for impossible columns; DataError for an
    improbable layout, for a record that cannot be read or lacks its text or (single-label) its
    label, and for a file without records.
    """
    task, other = _tasks(source, config, known, requested, names)
    task, other = replace(task, training=training), replace(other, training=training)
    reading = _as_requested(source, task, requested)
    if reading is None:
        differs = requested is not None and not _if_labelled(source, task)
        reading = _open(source, other if differs else task)
    task, records, probabilities = reading.task, reading, SoftLabels(reading.task)

    def examples() -> Iterator[Example]:
        empty = True
        for record in records:
            labels, soft = _labels(task, record, probabilities)
            if is_blank(record.text):
                problem = f"no text for the label {excerpt(', '.join(labels))}"
                raise task.error(record.line, problem, "add a text or remove the line")
            empty = False
            own = _weight(task, record), _group(task, record)
            yield Example(record.text, labels, record.line, soft, *own)
        if empty:
            problem = "is empty: no labelled text in it"
            raise task.error(None, problem, "check the program that should have written it")

    return Reading(task, reading.layout, examples())


def read_inputs(
    source: File,
    config: DataConfig,
    *,
    plain: DataConfig | None = None,
    known: Iterable[str] = (),
    requested: DataConfig | None = None,
    names: ColumnNames | None = None,
) -> Reading[Input]:
    """Read the texts to label, one for each record; labels are ignored and may be absent.

    A file with `known` labels is read as `read_examples` reads it. plain: in any other file each
    line is a text in this encoding, unless there are `known` labels and the first line is
    fastText's, JSON with a text, a header or, in a stream, a known label and a tab. requested,
    names: see `read_examples`. Raises the same errors, but none for an empty file or text. A stream
    is read no further than the record that is returned next.
    """
    task, other = _tasks(source, config, known, requested, names)
    if labelled := _as_requested(source, task, requested) or _labelled(source, task):
        return _inputs(labelled)
    count = SAMPLE if os.path.isfile(source) else 1
    other = replace(other, labelled=False)
    if plain is not None:
        return _plain(source, plain, other, count)
    return _inputs(_open(source, other, count))


def _inputs(reading: Reading[Record]) -> Reading[Input]:
    inputs = (Input(each.text, each.line, each.raw) for each in reading.records)
    return Reading(reading.task, reading.layout, inputs)


def _labelled(source: File, task: ReadTask) -> Reading[Record] | None:
    """Return the records of a file if at least half of the first ones have known labels.

    Raises the DataError of a file that has them only if read as CSV, as `read_examples` does.
    """
    reading = _if_labelled(source, task)
    as_csv = replace(task, config=task.config.model_copy(update={"format": "csv"}))
    if not reading and task.config.format == "auto" and _if_labelled(source, as_csv):
        next(_open(source, task), None)
    return reading


def _as_requested(
    source: Source, task: ReadTask, requested: DataConfig | None
) -> Reading[Record] | None:
    """Return the records as read by the requested settings, if the training file's do not fit.

    They do not fit if known labels are found only by the requested ones, or if the two disagree
    about the header.
    """
    if requested is None:
        return None
    config = requested.model_copy(update={"encoding": task.config.encoding})
    if config == task.config:
        return None
    reading = _if_labelled(source, replace(task, config=config))
    if reading is None or reading.layout is None:
        return None
    in_training = _if_labelled(source, task)
    if in_training is not None and not _differ_in_header(in_training, reading):
        return None
    hint = "not as the run's training file, whose settings do not fit"
    return Reading(reading.task, replace(reading.layout, hint=hint), reading)


def _differ_in_header(in_training: Reading[Record], requested: Reading[Record]) -> bool:
    """Whether only the first has a header, or only the second has one, with known names."""
    before, now = (_header(reading) for reading in (in_training, requested))
    return bool(before) if not now else not before and find_names(now) != (None, None)


def _header(reading: Reading[Record]) -> tuple[str, ...]:
    what = reading.layout and reading.layout.what
    return what.names if isinstance(what, Columns) and what.header else ()


def _if_labelled(source: Source, task: ReadTask) -> Reading[Record] | None:
    """Return the records of a file if at least half of the first ones have known labels."""
    if not task.known_labels or isinstance(source, Given) or not os.path.isfile(source):
        return None
    try:
        reading = _open(source, replace(task, labels_optional=True))
        first, records, _ = peek(reading, SAMPLE)
        soft = SoftLabels(reading.task)
        labels = [set(map(clean, _labels(reading.task, record, soft)[0])) for record in first]
    except SrucliError:
        return None
    given = [each for each in labels if each]
    if not given or 2 * sum(each <= task.known_labels for each in given) < len(given):
        return None
    return Reading(reading.task, reading.layout, records)


def _plain(source: File, config: DataConfig, other: ReadTask, count: int) -> Reading[Input]:
    """Return each line as a text; if the first line shows another format, read by `other`."""
    task = replace(other, format="lines", counts=Counter())
    file = InputFile(source, config, task)
    first = file.peek_line() if other.known_labels else None
    if first and (shown := _shown_format(first[1], other, alone=count == 1)):
        task = replace(other, format=shown, counts=task.counts)
    return _inputs(Reading(task, *FORMATS[task.format].read(task, file, count)))


def _shown_format(line: str, task: ReadTask, alone: bool) -> str | None:
    """Return the format if the first line leaves no doubt that lines are not texts.

    A table has a header of well-known names or, in a stream, where only this line is known
    (`alone`), begins with a known label and a tab. A number there may be part of a text.
    """
    shown = format_shown(line)
    if shown == "tsv":
        label, tab, _ = line.partition("\t")
        if (
            alone
            and tab
            and not label.isdecimal()
            and label_parts(task, label) <= task.known_labels
        ):
            return shown
        tables = {"\t": "tsv", ",": "csv", ";": "csv"}
        rows = ((mark, line.split(mark, MAX_COLUMNS)) for mark in tables)
        return next((tables[mark] for mark, cells in rows if _is_header(task, cells)), None)
    keys = re.findall(r'"((?:[^"\\]|\\.)*)"\s*:', line) if shown == "jsonl" else []
    texts = [listed(column, keys) for column in (task.config.text, task.names.text)]
    has_text = find_names(keys)[0] is not None or any(
        all(c in keys for c in t) and t for t in texts
    )
    return shown if shown == "fasttext" or has_text else None


def _is_header(task: ReadTask, cells: Sequence[str]) -> bool:
    """Whether cells clearly name a text and a label column.

    The training file's names of the text columns are enough: of two or more, or next to well-known
    names of other columns (id, title).
    """
    names = [cell.strip(' "') for cell in cells]
    texts = listed(task.names.text, names)
    if None not in task.names and {*texts, task.names.label} <= {*names}:
        return True
    others = [name for name in names if name not in texts]
    if len(others) == len(names) - len(texts) < len(names) > 1 and all(
        is_other(name) or fold(name) in KNOWN for name in others
    ):
        return True
    known = [names[at] for at in find_names(names) if at is not None]
    return len(known) == 2 and {*map(fold, known)} <= KNOWN
