"""The cells of a column: whether they look like texts, labels, numbers or what a program wrote.

`docs/decisions.md` says how the thresholds were found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from srucli.data.cell_lists import list_items
from srucli.data.labels import clean
from srucli.data.layout import Job
from srucli.data.tables import Row

# So many labels or more are not nearly all different.
MANY, NEARLY_ALL = 50, 0.9
# Rows below the first one that can tell that it differs from them.
BELOW = 3


class Cells:
    """The cells of a column below the header, and what kind of values they are."""

    def __init__(self, cells: Iterable[str]) -> None:
        self.all = [cell.strip() for cell in cells]
        self.filled = [cell for cell in self.all if cell]

    @cached_property
    def distinct(self) -> int:
        """How many different ones there are."""
        return len(set(self.filled))

    @cached_property
    def length(self) -> float:
        """Mean, in characters."""
        return sum(map(len, self.filled)) / max(len(self.filled), 1)

    @cached_property
    def numbers(self) -> bool:
        """Whether all are numbers, dates or times."""
        return bool(self.filled) and all(map(is_number, self.filled))

    def differ(self, texts: Cells) -> bool:
        """Whether they are nearly all different, as no labels of these texts are.

        Few labels of many classes may be: then it tells that they are numbered, or long.
        """
        count = len(self.filled)
        if count >= MANY:
            return self.distinct >= count * NEARLY_ALL
        odd = all(any(map(str.isdigit, cell)) for cell in self.filled)
        return count == self.distinct and (odd or self.length > texts.length)

    @cached_property
    def measured(self) -> bool:
        """Whether all are dates, times or decimal numbers."""
        mark = r"\d[.:/-]" if self.numbers else r"\d:\d"  # dates may have names of months
        made = self.numbers or self.made
        return made and any(re.search(mark, cell) for cell in self.filled)

    @property
    def seldom(self) -> bool:
        """Whether less than half of them recur."""
        return 2 * self.distinct > len(self.filled) > BELOW

    @property
    def unlike_texts(self) -> tuple[bool, bool]:
        """Reasons against texts in this column, the worst first."""
        same = self.distinct < 2 and len(self.filled) > BELOW
        return self.numbers or not self.filled or same, self.made

    @cached_property
    def made(self) -> bool:
        """Whether all look made by a program: addresses, ids, dates with names of months."""
        if not all(cell.isascii() and not cell.isalpha() for cell in self.filled):
            return False
        return all(" " not in cell for cell in self.filled) or (
            len(self.filled) > BELOW and len(set(map(_shape, self.filled))) == 1
        )

    @property
    def switches(self) -> bool:
        """Whether each is 0 or 1."""
        return len(self.filled) > BELOW and {*self.filled} <= {"0", "1"}

    def known(self, job: Job) -> bool:
        """Whether half of them or more are labels that are known."""
        parts = [label_parts(job, cell) for cell in self.filled]
        return bool(parts) and 2 * sum(bool(p) and p <= job.known for p in parts) >= len(parts)


def _shape(cell: str) -> str:
    """A cell with its numbers and letters all alike; cells without digits have none."""
    return (
        re.sub(r"[a-z]", "a", re.sub(r"\d+", "0", cell.lower())) if re.search(r"\d", cell) else cell
    )


def is_number(cell: str) -> bool:
    """Whether a cell has digits and no letters, as numbers and dates have."""
    return any(c.isdigit() for c in cell) and not any(c.isalpha() for c in cell)


def label_parts(job: Job, cell: str) -> set[str]:
    """The labels in a cell."""
    several = job.config.multi_label
    parts = list_items(cell, several=several)
    if parts is None:
        parts = cell.split(job.config.label_delimiter) if several else [cell]
    return set(map(clean, parts))


def column_cells(rows: Sequence[Row], at: int) -> Cells:
    """Return the cells of one 0-based column; a row that lacks it has an empty cell."""
    return Cells(row.cells[at] if at < len(row.cells) else "" for row in rows)
