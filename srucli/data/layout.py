"""How a file is read, as a value that can be shown: format, header, columns, quotes, encoding.

What decides it is in `tables.py` (how cells are written) and `guess.py` (what columns hold).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from srucli.config import DataConfig
from srucli.data.tables import DOUBLED, ESCAPED, Dialect
from srucli.errors import DataError
from srucli.io.console import escaped, excerpt


class Names(NamedTuple):
    """What a file calls its texts and labels in a header, or as keys; None where it does not."""

    text: str | None = None
    label: str | None = None


NAMELESS = Names()


@dataclass(frozen=True)
class Job:
    """What is read, and what is known of it beforehand.

    source: its name for messages; format: one of the readers; known: labels that a model has;
    lenient: settings of `config` that another file had, so that they hold where they fit this one;
    other_encoding: the encoding is that other file's; names: those of that other file; optional:
    records may lack labels; passed: counts what is passed over.
    """

    source: str
    format: str
    config: DataConfig
    labelled: bool
    known: frozenset[str] = frozenset()
    lenient: frozenset[str] = frozenset()
    other_encoding: bool = False
    names: Names = NAMELESS
    optional: bool = False
    passed: Counter[str] = field(default_factory=Counter)

    def error(self, line: int | None, problem: str, remedy: str) -> DataError:
        return DataError(self.source, line, problem, remedy)


@dataclass(frozen=True)
class Columns:
    """Where a table keeps what: 0-based columns, their number, and whether a header names them.

    label: None where none is read; row_names: the header lacks a name for the first column; spare:
    columns at the end that are empty in each row; lists: label cells hold lists; hint: what the
    label cells may be.
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

    @property
    def used(self) -> Names:
        """What the header calls the columns that are read."""
        names = dict(enumerate(self.names)) if self.header else {}
        label = None if self.label is None else names.get(self.label)
        return Names(names.get(self.text) or None, label or None)

    def __str__(self) -> str:
        used = {"text": self.text} | ({} if self.label is None else {"label": self.label})
        words = ["header" if self.header else "no header"]
        words += [f"{what} = column {self._name(at)}" for what, at in used.items()]
        others = [at for at in range(self.width) if at not in used.values()]
        if others:
            shown = ", ".join(map(self._name, others[:3])) + ", ..." * (len(others) > 3)
            words.append(f"not read: column{'s' * (len(others) > 1)} {shown}")
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
    """How a file is read, in one line for people. hint: what its quotes or labels may mean."""

    format: str
    encoding: str
    ends: str = "LF"
    dialect: Dialect | None = None
    what: Columns | str = ""
    hint: str = ""
    used: Names = NAMELESS

    @property
    def ends_at_lf_alone(self) -> bool:
        """Whether a carriage return means nothing: it does in JSON, and inside of quotes."""
        quoted = self.dialect is not None and self.dialect.quotes
        return not quoted and not self.format.startswith("JSON")

    def __str__(self) -> str:
        words = [self.format]
        if self.dialect:
            mark = {"\t": "tab", " ": "blank"}.get(self.dialect.delimiter)
            words.append(f"delimiter {mark or repr(escaped(self.dialect.delimiter))}")
        words += [str(self.what)] * bool(str(self.what))
        if self.dialect:
            quotes = {"": "no quotes", DOUBLED: "quotes", ESCAPED: r"quotes (\" inside of them)"}
            words.append(quotes[self.dialect.quotes])
            words += ["without blanks after delimiters"] * self.dialect.spaced
        words.append(self.encoding)
        words += ["lines end at CR"] * (self.ends == "CR")
        return ", ".join(words) + (f"; {self.hint}" if self.hint else "")
