"""The cells of a column: do they look like texts, labels, lists of labels, numbers, or IDs?

`docs/decisions.md` explains how the thresholds were chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from srucli.data.labels import clean
from srucli.data.layout import ReadTask
from srucli.data.tables import TableRow

# From this many labels on, they nearly all differ if this share of them is distinct.
MANY, NEARLY_ALL = 50, 0.9
# With more rows than this below it, the first row can be seen to differ from them.
BELOW = 3

# Lists as Python, NumPy and JSON write them; sets and tuples, Postgres' arrays, R's vectors.
_LIST = re.compile(r"\[(.*)\]", re.DOTALL)
_OTHER_LIST = re.compile(r"\{(.*)\}|(?:c|set)?\((.*)\)|character\(0()\)", re.DOTALL)
_QUOTED = r"""(?:('(?:[^'\\]|\\.)*')|("(?:[^"\\]|\\.)*")|%s)(?:\s*,\s*|%s|\Z)"""
_ITEM = re.compile(_QUOTED % (r"""([^\s,'"\[\]]+)""", r"\s+"))
# Items that are separated by commas may contain spaces.
_LONG_ITEM = re.compile(_QUOTED % (r"""([^\s,'"\[\]][^,\[\]]*?)""", r"(?!)"))


def list_items(cell: str, *, multi_label: bool = False) -> list[str] | None:
    """Return the items of a list in a cell; None if the cell is not a list.

    multi_label: also accept braces and parentheses, which a single label may have around it.
    """
    cell = cell.strip()
    match = _LIST.fullmatch(cell) or (_OTHER_LIST.fullmatch(cell) if multi_label else None)
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


def are_lists(cells: list[str], *, multi_label: bool) -> bool:
    """Whether all cells are lists, or some are lists with quoted items."""
    lists = [cell for cell in cells if list_items(cell, multi_label=multi_label) is not None]
    quoted = any(mark in cell for cell in lists for mark in "'\"")
    return bool(lists) and (quoted or len(lists) == len(cells))


def is_number(cell: str) -> bool:
    """Whether a cell has digits and no letters, like numbers and most dates."""
    return any(c.isdigit() for c in cell) and not any(c.isalpha() for c in cell)


def label_parts(task: ReadTask, cell: str) -> set[str]:
    """Return the labels in a cell."""
    multi_label = task.config.multi_label
    parts = list_items(cell, multi_label=multi_label)
    if parts is None:
        parts = cell.split(task.config.label_delimiter) if multi_label else [cell]
    return set(map(clean, parts))


class Cells:
    """The cells of a column below the header, and what kind of values they are."""

    def __init__(self, cells: Iterable[str]) -> None:
        self.all = [cell.strip() for cell in cells]
        self.filled = [cell for cell in self.all if cell]

    @cached_property
    def distinct(self) -> int:
        """The number of distinct filled cells."""
        return len(set(self.filled))

    @cached_property
    def mean_length(self) -> float:
        """The mean length of filled cells, in characters."""
        return sum(map(len, self.filled)) / max(len(self.filled), 1)

    @cached_property
    def numbers(self) -> bool:
        """Whether all are numbers, dates or times."""
        return bool(self.filled) and all(map(is_number, self.filled))

    def too_distinct(self, texts: Cells) -> bool:
        """Whether they are too distinct to be labels of these texts.

        Few labels of many classes may all differ, unless all have digits or are longer than texts.
        """
        count = len(self.filled)
        if count >= MANY:
            return self.distinct >= count * NEARLY_ALL
        numbered = all(any(map(str.isdigit, cell)) for cell in self.filled)
        return count == self.distinct and (numbered or self.mean_length > texts.mean_length)

    @cached_property
    def measurements(self) -> bool:
        """Whether all are dates, times or decimal numbers."""
        mark = r"\d[.:/-]" if self.numbers else r"\d:\d"  # dates may name the month
        generated = self.numbers or self.generated
        return generated and any(re.search(mark, cell) for cell in self.filled)

    @property
    def rarely_repeat(self) -> bool:
        """Whether more than half of them are distinct."""
        return 2 * self.distinct > len(self.filled) > BELOW

    @property
    def unlike_texts(self) -> tuple[bool, bool]:
        """Reasons why they are not texts, the strongest first."""
        same = self.distinct < 2 and len(self.filled) > BELOW
        return self.numbers or not self.filled or same, self.generated

    @cached_property
    def generated(self) -> bool:
        """Whether all look generated by a program: URLs, IDs, dates that name the month."""
        if not all(cell.isascii() and not cell.isalpha() for cell in self.filled):
            return False
        return all(" " not in cell for cell in self.filled) or (
            len(self.filled) > BELOW and len(set(map(_shape, self.filled))) == 1
        )

    def known(self, task: ReadTask) -> bool:
        """Whether at least half of them consist of known labels."""
        parts = [label_parts(task, cell) for cell in self.filled]
        known = [bool(labels) and labels <= task.known_labels for labels in parts]
        return bool(known) and 2 * sum(known) >= len(known)


def _shape(cell: str) -> str:
    """Return a cell that has digits with all numbers, and all letters, made equal."""
    if not re.search(r"\d", cell):
        return cell
    return re.sub(r"[a-z]", "a", re.sub(r"\d+", "0", cell.lower()))


def column_cells(rows: Sequence[TableRow], at: int) -> Cells:
    """Return the cells of one column, counted from 0; a row without it has an empty cell."""
    return Cells(row.cells[at] if at < len(row.cells) else "" for row in rows)
