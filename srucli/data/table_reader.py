"""The reader of tables: rows of cells, with a header or without one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from srucli.data import tables
from srucli.data.first_rows import row_error
from srucli.data.guess import choose
from srucli.data.layout import Columns, Layout, ReadTask, joined
from srucli.data.names import find_names
from srucli.data.records import InputFile, Label, ReadResult, Record, after_blanks, peek, split_list
from srucli.data.tables import DOUBLED, Dialect, Sample, TableRow
from srucli.errors import DataError, UsageError
from srucli.io.console import excerpt
from srucli.io.lines import NumberedLines

_SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def read_table(task: ReadTask, file: InputFile, count: int) -> ReadResult:
    """Read rows of cells, after a look at the first ones. Raises UsageError, DataError."""
    sep, lines = None, after_blanks(task, file.lines)
    if task.config.format != "tsv":
        sep, lines = _without_sep(lines)
    task = replace(task, format="csv") if sep else task
    numbered, lines, whole = peek(lines, count)
    sample, delimiter = Sample([raw for _, raw in numbered], whole), task.config.delimiter or sep
    quotes = task.config.quotes
    if "delimiter" in task.inherited and delimiter:
        delimiter = delimiter if sample.regularity(Dialect(delimiter, DOUBLED)) else None
    if "quotes" in task.inherited and not _fits(quotes, sample, delimiter):
        quotes = None
    if task.format == "csv":
        if delimiter and delimiter in '"\r\n':
            raise UsageError(f"--delimiter {delimiter!r}: cannot separate columns; see , ; or |")
        dialect = tables.csv_dialect(sample, delimiter, quotes)
    else:
        dialect = tables.tsv_dialect(
            sample,
            delimiter,
            quotes,
            only_tabs=task.config.format == "tsv" or not task.labelled,
            program=_is_by_program(file.layout(""), sample, delimiter or "\t"),
        )
    rows = _filled(task, tables.read_rows(lines, dialect, task.source))
    first, rows, whole = peek(rows, count)
    if not first:
        return None, _records(task, rows, Columns(0, None, 1, False), dialect)
    columns, refusal = choose(task, first, dialect, whole=whole)
    quoted = tables.has_quoted_cells(sample, dialect) and task.config.quotes is None
    hint = "cells look quoted, and --quotes removes the quotes" if quoted else columns.hint
    layout = file.layout(
        task.format, dialect=dialect, what=columns, hint=hint, names=columns.used_names
    )
    return layout, _records(task, rows, columns, dialect, first, refusal)


def _fits(quotes: bool | None, sample: Sample, delimiter: str | None) -> bool:
    """Whether the quoting of the training file fits this file."""
    if quotes is None:
        return True
    dialect = Dialect(
        delimiter or max(tables.DELIMITERS, key=lambda mark: sample.score(Dialect(mark)))
    )
    if quotes:
        return sample.rows(replace(dialect, quotes=DOUBLED))[1]
    return not tables.has_quoted_cells(sample, dialect)


def _without_sep(lines: NumberedLines) -> tuple[str | None, NumberedLines]:
    """Return the delimiter that Excel writes into a line before the table, and the other lines."""
    first, lines, _ = peek(lines, 1)
    match = _SEP.fullmatch(first[0][1].strip("\n ")) if first else None
    if match:
        next(lines)
    return match and match[1], lines


def _is_by_program(layout: Layout, sample: Sample, delimiter: str) -> bool:
    """Whether a program seems to have written this TSV: it has CRLF, UTF-16 or a header."""
    names = tables.header_names(sample, delimiter)
    return layout.ends == "CRLF" or layout.encoding != "utf-8" or None not in find_names(names)


def _filled(task: ReadTask, rows: Iterator[TableRow]) -> Iterator[TableRow]:
    for row in rows:
        if any(cell.strip() for cell in row.cells):
            yield row
        else:
            task.counts["blank"] += 1


def _records(
    task: ReadTask,
    rows: Iterator[TableRow],
    columns: Columns,
    dialect: Dialect,
    sample: Sequence[TableRow] = (),
    refusal: DataError | None = None,
) -> Iterator[Record]:
    """Yield the records. The first error message uses `sample` to guess another format."""
    if refusal:
        raise refusal
    if columns.header:
        next(rows)
    for row in rows:
        if columns.header and _repeats(row, columns.names):
            task.counts["header"] += 1
            continue
        row = _fit(task, row, columns, dialect)
        text = joined([_cell(task, row, at, "text", sample) for at in columns.texts])
        label: Label = None
        if columns.label is not None:
            label = _cell(task, row, columns.label, "label", sample)
            label = split_list(task, row.line, label) if columns.lists else label
        weight, group = (
            None if at is None or not task.training else _cell(task, row, at, what, sample)
            for at, what in ((columns.weight, "weight"), (columns.group, "group"))
        )
        sample = ()
        yield Record(row.line, row.raw, text, label, weight=weight, group=group)


def _repeats(row: TableRow, names: Sequence[str]) -> bool:
    """Whether a row is the header again, as in a concatenation of two files."""
    return [cell.strip("\ufeff ") for cell in row.cells] == list(names)


def _cell(task: ReadTask, row: TableRow, column: int, what: str, sample: Sequence[TableRow]) -> str:
    if column < len(row.cells):
        return row.cells[column]
    count = "1 column" if len(row.cells) == 1 else f"{len(row.cells)} columns"
    problem = f"{count} only, no {what} in column {column + 1}: {excerpt(row.raw)}"
    remedy = f"add the {what}, or remove the line"
    if len(row.cells) > 1 or not task.labelled:  # one column cannot hold both
        remedy = f"add the {what}, remove the line, or choose its column with --{what}"
    raise row_error(sample, task, row, problem, remedy + _if_lines(task))


def _fit(task: ReadTask, row: TableRow, columns: Columns, dialect: Dialect) -> TableRow:
    """Remove empty cells at the end, and join extra cells to a last text. Raises DataError."""
    cells, width = row.cells, columns.width
    if len(cells) <= width:
        return row
    spare = len(cells) - width if dialect.quotes else min(columns.spare, len(cells) - width)
    filled = len(cells)
    while filled > len(row.cells) - spare and not cells[filled - 1].strip():
        filled -= 1
    cells = cells[:filled]
    if len(cells) <= width:
        return row._replace(cells=cells)
    is_last = width - 1 in columns.texts
    if is_last and not dialect.quotes:
        return row._replace(cells=[*cells[: width - 1], dialect.delimiter.join(cells[width - 1 :])])
    problem = f"{len(cells)} columns, but the first row has {width}: {excerpt(row.raw)}"
    mark = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "blank"}
    remedy = f"remove the {mark.get(dialect.delimiter, dialect.delimiter)}"
    if dialect.quotes:
        remedy = 'put "..." around texts that hold the delimiter'
        quoted = '"' in row.raw
        remedy += ", or pass --no-quotes" if task.labelled and is_last and not quoted else ""
        remedy += _if_lines(task)
    raise task.error(row.line, problem, remedy)


def _if_lines(task: ReadTask) -> str:
    plain = task.format == "csv" and not task.labelled
    return ", or pass --format tsv if each line is a text" if plain else ""
