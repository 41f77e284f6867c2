"""Rows of tables: split lines into cells, and detect the delimiter and the quoting of a file.

What the cells contain is not interpreted here; `first_rows.py` does that.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import NamedTuple

from srucli.data.names import find_names
from srucli.errors import DataError
from srucli.io.console import excerpt
from srucli.io.lines import NumberedLines

# How a quote within a quoted cell is written: doubled, or, as R does, after a backslash.
DOUBLED, ESCAPED = '""', '\\"'
DELIMITERS = (",", ";", "\t", "|")
# Long enough for any real text; a quote that never closes is noticed before memory is full.
_MAX_CELL = 10_000_000
# A row with quotes may go on over any number of lines, in many cells that each close.
_MAX_ROW = 1 << 24
# As many as a sheet of Excel has. Cells take far more memory than their characters.
MAX_COLUMNS = 16_384
# So many characters of a line show whether a delimiter is unambiguous.
_SEARCHED = 1 << 17
# Rows up to this size are read with the limit that the process has set for csv.
_SHORT_ROW = 1_000
_changing_limit = Lock()


class TableRow(NamedTuple):
    """The cells of one row, the line where it starts, and its lines unchanged."""

    line: int
    raw: str
    cells: list[str]


@dataclass(frozen=True)
class Dialect:
    """How cells are separated and quoted.

    quotes: how a quote within a quoted cell is written; "" if quotes are part of the text.
    spaced: spaces after a delimiter are not part of the cell.
    """

    delimiter: str
    quotes: str = ""
    spaced: bool = False


def read_rows(lines: NumberedLines, dialect: Dialect, source: str) -> Iterator[TableRow]:
    """Yield the rows of numbered lines. Raises DataError for wrong quotes, and too large a row.

    Without quotes, the last cell of more than MAX_COLUMNS has the rest of its line.
    """
    if dialect.quotes:
        return _quoted_rows(lines, dialect, source)
    return (TableRow(line, raw, raw.split(dialect.delimiter, MAX_COLUMNS)) for line, raw in lines)


def _quoted_rows(lines: NumberedLines, dialect: Dialect, source: str) -> Iterator[TableRow]:
    pulled: list[str] = []
    start = size = 1
    long_row = ExitStack()

    def feed() -> Iterator[str]:
        nonlocal start, size
        for number, line in lines:
            if not pulled:
                start, size = number, 0
            pulled.append(line)
            before, size = size, size + len(line) + 1
            if len(pulled) == 1 and '"' not in line:
                _check_width(line.count(dialect.delimiter) + 1, line, start, source)
            if size > _MAX_ROW:
                problem = f"a row of over {_MAX_ROW:,} characters: {excerpt(pulled[0])}"
                raise DataError(source, start, problem, "close its quotes or shorten it")
            if before <= _SHORT_ROW < size:
                long_row.enter_context(_long_cells())
            yield _doubled(line, dialect) + "\n"

    reader = csv.reader(
        feed(), delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.spaced
    )
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _quote_error("\n".join(pulled), start, dialect, str(error), source) from error
        finally:
            if size > _SHORT_ROW:
                long_row.close()
        _check_width(len(cells), pulled[0], start, source)
        yield TableRow(start, "\n".join(pulled), cells)
        pulled.clear()


def _check_width(columns: int, line: str, number: int, source: str) -> None:
    if columns > MAX_COLUMNS:
        problem = f"over {MAX_COLUMNS:,} columns: {excerpt(line)}"
        remedy = "remove columns, or check what separates them"
        raise DataError(source, number, problem, remedy)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let csv read long cells. Its limit is global, so one thread at a time changes it."""
    with _changing_limit:
        before = csv.field_size_limit(_MAX_CELL)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _doubled(text: str, dialect: Dialect) -> str:
    return text.replace(ESCAPED, DOUBLED) if dialect.quotes == ESCAPED else text


