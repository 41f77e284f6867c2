"""What a table's columns hold: whether a header names them, where the text and the label are.

It is given, named by the header, or guessed from the first rows. A guess with an absurd outcome is
refused, with the flags that say what is right. `docs/decisions.md` says why the thresholds are what
they are.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

from srucli.data.cell_lists import list_items, seem_lists
from srucli.data.labels import clean, is_missing
from srucli.data.layout import Columns, Job, Names
from srucli.data.names import KNOWN, are_numbered, find_names, fold, is_language, is_other
from srucli.data.tables import Row
from srucli.errors import DataError, UsageError
from srucli.io.console import excerpt

# From so many rows on labels must not all differ, and of many labels not nearly all.
FEW, MANY, NEARLY_ALL = 10, 50, 0.9
# Labels longer than this (mean, in characters) and than the texts are texts.
LONG_LABEL = 12
# Marks longer than this (mean) are sentences, and not rivals of other labels.
MARK = 40
# Texts that are each on so many rows are labels, if the labels are more various.
REPEATED = 5
# Rows below the first one that can tell that it differs from them.
BELOW = 3
# What says which part of a set a text is in.
SPLITS = frozenset(["train", "training", "dev", "val", "valid", "validation", "test", "eval"])
# Any number would be taken at its word, and the columns up to it counted.
MAX_COLUMNS = 100_000


class Cells:
    """The cells of a column below the header, and of which kind they are."""

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
        return bool(self.filled) and all(map(_is_number, self.filled))

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


def _is_number(cell: str) -> bool:
    return any(c.isdigit() for c in cell) and not any(c.isalpha() for c in cell)


def label_parts(job: Job, cell: str) -> set[str]:
    """The labels in a cell."""
    several = job.config.multi_label
    parts = list_items(cell, several=several)
    if parts is None:
        parts = cell.split(job.config.label_delimiter) if several else [cell]
    return set(map(clean, parts))


# ------------------------------------------------------------------ the header


def _are_names(cells: Sequence[str]) -> bool:
    """Whether cells look like names of columns. R and pandas leave the first one empty."""
    named = cells[1:] if len(cells) > 1 and not cells[0] else cells
    return len(set(named)) == len(named) and all(map(_is_name, named))


def _is_name(cell: str) -> bool:
    if not 0 < len(cell) <= 40 or len(cell.split()) > 3 or _is_number(cell) or cell[-1] in ".:":
        return False
    if is_missing(cell):
        return False
    return all(c in "./#%&:@*'" or unicodedata.category(c) != "Po" for c in cell)


def _places(names: Names, cells: Sequence[str]) -> tuple[int | None, int | None]:
    """The columns of text and label that another file's header named, None where none is."""
    folded = [fold(cell) for cell in cells]
    wanted = [fold(name) if name and _is_name(name) else None for name in names]
    text, label = (folded.index(name) if name in folded else None for name in wanted)
    return text, label


def _has_header(job: Job, names: Sequence[str], below: Sequence[Cells]) -> bool:
    """Whether the first row names the columns, by what it says and what is below it."""
    same = [at for at in _places(job.names, names) if at is not None]
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
    if not _are_names(names):
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


# ------------------------------------------------------------------ the columns


