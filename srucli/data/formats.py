"""The table of input formats: a new format is a reader and a row here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from srucli.config import OF_COLUMNS, OF_LAYOUT, DataConfig
from srucli.data.json_reader import read_json
from srucli.data.layout import ReadTask
from srucli.data.line_readers import read_fasttext, read_pairs, read_texts
from srucli.data.records import InputFile, Reader, after_blanks
from srucli.data.table_reader import read_table
from srucli.io.console import excerpt
from srucli.io.streams import Source


@dataclass(frozen=True)
class Format:
    """An input format.

    endings: the suffixes of its files, without one for compression. settings: the settings of
    `DataConfig` that have an effect in this format but not in all. shown_by: matches a first line
    that cannot be in another format; `title` then names the format in messages.
    """

    read: Reader
    endings: tuple[str, ...] = ()
    settings: frozenset[str] = frozenset()
    shown_by: re.Pattern[str] | None = None
    title: str = ""


_OF_OBJECTS = frozenset({*OF_COLUMNS, "label_delimiter"})
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
        # An array, or an object that is empty or has a key, unlike an array of Postgres.
        re.compile(
            r'\s*(?:\{\s*(?:"(?:[^"\\]|\\.)*"\s*(?::|$)|\}\s*(?:\{|$)|$)|\[\s*(?:\{|\]\s*$|$))'
        ),
        "JSON",
    ),
    "pairs": Format(read_pairs, settings=frozenset({"label_delimiter"})),
    "lines": Format(read_texts),
}
# Settings that have no effect in some formats.
FORMAT_SPECIFIC = frozenset().union(*(row.settings for row in FORMATS.values()))


def format_by_ending(source: Source) -> str | None:
    """Return the format that the suffix of a file names, before a suffix for compression."""
    stem, ending = os.path.splitext(os.fspath(source).lower())
    if ending in (".gz", ".xz", ".zst"):
        ending = os.path.splitext(stem)[1]
    return next((name for name, row in FORMATS.items() if ending in row.endings), None)


def format_shown(line: str) -> str:
    """Return the format that the first line of a file shows; "tsv" if it shows none."""
    shown = (name for name, row in FORMATS.items() if row.shown_by and row.shown_by.match(line))
    return next(shown, "tsv")


def format_of(file: InputFile, task: ReadTask) -> str:
    """Return the format of a file: as configured, or by its suffix, or by its first line.

    Raises DataError if suffix and first line disagree.
    """
    configured, named = task.config.format, format_by_ending(file.source)
    if configured != "auto":
        return configured
    if named and FORMATS[named].read is not read_table:
        return named
    file.lines = after_blanks(task, file.lines)
    first = file.peek_line()
    shown = format_shown(first[1]) if first else "tsv"
    if first and named and shown != "tsv":
        problem = f"{FORMATS[shown].title}, but read as {named}: {excerpt(first[1])}"
        raise task.error(first[0], problem, f"pass --format {shown}")
    return named or shown


def data_config(trained: DataConfig, file: str, given: dict[str, Any]) -> DataConfig:
    """Return how `file` is read: like the run's training file, except as the flags `given` say.

    If the file's ending names another format, the run's columns do not apply.
    """
    named = format_by_ending(file)
    same = named in (None, trained.format) or (named, trained.format) == ("tsv", "csv")
    settings = trained.model_dump()
    if trained.format != "auto" and not same:
        settings = trained.model_dump(include={"multi_label", "label_delimiter", "merge_labels"})
    return type(trained)(**(settings | given))


def fresh_config(trained: DataConfig, given: dict[str, Any]) -> DataConfig:
    """Return how a file is read that has another layout than the run's training file."""
    return type(trained)(**(trained.model_dump(exclude=set(OF_LAYOUT)) | given))
