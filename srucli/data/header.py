"""Whether the first row of a table names its columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from srucli.data.cells import BELOW, Cells, is_number, label_parts
from srucli.data.labels import is_missing
from srucli.data.layout import Job, Names
from srucli.data.names import KNOWN, are_numbered, find_names, fold


def are_names(cells: Sequence[str]) -> bool:
    """Whether cells look like names of columns. R and pandas leave the first one empty."""
    named = cells[1:] if len(cells) > 1 and not cells[0] else cells
    return len(set(named)) == len(named) and all(map(_is_name, named))


def _is_name(cell: str) -> bool:
    if not 0 < len(cell) <= 40 or len(cell.split()) > 3 or is_number(cell) or cell[-1] in ".:":
        return False
    if is_missing(cell):
        return False
    return all(c in "./#%&:@*'" or unicodedata.category(c) != "Po" for c in cell)


def named_places(names: Names, cells: Sequence[str]) -> tuple[int | None, int | None]:
    """The columns of text and label that another file's header named, None where none is."""
    folded = [fold(cell) for cell in cells]
    wanted = [fold(name) if name and _is_name(name) else None for name in names]
    text, label = (folded.index(name) if name in folded else None for name in wanted)
    return text, label


def has_header(job: Job, names: Sequence[str], below: Sequence[Cells]) -> bool:
    """Whether the first row names the columns, by what it says and what is below it."""
    same = [at for at in named_places(job.names, names) if at is not None]
    if len(same) == 2:
        return True
    text, label = find_names(names)
    both = text is not None and label is not None
    if text is not None and label is not None and {fold(names[text]), fold(names[label])} <= KNOWN:
        return True
    if any(name and name in cells.all for name, cells in zip(names, below, strict=True)):
        return False
    if same and not any(label_parts(job, name) <= job.known for name in names):
        return True
    count = len(below[0].all)
    if count >= BELOW and are_numbered([name for name in names if name]):
        return not all(cells.numbers for cells in below)
    if not are_names(names):
        return False
    if both or (not names[0] and below[0].filled) or _one_is_known(names, count):
        return True
    if count < BELOW:
        return False
    if any(cells.known(job) for cells in below):
        return not any(label_parts(job, name) <= job.known for name in names)
    return any(cells.numbers for cells in below)


def _one_is_known(names: Sequence[str], rows: int) -> bool:
    """Whether there is one known name, unless it may be a text of few words."""
    single = [name if " " not in name else "" for name in names]
    known = [at for at in find_names(single) if at is not None]
    if not known or (not rows and "" in single):
        return False
    return len(names) > 1 or fold(names[0]) in KNOWN
