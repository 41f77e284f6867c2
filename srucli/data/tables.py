"""Rows of tables: lines cut into cells, and the delimiter and quotes that lines seem to have.

What the cells hold is not known here: that is `srucli/data/layout.py`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import NamedTuple

from srucli.data.names import find_names
from srucli.errors import DataError
from srucli.io.console import excerpt

# How a quote inside of quotes is written: twice, or, as R does, after a backslash.
DOUBLED, ESCAPED = '""', '\\"'
DELIMITERS = (",", ";", "\t", "|")
# Room for any real text, yet a quote that never closes is noticed before memory is full of it.
_CSV_FIELD_LIMIT = 10_000_000
# What a row may hold under any limit that a program sets for csv.
_SHORT = 1_000
_changing_limit = Lock()


class Row(NamedTuple):
    """The cells of a record, the line where it starts, and all of its lines as they stand."""

    line: int
    raw: str
    cells: list[str]


@dataclass(frozen=True)
class Dialect:
    """quotes: "" where they are part of the text, else how a quote inside of quotes is written.

    spaced: blanks after a delimiter belong to no cell.
    """

    delimiter: str
    quotes: str = ""
    spaced: bool = False


def read_rows(lines: Iterator[tuple[int, str]], dialect: Dialect, source: str) -> Iterator[Row]:
    """Rows of numbered lines. Raises DataError where quotes are wrong."""
    if dialect.quotes:
        return _quoted_rows(lines, dialect, source)
    return (Row(line, raw, raw.split(dialect.delimiter)) for line, raw in lines)


def _quoted_rows(lines: Iterator[tuple[int, str]], dialect: Dialect, source: str) -> Iterator[Row]:
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
            if before <= _SHORT < size:
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
            if size > _SHORT:
                long_row.close()
        yield Row(start, "\n".join(pulled), cells)
        pulled.clear()


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let csv read long cells. Its limit is the whole process's: one thread at a time has it."""
    with _changing_limit:
        before = csv.field_size_limit(_CSV_FIELD_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _doubled(text: str, dialect: Dialect) -> str:
    """Text with the quotes inside of cells written twice, and as long as before."""
    return text.replace(ESCAPED, DOUBLED) if dialect.quotes == ESCAPED else text


def _quote_error(raw: str, start: int, dialect: Dialect, reason: str, source: str) -> DataError:
    """Say what is wrong at the line where the field that could not be read begins."""
    sep, read = re.escape(dialect.delimiter), _doubled(raw, dialect)
    blanks = " *" if dialect.spaced else ""
    field = re.compile(rf'{blanks}(?:"[^"]*(?:""[^"]*)*"|[^"{sep}\r\n][^{sep}\r\n]*|){sep}')
    at = 0
    while match := field.match(read, at):
        at = match.end()
    shown = excerpt(raw[at:])
    if "unexpected end" in reason:
        problem = f"the quote that opens here never closes: {shown}"
        remedy = "close it, or pass --no-quotes if quotes are part of the texts"
    elif "field larger" in reason:
        problem = f"a field of over {_CSV_FIELD_LIMIT:,} characters: {shown}"
        remedy = "close its quote or shorten it"
    elif "new-line" in reason:
        problem = f"a carriage return outside quotes: {shown}"
        remedy = 'put "..." around the field or end lines with LF'
    else:
        problem = f"text after the closing quote of a field: {shown}"
        remedy = 'write a quote inside a quoted field twice (""), or pass --no-quotes'
    return DataError(source, start + raw.count("\n", 0, at), problem, remedy)


# ------------------------------------------------------------------ guesses


@dataclass(frozen=True)
class Sample:
    """The first lines of a table; whole: there are no more."""

    lines: Sequence[str]
    whole: bool

    def rows(self, dialect: Dialect) -> tuple[list[Row], bool]:
        """The rows in a dialect but blank ones, and whether it allows them all.

        A last row that the end of the sample may have cut is left out.
        """
        found, sound = [], True
        try:
            for row in read_rows(iter(enumerate(self.lines, 1)), dialect, ""):
                if row.raw.strip():
                    found.append(row)
        except DataError as error:
            sound = bool(found) and not self.whole and "never closes" in error.problem
        return found, sound

    def regular(self, dialect: Dialect) -> float:
        """The share of rows that are as wide as most are; 0 where most, or the first, are one."""
        rows, sound = self.rows(dialect)
        widths = Counter(len(row.cells) for row in rows)
        width, count = max(widths.items(), key=lambda item: item[1], default=(1, 0))
        if width < 2 or len(rows[0].cells) < 2:
            return 0.0
        # R leaves out the name of the first column.
        short = len(rows) > 2 and len(rows[0].cells) == width - 1
        return (count + short) / len(rows) * (1.0 if sound else 0.5)

    def lines_are_rows(self, delimiter: str) -> bool:
        """Whether every line is a row by itself, with a column that is filled and has no quotes."""
        plain = Dialect(delimiter)
        if self.regular(plain) < 1.0:
            return False
        columns = zip(*(row.cells for row in self.rows(plain)[0]), strict=False)
        return any(all(cell and '"' not in cell for cell in column) for column in columns)

    def score(self, dialect: Dialect) -> tuple[float, float]:
        """How regular rows are, and the share of lines where the delimiter can be nothing else.

        It may be punctuation before each blank, or decimal between two digits.
        """
        mark = re.escape(dialect.delimiter)
        clear = re.compile(rf"(?<!\d){mark}(?! )|(?<=\d){mark}(?![\d ])")
        share = sum(bool(clear.search(line)) for line in self.lines) / max(len(self.lines), 1)
        return self.regular(dialect), share


def csv_dialect(sample: Sample, delimiter: str | None, quotes: bool | None) -> Dialect:
    """The delimiter, quotes and blanks of a CSV file, where they are not given."""
    delimiters = DELIMITERS if delimiter is None else (delimiter,)
    ways = ("",) if quotes is False else (DOUBLED, ESCAPED)
    best = max((Dialect(each, way) for way in ways for each in delimiters), key=sample.score)
    spaced = replace(best, spaced=True)
    if not best.quotes or best.delimiter == " " or not _has_blanks(sample, best):
        return best
    return spaced if sample.regular(spaced) >= sample.regular(best) else best


def _has_blanks(sample: Sample, dialect: Dialect) -> bool:
    """Whether blanks after the delimiter stand before quotes, or in front of every cell."""
    rows, _ = sample.rows(dialect)
    later = [cell for row in rows for cell in row.cells[1:] if cell]
    before_quotes = any(cell[0] == " " and cell.lstrip(" ").startswith('"') for cell in later)
    return before_quotes or (bool(later) and all(cell[0] == " " for cell in later))


def tsv_dialect(
    sample: Sample, delimiter: str | None, quotes: bool | None, *, only_tabs: bool, careful: bool
) -> Dialect:
    """The same for a TSV file, where quotes mean something only if they can mean nothing else.

    Where no line has a tab and `only_tabs` does not forbid it, the delimiter may be another, with
    quotes as in CSV; a comma, which texts have too, only below a header of known names. careful:
    whoever wrote the file knows of quotes (it has a header, or CRLF).
    """
    if delimiter is None and not only_tabs and not any("\t" in line for line in sample.lines):
        names = sample.lines[0].replace('"', "").split(",") if sample.lines else []
        marks = ";|" + "," * (None not in find_names(names))
        others = [Dialect(mark, way) for way in (DOUBLED, ESCAPED) for mark in marks]
        best = max(others, key=sample.score)
        if len(sample.lines) > 1 and sample.regular(best) == 1.0:
            return best
        if by_blanks := [
            d for d in (Dialect(" ", way) for way in (DOUBLED, ESCAPED)) if _all_quoted(sample, d)
        ]:
            return by_blanks[0]
    delimiter = delimiter or "\t"
    quoted = [Dialect(delimiter, way) for way in (DOUBLED, ESCAPED)]
    if quotes:
        return max(quoted, key=sample.regular)
    seen = [] if quotes is False else [d for d in quoted if _means_quotes(sample, d, careful)]
    return seen[0] if seen else Dialect(delimiter)


def has_doubled_quotes(sample: Sample, dialect: Dialect) -> bool:
    """Whether cells look as if quotes meant something, where they are taken as text."""
    return not dialect.quotes and _means_quotes(sample, replace(dialect, quotes=DOUBLED), True)


def _means_quotes(sample: Sample, dialect: Dialect, careful: bool) -> bool:
    """Whether all of a column is quoted, as R does, or what has to be, as pandas and Excel do."""
    if _all_quoted(sample, dialect):
        return True
    cells = [cell for row in _written(sample, dialect) for cell in row]
    quoted = [cell[1:-1] for cell in cells if _is_quoted(cell)]
    plain = [cell for cell in cells if not _is_quoted(cell)]
    if not quoted or any('"' in cell for cell in plain):
        return False
    broken = any(dialect.delimiter in cell or "\n" in cell for cell in quoted)
    if broken and sample.regular(Dialect(dialect.delimiter)) < 1.0:
        return True
    if not careful:
        return False
    doubled = any('"' in cell for cell in quoted) and not any("\n" in cell for cell in quoted)
    commas = all("," in cell for cell in quoted) and not any("," in cell for cell in plain)
    return doubled or commas


def _all_quoted(sample: Sample, dialect: Dialect) -> bool:
    """Whether a column has all of its cells in quotes; of a single row, every column."""
    rows = _written(sample, dialect)
    spanning = any("\n" in cell for row in rows for cell in row)
    if spanning and sample.lines_are_rows(dialect.delimiter):
        return False
    if len(rows) < 2:
        return bool(rows) and all(map(_is_quoted, rows[0]))
    columns = zip(*(row for row in rows if len(row) == len(rows[-1])), strict=True)
    return any(all(map(_is_quoted, column)) for column in columns)


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _written(sample: Sample, dialect: Dialect) -> list[list[str]]:
    """The cells of each row as they are written, quotes and all; none if the dialect is wrong."""
    if not any('"' in line for line in sample.lines) or sample.regular(dialect) < 1.0:
        return []
    sep = re.escape(dialect.delimiter)
    cell = re.compile(rf'("(?:[^"]|"")*"|[^{sep}]*)(?:{sep}|\Z)')
    rows = [_doubled(row.raw, dialect) for row in sample.rows(dialect)[0]]
    # At the end of a row comes one more match, of nothing.
    return [cell.findall(raw)[: None if raw.endswith(dialect.delimiter) else -1] for raw in rows]
