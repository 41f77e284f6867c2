"""Labelled texts as callers have them: files, sequences, tables of any package, lists of dicts.

Packages of tables are recognized by the methods that theirs have, and none is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from srucli.data.given import GROUP, LABEL, TEXT, WEIGHT, Given, Source
from srucli.data.soft import KEY
from srucli.errors import UsageError
from srucli.io.console import excerpt

_HALF_PAIR = re.compile("[\ud800-\udfff]")
# The keys of what is given beside texts and labels.
KEYS = {"weights": WEIGHT, "groups": GROUP}
# The methods that make a column a list: of Arrow, of pandas and Polars, of NumPy.
_TO_LIST = ("to_pylist", "to_list", "tolist")
_NUMBERS = (bool, int, float, np.generic)
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
        check_text(text, number, name)
    return found


def check_text(text: Any, number: int, name: str = "texts") -> None:
    """Raise UsageError for a value that is no text. number: its index."""
    if not isinstance(text, str):
        shown = "missing" if _is_missing(text) else excerpt(text)
        raise UsageError(f"{name}[{number}] is {shown}, not a string; remove it, or make it one")
    if _HALF_PAIR.search(text):
        raise UsageError(f"{name}[{number}] has half of a surrogate pair; correct the text")


def labels_of(labels: Any) -> list[Any]:
    """Return the labels of texts as a list. Raises UsageError, also for a matrix of 0 and 1."""
    is_matrix = len(getattr(labels, "shape", ())) > 1
    found = [] if is_matrix else values_of(labels, "labels")
    if is_matrix or _is_indicator(found):
        raise UsageError(
            "labels: a matrix does not name the labels of a text; give each text a label, or the "
            "list of its labels; srucli.sklearn.SRUClassifier takes a matrix of 0 and 1"
        )
    return found


def _is_indicator(labels: Sequence[Any]) -> bool:
    """Return whether labels are rows of a matrix of 0 and 1, not lists of different labels."""
    rows = [[*each] for each in labels if isinstance(each, (list, tuple, np.ndarray))]
    if not rows or len(rows) < len(labels) or len({*map(len, rows)}) > 1:
        return False
    numbers = all(isinstance(value, _NUMBERS) and value in (0, 1) for row in rows for value in row)
    return numbers and any(len({*row}) < len(row) for row in rows)


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
        for text, label in zip(texts, values("labels", labels_of(labels)), strict=True)
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
    names = _names_of_columns(table)
    if names is None:
        return None
    columns = {str(name): table[name] for name in names}
    if len(columns) < len(names):
        raise UsageError("two columns of the table have the same name; rename one")
    for name, feature in (getattr(table, "features", None) or {}).items():
        if classes := getattr(feature, "names", None):  # labels as numbers of Hugging Face
            numbers = values_of(columns[name], name)
            columns[name] = [classes[n] if n is not None and n >= 0 else None for n in numbers]
    return columns


def _names_of_columns(table: Any) -> Collection[Any] | None:
    """Return the names that a table of any package has for its columns; None for no table."""
    names = getattr(table, "column_names", None)
    if names is None:
        names = getattr(table, "columns", None)
    return names if hasattr(table, "__getitem__") else None


def check_column(values: Any, name: str) -> None:
    """Raise UsageError for what is not one column of values: one value, a table, a matrix."""
    if _names_of_columns(values) is not None:
        raise UsageError(f"{name}: a table, not one column; give one of its columns")
    many = isinstance(values, Iterable) or any(hasattr(values, each) for each in _TO_LIST)
    if isinstance(values, (str, bytes, Mapping)) or not many:
        raise UsageError(f"{name}: a list is needed, not {type(values).__name__}")
    if len(shape := getattr(values, "shape", ())) > 1:
        remedy = "give a list, or an array of one axis"
        raise UsageError(f"{name}: an array of the shape {shape}, not one column; {remedy}")


def values_of(values: Any, name: str) -> list[Any]:
    """Return a column or sequence of any package as a list. Raises UsageError."""
    check_column(values, name)
    for method in _TO_LIST:
        if callable(convert := getattr(values, method, None)):
            listed = convert()
            return listed if isinstance(listed, list) else [listed]
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


def is_multi_label(labels: Sequence[Any]) -> bool:
    """Return whether labels are lists of them."""
    return any(isinstance(each, (list, tuple, set, frozenset, np.ndarray)) for each in labels)
