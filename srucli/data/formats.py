"""The table of input formats: a new one is a reader and a row here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from srucli.data.json_reader import read_json
from srucli.data.layout import Job
from srucli.data.line_readers import read_fasttext, read_pairs, read_texts
from srucli.data.records import InputFile, Reader, after_blanks
from srucli.data.table_reader import read_table
from srucli.errors import UsageError
from srucli.io.console import excerpt
from srucli.io.streams import Source


@dataclass(frozen=True)
class Format:
    """An input format.

    `endings` are those of its files, before the ending of a compression. `settings` are those of
    `DataConfig` that mean something in it, but not in every format. `shown_by` matches a first line
    that can be of no other format, and `title` is what messages call such a file.
    """

    read: Reader
    endings: tuple[str, ...] = ()
    settings: frozenset[str] = frozenset()
    shown_by: re.Pattern[str] | None = None
    title: str = ""


_OF_OBJECTS = frozenset({"text", "label", "label_delimiter"})
_OF_TABLES = _OF_OBJECTS | {"header", "delimiter", "quotes"}

FORMATS: dict[str, Format] = {
    "tsv": Format(read_table, (".tsv",), _OF_TABLES),
    "csv": Format(read_table, (".csv",), _OF_TABLES),
    "fasttext": Format(
        read_fasttext,
        (".ft", ".fasttext"),
        shown_by=re.compile(r"[ \t]*__label__|[^\t]* __label__[^ \t]+[ \t]*$"),
        title="fastText lines",
    ),
    "jsonl": Format(
        read_json,
        (".json", ".jsonl", ".ndjson"),
        _OF_OBJECTS,
        # An object that is empty or has a key, which a list of Postgres has not, or an array.
        re.compile(
            r'\s*(?:\{\s*(?:"(?:[^"\\]|\\.)*"\s*(?::|$)|\}\s*(?:\{|$)|$)|\[\s*(?:\{|\]\s*$|$))'
        ),
        "JSON",
    ),
    "pairs": Format(read_pairs, settings=frozenset({"label_delimiter"})),
    "lines": Format(read_texts),
}
# Settings that mean something in some formats only.
OF_SOME = frozenset().union(*(row.settings for row in FORMATS.values()))


def format_named(name: str) -> str:
    """Return a name of the table, or "auto". Raises UsageError for any other."""
    if name != "auto" and name not in FORMATS:
        names = ", ".join(("auto", *FORMATS))
        raise UsageError(f"unknown format {excerpt(name)} (known: {names})")
    return name


def format_by_ending(source: Source) -> str | None:
    """Return the format that the ending of a file names, before that of its compression."""
    stem, ending = os.path.splitext(os.fspath(source).lower())
    if ending in (".gz", ".xz", ".zst"):
        ending = os.path.splitext(stem)[1]
    return next((name for name, row in FORMATS.items() if ending in row.endings), None)


def format_shown(line: str) -> str:
    """Return the format that the first line of a file shows; "tsv" where it shows none."""
    for name, row in FORMATS.items():
        if row.shown_by and row.shown_by.match(line):
            return name
    return "tsv"


def format_of(file: InputFile, job: Job) -> str:
    """Return the format of a file: as configured, or by its ending, or by its first line.

    Raises UsageError for an unknown name, DataError where ending and first line do not agree.
    """
    asked, named = format_named(job.config.format), format_by_ending(file.source)
    if asked != "auto":
        return asked
    if named and FORMATS[named].read is not read_table:
        return named
    file.lines = after_blanks(job, file.lines)
    first = file.peek_line()
    shown = format_shown(first[1]) if first else "tsv"
    if first and named and shown != "tsv":
        problem = f"{FORMATS[shown].title}, but read as {named}: {excerpt(first[1])}"
        raise job.error(first[0], problem, f"pass --format {shown}")
    return named or shown
