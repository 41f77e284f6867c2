"""The readers of lines: fastText's, pairs of a label and a text, and texts alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from srucli.data.layout import Job
from srucli.data.records import Found, InputFile, Record, line_size, peek, without_blanks
from srucli.errors import UsageError
from srucli.io.console import excerpt

_LABEL = re.compile(r"(?<![^ \t])__label__([^ \t]*)")
_LABELS_FIRST = re.compile(r"[ \t]*(?:__label__[^ \t]*(?:[ \t]+|$))*")
_LABEL_LATER = re.compile(r"[ \t]+__label__[^ \t]*(?![^ \t])")


def read_fasttext(job: Job, file: InputFile, _count: int) -> Found:
    """Read lines in which `__label__` words are labels wherever they stand, as fastText does."""
    first, lines, _ = peek(without_blanks(job, file.lines), 1, line_size)

    def records() -> Iterator[Record]:
        for line, raw in lines:
            labels = _LABEL.findall(raw)
            if job.labelled and not (labels or job.config.multi_label or job.optional):
                problem = f"no __label__ in {excerpt(raw)}"
                raise job.error(line, problem, "write __label__NAME before it")
            head = _LABELS_FIRST.match(raw)
            assert head is not None  # the pattern matches the empty string
            yield Record(line, raw, _LABEL_LATER.sub("", raw[head.end() :]), labels)

    return file.layout("fasttext") if first else None, records()


_PAIR = re.compile(r"([^ \t]*)[ \t]+(.*)", re.DOTALL)


def read_pairs(job: Job, file: InputFile, _count: int) -> Found:
    """Read lines of a label, a blank or tab, and a text. Raises DataError."""
    first, lines, _ = peek(without_blanks(job, file.lines), 1, line_size)

    def records() -> Iterator[Record]:
        for line, raw in lines:
            pair = _PAIR.fullmatch(raw)
            if not pair:
                problem = f"no blank or tab after the label {excerpt(raw)}"
                remedy = "write the label, a blank and the text on each line"
                raise job.error(line, problem, remedy)
            yield Record(line, raw, pair[2], pair[1])

    return file.layout("pairs", what="a label, a blank, a text") if first else None, records()


def read_texts(job: Job, file: InputFile, _count: int) -> Found:
    """Read lines that are texts, blank ones too. Raises UsageError where labels are wanted."""
    if job.labelled:
        raise UsageError(f"{job.source}: lines are texts without labels; pass --format auto")
    first, lines, _ = peek(file.lines, 1, line_size)
    records = (Record(line, text, text, None) for line, text in lines)
    return file.layout("plain text", what="a text on each line") if first else None, records
