"""The first rows of a table: the header, and which columns the text and the label may be in.

A column is given by the settings, named by the header, or guessed from the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product

from srucli.data.cells import BELOW, Cells, column_cells
from srucli.data.format_hints import row_error
from srucli.data.header import are_names, has_header, named_places
from srucli.data.layout import Job, Names
from srucli.data.names import find_names, is_language, is_other
from srucli.data.tables import Row
from srucli.errors import UsageError
from srucli.io.console import excerpt

# Fewer rows do not tell that all are alike.
FEW = 10
# What says which part of a set a text is in.
SPLITS = frozenset(["train", "training", "dev", "val", "valid", "validation", "test", "eval"])
# Any number would be taken at its word, and the columns up to it counted.
MAX_COLUMNS = 100_000


def _column(value: str | int | None) -> str | int | None:
    """A column as configured: its name, or its 0-based number. Raises UsageError."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int):
        if not 1 <= value <= MAX_COLUMNS:
            raise UsageError(f"column {value}: columns are counted from 1 to {MAX_COLUMNS:,}")
        return value - 1
    return value


def _spare(cells: Sequence[str]) -> int:
    """How many cells at the end are empty, of those beyond the second."""
    return next((n for n, cell in enumerate(reversed(cells[2:])) if cell.strip()), len(cells[2:]))


Pair = tuple[int, int]  # the 0-based columns of text and label


class FirstRows:
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
        first = column_cells(self.rows[1:], 0)
        # R writes row names, which all differ, and no name for them. Texts are none.
        self.row_names = 1 < first.distinct == len(rows) - 1 and first.made and are_names(names)
        ended = not any(row.cells[-1].strip() for row in self.rows[1:])  # by a delimiter
        self.row_names = self.row_names and widths == {len(names) + 1} and not ended
        names = [""] * self.row_names + names
        self.width, header = len(names), job.config.header
        if header is None:
            by_name = any(
                isinstance(each, str) and (what not in job.lenient or each in names)
                for each, what in zip(wanted, Names._fields, strict=True)
            )
            header = by_name or has_header(job, names, self._cut(1))
        self.header, self.names = header, names if header else []
        self.columns = self._cut(int(header))
        self.named = self._named()
        self.given = self._locate(wanted[0], "text"), self._locate(wanted[1], "label")

    def _cut(self, start: int) -> list[Cells]:
        return [column_cells(self.rows[start:], place) for place in range(self.width)]

    def _named(self) -> tuple[int | None, int | None]:
        """The columns that the header names, as that other file did or by names that are known."""
        (text, label), ours = find_names(self.names), named_places(self.job.names, self.names)
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
        return *cells.unlike_texts, self.is_other(at), -cells.length

    def _unlike_labels(self, at: int) -> tuple[bool, ...]:
        """The same against labels."""
        cells = self.cells(at)
        one = cells.distinct < 2
        return not cells.filled, cells.seldom, cells.measured, self.is_other(at), one

    def _is_about_languages(self, at: int) -> bool:
        """Whether a column of languages may be that of the labels."""
        varied = self.width < 3 or self.cells(at).distinct > 1
        return varied and self.known in (None, at)

    def is_other(self, at: int) -> bool:
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
