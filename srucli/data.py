"""Readers: files of raw or labelled text to lines, examples and inputs, one record at a time.

This is not a data loader: nothing is shuffled, tokenized, counted or kept here, and nothing waits
for more input than the record it is about to give. What every reader agrees on:

- Lines, compression and encodings are those of `srucli/lines.py`.
- Where an ending says nothing (standard input, `.txt`), the format is tsv.
- tsv does no quoting: by default the first tab ends the label, and later tabs belong to the text.
  Where columns are chosen or named, the first row says how many there are.
- The first row of csv and tsv is a header if columns are given by name, or if it holds both a name
  that people give texts and one that they give labels (TEXT_NAMES, LABEL_NAMES).
- fasttext takes the `__label__` words at the start of a line; pairs takes everything before the
  first blank or tab as the label.
- Labels are given as they are written, without the blanks around them: what is one label is decided
  in `srucli/labels.py`. A text is kept as it stands.
- Blank lines are passed over in labelled files, and are empty texts among the inputs of `predict`.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from srucli.config import DataConfig
from srucli.errors import DataError, UsageError
from srucli.labels import Bare, clean
from srucli.lines import Source, display_name, excerpt, read_lines

TEXT_NAMES = ("text", "sentence", "document", "review", "comment", "message", "question", "content")
LABEL_NAMES = ("label", "labels", "category", "class", "target", "sentiment", "intent")

_ENDINGS = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".ft": "fasttext",
    ".fasttext": "fasttext",
}
# Room for any real text, yet a quote that never closes is noticed before memory is full of it.
_CSV_FIELD_LIMIT = 10_000_000


class Example(NamedTuple):
    """A labelled text. `line` is the 1-based line where its record starts.

    `labels` are as written; `srucli/labels.py` says which of them are one.
    """

    text: str
    labels: tuple[str, ...]
    line: int


class Input(NamedTuple):
    """A text to label, and the whole record that it came from (without its line end)."""

    text: str
    line: int
    raw: str


Label = str | list[str] | None
Lines = Iterator[tuple[int, str]]


class _Record(NamedTuple):
    """One record. A label of type str may still be several joined ones; a list is taken apart."""

    line: int
    raw: str
    text: str
    label: Label


class _Row(NamedTuple):
    line: int
    raw: str
    cells: list[str]


@dataclass(frozen=True)
class _Job:
    """What is being read: its name for messages, its format, whether labels are needed."""

    source: str
    format: str
    config: DataConfig
    labelled: bool

    def error(self, line: int | None, problem: str, remedy: str) -> DataError:
        return DataError(self.source, line, problem, remedy)


def _is_blank(raw: str) -> bool:
    return not raw or raw.isspace()


@dataclass(frozen=True)
class _Columns:
    """Where a table keeps what: 0-based columns, their number, and whether a header names them."""

    text: int
    label: int
    width: int
    header: bool


def _column(value: str | int | None) -> str | int | None:
    """A column as configured: its name, or its 0-based number."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int):
        if value < 1:
            raise UsageError(f"column {value}: columns are counted from 1")
        return value - 1
    return value


