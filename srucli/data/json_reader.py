"""The reader of JSON objects: one per line, in an array, or over several lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from srucli.data.given import LABEL, TEXT, Given
from srucli.data.guess import choose
from srucli.data.labels import UnquotedLabel
from srucli.data.layout import ColumnNames, Layout, ReadTask, comma_list, joined, listed
from srucli.data.names import find_names
from srucli.data.records import (
    InputFile,
    ReadResult,
    Record,
    peek,
    split_list,
    valid_string,
    without_blanks,
)
from srucli.data.soft import KEY, is_soft
from srucli.data.tables import DOUBLED, MAX_COLUMNS, Dialect, TableRow
from srucli.errors import DataError, closest
from srucli.io.console import excerpt
from srucli.io.json_objects import Item, read_objects


def read_json(task: ReadTask, file: InputFile, count: int) -> ReadResult:
    """Read objects, whose keys are chosen like the columns of a table. Raises DataError."""
    style, items = read_objects(without_blanks(task, file.lines), task.source)
    found, records = _read(task, items, count)
    return file.layout(style, **found) if found else None, records


def read_given(task: ReadTask, given: Given, count: int) -> ReadResult:
    """Read objects in memory in the same way. Raises DataError."""
    if not given.is_table:
        return None, _records(task, given.items(), [TEXT], LABEL)
    found, records = _read(task, given.items(), count)
    return Layout("a table", encoding="", **found) if found else None, records


def _read(
    task: ReadTask, items: Iterator[Item], count: int
) -> tuple[dict[str, Any] | None, Iterator[Record]]:
    """Return what a layout says of the keys, None without any object, and the records."""
    first, items, whole = peek(items, count)
    if not first:
        return None, _records(task, items, ["text"], None)
    keys = list(first[0].value)
    if len(keys) > MAX_COLUMNS:
        problem = f"over {MAX_COLUMNS:,} keys: {excerpt(first[0].raw)}"
        raise task.error(first[0].line, problem, "leave out those that are not needed")
    soft = _stands_for_label(task, first[0], keys)
    numbers = {
        "text": _texts(task, first[0], keys),
        "label": keys.index(KEY) + 1 if soft else _key(task, first[0], keys, "label"),
        "weight": _of_training(task, first[0], keys, "weight"),
        "group": _of_training(task, first[0], keys, "group"),
    }
    rows = [TableRow(first[0].line, "", keys)]
    for line, raw, value in first:
        rows.append(TableRow(line, raw, [_as_cell(value.get(key)) for key in keys]))
    config = task.config.model_copy(update={**numbers, "header": True})
    as_table = replace(task, config=config, inherited=frozenset())
    columns, refusal = choose(as_table, rows, Dialect("\t", DOUBLED), whole=whole)
    texts = [keys[at] for at in columns.texts]
    label = None if columns.label is None else keys[columns.label]
    what = f"text = {' + '.join(f'key {excerpt(key)}' for key in texts)}"
    what += "" if label is None else f", label = key {excerpt(label)}"
    for name, at in (("weight", columns.weight), ("group", columns.group)):
        what += "" if at is None else f", {name} = key {excerpt(keys[at])}"
    if task.training and not soft and is_soft(first[0].value.get(KEY)):
        what += f", soft labels = key '{KEY}'"
    if soft:  # of other records, the label's key is the requested one, or has a well-known name
        label = None if task.config.label is None else str(task.config.label)
    names = ColumnNames(comma_list(texts), label)
    found = {"what": what, "hint": columns.hint, "names": names}
    return found, _records(task, items, texts, label, refusal, lists=columns.lists)


def _stands_for_label(task: ReadTask, item: Item, keys: list[str]) -> bool:
    """Whether a record has probabilities and no label."""
    wanted, known = task.config.label, task.names.label in keys
    has_label = find_names(keys)[1] is not None if wanted is None else str(wanted) in keys
    return task.labelled and is_soft(item.value.get(KEY)) and not (has_label or known)


def _of_training(task: ReadTask, item: Item, keys: list[str], what: str) -> int | None:
    """Return the number of a requested key that only training needs. Raises DataError."""
    wanted = getattr(task.config, what)
    if wanted is None or str(wanted) in keys:
        return None if wanted is None else keys.index(str(wanted)) + 1
    if task.training:
        raise _no_key(task, item, str(wanted), what)
    return None


def _texts(task: ReadTask, item: Item, keys: list[str]) -> int | tuple[int, ...] | None:
    """Return the number of the text's key, or the numbers of several. Raises DataError."""
    several = listed(task.config.text, keys) or listed(task.names.text, keys)
    if len(several) < 2:
        return _key(task, item, keys, "text")
    for key in map(str, several):
        if key not in keys:
            raise _no_key(task, item, key, "text")
    return tuple(keys.index(str(key)) + 1 for key in several)


