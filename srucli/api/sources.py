"""Labelled texts as callers have them: files, sequences, tables of any package, lists of dicts.

Packages of tables are recognized by the methods that theirs have, and none is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from srucli.data.given import GROUP, LABEL, TEXT, WEIGHT, Given, Source
from srucli.data.soft import KEY
from srucli.errors import UsageError

_HALF_PAIR = re.compile("[\ud800-\udfff]")
# The keys of what is given beside texts and labels.
KEYS = {"weights": WEIGHT, "groups": GROUP}
_PLAIN = (str, bool, int, float, type(None))


def is_file(value: Any) -> bool:
    """Return whether a value names a file; any other is texts or a table."""
    return isinstance(value, (str, os.PathLike))


def source_of(texts: Any, labels: Any = None, *, name: str = "texts", **beside: Any) -> Source:
    """Return labelled texts as the readers take them.

    texts: the name of a file, a table, a list of dicts, or with `labels` a sequence of strings.
    labels: for each text a label, a list of them (multi-label) or a dict of probabilities. name:
    what messages call the texts. beside: `weights` and `groups`, a value for each text, or None.

    Raises UsageError.
    """
    given = {key: values for key, values in beside.items() if values is not None}
    if is_file(texts):
        if labels is not None or given:
            raise UsageError(
                f"{os.fspath(texts)}: labels are given beside texts, not beside a file of them; "
                "give the texts as a list, or the file alone"
            )
        return str(os.fspath(texts))
    rows = rows_of(texts)
    if rows is not None:
        if labels is not None or given:
            raise UsageError(
                f"{name}: a table has its labels in a column; give its column of texts instead, "
                "or name its columns by text= and label="
            )
        return Given(rows, name, is_table=True)
    if labels is None:
        raise UsageError(f"{name}: no labels; give one for each text")
    return Given(_paired(texts_of(texts, name), labels, given, name), name)


def texts_of(texts: Any, name: str = "texts") -> list[str]:
    """Return a sequence of strings as a list. Raises UsageError, also for a single string."""
    if isinstance(texts, (str, bytes)):
        raise UsageError(f"{name}: a list of texts is needed, not one text; put it in brackets")
    found = values_of(texts, name)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise UsageError(
                f"{name}[{number}] is {'missing' if _is_missing(text) else repr(text)[:50]}, not "
                "a string; remove it, or make it one"
            )
        if _HALF_PAIR.search(text):
            raise UsageError(f"{name}[{number}] has half of a surrogate pair; correct the text")
    return found


def _paired(
    texts: list[str], labels: Any, beside: Mapping[str, Any], name: str
) -> list[dict[str, Any]]:
    """Return texts, labels and what is given beside them as objects. Raises UsageError."""

    def values(what: str, given: Any) -> list[Any]:
        found = values_of(given, what)
        if len(found) != len(texts):
            raise UsageError(
                f"{len(texts):,} {name}, but {len(found):,} {what}; give one for each text"
            )
        return found

    rows = [
        {TEXT: text, KEY if isinstance(label, Mapping) else LABEL: _value(label)}
        for text, label in zip(texts, values("labels", labels), strict=True)
    ]
    for what, given in beside.items():
        for row, value in zip(rows, values(what, given), strict=True):
            row[KEYS[what]] = _value(value)
    return rows


def rows_of(table: Any) -> list[dict[str, Any]] | None:
    """Return the rows of a table or a list of dicts; None for anything else. Raises UsageError."""
    columns = _columns(table)
    if columns is not None:
        values = {name: values_of(column, f"column {name}") for name, column in columns.items()}
        sizes = {name: len(column) for name, column in values.items()}
        if len({*sizes.values()}) > 1:
            shown = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            raise UsageError(f"columns of different lengths: {shown}; give one value for each text")
        rows = zip(*values.values(), strict=True)
        return [dict(zip(values, map(_value, row), strict=True)) for row in rows]
    if isinstance(table, Sequence) and table and all(isinstance(row, Mapping) for row in table):
        return [{str(key): _value(value) for key, value in row.items()} for row in table]
    return None


def _columns(table: Any) -> dict[str, Any] | None:
    """Return the columns of a table by name: of pandas, Polars, Arrow, datasets, or a dict."""
    if isinstance(table, Mapping):
        if any(_columns(part) is not None for part in table.values()):  # of Hugging Face
            raise UsageError(f"several tables ({', '.join(map(str, table))}); give one of them")
        return {str(name): column for name, column in table.items()}
    names = getattr(table, "column_names", None)
    if names is None:
        names = getattr(table, "columns", None)
    if names is None or not hasattr(table, "__getitem__"):
        return None
    columns = {str(name): table[name] for name in names}
    if len(columns) < len(names):
        raise UsageError("two columns of the table have the same name; rename one")
    for name, feature in (getattr(table, "features", None) or {}).items():
        if classes := getattr(feature, "names", None):  # labels as numbers of Hugging Face
            numbers = values_of(columns[name], name)
            columns[name] = [classes[n] if n is not None and n >= 0 else None for n in numbers]
    return columns


def values_of(values: Any, name: str) -> list[Any]:
    """Return a column or sequence of any package as a list. Raises UsageError."""
    for method in ("to_pylist", "to_list", "tolist"):  # Arrow; pandas and Polars; NumPy
        if callable(convert := getattr(values, method, None)):
            listed = convert()
            return listed if isinstance(listed, list) else [listed]
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise UsageError(f"{name}: a list is needed, not {type(values).__name__}")
    return list(values)


def _value(value: Any) -> Any:
    """Return a value as JSON has it: None if it is missing, lists for sequences and sets."""
    if isinstance(value, str):
        return str(value)
    if _is_missing(value):
        return None
    if isinstance(value, np.generic):
        return _value(value.item())
    if isinstance(value, np.ndarray):
        return _value(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _value(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_value, value), key=str)
    if isinstance(value, (list, tuple)):
        return [_value(each) for each in value]
    return value if isinstance(value, _PLAIN) else str(value)


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or what pandas has for a missing one."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def is_multi_label(labels: Any) -> bool:
    """Return whether labels are lists of them."""
    return any(
        isinstance(each, (list, tuple, set, frozenset, np.ndarray))
        for each in values_of(labels, "labels")
    )
