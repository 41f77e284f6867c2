"""Which other format a row of a single column seems to be in, for its error message."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence

from srucli.data.cells import BELOW, Cells
from srucli.data.layout import Job
from srucli.data.tables import Row
from srucli.errors import DataError

_CSV_LIKE = re.compile(r'(?:"[^"]*"|[^\s,;|"]+)([,;|])|.*([,;|])[^\s,;|]+$')


def row_error(rows: Sequence[Row], job: Job, row: Row, problem: str, remedy: str) -> DataError:
    """An error in the first of these rows, which may be in another format if it has one column."""
    seems = _seems(job, row.raw, rows) if len(row.cells) == 1 else None
    if seems:
        problem, remedy = f"{problem}; it seems to be {seems[0]}", f"pass {seems[1]}"
    return job.error(row.line, problem, remedy)


def _seems(job: Job, line: str, rows: Sequence[Row]) -> tuple[str, str] | None:
    """What a line that has one column only seems to be, and the flags that read it."""
    if line.lstrip().startswith("__label__"):
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
    words = Cells(row.raw.split(maxsplit=1)[0] for row in rows)
    recur = 2 * words.distinct <= max(len(words.filled), 2 * BELOW)
    alone = all(len(row.cells) == 1 for row in rows)
    pairs = " " in line and job.format == "tsv" and alone and recur
    mark = _other_mark(job, rows)
    if mark and not (pairs and _is_in_label(mark, words.all)):
        return f"separated by {mark!r}", f"--format csv --delimiter {shlex.quote(mark)}"
    if pairs:
        return "a label, a blank and a text", "--format pairs"
    return None


def _is_in_label(mark: str, words: Sequence[str]) -> bool:
    """Whether the first words of lines are labels of two parts, as LOC:city is one of LOC's."""
    wholes: dict[str, set[str]] = {}
    for whole, _, part in (word.partition(mark) for word in words):
        wholes.setdefault(part, set()).add(whole)
    return 2 * sum(len(found) == 1 for found in wholes.values()) > len(wholes)


def _other_mark(job: Job, rows: Sequence[Row]) -> str | None:
    """A mark that each of some lines has once, with what recurs on one side, as labels do."""
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