def _key(task: ReadTask, item: Item, keys: list[str], what: str) -> int | None:
    """Return the number of the requested key, None if it is to be guessed. Raises DataError."""
    wanted, known = getattr(task.config, what), find_names(keys)
    if wanted is not None and str(wanted) in keys:
        return keys.index(str(wanted)) + 1
    unneeded, inherited = what == "label" and not task.labelled, what in task.inherited
    has_clue = known != (None, None) or (task.config.text, task.config.label) != (None, None)
    in_training = getattr(task.names, what)
    if in_training in keys and (wanted is None or inherited):
        return keys.index(in_training) + 1
    if unneeded or (wanted is not None and inherited):
        return None
    if wanted is None and (known[what == "label"] is not None or (has_clue and len(keys) > 1)):
        return None
    raise _no_key(task, item, what if wanted is None else str(wanted), what)


def _no_key(task: ReadTask, item: Item, key: str, what: str) -> DataError:
    meant = closest(key, list(item.value))
    hint = f" (did you mean {excerpt(meant)}?)" if meant else ""
    problem = f"no key {excerpt(key)}, only {excerpt(', '.join(item.value))}{hint}"
    return task.error(item.line, problem, f"add it, or name the {what}'s key with --{what}")


def _as_cell(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _records(
    task: ReadTask,
    items: Iterator[Item],
    texts: Sequence[str],
    label_key: str | None,
    refusal: DataError | None = None,
    *,
    lists: bool = False,
) -> Iterator[Record]:
    """Yield the records. texts: the keys of the text. lists: labels may be lists in strings."""
    if refusal:
        raise refusal
    for item in items:
        line, raw, value = item
        text = joined([_text(task, item, key, alone=len(texts) == 1) for key in texts])
        soft, key = value.get(KEY), label_key
        if key is None and task.labelled:
            key = _well_known(tuple(value))
        if key is not None and key not in value and not (task.labels_optional or is_soft(soft)):
            raise _no_key(task, item, key, "label")
        label = None if key is None else _label(task, line, value.get(key))
        if lists and isinstance(label, str) and not isinstance(label, UnquotedLabel):
            label = split_list(task, line, label)
        wanted = (task.config.weight, task.config.group)
        weight, group = (value.get(str(name)) if task.training else None for name in wanted)
        yield Record(line, raw, valid_string(task, line, text), label, soft, weight, group)


@lru_cache(maxsize=64)
def _well_known(keys: tuple[str, ...]) -> str | None:
    """Return the key with a well-known name of labels."""
    at = find_names(keys)[1]
    return None if at is None else keys[at]


def _text(task: ReadTask, item: Item, key: str, *, alone: bool) -> str:
    """Return the string at a key. Among several, null is an empty one. Raises DataError."""
    if key not in item.value:
        raise _no_key(task, item, key, "text")
    text = item.value[key]
    if text is None and not alone:
        return ""
    if isinstance(text, str):
        return text
    shown = excerpt(json.dumps(text, ensure_ascii=False))
    raise task.error(item.line, f"the text is {shown}, not a string", _remedy(text))


def _remedy(text: Any) -> str:
    if isinstance(text, dict):  # as pandas writes a table by default
        return "write one object for each text, as to_json(FILE, orient='records') does"
    if isinstance(text, list):
        return "join its items with blanks into one string"
    return "put it in quotes"


def _label(task: ReadTask, line: int, value: Any) -> str | list[str] | None:
    if value is None:
        return None
    if isinstance(value, list) and not any(isinstance(part, (list, dict)) for part in value):
        return ["" if part is None else _scalar(task, line, part) for part in value]
    return _scalar(task, line, value)


def _scalar(task: ReadTask, line: int, value: Any) -> str:
    if isinstance(value, str):
        return valid_string(task, line, value)
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"the label is {json.dumps(value)}, as of a missing value"
        raise task.error(line, problem, "add a label or remove the line")
    if isinstance(value, (bool, int, float)):
        return UnquotedLabel(json.dumps(value))
    problem = f"the label is {excerpt(json.dumps(value, ensure_ascii=False))}"
    raise task.error(line, problem, "make it a string, a number, a boolean or a list of them")