def _known(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _find_columns(job: _Job, row: _Row, *, quoted: bool) -> _Columns:
    """Decide from the settings and the first row where text and label are."""
    text, label = _column(job.config.text), _column(job.config.label)
    names = [cell.strip() for cell in row.cells]
    lower = [name.lower() for name in names]
    known_text, known_label = _known(lower, TEXT_NAMES), _known(lower, LABEL_NAMES)
    header = job.config.header
    if header is None:
        named = isinstance(text, str) or isinstance(label, str)
        header = named or (known_text is not None and known_label is not None)
    nothing_said = text is None and label is None
    width = 2 if nothing_said and not header and not quoted else len(names)
    nothing_known = known_text is None and known_label is None
    if not header or (nothing_said and nothing_known):
        known_text, known_label = 1, 0
    at_text = _locate(job, row, names, text, known_text, "text")
    at_label = _locate(job, row, names, label, known_label, "label") if job.labelled else -1
    if at_text == at_label:
        raise UsageError(f"text and label are both column {at_text + 1}; see --text and --label")
    return _Columns(at_text, at_label, width, header)


def _locate(
    job: _Job, row: _Row, names: list[str], wanted: str | int | None, known: int | None, what: str
) -> int:
    if wanted is None:
        wanted = what if known is None else known
    if isinstance(wanted, int):
        return wanted
    if wanted in names:
        return names.index(wanted)
    problem = f"no column {excerpt(wanted)} in the header {excerpt(row.raw)}"
    raise _row_error(job, row, problem, f"name the {what} column with --{what}", guess=True)


_CSV_LIKE = re.compile(r'(?:"[^"]*"|[^\s,;|"]+)([,;|])|.*([,;|])[^\s,;|]+$')


def _guess(job: _Job, line: str) -> tuple[str, str] | None:
    """What a line that has one column only seems to be, and the flags that read it."""
    if line.startswith("__label__"):
        return "fastText lines", "--format fasttext"
    if line.startswith(("{", "[")):
        return "JSON lines", "--format jsonl"
    if "\t" in line:
        return "separated by tabs", "--format tsv"
    match = _CSV_LIKE.match(line)
    mark = match[1] or match[2] if match else None
    if mark and (job.format, mark) != ("csv", job.config.delimiter or ","):
        name = {",": "commas", ";": "semicolons", "|": "bars"}[mark]
        flags = "--format csv" if mark == "," else f"--format csv --delimiter '{mark}'"
        return f"separated by {name}", flags
    if " " in line and job.format == "tsv":
        return "a label, a blank and a text", "--format pairs"
    return None


def _row_error(job: _Job, row: _Row, problem: str, remedy: str, *, guess: bool) -> DataError:
    seems = _guess(job, row.raw) if guess and len(row.cells) == 1 else None
    if seems:
        problem, remedy = f"{problem}; it seems to be {seems[0]}", f"pass {seems[1]}"
    return job.error(row.line, problem, remedy)


def _cell(job: _Job, row: _Row, column: int, what: str, *, first: bool) -> str:
    if column < len(row.cells):
        return row.cells[column]
    count = "1 column" if len(row.cells) == 1 else f"{len(row.cells)} columns"
    problem = f"{count} only, no {what} in column {column + 1}: {excerpt(row.raw)}"
    remedy = f"add the {what}, or choose its column with --{what}"
    raise _row_error(job, row, problem, remedy, guess=first and job.labelled)


def _table(job: _Job, rows: Iterator[_Row], *, quoted: bool) -> Iterator[_Record]:
    """Rows to records: header, choice of columns, rows that are too short or too long."""
    columns, first = None, True
    for row in rows:
        if _is_blank(row.raw):
            yield _Record(row.line, row.raw, "", None)
            continue
        if columns is None:
            if job.config.format == "auto" and row.raw.startswith("__label__"):
                problem = f"fastText lines, but read as {job.format}: {excerpt(row.raw)}"
                raise job.error(row.line, problem, "pass --format fasttext")
            columns = _find_columns(job, row, quoted=quoted)
            if columns.header:
                continue
        if len(row.cells) > columns.width:
            row = _fit(job, row, columns, quoted=quoted)
        text = _cell(job, row, columns.text, "text", first=first)
        label = None
        if job.labelled:
            label = _cell(job, row, columns.label, "label", first=first)
        first = False
        yield _Record(row.line, row.raw, text, label)


def _fit(job: _Job, row: _Row, columns: _Columns, *, quoted: bool) -> _Row:
    """Extra tabs belong to the text where the text is last; anywhere else they are a mistake."""
    last = columns.width - 1
    if not quoted and columns.text == last:
        delimiter = job.config.delimiter or "\t"
        return row._replace(cells=[*row.cells[:last], delimiter.join(row.cells[last:])])
    problem = f"{len(row.cells)} columns, but the first row has {columns.width}: {excerpt(row.raw)}"
    remedy = 'put "..." around texts that hold the delimiter' if quoted else "take the tab out"
    raise job.error(row.line, problem, remedy)


def _tsv(job: _Job, lines: Lines) -> Iterator[_Record]:
    delimiter = job.config.delimiter or "\t"
    rows = (_Row(line, raw, raw.split(delimiter)) for line, raw in lines)
    return _table(job, rows, quoted=False)


def _csv(job: _Job, lines: Lines) -> Iterator[_Record]:
    return _table(job, _csv_rows(job, lines), quoted=True)


def _csv_rows(job: _Job, lines: Lines) -> Iterator[_Row]:
    delimiter = job.config.delimiter or ","
    if delimiter in '"\r\n':
        raise UsageError(f"--delimiter {delimiter!r}: cannot separate columns; see , ; or |")
    pulled: list[str] = []
    start = 1

    def feed() -> Iterator[str]:
        for _, line in lines:
            pulled.append(line)
            yield line + "\n"

    csv.field_size_limit(_CSV_FIELD_LIMIT)
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _csv_error(job, start, "\n".join(pulled), delimiter, str(error)) from error
        yield _Row(start, "\n".join(pulled), cells)
        start += len(pulled)
        pulled.clear()


def _csv_error(job: _Job, start: int, raw: str, delimiter: str, reason: str) -> DataError:
    """Say what is wrong at the line where the field that could not be read begins."""
    sep = re.escape(delimiter)
    whole_field = re.compile(rf'(?:"[^"]*(?:""[^"]*)*"|[^"{sep}\r\n][^{sep}\r\n]*|){sep}')
    at = 0
    while match := whole_field.match(raw, at):
        at = match.end()
    line, shown = start + raw.count("\n", 0, at), excerpt(raw[at:])
    if "unexpected end" in reason:
        return job.error(line, f"the quote that opens here never closes: {shown}", "close it")
    if "field larger" in reason:
        problem = f"a field of over {_CSV_FIELD_LIMIT:,} characters: {shown}"
        return job.error(line, problem, "close its quote or shorten it")
    if "new-line" in reason:
        problem = f"a carriage return outside quotes: {shown}"
        return job.error(line, problem, 'put "..." around the field or end lines with LF')
    problem = f"text after the closing quote of a field: {shown}"
    return job.error(line, problem, 'write a quote inside a quoted field twice ("")')


_JSON_REMEDY = 'write one whole object on each line, as {"text": "...", "label": "..."}'


def _json_object(job: _Job, line: int, raw: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(raw.rstrip()) or error.msg.startswith("Unterminated")
        if cut:
            problem = f"the JSON is cut short after {excerpt(raw[-40:])}"
        else:
            near = excerpt(raw[max(0, error.pos - 20) : error.pos + 20])
            problem = f"no JSON from character {error.pos + 1} on ({error.msg}): {near}"
        raise job.error(line, problem, _JSON_REMEDY) from None
    except (ValueError, RecursionError) as error:
        problem = f"JSON that cannot be read ({excerpt(str(error))})"
        raise job.error(line, problem, "make the record simpler") from None
    if isinstance(value, dict):
        return value
    raise job.error(line, f"not a JSON object: {excerpt(raw)}", _JSON_REMEDY)


def _json_string(job: _Job, line: int, value: str) -> str:
    """JSON's escapes can spell what no file may hold: NUL, and halves of surrogate pairs."""
    if "\0" in value:
        raise job.error(line, f"a NUL character in {excerpt(value)}", "take it out")
    try:
        return value.encode("utf-8", job.config.errors).decode("utf-8")
    except UnicodeEncodeError:
        problem = f"half of a surrogate pair in {excerpt(value)}"
        raise job.error(line, problem, "mend the text or pass --errors replace") from None


def _json_label(job: _Job, line: int, value: Any) -> Label:
    if value is None:
        return None
    if isinstance(value, list) and not any(isinstance(part, (list, dict)) for part in value):
        return ["" if part is None else _json_scalar(job, line, part) for part in value]
    return _json_scalar(job, line, value)


def _json_scalar(job: _Job, line: int, value: Any) -> str:
    if isinstance(value, str):
        return _json_string(job, line, value)
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"the label is {json.dumps(value)}, as of a missing value"
        raise job.error(line, problem, "add a label or take the line out")
    if isinstance(value, (bool, int, float)):
        return Bare(json.dumps(value))
    problem = f"the label is {excerpt(json.dumps(value, ensure_ascii=False))}"
    raise job.error(line, problem, "make it a string, a number, a boolean or a list of them")


def _jsonl(job: _Job, lines: Lines) -> Iterator[_Record]:
    text_key = "text" if job.config.text is None else str(job.config.text)
    label_key = "label" if job.config.label is None else str(job.config.label)
    for line, raw in lines:
        if _is_blank(raw):
            yield _Record(line, raw, "", None)
            continue
        record = _json_object(job, line, raw)
        for key, what in ((text_key, "text"), (label_key, "label"))[: 1 + job.labelled]:
            if key not in record:
                problem = f"no key {excerpt(key)}, only {excerpt(', '.join(record))}"
                raise job.error(line, problem, f"add it, or name the {what}'s key with --{what}")
        text = record[text_key]
        if not isinstance(text, str):
            shown = excerpt(json.dumps(text, ensure_ascii=False))
            raise job.error(line, f"the text is {shown}, not a string", "put it in quotes")
        label = _json_label(job, line, record[label_key]) if job.labelled else None
        yield _Record(line, raw, _json_string(job, line, text), label)


_FASTTEXT_LABELS = re.compile(r"[ \t]*((?:__label__[^ \t]*(?:[ \t]+|$))*)")


def _fasttext(job: _Job, lines: Lines) -> Iterator[_Record]:
    for line, raw in lines:
        head = _FASTTEXT_LABELS.match(raw)
        assert head is not None  # the pattern matches the empty string
        words = re.split(r"[ \t]+", head[1].rstrip(" \t")) if head[1] else []
        labels = [word.removeprefix("__label__") for word in words]
        if job.labelled and not (labels or job.config.multi_label or _is_blank(raw)):
            problem = f"no __label__ at the start of {excerpt(raw)}"
            raise job.error(line, problem, "start the line with __label__NAME or pass --format")
        yield _Record(line, raw, raw[head.end() :], labels)


_PAIR = re.compile(r"([^ \t]*)[ \t]+(.*)", re.DOTALL)


def _pairs(job: _Job, lines: Lines) -> Iterator[_Record]:
    for line, raw in lines:
        pair = _PAIR.fullmatch(raw)
        if pair:
            yield _Record(line, raw, pair[2], pair[1])
        elif _is_blank(raw):
            yield _Record(line, raw, "", None)
        else:
            problem = f"no blank or tab after the label {excerpt(raw)}"
            raise job.error(line, problem, "write the label, a blank and the text on each line")


_READERS: dict[str, Callable[[_Job, Lines], Iterator[_Record]]] = {
    "tsv": _tsv,
    "csv": _csv,
    "jsonl": _jsonl,
    "fasttext": _fasttext,
    "pairs": _pairs,
}


def file_format(source: Source, config: DataConfig) -> str:
    """The format that `source` is read in: the one configured, or that of its ending, or tsv."""
    if config.format != "auto":
        return config.format
    stem, ending = os.path.splitext(os.fspath(source).lower())
    if ending in (".gz", ".xz", ".zst"):
        ending = os.path.splitext(stem)[1]
    return _ENDINGS.get(ending, "tsv")


def _job(source: Source, config: DataConfig, *, labelled: bool) -> _Job:
    return _Job(display_name(source), file_format(source, config), config, labelled)


def _records(source: Source, job: _Job) -> Iterator[_Record]:
    config = job.config
    lines = read_lines(source, config.encoding, config.errors, config.max_ratio)
    return _READERS[job.format](job, lines)


_BLANKS, _BREAK = " \t\r\n", re.compile(r"[\t\r\n]")


def _labels(job: _Job, record: _Record) -> tuple[str, ...]:
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


def read_examples(source: Source, config: DataConfig) -> Iterator[Example]:
    """The labelled texts of a file, one by one.

    Raises what `read_lines` raises; UsageError for columns that cannot be; DataError for a record
    that cannot be read, lacks its text or (single label) its label, and for a file without any.
    """
    job, empty = _job(source, config, labelled=True), True
    for record in _records(source, job):
        if _is_blank(record.raw):
            continue
        labels = _labels(job, record)
        if _is_blank(record.text):
            problem = f"no text for the label {excerpt(', '.join(labels))}"
            raise job.error(record.line, problem, "add a text or take the line out")
        empty = False
        yield Example(record.text, labels, record.line)
    if empty:
        raise job.error(None, "is empty: no labelled text in it", "check what should have made it")


def read_inputs(
    source: Source,
    config: DataConfig | None,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    max_ratio: float | None = None,
) -> Iterator[Input]:
    """The texts to label, one for one record, empty ones too; no labels are needed or looked at.

    Without a `config` each line is a text, read as `read_lines` does with the rest. With one, the
    text is that of a column or key, and the rest is the config's. Raises as `read_examples` does,
    but an empty file or text is no error.
    """
    if config is None:
        for line, text in read_lines(source, encoding, errors, max_ratio):
            yield Input(text, line, text)
        return
    for record in _records(source, _job(source, config, labelled=False)):
        yield Input(record.text, record.line, record.raw)