def _quote_error(raw: str, start: int, dialect: Dialect, reason: str, source: str) -> DataError:
    sep, read = re.escape(dialect.delimiter), _doubled(raw, dialect)
    spaces = " *" if dialect.spaced else ""
    cell = re.compile(rf'{spaces}(?:"[^"]*(?:""[^"]*)*"|[^"{sep}\r\n][^{sep}\r\n]*|){sep}')
    at = 0
    while match := cell.match(read, at):
        at = match.end()
    shown = excerpt(raw[at:])
    if "unexpected end" in reason:
        problem = f"the quote that opens here never closes: {shown}"
        remedy = "close it, or pass --no-quotes if quotes are part of the texts"
    elif "field larger" in reason:
        problem = f"a field of over {_MAX_CELL:,} characters: {shown}"
        remedy = "close its quote or shorten it"
    elif "new-line" in reason:
        problem = f"a carriage return outside quotes: {shown}"
        remedy = 'put "..." around the field or end lines with LF'
    else:
        problem = f"text after the closing quote of a field: {shown}"
        remedy = 'write a quote inside a quoted field twice (""), or pass --no-quotes'
    return DataError(source, start + raw.count("\n", 0, at), problem, remedy)


@dataclass(frozen=True)
class Sample:
    """The first lines of a table. whole: the table has no more lines."""

    lines: Sequence[str]
    whole: bool

    def rows(self, dialect: Dialect) -> tuple[list[TableRow], bool]:
        """Return the rows in a dialect, without blank ones, and whether all could be read.

        A last row that the end of the sample may have cut is left out.
        """
        rows, sound = [], True
        try:
            for row in read_rows(iter(enumerate(self.lines, 1)), dialect, ""):
                if row.raw.strip():
                    rows.append(row)
        except DataError as error:
            sound = bool(rows) and not self.whole and "never closes" in error.problem
        return rows, sound

    def regularity(self, dialect: Dialect) -> float:
        """Return the share of rows of the most common width; 0 if that, or the first, is one."""
        rows, sound = self.rows(dialect)
        widths = Counter(len(row.cells) for row in rows)
        width, count = max(widths.items(), key=lambda item: item[1], default=(1, 0))
        if width < 2 or len(rows[0].cells) < 2:
            return 0.0
        # R leaves out the name of the first column.
        short = len(rows) > 2 and len(rows[0].cells) == width - 1
        return (count + short) / len(rows) * (1.0 if sound else 0.5)

    def lines_are_rows(self, delimiter: str) -> bool:
        """Whether each line is a row of its own, with a filled column that has no quotes."""
        plain = Dialect(delimiter)
        if self.regularity(plain) < 1.0:
            return False
        columns = zip(*(row.cells for row in self.rows(plain)[0]), strict=False)
        return any(all(cell and '"' not in cell for cell in column) for column in columns)

    def score(self, dialect: Dialect) -> tuple[float, float]:
        """Return the regularity, and the share of lines where the delimiter is unambiguous.

        Before a space it may be punctuation, and between two digits a decimal mark.
        """
        mark = re.escape(dialect.delimiter)
        clear = re.compile(rf"(?<!\d){mark}(?! )|(?<=\d){mark}(?![\d ])")
        found = sum(bool(clear.search(line, 0, _SEARCHED)) for line in self.lines)
        share = found / max(len(self.lines), 1)
        return self.regularity(dialect), share


def _quoted_dialects(delimiters: Iterable[str]) -> list[Dialect]:
    return [Dialect(mark, quotes) for quotes in (DOUBLED, ESCAPED) for mark in delimiters]


def csv_dialect(sample: Sample, delimiter: str | None, quotes: bool | None) -> Dialect:
    """Return the dialect of a CSV file. A given delimiter or quoting (not None) is kept."""
    delimiters = DELIMITERS if delimiter is None else (delimiter,)
    plain = [Dialect(mark) for mark in delimiters]
    dialects = plain if quotes is False else _quoted_dialects(delimiters)
    best = max(dialects, key=sample.score)
    spaced = replace(best, spaced=True)
    if not best.quotes or best.delimiter == " " or not _has_spaces(sample, best):
        return best
    return spaced if sample.regularity(spaced) >= sample.regularity(best) else best


