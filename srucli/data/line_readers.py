"""The readers of lines: fastText's, pairs of a label and a text, and texts alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from srucli.data.layout import ReadTask
from srucli.data.records import InputFile, ReadResult, Record, peek, without_blanks
from srucli.errors import UsageError
from srucli.io.console import excerpt

_LABEL = re.compile(r"(?<![^ \t])__label__([^ \t]*)")
_LABELS_FIRST = re.compile(r"[ \t]*(?:__label__[^ \t]*(?:[ \t]+|$))*")
_LABEL_LATER = re.compile(r"[ \t]+__label__[^ \t]*(?![^ \t])")
_PAIR = re.compile(r"([^ \t]*)[ \t]+(.*)", re.DOTALL)


def read_fasttext(task: ReadTask, file: InputFile, _count: int) -> ReadResult:
    """Read lines whose `__label__` words are labels, wherever they are, as fastText does."""
    first, lines, _ = peek(without_blanks(task, file.lines), 1)

    def records() -> Iterator[Record]:
        for line, raw in lines:
            labels = _LABEL.findall(raw)
            if task.labelled and not (labels or task.config.multi_label or task.labels_optional):
                problem = f"no __label__ in {excerpt(raw)}"
                raise task.error(line, problem, "write __label__NAME before it")
            head = _LABELS_FIRST.match(raw)
            assert head is not None  # the pattern matches the empty string
            yield Record(line, raw, _LABEL_LATER.sub("", raw[head.end() :]), labels)

    return file.layout("fasttext") if first else None, records()


def read_pairs(task: ReadTask, file: InputFile, _count: int) -> ReadResult:
    """Read lines of a label, a space or tab, and a text. Raises DataError."""
    first, lines, _ = peek(without_blanks(task, file.lines), 1)

    def records() -> Iterator[Record]:
        for line, raw in lines:
            pair = _PAIR.fullmatch(raw)
            if not pair:
                problem = f"no blank or tab after the label {excerpt(raw)}"
                remedy = "write the label, a blank and the text on each line"
                raise task.error(line, problem, remedy)
            yield Record(line, raw, pair[2], pair[1])

    return file.layout("pairs", what="a label, a blank, a text") if first else None, records()


def read_texts(task: ReadTask, file: InputFile, _count: int) -> ReadResult:
    """Read each line, also a blank one, as a text. Raises UsageError if labels are requested."""
    if task.labelled:
        raise UsageError(f"{task.source}: lines are texts without labels; pass --format auto")
    first, lines, _ = peek(file.lines, 1)
    records = (Record(line, text, text, None) for line, text in lines)
    return file.layout("plain text", what="a text on each line") if first else None, records
