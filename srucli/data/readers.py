"""Readers: files of raw or labelled text to examples and inputs, one record at a time.

This is not a data loader: nothing is shuffled, tokenized or kept here. What every reader agrees on:

- Lines, compression and encodings are those of `srucli/io/lines.py`.
- The format is chosen in `formats.py`.
- Delimiter, quotes (`tables.py`), header and columns (`guess.py`) of tables, and the keys of JSON,
  are those configured, or guessed from the first rows. What was chosen is the `layout` of a
  `Reading`; whoever reads a file says it.
- fasttext takes the `__label__` words of a line; pairs takes everything before the first blank or
  tab as the label.
- Labels are given as they are written, without the blanks around them: what is one label is decided
  in `labels.py`. A text is kept as it stands.
- Blank lines, and rows of nothing but delimiters, are no records, and are counted. Only where each
  line is a text is a blank line an empty text.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, NamedTuple

from srucli.config import DataConfig
from srucli.data.cells import label_parts
from srucli.data.formats import FORMATS, OF_SOME, format_of, format_shown
from srucli.data.labels import Bare, clean
from srucli.data.layout import NAMELESS, Columns, Job, Layout, Names
from srucli.data.names import KNOWN, find_names, fold, is_other
from srucli.data.records import SAMPLE, InputFile, Record, T, is_blank, peek
from srucli.errors import SrucliError
from srucli.io.console import escaped, excerpt
from srucli.io.encodings import losses, said_of_encoding
from srucli.io.streams import Source, display_name


class Example(NamedTuple):
    """A labelled text. `line` is the 1-based line where its record starts.

    `labels` are as written; `labels.py` says which of them are one.
    """

    text: str
    labels: tuple[str, ...]
    line: int


class Input(NamedTuple):
    """A text to label, and the whole record that it came from (without its line end)."""

    text: str
    line: int
    raw: str


class Reading(Iterator[T], Generic[T]):
    """The records of a file, one by one, and how it is read.

    layout: None where the file has no record; blank: how many blank lines were passed over so far.
    """

    def __init__(self, job: Job, layout: Layout | None, records: Iterator[T]) -> None:
        self.job, self.layout, self.records = job, layout, records

    def __next__(self) -> T:
        return next(self.records)

    @property
    def blank(self) -> int:
        return self.job.passed["blank"]

    def told(self, say: Callable[[str], None], asked: Iterable[str] = ()) -> Iterator[T]:
        """The same records; `say` is told the layout before them, and what is missing after them.

        asked: the settings of `DataConfig` that somebody gave, of which those are named that mean
        nothing in this format.
        """
        name, format = escaped(self.job.source), self.job.format
        early = list(said_of_encoding(self.job.passed, self.job.config.encoding))
        if self.layout is not None:
            say(f"{name}: {self.layout}")
            for key in asked:
                if key in OF_SOME - FORMATS[format].settings:
                    say(f"{name}: data.{key} has no effect on {format}")
        for line in early:
            say(f"{name}: {line}")
        try:
            yield from self
        except SrucliError:  # which they may be the reason for
            for line in self._returns():
                say(f"{name}: {line}")
            raise
        for line in self.dropped():
            say(f"{name}: {line}")
        if not early:
            for line in said_of_encoding(self.job.passed, self.job.config.encoding):
                say(f"{name}: {line}")

    def dropped(self) -> Iterator[str]:
        """What is missing of the records so far, or may be part of others."""
        if self.blank:
            yield f"{_count(self.blank, 'blank line')} passed over"
        if again := self.job.passed["header"]:
            yield f"{_count(again, 'row')} passed over that the header has as well"
        yield from self._returns()
        encoding = self.layout.encoding if self.layout else self.job.config.encoding
        yield from losses(self.job.passed, encoding, self.job.config.errors)

    def _returns(self) -> Iterator[str]:
        """Carriage returns inside of lines, which may have been meant as their ends."""
        count = self.job.passed["CR"]
        if count and self.layout is not None and self.layout.ends_at_lf_alone:
            returns = _count(count, "carriage return")
            yield f"{returns} inside of lines; they end none of them, since the file has line feeds"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number > 1)}"


def _open(source: Source, job: Job, count: int = SAMPLE) -> Reading[Record]:
    """Return the records of a file in the format that is configured, named or shown."""
    job = replace(job, passed=Counter())
    file = InputFile(source, job.config, job)
    job = replace(job, format=format_of(file, job))
    return Reading(job, *FORMATS[job.format].read(job, file, count))


def _job(
    source: Source,
    config: DataConfig,
    known: Iterable[str],
    fresh: DataConfig | None,
    names: Names | None,
) -> Job:
    """How a file is read that may be like another one; see `read_examples`."""
    other = fresh is not None and fresh.encoding != config.encoding
    return Job(
        display_name(source),
        "",
        config,
        labelled=True,
        known=frozenset(map(clean, known)),
        other_encoding=other,
        names=names or NAMELESS,
    )


def _like(job: Job, fresh: DataConfig | None, names: Names | None) -> Job:
    """The same where nothing tells that a file is like that other one: its settings may not fit.

    A header of it proves none here, unless that is all that is known of its names.
    """
    if fresh is None:
        return job
    config = job.config
    if names is not None:
        config = config.model_copy(update={"header": fresh.header})
    others = ("text", "label", "delimiter", "quotes")
    lenient = frozenset(key for key in others if getattr(fresh, key) is None)
    return replace(job, config=config, lenient=lenient)


_BLANKS, _BREAK = " \t\r\n", re.compile(r"[\t\r\n]")


def _labels(job: Job, record: Record) -> tuple[str, ...]:
    """The labels of a record as they are written, in its order; one in single-label mode."""
    parts = record.label
    if parts is None or (isinstance(parts, str) and not clean(parts)):
        parts = []
    elif isinstance(parts, str):
        several = job.config.multi_label and not isinstance(parts, Bare)
        parts = parts.split(job.config.label_delimiter) if several else [parts]
    labels = tuple(part if isinstance(part, Bare) else part.strip(_BLANKS) for part in parts)
    if not all(map(clean, labels)):
        problem = f"an empty label among those of {excerpt(record.raw)}"
        raise job.error(record.line, problem, "name it or take it out")
    if bad := next((label for label in labels if _BREAK.search(label)), None):
        problem = f"a tab or line end in the label {excerpt(bad)}"
        raise job.error(record.line, problem, "take it out of the label")
    if not labels and not job.config.multi_label:
        problem = f"no label for the text {excerpt(record.text)}"
        raise job.error(record.line, problem, "add a label or take the line out")
    if len(set(labels)) > 1 and not job.config.multi_label:
        problem = f"{len(labels)} labels: {excerpt(', '.join(labels))}"
        raise job.error(record.line, problem, "keep one, or train with --multi-label")
    return labels


def read_examples(
    source: Source,
    config: DataConfig,
    known: Iterable[str] = (),
    fresh: DataConfig | None = None,
    names: Names | None = None,
) -> Reading[Example]:
    """The labelled texts of a file, one by one.

    known: the labels that a model has, which tell where labels are. fresh: what was asked for this
    file, where `config` is what another one was read by, which holds where it fits. names: what
    that one called its columns; None where nobody knows. Raises what `read_lines` raises;
    UsageError for columns that cannot be; DataError for a layout that cannot be meant, for a record
    that cannot be read, lacks its text or (single label) its label, and for a file without any.
    """
    job = _job(source, config, known, fresh, names)
    found = _fresh(source, job, fresh) if job.known and os.path.isfile(source) else None
    if found is None and fresh is not None and not _has_labels(source, job):
        job = _like(job, fresh, names)
    reading = found or _open(source, job)
    job = reading.job

    def examples() -> Iterator[Example]:
        empty = True
        for record in reading:
            labels = _labels(job, record)
            if is_blank(record.text):
                problem = f"no text for the label {excerpt(', '.join(labels))}"
                raise job.error(record.line, problem, "add a text or take the line out")
            empty = False
            yield Example(record.text, labels, record.line)
        if empty:
            problem = "is empty: no labelled text in it"
            raise job.error(None, problem, "check what should have made it")

    return Reading(job, reading.layout, examples())


def read_inputs(
    source: Source,
    config: DataConfig,
    *,
    plain: DataConfig | None = None,
    known: Iterable[str] = (),
    fresh: DataConfig | None = None,
    names: Names | None = None,
) -> Reading[Input]:
    """The texts to label, one for one record, also without labels, which are not looked at.

    A file with labels that are `known` is read as `read_examples` does. plain: in any other each
    line is a text, read in this encoding, unless there are `known` ones and its first line is
    fastText's, JSON with a text in it, a header or, of a stream, a known label and a tab. fresh,
    names: as for `read_examples`. Raises as that does, but an empty file or text is no error. Of
    what is no file, nothing is awaited but the record that is about to be given.
    """
    job, is_file = _job(source, config, known, fresh, names), os.path.isfile(source)
    found = None
    if job.known and is_file:
        found = _fresh(source, job, fresh) or _labelled(source, job)
    if found is not None:
        return _inputs(found)
    count = SAMPLE if is_file else 1
    job = replace(_like(job, fresh, names), labelled=False)
    if plain is not None:
        return _plain(source, plain, job, count)
    return _inputs(_open(source, job, count))


def _inputs(reading: Reading[Record]) -> Reading[Input]:
    inputs = (Input(text, line, raw) for line, raw, text, _ in reading.records)
    return Reading(reading.job, reading.layout, inputs)


def _labelled(source: Source, job: Job) -> Reading[Record] | None:
    """The records of a file if half or more of the first ones have labels that are known.

    Raises the DataError of one that has them if it is read as CSV, as `read_examples` does.
    """
    found = _with_labels(source, job)
    as_csv = replace(job, config=job.config.model_copy(update={"format": "csv"}))
    if not found and job.config.format == "auto" and _with_labels(source, as_csv):
        next(_open(source, job), None)
    return found


def _has_labels(source: Source, job: Job) -> bool:
    return os.path.isfile(source) and _with_labels(source, job) is not None


def _fresh(source: Source, job: Job, fresh: DataConfig | None) -> Reading[Record] | None:
    """The records of a file as `fresh` reads it, which says so, where `job` does not fit it.

    That is where known labels are not where it has them, or in what it takes for a header.
    """
    if fresh is None:
        return None
    config = fresh.model_copy(update={"encoding": job.config.encoding})
    found = None if config == job.config else _with_labels(source, replace(job, config=config))
    if found is None or found.layout is None:
        return None
    asked = _with_labels(source, job)
    if asked is not None and not _differ_in_header(asked, found):
        return None
    hint = "not as the run's training file, whose settings do not fit"
    return Reading(found.job, replace(found.layout, hint=hint), found)


def _differ_in_header(asked: Reading[Record], found: Reading[Record]) -> bool:
    """Whether the first has a header where the second has none, or none where names are known."""
    before, now = (_header(reading) for reading in (asked, found))
    return bool(before) if not now else not before and find_names(now) != (None, None)


def _header(reading: Reading[Record]) -> tuple[str, ...]:
    what = reading.layout and reading.layout.what
    return what.names if isinstance(what, Columns) and what.header else ()


def _with_labels(source: Source, job: Job) -> Reading[Record] | None:
    """The same in the format that is configured, and None for what cannot be read."""
    try:
        reading = _open(source, replace(job, optional=True))
        first, records, _ = peek(reading, SAMPLE, lambda record: len(record.raw))
        labels = [set(map(clean, _labels(reading.job, record))) for record in first]
    except SrucliError:
        return None
    given = [each for each in labels if each]
    if not given or 2 * sum(each <= reading.job.known for each in given) < len(given):
        return None
    return Reading(reading.job, reading.layout, records)


def _plain(source: Source, config: DataConfig, other: Job, count: int) -> Reading[Input]:
    """Return each line as a text, or read as `other` where the first line shows that it is none."""
    job = replace(other, format="lines", passed=Counter())
    file = InputFile(source, config, job)
    first = file.peek_line() if other.known else None
    if first and (shown := _shown_format(first[1], other, alone=count == 1)):
        job = replace(other, format=shown, passed=job.passed)
    return _inputs(Reading(job, *FORMATS[job.format].read(job, file, count)))


def _shown_format(line: str, job: Job, alone: bool) -> str | None:
    """The format of lines that are no texts, where the first one leaves no doubt.

    That is a header of well-known names, or, of a stream, where it has to tell `alone`, one that
    begins with a known label and a tab. A number there may be a text's.
    """
    seen = format_shown(line)
    if seen == "tsv":
        label, tab, _ = line.partition("\t")
        if alone and tab and not label.isdecimal() and label_parts(job, label) <= job.known:
            return seen
        tables = {"\t": "tsv", ",": "csv", ";": "csv"}
        return next((tables[mark] for mark in tables if _is_header(job, line.split(mark))), None)
    keys = re.findall(r'"((?:[^"\\]|\\.)*)"\s*:', line) if seen == "jsonl" else []
    has_text = find_names(keys)[0] is not None or {job.config.text, job.names.text} & {*keys}
    return seen if seen == "fasttext" or has_text else None


def _is_header(job: Job, cells: Sequence[str]) -> bool:
    """Whether cells name a column of texts and one of labels, and nothing is in doubt.

    The run's own name of texts may also be beside names that are never labels, as `id`.
    """
    names = [cell.strip(' "') for cell in cells]
    if None not in job.names and {*job.names} <= {*names}:
        return True
    others = [name for name in names if name != job.names.text]
    if len(others) == len(names) - 1 and others and all(map(is_other, others)):
        return True
    known = [names[at] for at in find_names(names) if at is not None]
    return len(known) == 2 and {*map(fold, known)} <= KNOWN
