"""How to read a file: what is requested and known (`ReadTask`), and what was found (`Layout`).

`tables.py` detects how cells are written, `guess.py` what columns contain.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from srucli.config import DataConfig
from srucli.data.tables import DOUBLED, ESCAPED, Dialect
from srucli.errors import DataError
from srucli.io.console import excerpt


class ColumnNames(NamedTuple):
    """The names of the text and label columns, or JSON keys, in a file; None if it has none."""

    text: str | None = None
    label: str | None = None


NO_NAMES = ColumnNames()
# Settings that name columns which are read only for training.
OF_TRAINING = ("weight", "group")
Column = str | int
# Of the number of a column. Python refuses to convert thousands of digits.
_MAX_DIGITS = 9


def listed(column: Column | tuple[Column, ...] | None, names: Container[str]) -> list[Column]:
    """Return the columns that a setting names, in order: one, or those of a comma list.

    The list is quoted as in CSV. A column of the whole name comes first: names may have commas.
    """
    if isinstance(column, tuple):
        return list(column)
    if column is None or isinstance(column, int) or column in names:
        return [] if column is None else [column]
    try:
        (parts,) = csv.reader([column], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        return [column]
    return list(parts)


def comma_list(names: Sequence[str]) -> str:
    """Return what `listed` reads as these names; a single one as it is."""
    if len(names) == 1:
        return names[0]
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    if any(name[:1].isspace() for name in names):  # which `listed` drops outside of quotes
        writer = csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    return line.getvalue()


def numbered(column: str) -> str | int:
    """Return a column that is written as a number as one, unless it has more digits than any."""
    return int(column) if column.isdecimal() and len(column) <= _MAX_DIGITS else column


def joined(texts: Sequence[str]) -> str:
    """Return the texts of several columns as one, without the blank ones.

    A space separates them, since normalization makes every other separator a space, or, with
    the rule identity, an unknown token.
    """
    return texts[0] if len(texts) == 1 else " ".join(text for text in texts if text.strip())


@dataclass(frozen=True)
class ReadTask:
    """How a file is to be read, and what is known about it.

    source: its name in messages. format: the name of its format. labelled: whether labels are read.
    known_labels: those of a model. inherited: settings in `config` that come from the training file
    and apply only if they fit this file. names: the columns of the training file.
    labels_optional: records may lack labels. training: weights and groups are read, and
    probabilities beside labels. counts: what is skipped or replaced, by kind.
    """

    source: str
    format: str
    config: DataConfig
    labelled: bool
    known_labels: frozenset[str] = frozenset()
    inherited: frozenset[str] = frozenset()
    names: ColumnNames = NO_NAMES
    labels_optional: bool = False
    training: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def error(self, line: int | None, problem: str, remedy: str) -> DataError:
        return DataError(self.source, line, problem, remedy)


@dataclass(frozen=True)
class Columns:
    """The text and label columns of a table, counted from 0.

    more: further columns of the text. label: None if labels are not read. width: the number of
    columns. header: whether the first row names the columns. row_names: the header has no name for
    the first column. spare: how many last columns are empty in every row. lists: label cells
    contain lists. hint: advice for the user. weight, group: these columns, if there are any.
    """

    text: int
    label: int | None
    width: int
    header: bool
    names: tuple[str, ...] = ()
    row_names: bool = False
    spare: int = 0
    lists: bool = False
    hint: str = ""
    more: tuple[int, ...] = ()
    weight: int | None = None
    group: int | None = None

    @property
    def texts(self) -> tuple[int, ...]:
        """All columns of the text, in the order in which they are joined."""
        return self.text, *self.more

    @property
    def used_names(self) -> ColumnNames:
        """The header's names of the columns that are read."""
        names = dict(enumerate(self.names)) if self.header else {}
        label = None if self.label is None else names.get(self.label)
        texts = [names.get(at) or "" for at in self.texts]
        return ColumnNames(comma_list(texts) if all(texts) else None, label or None)

    def __str__(self) -> str:
        words = ["header" if self.header else "no header"]
        texts = [f"column {self._name(at)}" for at in self.texts]
        words.append(f"text = {' + '.join(texts)}")
        others = {"label": self.label, "weight": self.weight, "group": self.group}
        words += [
            f"{what} = column {self._name(at)}" for what, at in others.items() if at is not None
        ]
        used = (*self.texts, *others.values())
        unread = [at for at in range(self.width) if at not in used]
        if unread:
            shown = ", ".join(map(self._name, unread[:3])) + ", ..." * (len(unread) > 3)
            words.append(f"not read: column{'s' * (len(unread) > 1)} {shown}")
        if self.spare:
            words.append(f"{self.spare} empty at the end")
        if self.lists:
            words.append("lists in the label cells")
        return ", ".join(words)

    def _name(self, at: int) -> str:
        name = self.names[at] if at < len(self.names) else ""
        return f"{at + 1} {excerpt(name)}" if name else f"{at + 1}"


@dataclass(frozen=True)
class Layout:
    """How a file is read. `str()` describes it in one line; `hint` is advice for the user."""

    format: str
    encoding: str
    ends: str = "LF"
    dialect: Dialect | None = None
    what: Columns | str = ""
    hint: str = ""
    names: ColumnNames = NO_NAMES

    def __str__(self) -> str:
        words = [self.format]
        if self.dialect:
            mark = {"\t": "tab", " ": "blank"}.get(self.dialect.delimiter)
            words.append(f"delimiter {mark or repr(self.dialect.delimiter)}")
        words += [str(self.what)] * bool(str(self.what))
        if self.dialect:
            quotes = {"": "no quotes", DOUBLED: "quotes", ESCAPED: r"quotes (\" inside of them)"}
            words.append(quotes[self.dialect.quotes])
            words += ["without blanks after delimiters"] * self.dialect.spaced
        words += [self.encoding] * bool(self.encoding)
        words += ["lines end at CR"] * (self.ends == "CR")
        return ", ".join(words) + (f"; {self.hint}" if self.hint else "")
