"""Records, and the file that a reader takes: what the readers of all formats share.

A reader looks at the beginning of a file, decides how all of it is read, and gives the records as
they come. The readers are in `table_reader.py`, `json_reader.py` and `line_readers.py`, the table
of them in `formats.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from srucli.config import DataConfig
from srucli.data.cell_lists import list_items, seems_cut
from srucli.data.layout import Job, Layout
from srucli.errors import SrucliError
from srucli.io.console import excerpt
from srucli.io.lines import read_lines
from srucli.io.streams import Source

# Rows, and characters, that a guess is made from.
SAMPLE, SAMPLE_SIZE = 500, 1 << 21


Label = str | list[str] | None
T = TypeVar("T")


class Record(NamedTuple):
    """One record, from `line` on. A str label may hold several joined labels; a list is split."""

    line: int
    raw: str
    text: str
    label: Label


class First(NamedTuple, Generic[T]):
    """The first items of an iterator, all of it, and whether the first are the whole."""

    items: list[T]
    all: Iterator[T]
    whole: bool


def peek(items: Iterator[T], count: int, size: Callable[[T], int]) -> First[T]:
    """Look at the first `count` items, or fewer where they are large.

    An error among them is raised where the items that are returned come to it.
    """
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


Numbered = Iterator[tuple[int, str]]
# How a file is read, None where it has no record, and its records.
Found = tuple[Layout | None, Iterator[Record]]


class InputFile:
    """A file that is read once: by its numbered `lines`, or by a reader that opens `source`.

    `lines` open the file when the first one is taken.
    """

    def __init__(self, source: Source, config: DataConfig, job: Job) -> None:
        """`config` says how bytes become lines; `job` counts what is replaced or left out."""
        self.source = source
        self._origin = read_lines(
            *(source, config.encoding, config.errors, config.max_ratio),
            passed=job.passed,
            sure=not job.other_encoding,
        )
        self.lines: Numbered = self._origin

    def peek_line(self) -> tuple[int, str] | None:
        """Look at the next line; None where there is none, or it cannot be read."""
        first, self.lines, _ = peek(self.lines, 1, line_size)
        return first[0] if first else None

    def layout(self, format: str, **others: Any) -> Layout:
        """Return the layout of a file of which a line has been read."""
        return Layout(format, encoding=self._origin.encoding, ends=self._origin.ends, **others)


# Takes what is to be read, the file, and from how many records it may guess the layout.
Reader = Callable[[Job, InputFile, int], Found]


def is_blank(raw: str) -> bool:
    """Whether a line holds nothing but white space."""
    return not raw or raw.isspace()


def after_blanks(job: Job, lines: Numbered) -> Numbered:
    """Yield lines without the blank ones at the beginning, which are counted."""
    for line, raw in lines:
        if not is_blank(raw):
            yield line, raw
            break
        job.passed["blank"] += 1
    yield from lines


def without_blanks(job: Job, lines: Numbered) -> Numbered:
    """Yield lines without blank ones, which are counted."""
    for line, raw in lines:
        if is_blank(raw):
            job.passed["blank"] += 1
        else:
            yield line, raw


def line_size(line: tuple[int, str]) -> int:
    """Return the characters of a numbered line."""
    return len(line[1])


def listed(job: Job, line: int, label: str) -> Label:
    """Return the labels of a list in a cell, or the cell. Raises DataError for half a list."""
    several = job.config.multi_label
    if seems_cut(label, several=several):
        remedy = "write it as ['one', 'two'], or without brackets"
        raise job.error(line, f"a list of labels that is broken: {excerpt(label)}", remedy)
    items = list_items(label, several=several)
    return label if items is None else items