def _has_spaces(sample: Sample, dialect: Dialect) -> bool:
    """Whether spaces after the delimiter precede quotes, or precede every cell."""
    rows, _ = sample.rows(dialect)
    later = [cell for row in rows for cell in row.cells[1:] if cell]
    before_quotes = any(cell[0] == " " and cell.lstrip(" ").startswith('"') for cell in later)
    return before_quotes or (bool(later) and all(cell[0] == " " for cell in later))


def tsv_dialect(
    sample: Sample, delimiter: str | None, quotes: bool | None, *, only_tabs: bool, program: bool
) -> Dialect:
    """Return the dialect of a TSV file, where quotes are text unless they can only be quoting.

    If no line has a tab, and unless `only_tabs`, other delimiters are tried, with quotes as in CSV.
    A comma, which texts also contain, counts only below a header of known names. program: a
    program that quotes seems to have written the file (it has a header, or CRLF).
    """
    if delimiter is None and not only_tabs and not any("\t" in line for line in sample.lines):
        names = header_names(sample, ",")
        marks = ";|" + "," * (None not in find_names(names))
        best = max(_quoted_dialects(marks), key=sample.score)
        if len(sample.lines) > 1 and sample.regularity(best) == 1.0:
            return best
        for dialect in _quoted_dialects(" "):
            if _all_quoted(sample, dialect):
                return dialect
    quoted = _quoted_dialects((delimiter or "\t",))
    if quotes:
        return max(quoted, key=sample.regularity)
    if quotes is None:
        for dialect in quoted:
            if _means_quotes(sample, dialect, program):
                return dialect
    return Dialect(delimiter or "\t")


def header_names(sample: Sample, delimiter: str) -> list[str]:
    """Return the cells of the first line without their quotes; of an empty file, none."""
    lines = sample.lines[:1]
    return [name for line in lines for name in line.replace('"', "").split(delimiter, MAX_COLUMNS)]


def has_quoted_cells(sample: Sample, dialect: Dialect) -> bool:
    """Whether cells look quoted in a dialect without quotes."""
    return not dialect.quotes and _means_quotes(sample, replace(dialect, quotes=DOUBLED), True)


def _means_quotes(sample: Sample, dialect: Dialect, program: bool) -> bool:
    """Whether a whole column is quoted, as R does, or the cells that need it, as pandas does."""
    if _all_quoted(sample, dialect):
        return True
    cells = [cell for row in _raw_cells(sample, dialect) for cell in row]
    quoted = [cell[1:-1] for cell in cells if _is_quoted(cell)]
    plain = [cell for cell in cells if not _is_quoted(cell)]
    if not quoted or any('"' in cell for cell in plain):
        return False
    needed = any(dialect.delimiter in cell or "\n" in cell for cell in quoted)
    if needed and sample.regularity(Dialect(dialect.delimiter)) < 1.0:
        return True
    if not program:
        return False
    doubled = any('"' in cell for cell in quoted) and not any("\n" in cell for cell in quoted)
    commas = all("," in cell for cell in quoted) and not any("," in cell for cell in plain)
    return doubled or commas


def _all_quoted(sample: Sample, dialect: Dialect) -> bool:
    """Whether all cells of some column are quoted; in a single row, all its cells."""
    rows = _raw_cells(sample, dialect)
    spanning = any("\n" in cell for row in rows for cell in row)
    if spanning and sample.lines_are_rows(dialect.delimiter):
        return False
    if len(rows) < 2:
        return bool(rows) and all(map(_is_quoted, rows[0]))
    columns = zip(*(row for row in rows if len(row) == len(rows[-1])), strict=True)
    return any(all(map(_is_quoted, column)) for column in columns)


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _raw_cells(sample: Sample, dialect: Dialect) -> list[list[str]]:
    """Return the cells of each row with their quotes; no rows if the dialect does not fit."""
    if not any('"' in line for line in sample.lines) or sample.regularity(dialect) < 1.0:
        return []
    sep = re.escape(dialect.delimiter)
    cell = re.compile(rf'("(?:[^"]|"")*"|[^{sep}]*)(?:{sep}|\Z)')
    rows = [_doubled(row.raw, dialect) for row in sample.rows(dialect)[0]]
    # The pattern matches once more, the empty string, at the end of a row.
    return [cell.findall(raw)[: None if raw.endswith(dialect.delimiter) else -1] for raw in rows]