def _column(value: str | int | None) -> str | int | None:
    """A column as configured: its name, or its 0-based number. Raises UsageError."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int):
        if not 1 <= value <= MAX_COLUMNS:
            raise UsageError(f"column {value}: columns are counted from 1 to {MAX_COLUMNS:,}")
        return value - 1
    return value


def _at(rows: Sequence[Row], place: int) -> Iterator[str]:
    return (row.cells[place] if place < len(row.cells) else "" for row in rows)


def _spare(cells: Sequence[str]) -> int:
    """How many cells at the end are empty, of those beyond the second."""
    return next((n for n, cell in enumerate(reversed(cells[2:])) if cell.strip()), len(cells[2:]))


Pair = tuple[int, int]  # the 0-based columns of text and label


class Table:
    """The first rows of a table: what is given of it, what its header names, what its cells hold.

    given, named: the 0-based columns of text and label, None where nothing says them; whole: there
    are no more rows.
    """

    def __init__(self, job: Job, rows: Sequence[Row], whole: bool = True) -> None:
        """Raises DataError where a column that was asked for by name is not there."""
        self.job, self.whole = job, whole
        wanted = _column(job.config.text), _column(job.config.label)
        self.spare = min(_spare(row.cells) for row in rows) if len(rows) >= BELOW else 0
        self.rows = [row._replace(cells=row.cells[: len(row.cells) - self.spare]) for row in rows]
        names = [cell.strip() for cell in self.rows[0].cells]
        widths = {len(row.cells) for row in self.rows[1:]}
        first = Cells(_at(self.rows[1:], 0))
        # R writes row names, which all differ, and no name for them. Texts are none.
        self.row_names = 1 < first.distinct == len(rows) - 1 and first.made and _are_names(names)
        ended = not any(row.cells[-1].strip() for row in self.rows[1:])  # by a delimiter
        self.row_names = self.row_names and widths == {len(names) + 1} and not ended
        names = [""] * self.row_names + names
        self.width, header = len(names), job.config.header
        if header is None:
            by_name = any(
                isinstance(each, str) and (what not in job.lenient or each in names)
                for each, what in zip(wanted, Names._fields, strict=True)
            )
            header = by_name or _has_header(job, names, self._cut(1))
        self.header, self.names = header, names if header else []
        self.columns = self._cut(int(header))
        self.named = self._named()
        self.given = self._locate(wanted[0], "text"), self._locate(wanted[1], "label")

    def _cut(self, start: int) -> list[Cells]:
        return [Cells(_at(self.rows[start:], place)) for place in range(self.width)]

    def _named(self) -> tuple[int | None, int | None]:
        """The columns that the header names, as that other file did or by names that are known."""
        (text, label), ours = find_names(self.names), _places(self.job.names, self.names)
        text, label = (None if at in ours else at for at in (text, label))
        self.language = ours[1] is None and label is not None and is_language(self.names[label])
        if self.language and not self._is_about_languages(label or 0):
            label = None
        return text if ours[0] is None else ours[0], label if ours[1] is None else ours[1]

    def _locate(self, wanted: str | int | None, what: str) -> int | None:
        lenient = what in self.job.lenient
        if wanted is None:
            return None
        if isinstance(wanted, int):
            return wanted if not lenient or self._fits(wanted, what) else None
        if wanted in self.names:
            return self.names.index(wanted)
        unneeded = what == "label" and not self.job.labelled
        if unneeded or (lenient and (not self.job.labelled or None not in self.named)):
            return None
        row = self.rows[0]
        problem = f"no column {excerpt(wanted)} in the header {excerpt(row.raw)}"
        raise row_error(self.rows, self.job, row, problem, f"name the {what} column with --{what}")

    def _fits(self, place: int, what: str) -> bool:
        """Whether a column may hold in this file what it held in another one."""
        if place >= self.width or (what == "label" and not self.job.labelled):
            return False
        if place in self.named or self.named[what == "label"] is not None:
            return self.named[what == "label"] == place
        if what == "label":
            return self.known in (None, place)
        return place != self.known and (
            not self._is_odd(place) or all(map(self._is_odd, range(self.width)))
        )

    def _is_odd(self, place: int) -> bool:
        """Whether a column holds what no texts are."""
        cells = self.cells(place)
        return cells.numbers or (len(self.rows) > BELOW and any(cells.unlike_texts))

    @property
    def by_place(self) -> bool:
        """Whether nothing tells the columns: of two, the first then has the label."""
        return not self.header and self.given == (None, None)

    @property
    def even(self) -> bool:
        """Whether all rows have three columns or more, as no texts with tabs in them would."""
        widths = {len(row.cells) for row in self.rows}
        return len(self.rows) >= FEW and widths == {self.width} and self.width > 2

    @property
    def lacking(self) -> str:
        """What is said where the first row lacks columns that all the others have."""
        widths = {len(row.cells) - _spare(row.cells) for row in self.rows[1:]}
        if self.row_names or len(self.rows) <= BELOW or len(widths) > 1:
            return ""
        (width,) = widths
        said = f"all rows have {width} columns, but the first one has {self.width}"
        return said if width > self.width else ""

    def pairs(self, text: int | None = None, label: int | None = None) -> list[Pair]:
        """Columns that text and label may be in, the likeliest first."""
        every: Sequence[int] = range(self.width)
        texts, labels = (
            ([1, 0], [0, 1])
            if self.width <= 2
            else (
                sorted(every, key=self._unlike_texts),
                sorted(every, key=self._unlike_labels),
            )
        )
        chosen = [text] if text is not None else texts, [label] if label is not None else labels
        return [(text, label) for text, label in product(*chosen) if text != label]

    def _unlike_texts(self, at: int) -> tuple[object, ...]:
        """Reasons against texts in a column, the worst first."""
        cells = self.cells(at)
        return *cells.unlike_texts, self._is_other(at), -cells.length

    def _unlike_labels(self, at: int) -> tuple[bool, ...]:
        """The same against labels."""
        cells = self.cells(at)
        one = cells.distinct < 2
        return not cells.filled, cells.seldom, cells.measured, self._is_other(at), one

    def _is_about_languages(self, at: int) -> bool:
        """Whether a column of languages may be that of the labels."""
        varied = self.width < 3 or self.cells(at).distinct > 1
        return varied and self.known in (None, at)

    def _is_other(self, at: int) -> bool:
        """Whether a column says something else of the texts, by its name or its cells."""
        named = at < len(self.names) and is_other(self.names[at])
        return named or SPLITS.issuperset(map(str.lower, self.cells(at).filled))

    def likely(self, open_ended: bool) -> list[Pair]:
        """Those pairs that what is told, or else the place, allows. Raises UsageError for none."""
        text, label = (
            a if a is not None else b for a, b in zip(self.given, self.named, strict=True)
        )
        if not self.job.labelled:
            if text is not None or self.width == 1:
                return [(text or 0, -1)]
            pairs = self.pairs(None, self.known if label is None else label)
            pairs = [(1, 0), (0, 1)] if open_ended else pairs
            enough = len(self.rows) >= BELOW
            unfit = _column(self.job.config.text)  # else it were given
            left = [p for p in pairs if not (enough and self.cells(p[0]).numbers) and p[0] != unfit]
            return left or pairs
        if self.by_place and (open_ended or self.width <= 2):
            return [(0, 1)] if self.known == 1 and self.width == 2 else [(1, 0)]
        if pairs := self.pairs(text, label):
            return pairs
        raise UsageError(
            f"text and label are both column {(text or 0) + 1}; see --text and --label"
        )

    @cached_property
    def known(self) -> int | None:
        """The column of labels that are known, if there is one."""
        return next((at for at, cells in enumerate(self.columns) if cells.known(self.job)), None)

    def cells(self, at: int) -> Cells:
        """The cells of a column, none where there is no such column."""
        return self.columns[at] if at < len(self.columns) else Cells(())

    def absurd(self, text: Cells, label: Cells) -> str:
        """Why no classifier can be meant by these labels; nothing if one can."""
        if not text.filled or label.known(self.job):
            return ""
        elsewhere = "not those of the model, which are in another column"
        if self.given[1] is not None and "label" not in self.job.lenient:
            return elsewhere if self.known is not None else ""
        rows, reasons = min(len(text.filled), len(label.filled)), []
        label = Cells(part for cell in label.filled for part in label_parts(self.job, cell))
        rows = min(rows, len(label.filled))
        if rows >= FEW and label.differ(text):
            count = len(label.filled)
            reasons.append(f"nearly all different ({label.distinct} among {count})")
        if None not in self.named:  # then they are what the header says
            return " and ".join(reasons)
        longer = label.length > max(LONG_LABEL, text.length)
        if longer and rows >= BELOW and (text.numbers or label.distinct >= text.distinct):
            reasons.append("longer than the texts")
        elif rows >= FEW and text.distinct * REPEATED <= rows and label.distinct > text.distinct:
            reasons.append("more various than the texts")
        if self.known is not None:
            reasons.append(elsewhere)
        return " and ".join(reasons)

    def switches(self, label: int) -> list[int]:
        """Columns of 0 and 1, each for a label, if one of several is guessed to be the label."""
        told = not self.header or self.given[1] is not None or self.named[1] is not None
        if told or self.cells(label).known(self.job):
            return []
        found = [at for at, cells in enumerate(self.columns) if cells.switches]
        return found if label in found and len(found) > 1 else []

    def rivals(self, pair: Pair) -> list[int]:
        """Columns that hold labels as likely as the one that is guessed, which is among them."""
        label = pair[1]
        told = self.named[1] is not None and not self.language
        if told or self.given[1] is not None or self.known is not None or self.width < 3:
            return []
        found = [at for at in range(self.width) if at == label or self._is_rival(at, pair)]
        return found if len(found) > 1 else []

    def _is_rival(self, at: int, pair: Pair) -> bool:
        """Whether a column is as likely as that of the label, by its cells and its name.

        Of a file that goes on, a column may have one label first, as where labels are sorted.
        """
        text, label = pair
        cells, filled = self.cells(at), len(self.cells(at).filled)
        if at == text or cells.measured or filled <= BELOW or cells.length > MARK:
            return False
        if self._is_other(label) and not self._is_other(at) and cells.distinct > 1:
            return not cells.seldom
        if cells.distinct < 2:
            may_change = not self.whole and filled == len(cells.all) and not self._is_other(at)
            return may_change and (self.header or at < label) and self.cells(label).distinct > 1
        return 2 * cells.distinct < filled and self._is_other(at) <= self._is_other(label)

    def lists(self, label: int) -> bool:
        """Whether the labels are in lists."""
        several = self.job.config.multi_label
        return seem_lists(self.cells(label).filled, several=several)

    def joined_otherwise(self, label: int) -> str:
        """What is said where the labels in a cell seem to be joined by another mark."""
        mark, cells = self.job.config.label_delimiter, self.cells(label)
        if not self.job.config.multi_label or self.lists(label) or cells.known(self.job):
            return ""
        for other in ";|,":
            count = sum(other in cell for cell in cells.filled)
            if 2 * count >= len(cells.filled) > BELOW and not any(mark in c for c in cells.filled):
                flag = f"--label-delimiter {shlex.quote(other)}"
                return f"labels look joined by {other!r}, and {flag} takes them apart"
        return ""

    def name(self, at: int) -> str:
        """A column for people: its name, or its number."""
        return excerpt(self.names[at]) if self.names and self.names[at] else f"column {at + 1}"

    def flags(self, pair: Pair) -> str:
        """What asks for columns of text and label, by number, or by key in JSON."""
        text, label = (
            shlex.quote(self.names[at]) if self.job.format == "jsonl" else at + 1 for at in pair
        )
        return f"--label {label} --text {text}" + " --header" * self.may_be_header(*pair)

    def may_be_header(self, text: int, label: int) -> bool:
        """Whether the label of the first row is on no other, while those of the others recur.

        Then it may be the name of a column, if it looks like one and its text is a short one.
        """
        first, others = [cell.strip() for cell in self.rows[0].cells], self.rows[1:]
        told = self.header or self.job.config.header is not None
        if told or len(others) <= BELOW or max(text, label) >= len(first):
            return False
        labels, texts = Cells(_at(others, label)), Cells(_at(others, text))
        once = sum(count == 1 for count in Counter(labels.filled).values())
        words = first[text].split()
        return (
            _are_names([first[label], first[text]])
            and first[label] not in labels.filled
            and once <= len(others) / MANY
            and (len(words) == 1 or first[text].istitle())
            and all(" " in each or len(each) > 4 * len(first[text]) for each in texts.filled)
        )


def choose(
    job: Job, rows: Sequence[Row], delimiter: str, *, quoted: bool, whole: bool = True
) -> tuple[Columns, DataError | None]:
    """The columns of a table by its first rows, and why it is refused where that is absurd.

    Raises DataError for a name that no column has, UsageError for text and label in one column.
    """
    table = Table(job, rows, whole)
    # Without names and quotes a line is the label, a delimiter, and the text as it stands.
    open_ended = table.by_place and not quoted
    if not job.labelled:
        open_ended = open_ended and table.width > 1 and table.known in (None, 0) and not table.even
    rest = Cells(delimiter.join(row.cells[1:]) for row in table.rows)

    def absurd(pair: Pair) -> str:
        text, label = map(table.cells, pair)
        return table.absurd(rest if open_ended and pair == (1, 0) else text, label)

    likely = table.likely(open_ended)
    text, label = chosen = next((pair for pair in likely if not absurd(pair)), likely[0])
    width = 2 if open_ended else table.width
    if not quoted and not table.header and not table.by_place:
        width = max(text + 1, label + 1, min(len(row.cells) for row in table.rows))
    found = Columns(
        text=text,
        label=label if job.labelled else None,
        width=width,
        header=table.header,
        names=tuple(table.names),
        row_names=table.row_names,
        spare=table.spare,
        lists=job.labelled and table.lists(label),
        hint=table.joined_otherwise(label) if job.labelled else "",
    )
    if not job.labelled:
        return found, None
    if refusal := _refusal(table, chosen, absurd, open_ended):
        return found, job.error(table.rows[0].line, *refusal)
    if table.may_be_header(*chosen):
        if None not in table.given or table.cells(label).known(job):
            config = job.config.model_copy(update={"header": True})
            again = replace(job, config=config)
            return choose(again, rows, delimiter, quoted=quoted, whole=whole)
        name = excerpt(table.rows[0].cells[label])
        problem = f"the first row looks like a header: its label {name} is on no other row"
        remedy = "pass --header, or --no-header if it is no name"
        return found, job.error(table.rows[0].line, problem, remedy)
    return found, None


def _refusal(
    table: Table, chosen: Pair, absurd: Callable[[Pair], str], open_ended: bool
) -> tuple[str, str] | None:
    """What is wrong with the columns that are chosen, and the flags that help."""
    text, label = chosen
    text_is_last = open_ended or text == table.width - 1  # it may be what has the delimiter
    if (table.width == 1 or not text_is_last) and (lacking := table.lacking):
        return lacking, "add the others, or take the line out"
    if reason := absurd(chosen):
        return f"the labels in column {label + 1} are {reason}", _others(table, chosen, absurd)
    if open_ended and table.even and not table.cells(label).known(table.job):
        said = f"all of the first rows have {table.width} columns, and nothing says what they are"
        return said, _others(table, chosen, absurd)
    if several := table.switches(label):
        names = excerpt(", ".join(table.names[at] for at in several))
        said = f"the columns {names} hold 0 and 1, as if each were a label"
        pass_these = f"pass {table.flags(chosen)} for the first of them"
        return said, f"write labels into one column, or {pass_these}"
    if not open_ended and (rivals := table.rivals(chosen)):
        said = f"nothing says which column holds the labels: {', '.join(map(table.name, rivals))}"
        ways = [f"{table.flags((text, at))} for {table.name(at)}" for at in rivals]
        return said, f"pass {', or '.join(ways)}"
    return None


def _others(table: Table, chosen: Pair, absurd: Callable[[Pair], str]) -> str:
    """The flags for other columns, if there are likelier ones, and for those that are chosen."""
    texts = (pair for pair in table.pairs() if not table.cells(pair[0]).numbers)
    better = next((pair for pair in texts if not absurd(pair)), chosen)
    remedy = "name others (--label, --text)"
    if better != chosen:
        remedy = f"pass {table.flags(better)}"
    if table.given[1] is None:
        remedy += f", or {table.flags(chosen)} if they are right"
    return remedy


# ------------------------------------------------------------------ what a line may be instead

_CSV_LIKE = re.compile(r'(?:"[^"]*"|[^\s,;|"]+)([,;|])|.*([,;|])[^\s,;|]+$')


def row_error(rows: Sequence[Row], job: Job, row: Row, problem: str, remedy: str) -> DataError:
    """An error in the first of these rows, which may be in another format if it has one column."""
    seems = _seems(job, row.raw, rows) if len(row.cells) == 1 else None
    if seems:
        problem, remedy = f"{problem}; it seems to be {seems[0]}", f"pass {seems[1]}"
    return job.error(row.line, problem, remedy)


def _seems(job: Job, line: str, rows: Sequence[Row]) -> tuple[str, str] | None:
    """What a line that has one column only seems to be, and the flags that read it."""
    if line.lstrip().startswith("__label__"):
        return "fastText lines", "--format fasttext"
    if line.startswith(("{", "[")):
        return "JSON lines", "--format jsonl"
    if "\t" in line:
        return "separated by tabs", "--format tsv"
    match = _CSV_LIKE.match(line)
    mark = match[1] or match[2] if match else None
    if mark and (job.format, mark) != ("csv", job.config.delimiter or ","):
        name = {",": "commas", ";": "semicolons", "|": "bars"}[mark]
        flags = "--format csv" if mark == "," else f"--format csv --delimiter '{mark}'"
        return f"separated by {name}", flags
    words = Cells(row.raw.split(maxsplit=1)[0] for row in rows)
    recur = 2 * words.distinct <= max(len(words.filled), 2 * BELOW)
    alone = all(len(row.cells) == 1 for row in rows)
    pairs = " " in line and job.format == "tsv" and alone and recur
    mark = _other_mark(job, rows)
    if mark and not (pairs and _is_in_label(mark, words.all)):
        return f"separated by {mark!r}", f"--format csv --delimiter {shlex.quote(mark)}"
    if pairs:
        return "a label, a blank and a text", "--format pairs"
    return None


def _is_in_label(mark: str, words: Sequence[str]) -> bool:
    """Whether the first words of lines are labels of two parts, as LOC:city is one of LOC's."""
    wholes: dict[str, set[str]] = {}
    for whole, _, part in (word.partition(mark) for word in words):
        wholes.setdefault(part, set()).add(whole)
    return 2 * sum(len(found) == 1 for found in wholes.values()) > len(wholes)


def _other_mark(job: Job, rows: Sequence[Row]) -> str | None:
    """A mark that each of some lines has once, with what recurs on one side, as labels do."""
    marks = set(rows[0].raw) - set(" ,;|\t'\"._")
    for mark in sorted(each for each in marks if unicodedata.category(each)[0] in "PS"):
        if len(rows) <= BELOW or any(row.raw.count(mark) != 1 for row in rows):
            continue
        sides = map(Cells, zip(*(row.raw.split(mark) for row in rows), strict=True))
        short, long = sorted(sides, key=lambda side: side.distinct)
        filled = len(short.filled) == len(long.filled) == len(rows)
        if filled and 1 < short.distinct < long.distinct and 2 * short.distinct <= len(rows):
            return mark
    return None
