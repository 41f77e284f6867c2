"""Read JSON objects one at a time: one per line, in an array, or over several lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from srucli.errors import DataError
from srucli.io.console import excerpt
from srucli.io.lines import MAX_LINE, NumberedLines

Object = dict[str, Any]
_REMEDY = 'write one whole object on each line, as {"text": "...", "label": "..."}'
# The most values in an object: each takes far more memory than its characters.
MAX_VALUES = 2**18
# A line of an object over several lines takes at least as much memory as so many characters.
_MIN_LINE = 64
_VALUE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]')
_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]')
_BLANKS = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


class Item(NamedTuple):
    """An object, the line where it starts, and its JSON on one line."""

    line: int
    raw: str
    value: Object


def read_objects(lines: NumberedLines, source: str) -> tuple[str, Iterator[Item]]:
    """Return how the objects are written, and an iterator over them. Both raise DataError."""
    first = next(((line, raw) for line, raw in lines if raw.strip()), None)
    if first is None:
        return "JSON lines", iter(())
    lines, start = chain([first], lines), first[1].lstrip()
    if start.startswith("["):
        return "JSON array", _array(lines, source)
    if start.startswith("{") and _depth(start)[0] > 0:
        return "JSON objects", _objects(lines, source)
    return "JSON lines", (
        Item(line, raw, _load(raw, line, source)) for line, raw in lines if raw.strip()
    )


def _depth(text: str, depth: int = 0) -> tuple[int, int]:
    """Return how many brackets are open after a line, and where the last was closed, else -1.

    A string that its line does not close is an error for `_load`: no bracket counts as open then.
    """
    for mark in _MARK.finditer(text):
        if mark[0] == '"':
            return 0, len(text)
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark[0], 0)
        if depth == 0 and mark[0] in "}]":
            return 0, mark.end()
    return depth, -1


def _whole(
    start: str, line: int, lines: NumberedLines, source: str, *, alone: bool
) -> tuple[str, int, str]:
    """Return the object that begins in a line, the line where it ends, and the rest of that line.

    alone: each object begins at the start of a line, so that an incomplete one is noticed.
    """
    parts, size, last = [start], len(start), line
    depth, end = _depth(start)
    while end < 0:
        last, following = next(lines, (0, ""))
        if not last or (alone and following.startswith("{")):
            raise _cut(" ".join(parts), line, source)
        parts.append(following)
        size += max(len(following), _MIN_LINE)
        if size > MAX_LINE:
            most = f"{MAX_LINE >> 20} MB or {MAX_LINE // _MIN_LINE:,} lines"
            problem = f"an object of over {most}"
            raise DataError(source, line, problem, _REMEDY)
        depth, end = _depth(following, depth)
    rest = parts[-1][end:]
    parts[-1] = parts[-1][:end]
    return " ".join(part.strip() for part in parts), last, rest


def _objects(lines: NumberedLines, source: str) -> Iterator[Item]:
    for line, raw in lines:
        last, rest = line, raw.strip()
        while rest:
            start = last
            text, last, rest = _whole(rest, start, lines, source, alone=True)
            yield Item(start, text, _load(text, start, source))
            rest = rest.strip()


# The marks that may follow a mark in an array.
_NEXT = {"": "[", "[": "{]", "{": ",]", ",": "{", "]": ""}


def _array(lines: NumberedLines, source: str) -> Iterator[Item]:
    number, before = 0, ""
    for line, raw in lines:
        last, rest, at, dense = line, raw, 0, _has_many(raw)
        while (at := _BLANKS.match(rest, at).end()) < len(rest):  # type: ignore[union-attr]
            mark = rest[at]
            if mark not in _NEXT[before]:
                raise _misplaced(rest[at:], last, number, before, source)
            before = mark
            if mark != "{":
                at += 1
                continue
            number, start = number + 1, last
            if dense:
                _refuse_many(rest, start, source, at)
            try:
                value, end = _DECODER.raw_decode(rest, at)
                text, at = rest[at:end], end
            except (ValueError, RecursionError):
                text, last, rest = _whole(rest[at:], start, lines, source, alone=False)
                value, at = _load(text, start, source, f"object {number}: "), 0
            yield Item(start, text, value)
    if _NEXT[before]:
        problem = f"the JSON array is cut short after {number:,} objects"
        raise DataError(source, None, problem, "copy the file again, or end it with ]")


def _misplaced(text: str, line: int, number: int, before: str, source: str) -> DataError:
    shown = excerpt(text)
    if "{" in _NEXT[before]:
        problem, remedy = f"object {number + 1} of the array is not a JSON object: {shown}", _REMEDY
    elif before == "]":
        problem, remedy = f"something after the end of the array: {shown}", "remove it"
    else:
        problem, remedy = f"no comma after object {number} of the array: {shown}", "put one there"
    return DataError(source, line, problem, remedy)


def _cut(text: str, line: int, source: str) -> DataError:
    return DataError(source, line, f"the JSON is cut short after {excerpt(text[-40:])}", _REMEDY)


def _has_many(text: str) -> bool:
    """Whether JSON may have more than MAX_VALUES values."""
    return sum(map(text.count, ",[{")) > MAX_VALUES


def _refuse_many(text: str, line: int, source: str, at: int = 0) -> None:
    """Raise DataError if the object at a place has more than MAX_VALUES values."""
    depth = values = 0
    for mark in _VALUE.finditer(text, at):
        if mark[0] in "]}":
            depth -= 1
            if depth <= 0:
                return
        elif mark[0] in ",[{":
            depth, values = depth + (mark[0] != ","), values + 1
        if values > MAX_VALUES:
            problem = f"an object of over {MAX_VALUES:,} values: {excerpt(text[at:])}"
            raise DataError(source, line, problem, "make the record simpler")


def _load(text: str, line: int, source: str, which: str = "") -> Object:
    if _has_many(text):
        _refuse_many(text, line, source)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            raise _cut(text, line, source) from None
        near = excerpt(text[max(0, error.pos - 20) : error.pos + 20])
        problem = f"{which}invalid JSON from character {error.pos + 1} on ({error.msg}): {near}"
        raise DataError(source, line, problem, _REMEDY) from None
    except (ValueError, RecursionError) as error:
        problem = f"{which}JSON that cannot be read ({excerpt(str(error))})"
        raise DataError(source, line, problem, "make the record simpler") from None
    if isinstance(value, dict):
        return value
    raise DataError(source, line, f"not a JSON object: {excerpt(text)}", _REMEDY)
