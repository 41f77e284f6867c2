"""The reader of tables: rows of cells, with a header or without one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from srucli.data.format_hints import row_error
from srucli.data.guess import choose
from srucli.data.layout import Columns, Job, Layout
from srucli.data.names import find_names
from srucli.data.records import (
    Found,
    InputFile,
    Label,
    Numbered,
    Record,
    after_blanks,
    line_size,
    listed,
    peek,
)
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
from srucli.errors import DataError, UsageError
from srucli.io.console import excerpt

# Makes the error of a row that lacks a cell.
RowError = Callable[[Job, Row, str, str], DataError]

_SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def read_table(job: Job, file: InputFile, count: int) -> Found:
    """Read rows of cells, after a look at the first ones. Raises UsageError, DataError."""
    sep, lines = None, after_blanks(job, file.lines)
    if job.config.format != "tsv":
        sep, lines = _without_sep(lines)
    job = replace(job, format="csv") if sep else job
    sample, lines, whole = peek(lines, count, line_size)
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
            careful=_knows_quotes(file.layout(""), sample, delimiter or "\t"),
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
    layout = file.layout(job.format, dialect=dialect, what=columns, hint=hint, used=columns.used)
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
            label = listed(job, row.line, label) if columns.lists else label
        error = _plain_error
        yield Record(row.line, row.raw, text, label)


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
