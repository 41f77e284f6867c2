"""Guess which other format a row with a single column is in, for its error message."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence

from srucli.data.cells import BELOW, Cells
from srucli.data.layout import ReadTask
from srucli.data.tables import TableRow
from srucli.errors import DataError

_CSV_LIKE = re.compile(r'(?:"[^"]*"|[^\s,;|"]+)([,;|])|.*([,;|])[^\s,;|]+$')


def row_error(
    rows: Sequence[TableRow], task: ReadTask, row: TableRow, problem: str, remedy: str
) -> DataError:
    """Return an error for a row; if it has one column, name the format that `rows` may be in."""
    hint = _other_format(task, row.raw, rows) if rows and len(row.cells) == 1 else None
    if hint:
        problem, remedy = f"{problem}; it seems to be {hint[0]}", f"pass {hint[1]}"
    return task.error(row.line, problem, remedy)


def _other_format(task: ReadTask, line: str, rows: Sequence[TableRow]) -> tuple[str, str] | None:
    """Return a description of the format, and the flags that read it."""
    if line.lstrip().startswith("__label__"):
        return "fastText lines", "--format fasttext"
    if line.startswith(("{", "[")):
        return "JSON lines", "--format jsonl"
    if "\t" in line:
        return "separated by tabs", "--format tsv"
    match = _CSV_LIKE.match(line)
    mark = match[1] or match[2] if match else None
    if mark and (task.format, mark) != ("csv", task.config.delimiter or ","):
        name = {",": "commas", ";": "semicolons", "|": "bars"}[mark]
        flags = "--format csv" if mark == "," else f"--format csv --delimiter '{mark}'"
        return f"separated by {name}", flags
    words = Cells(row.raw.split(maxsplit=1)[0] for row in rows)
    words_repeat = 2 * words.distinct <= max(len(words.filled), 2 * BELOW)
    one_column = all(len(row.cells) == 1 for row in rows)
    pairs = " " in line and task.format == "tsv" and one_column and words_repeat
    mark = _other_delimiter(rows)
    if mark and not (pairs and _is_in_label(mark, words.all)):
        return f"separated by {mark!r}", f"--format csv --delimiter {shlex.quote(mark)}"
    return ("a label, a blank and a text", "--format pairs") if pairs else None


def _is_in_label(mark: str, words: Sequence[str]) -> bool:
    """Whether the first words are labels of two levels, like LOC:city."""
    wholes: dict[str, set[str]] = {}
    for whole, _, part in (word.partition(mark) for word in words):
        wholes.setdefault(part, set()).add(whole)
    return 2 * sum(len(found) == 1 for found in wholes.values()) > len(wholes)


def _other_delimiter(rows: Sequence[TableRow]) -> str | None:
    """Return a mark that each row has once, with values that repeat like labels on one side."""
    marks = set(rows[0].raw) - set(" ,;|\t'\"._")
    for mark in sorted(each for each in marks if unicodedata.category(each)[0] in "PS"):
        if len(rows) <= BELOW or any(row.raw.count(mark) != 1 for row in rows):
            continue
        sides = map(Cells, zip(*(row.raw.split(mark) for row in rows), strict=True))
        short, long = sorted(sides, key=lambda side: side.distinct)
        filled = len(short.filled) == len(long.filled) == len(rows)
        if filled and 1 < short.distinct < long.distinct and 2 * short.distinct <= len(rows):
            return mark
    return None
