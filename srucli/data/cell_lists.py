"""Lists of labels in a cell, as other programs write them."""

from __future__ import annotations

import re

# As Python, NumPy and JSON write them; Python's sets and tuples, Postgres' arrays, R's vectors.
_LIST = re.compile(r"\[(.*)\]", re.DOTALL)
_OTHER_LIST = re.compile(r"\{(.*)\}|(?:c|set)?\((.*)\)|character\(0()\)", re.DOTALL)
_QUOTED = r"""(?:('(?:[^'\\]|\\.)*')|("(?:[^"\\]|\\.)*")|%s)(?:\s*,\s*|%s|\Z)"""
_ITEM = re.compile(_QUOTED % (r"""([^\s,'"\[\]]+)""", r"\s+"))
# Where commas are between items, blanks are in them.
_LONG_ITEM = re.compile(_QUOTED % (r"""([^\s,'"\[\]][^,\[\]]*?)""", r"(?!)"))


def list_items(cell: str, *, several: bool = False) -> list[str] | None:
    """The items of a list in brackets; None where a cell is no such list.

    several: lists in braces and parentheses, too, which a single label may have around it.
    """
    cell = cell.strip()
    match = _LIST.fullmatch(cell) or (_OTHER_LIST.fullmatch(cell) if several else None)
    if not match:
        return None
    inner = next(group for group in match.groups() if group is not None).strip()
    items = _items(inner, _LONG_ITEM)
    return _items(inner, _ITEM) if items is None or "," not in inner else items


def _items(inner: str, item: re.Pattern[str]) -> list[str] | None:
    items, at = [], 0
    while at < len(inner):
        match = item.match(inner, at)
        if not match:
            return None
        quoted = match[1] or match[2]
        items.append(re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted else match[3])
        at = match.end()
    return items


def seem_lists(cells: list[str], *, several: bool) -> bool:
    """Whether all cells are lists, or some with quotes in them, which nothing else has."""
    lists = [cell for cell in cells if list_items(cell, several=several) is not None]
    quoted = any(mark in cell for cell in lists for mark in "'\"")
    return bool(lists) and (quoted or len(lists) == len(cells))


def seems_cut(cell: str, *, several: bool) -> bool:
    """Whether a cell begins as a list and is none."""
    begins = cell.lstrip().startswith(("[", "{", "(", "c(") if several else "[")
    return begins and list_items(cell, several=several) is None
