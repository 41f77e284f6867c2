"""The records of each format: lines to texts with labels, and how they were read.

A reader looks at the first lines, decides how all are to be read, and gives their records as they
come. Which reader a file gets, and what an example is, is decided in `srucli/data/readers.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from srucli.data.cell_lists import list_items, seems_cut
from srucli.data.format_hints import row_error
from srucli.data.guess import choose
from srucli.data.labels import Bare
from srucli.data.layout import Columns, Job, Layout, Names
from srucli.data.names import find_names
from srucli.data.tables import (
    DELIMITERS,
    DOUBLED,
    Dialect,
    Row,
    Sample,
    csv_dialect,
    has_doubled_quotes,
    read_rows,
    tsv_dialect,
)
from srucli.errors import DataError, SrucliError, UsageError
from srucli.io.console import excerpt
from srucli.io.encodings import counted, leniently
from srucli.io.json_objects import Item, read_objects

# Rows, and characters, that a guess is made from.
SAMPLE, SAMPLE_SIZE = 500, 1 << 21


Label = str | list[str] | None
T = TypeVar("T")


class Record(NamedTuple):
    """One record. A label of type str may still be several joined ones; a list is taken apart."""

    line: int
    raw: str
    text: str
    label: Label


class First(NamedTuple, Generic[T]):
    """The first items of an iterator, all of it, and whether there are no more than the first."""

    items: list[T]
    all: Iterator[T]
    whole: bool


def peek(items: Iterator[T], count: int, size: Callable[[T], int]) -> First[T]:
    """Look at so many items, or fewer where they are large. Errors are raised in their turn."""
    first: list[T] = []
    failure: SrucliError | None = None
    room, whole = SAMPLE_SIZE, False
    try:
        while len(first) < count and room > 0:
            first.append(next(items))
            room -= size(first[-1])
    except StopIteration:
        whole = True
    except SrucliError as error:
        failure = error

    def every() -> Iterator[T]:
        yield from first
        if failure:
            raise failure
        yield from items

    return First(first, every(), whole)


How = Callable[..., Layout]
Numbered = Iterator[tuple[int, str]]
Found = tuple[Layout | None, Iterator[Record]]
RowError = Callable[[Job, Row, str, str], DataError]


def is_blank(raw: str) -> bool:
    return not raw or raw.isspace()


def after_blanks(job: Job, lines: Numbered) -> Numbered:
    """Lines without those that are blank, which are counted, up to the first that is not."""
    for line, raw in lines:
        if not is_blank(raw):
            yield line, raw
            break
        job.passed["blank"] += 1
    yield from lines


def _without_blanks(job: Job, lines: Numbered) -> Numbered:
    for line, raw in lines:
        if is_blank(raw):
            job.passed["blank"] += 1
        else:
            yield line, raw


def line_size(line: tuple[int, str]) -> int:
    return len(line[1])


# An object that is empty or has a key, which a list of Postgres' has not, or an array of them.
_JSON_START = re.compile(
    r'\s*(?:\{\s*(?:"(?:[^"\\]|\\.)*"\s*(?::|$)|\}\s*(?:\{|$)|$)|\[\s*(?:\{|\]\s*$|$))'
)
_FASTTEXT = re.compile(r"[ \t]*__label__|[^\t]* __label__[^ \t]+[ \t]*$")


def seen_format(line: str) -> str:
    """The format that the first line of a file shows, where nothing says it."""
    if _FASTTEXT.match(line):
        return "fasttext"
    return "jsonl" if _JSON_START.match(line) else "tsv"


# ------------------------------------------------------------------ tables

_SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def _table(job: Job, lines: Numbered, how: How, count: int) -> Found:
    """Rows to records, after a look at the first ones."""
    sep, lines = (None, lines) if job.config.format == "tsv" else _without_sep(lines)
    job = replace(job, format="csv") if sep else job
    sample, lines, whole = peek(lines, count, line_size)
    _refuse_other_formats(job, sample)
    texts, delimiter = Sample([raw for _, raw in sample], whole), job.config.delimiter or sep
    quotes = job.config.quotes
    if "delimiter" in job.lenient and delimiter and not texts.regular(Dialect(delimiter, DOUBLED)):
        delimiter = None
    if "quotes" in job.lenient and not _suit(quotes, texts, delimiter):
        quotes = None
    if job.format == "csv":
        if delimiter and delimiter in '"\r\n':
            raise UsageError(f"--delimiter {delimiter!r}: cannot separate columns; see , ; or |")
        dialect = csv_dialect(texts, delimiter, quotes)
    else:
        dialect = tsv_dialect(
            texts,
            delimiter,
            quotes,
            only_tabs=job.config.format == "tsv" or not job.labelled,
            careful=_knows_quotes(how(""), sample, delimiter or "\t"),
        )
    rows = _filled(job, read_rows(lines, dialect, job.source))
    first, rows, whole = peek(rows, count, lambda row: len(row.raw))
    if not first:
        return None, _records(job, rows, Columns(0, None, 1, False), dialect, None, _plain_error)
    columns, refusal = choose(
        job, first, dialect.delimiter, quoted=bool(dialect.quotes), whole=whole
    )
    doubled = has_doubled_quotes(texts, dialect) and job.config.quotes is None
    hint = "cells look quoted, and --quotes takes the quotes off" if doubled else columns.hint
    layout = how(job.format, dialect=dialect, what=columns, hint=hint, used=columns.used)
    error = partial(row_error, first)  # the first row may be in another format
    return layout, _records(job, rows, columns, dialect, refusal, error)


def _suit(quotes: bool | None, sample: Sample, delimiter: str | None) -> bool:
    """Whether what quotes mean in another file may be what they mean in this one."""
    if quotes is None:
        return True
    dialect = Dialect(delimiter or max(DELIMITERS, key=lambda mark: sample.score(Dialect(mark))))
    if quotes:
        return sample.rows(replace(dialect, quotes=DOUBLED))[1]
    return not has_doubled_quotes(sample, dialect)


def _refuse_other_formats(job: Job, sample: list[tuple[int, str]]) -> None:
    """Raise DataError where a file that its ending calls a table shows that it is none."""
    seen = seen_format(sample[0][1]) if sample and job.config.format == "auto" else "tsv"
    if seen != "tsv":
        line, raw = sample[0]
        name = {"jsonl": "JSON", "fasttext": "fastText lines"}[seen]
        problem = f"{name}, but read as {job.format}: {excerpt(raw)}"
        raise job.error(line, problem, f"pass --format {seen}")


def _without_sep(lines: Numbered) -> tuple[str | None, Numbered]:
    """The delimiter that Excel writes into a first line of its own, and the other lines."""
    first, lines, _ = peek(lines, 1, line_size)
    match = _SEP.fullmatch(first[0][1].strip("\n ")) if first else None
    if match:
        next(lines)
    return match and match[1], lines


def _knows_quotes(layout: Layout, sample: list[tuple[int, str]], delimiter: str) -> bool:
    """Whether a program seems to have written this TSV: it has CRLF, UTF-16 or a header."""
    names = sample[0][1].replace('"', "").split(delimiter) if sample else []
    return layout.ends == "CRLF" or layout.encoding != "utf-8" or None not in find_names(names)


def _filled(job: Job, rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if any(cell.strip() for cell in row.cells):
            yield row
        else:
            job.passed["blank"] += 1


def _records(
    job: Job,
    rows: Iterator[Row],
    columns: Columns,
    dialect: Dialect,
    refusal: DataError | None,
    error: RowError,
) -> Iterator[Record]:
    """`error` makes that of a first row which lacks a cell."""
    if refusal:
        raise refusal
    if columns.header:
        next(rows)
    for row in rows:
        if columns.header and _repeats(row, columns.names):
            job.passed["header"] += 1
            continue
        row = _fit(job, row, columns, dialect)
        text = _cell(job, row, columns.text, "text", error)
        label: Label = None
        if columns.label is not None:
            label = _cell(job, row, columns.label, "label", error)
            label = _listed(job, row.line, label) if columns.lists else label
        error = _plain_error
        yield Record(row.line, row.raw, text, label)


def _listed(job: Job, line: int, label: str) -> Label:
    """The labels of a list, or of a cell that is none. Raises DataError for half a list."""
    several = job.config.multi_label
    if seems_cut(label, several=several):
        remedy = "write it as ['one', 'two'], or without brackets"
        raise job.error(line, f"a list of labels that is broken: {excerpt(label)}", remedy)
    items = list_items(label, several=several)
    return label if items is None else items


def _repeats(row: Row, names: Sequence[str]) -> bool:
    """Whether a row is the header again, as where two files were joined."""
    return len(row.cells) == len(names) and all(
        cell.strip("\ufeff ") == name for cell, name in zip(row.cells, names, strict=True)
    )


def _plain_error(job: Job, row: Row, problem: str, remedy: str) -> DataError:
    return job.error(row.line, problem, remedy)


def _cell(job: Job, row: Row, column: int, what: str, error: RowError) -> str:
    if column < len(row.cells):
        return row.cells[column]
    count = "1 column" if len(row.cells) == 1 else f"{len(row.cells)} columns"
    problem = f"{count} only, no {what} in column {column + 1}: {excerpt(row.raw)}"
    remedy = f"add the {what}, or take the line out"
    if len(row.cells) > 1 or not job.labelled:  # one column cannot hold both
        remedy = f"add the {what}, take the line out, or choose its column with --{what}"
    raise error(job, row, problem, remedy + _if_lines(job))


def _fit(job: Job, row: Row, columns: Columns, dialect: Dialect) -> Row:
    """Extra tabs belong to the text where the text is last; anywhere else they are a mistake."""
    cells, width = row.cells, columns.width
    if len(cells) <= width:
        return row
    spare = len(cells) - width if dialect.quotes else min(columns.spare, len(cells) - width)
    while spare > 0 and not cells[-1].strip():
        cells, spare = cells[:-1], spare - 1
    if len(cells) <= width:
        return row._replace(cells=cells)
    is_last = columns.text == width - 1
    if is_last and not dialect.quotes:
        return row._replace(cells=[*cells[: width - 1], dialect.delimiter.join(cells[width - 1 :])])
    problem = f"{len(cells)} columns, but the first row has {width}: {excerpt(row.raw)}"
    mark = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "blank"}
    remedy = f"take the {mark.get(dialect.delimiter, dialect.delimiter)} out"
    if dialect.quotes:
        remedy = 'put "..." around texts that hold the delimiter'
        quoted = '"' in row.raw
        remedy += ", or pass --no-quotes" if job.labelled and is_last and not quoted else ""
        remedy += _if_lines(job)
    raise job.error(row.line, problem, remedy)


def _if_lines(job: Job) -> str:
    """What else reads a CSV file that may hold texts alone."""
    alone = job.format == "csv" and not job.labelled
    return ", or pass --format tsv if each line is a text" if alone else ""


# ------------------------------------------------------------------ JSON


def _json(job: Job, lines: Numbered, how: How, count: int) -> Found:
    """Objects to records. Their keys are chosen as columns are."""
    style, items = read_objects(_without_blanks(job, lines), job.source)
    first, items, whole = peek(items, count, lambda item: len(item.raw))
    if not first:
        return None, _json_records(job, items, "text", None, None)
    keys = list(first[0].value)
    numbers = {what: _key(job, first[0], keys, what) for what in ("text", "label")}
    rows = [
        Row(item.line, item.raw, [_as_cell(item.value.get(key)) for key in keys]) for item in first
    ]
    config = job.config.model_copy(update={**numbers, "header": True})
    rows = [Row(first[0].line, "", keys), *rows]
    job_of_keys = replace(job, config=config, lenient=frozenset())
    found, refusal = choose(job_of_keys, rows, "\t", quoted=True, whole=whole)
    text, label = keys[found.text], None if found.label is None else keys[found.label]
    said = {"text": text} | ({} if label is None else {"label": label})
    what = ", ".join(f"{each} = key {excerpt(key)}" for each, key in said.items())
    layout = how(style, what=what, hint=found.hint, used=Names(text, label))
    return layout, _json_records(job, items, text, label, refusal, lists=found.lists)


def _key(job: Job, item: Item, keys: list[str], what: str) -> int | None:
    """The number of the key that is asked for, None where it is guessed. Raises DataError."""
    wanted, known = getattr(job.config, what), find_names(keys)
    if wanted is not None and str(wanted) in keys:
        return keys.index(str(wanted)) + 1
    unneeded, lenient = what == "label" and not job.labelled, what in job.lenient
    told = known != (None, None) or (job.config.text, job.config.label) != (None, None)
    ours = getattr(job.names, what)
    if ours in keys and (wanted is None or lenient):
        return keys.index(ours) + 1
    if unneeded or (wanted is not None and lenient):
        return None
    if wanted is None and (known[what == "label"] is not None or (told and len(keys) > 1)):
        return None
    raise _no_key(job, item, what if wanted is None else str(wanted), what)


def _no_key(job: Job, item: Item, key: str, what: str) -> DataError:
    problem = f"no key {excerpt(key)}, only {excerpt(', '.join(item.value))}"
    return job.error(item.line, problem, f"add it, or name the {what}'s key with --{what}")


def _as_cell(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _json_records(
    job: Job,
    items: Iterator[Item],
    text: str,
    label: str | None,
    refusal: DataError | None,
    *,
    lists: bool = False,
) -> Iterator[Record]:
    """lists: labels may be lists that are written into strings."""
    if refusal:
        raise refusal
    for item in items:
        line, value = item.line, item.value
        if text not in value:
            raise _no_key(job, item, text, "text")
        if label is not None and label not in value and not job.optional:
            raise _no_key(job, item, label, "label")
        if not isinstance(value[text], str):
            shown = excerpt(json.dumps(value[text], ensure_ascii=False))
            raise job.error(line, f"the text is {shown}, not a string", _remedy(value[text]))
        found = None if label is None else _json_label(job, line, value.get(label))
        if lists and isinstance(found, str) and not isinstance(found, Bare):
            found = _listed(job, line, found)
        yield Record(line, item.raw, _json_string(job, line, value[text]), found)


def _remedy(text: Any) -> str:
    if isinstance(text, dict):  # as pandas writes a table, if not told otherwise
        return "write one object for each text, as to_json(FILE, orient='records') does"
    if isinstance(text, list):
        return "join its items with blanks into one string"
    return "put it in quotes"


def _json_string(job: Job, line: int, value: str) -> str:
    """JSON's escapes can spell what no file may hold: NUL, and halves of surrogate pairs."""
    if "\0" in value:
        raise job.error(line, f"a NUL character in {excerpt(value)}", "take it out")
    try:
        errors = counted(job.config.errors)
        return leniently(job.passed, value.encode, "utf-8", errors).decode("utf-8")
    except UnicodeEncodeError:
        problem = f"half of a surrogate pair in {excerpt(value)}"
        raise job.error(line, problem, "mend the text or pass --errors replace") from None


