"""What the readers of all formats share: records, and the file that a reader takes.

A reader looks at the beginning of a file, decides on its layout, and yields records as they arrive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from srucli.config import DataConfig
from srucli.data.cells import list_items
from srucli.data.labels import UnquotedLabel, clean
from srucli.data.layout import Layout, ReadTask
from srucli.errors import SrucliError
from srucli.io.console import excerpt
from srucli.io.encodings import count_replacements, counting
from srucli.io.lines import Lines, NumberedLines
from srucli.io.streams import Source

# A layout is guessed from at most so many records and characters.
SAMPLE, MAX_PEEK = 500, 1 << 21

Label = str | list[str] | None
T = TypeVar("T", bound=tuple[Any, ...])
_SPACES, _BREAK = " \t\r\n", re.compile(r"[\t\r\n]")


class Record(NamedTuple):
    """One record, from `line` on. A label that is a str may be several joined labels.

    soft: the JSON value of the key of probabilities. weight, group: a cell, or a JSON value.
    """

    line: int
    raw: str
    text: str
    label: Label
    soft: Any = None
    weight: Any = None
    group: Any = None


class Peeked(NamedTuple, Generic[T]):
    """The first items of an iterator, an iterator over all, and whether the first are all."""

    first: list[T]
    all: Iterator[T]
    whole: bool


def peek(items: Iterator[T], count: int) -> Peeked[T]:
    """Look at the first `count` items, or fewer if they have more than MAX_PEEK characters.

    Items are (line, text, ...). An error is raised when iteration over all reaches it.
    """
    first: list[T] = []
    failure: SrucliError | None = None
    room, whole = MAX_PEEK, False
    try:
        while len(first) < count and room > 0:
            first.append(next(items))
            room -= len(first[-1][1])
    except StopIteration:
        whole = True
    except SrucliError as error:
        failure = error

    def every() -> Iterator[T]:
        yield from first
        if failure:
            raise failure
        yield from items

    return Peeked(first, every(), whole)


# The layout of a file, None if it has no record, and its records.
ReadResult = tuple[Layout | None, Iterator[Record]]


class InputFile:
    """A file that is read once: numbered `lines`, which open it when needed, or its `source`."""

    def __init__(self, source: Source, config: DataConfig, task: ReadTask) -> None:
        """`config` has the encoding; `task` counts what is skipped or replaced."""
        self.source = source
        self._origin = Lines(
            *(source, config.encoding, config.errors, config.max_ratio),
            counts=task.counts,
            sure="encoding" not in task.inherited,
        )
        self.lines: NumberedLines = self._origin

    def peek_line(self) -> tuple[int, str] | None:
        """Look at the next line; None if there is none, or it cannot be read."""
        first, self.lines, _ = peek(self.lines, 1)
        return first[0] if first else None

    def layout(self, format: str, **others: Any) -> Layout:
        """Return the layout of the file, of which a line has been read."""
        return Layout(format, encoding=self._origin.encoding, ends=self._origin.ends, **others)


# Takes the task, the file, and the number of records that it may guess the layout from.
Reader = Callable[[ReadTask, InputFile, int], ReadResult]


def is_blank(raw: str) -> bool:
    """Whether a line has nothing but white space."""
    return not raw or raw.isspace()


def after_blanks(task: ReadTask, lines: NumberedLines) -> NumberedLines:
    """Yield lines without the blank ones at the beginning, which are counted."""
    for line, raw in lines:
        if not is_blank(raw):
            yield line, raw
            break
        task.counts["blank"] += 1
    yield from lines


def without_blanks(task: ReadTask, lines: NumberedLines) -> NumberedLines:
    """Yield lines without the blank ones, which are counted."""
    for line, raw in lines:
        if is_blank(raw):
            task.counts["blank"] += 1
        else:
            yield line, raw


def check_labels(task: ReadTask, record: Record, labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels without spaces around them. Raises DataError for those that no label can be."""
    found = tuple(
        label if isinstance(label, UnquotedLabel) else label.strip(_SPACES) for label in labels
    )
    if not all(map(clean, found)):
        problem = f"an empty label among those of {excerpt(record.raw)}"
        raise task.error(record.line, problem, "name it or remove it")
    if bad := next((label for label in found if _BREAK.search(label)), None):
        problem = f"a tab or line end in the label {excerpt(bad)}"
        raise task.error(record.line, problem, "remove it from the label")
    return found


def valid_string(task: ReadTask, line: int, value: str) -> str:
    """Check for NUL and unpaired surrogates, which JSON can escape. Raises DataError."""
    if "\0" in value:
        raise task.error(line, f"a NUL character in {excerpt(value)}", "remove it")
    try:
        errors = counting(task.config.errors)
        return count_replacements(task.counts, value.encode, "utf-8", errors).decode("utf-8")
    except UnicodeEncodeError:
        problem = f"half of a surrogate pair in {excerpt(value)}"
        raise task.error(line, problem, "correct the text or pass --errors replace") from None


def split_list(task: ReadTask, line: int, label: str) -> Label:
    """Return the labels of a list in a cell, or the cell. Raises DataError for a broken list."""
    multi_label = task.config.multi_label
    items = list_items(label, multi_label=multi_label)
    if items is not None:
        return items
    if label.lstrip().startswith(("[", "{", "(", "c(") if multi_label else "["):
        remedy = "write it as ['one', 'two'], or without brackets"
        raise task.error(line, f"a list of labels that is broken: {excerpt(label)}", remedy)
    return label