def _json_label(job: Job, line: int, value: Any) -> Label:
    if value is None:
        return None
    if isinstance(value, list) and not any(isinstance(part, (list, dict)) for part in value):
        return ["" if part is None else _json_scalar(job, line, part) for part in value]
    return _json_scalar(job, line, value)


def _json_scalar(job: Job, line: int, value: Any) -> str:
    if isinstance(value, str):
        return _json_string(job, line, value)
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"the label is {json.dumps(value)}, as of a missing value"
        raise job.error(line, problem, "add a label or take the line out")
    if isinstance(value, (bool, int, float)):
        return Bare(json.dumps(value))
    problem = f"the label is {excerpt(json.dumps(value, ensure_ascii=False))}"
    raise job.error(line, problem, "make it a string, a number, a boolean or a list of them")


# ------------------------------------------------------------------ lines

_LABEL = re.compile(r"(?<![^ \t])__label__([^ \t]*)")
_LABELS_FIRST = re.compile(r"[ \t]*(?:__label__[^ \t]*(?:[ \t]+|$))*")
_LABEL_LATER = re.compile(r"[ \t]+__label__[^ \t]*(?![^ \t])")


def _fasttext(job: Job, lines: Numbered, how: How, _count: int) -> Found:
    """`__label__` words are labels wherever they stand, as fastText has it."""
    first, lines, _ = peek(_without_blanks(job, lines), 1, line_size)

    def records() -> Iterator[Record]:
        for line, raw in lines:
            labels = _LABEL.findall(raw)
            if job.labelled and not (labels or job.config.multi_label or job.optional):
                problem = f"no __label__ in {excerpt(raw)}"
                raise job.error(line, problem, "write __label__NAME before it")
            head = _LABELS_FIRST.match(raw)
            assert head is not None  # the pattern matches the empty string
            yield Record(line, raw, _LABEL_LATER.sub("", raw[head.end() :]), labels)

    return how("fasttext") if first else None, records()


_PAIR = re.compile(r"([^ \t]*)[ \t]+(.*)", re.DOTALL)


def _pairs(job: Job, lines: Numbered, how: How, _count: int) -> Found:
    first, lines, _ = peek(_without_blanks(job, lines), 1, line_size)

    def records() -> Iterator[Record]:
        for line, raw in lines:
            pair = _PAIR.fullmatch(raw)
            if not pair:
                problem = f"no blank or tab after the label {excerpt(raw)}"
                remedy = "write the label, a blank and the text on each line"
                raise job.error(line, problem, remedy)
            yield Record(line, raw, pair[2], pair[1])

    return how("pairs", what="a label, a blank, a text") if first else None, records()


READERS: dict[str, Callable[[Job, Numbered, How, int], Found]] = {
    "tsv": _table,
    "csv": _table,
    "jsonl": _json,
    "fasttext": _fasttext,
    "pairs": _pairs,
}
