"""The first rows of a table: the header, likely columns, and which other format they may be in.

A column is given by the settings, named by the header, or guessed from its cells.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import product

from srucli.data.cells import BELOW, Cells, column_cells, is_number, label_parts
from srucli.data.labels import is_missing
from srucli.data.layout import (
    OF_TRAINING,
    Column,
    ColumnNames,
    ReadTask,
    joined,
    listed,
    numbered,
)
from srucli.data.names import KNOWN, are_numbered, find_names, fold, is_language, is_other
from srucli.data.tables import MAX_COLUMNS, TableRow
from srucli.errors import DataError, UsageError, closest
from srucli.io.console import beginning, excerpt, shell_word

# With fewer rows, that all are alike may be chance.
FEW = 10
# Values of a column that names the split of each example.
SPLITS = frozenset(["train", "training", "dev", "val", "valid", "validation", "test", "eval"])
# Of more columns, so many of the likeliest are tried as the text, and as the label.
_TRIED = 50
# Of the first words of lines, the share that may occur once if they are labels.
ONCE = 0.1
_CSV_LIKE = re.compile(r'(?:"[^"]*"|[^\s,;|"]+)([,;|])|.*([,;|])[^\s,;|]+$')

Pair = tuple[int, int]  # the text and label columns, counted from 0
Places = tuple[int | None, int | None]  # the same, None if unknown


def are_names(cells: Sequence[str]) -> bool:
    """Whether cells look like column names. R and pandas may leave the first one empty."""
    named = cells[1:] if len(cells) > 1 and not cells[0] else cells
    return len(set(named)) == len(named) and all(map(_is_name, named))


def _is_name(cell: str) -> bool:
    if not 0 < len(cell) <= 40 or len(cell.split()) > 3 or is_number(cell) or cell[-1] in ".:":
        return False
    if is_missing(cell):
        return False
    return all(c in "./#%&:@*'" or unicodedata.category(c) != "Po" for c in cell)


def _named_as_in_training(names: ColumnNames, cells: Sequence[str]) -> Places:
    """Return the columns that the training file's header names."""
    folded = [fold(cell) for cell in cells]

    def place(wanted: Sequence[Column]) -> int | None:
        known = [fold(name) for name in map(str, wanted) if _is_name(name)]
        found = [folded.index(name) for name in known if name in folded]
        return found[0] if found and len(found) == len(wanted) else None

    return place(listed(names.text, cells)), place([names.label] if names.label else [])


def _has_header(task: ReadTask, names: Sequence[str], below: Sequence[Cells]) -> bool:
    """Whether the first row has column names, judged by these cells and those below."""
    as_in_training = [at for at in _named_as_in_training(task.names, names) if at is not None]
    if len(as_in_training) == 2:
        return True
    found = [at for at in find_names(names) if at is not None]
    if len(found) == 2 and {fold(names[at]) for at in found} <= KNOWN:
        return True
    if any(name and name in cells.all for name, cells in zip(names, below, strict=True)):
        return False
    no_labels = not any(label_parts(task, name) <= task.known_labels for name in names)
    if as_in_training and no_labels:
        return True
    count = len(below[0].all)
    if count >= BELOW and are_numbered([name for name in names if name]):
        return not all(cells.numbers for cells in below)
    if not are_names(names):
        return False
    if len(found) == 2 or (not names[0] and below[0].filled) or _one_is_known(names, count):
        return True
    if count < BELOW:
        return False
    if any(cells.known(task) for cells in below):
        return no_labels
    return any(cells.numbers for cells in below)


def _one_is_known(names: Sequence[str], rows: int) -> bool:
    """Whether one name is known, and cannot be a short text instead."""
    single = [name if " " not in name else "" for name in names]
    known = [at for at in find_names(single) if at is not None]
    if not known or (not rows and "" in single):
        return False
    return len(names) > 1 or fold(names[0]) in KNOWN


def _column(value: Column | None) -> Column | None:
    """Return a configured column: its name, or its number from 0. Raises UsageError."""
    found = numbered(value) if isinstance(value, str) else value
    if found is None or (isinstance(found, str) and not found.isdecimal()):
        return found
    if isinstance(found, str) or not 1 <= found <= MAX_COLUMNS:
        shown = beginning(str(found))
        raise UsageError(f"column {shown}: columns are counted from 1 to {MAX_COLUMNS:,}")
    return found - 1


def _spare(cells: Sequence[str]) -> int:
    """Count the empty cells at the end, without the first two."""
    return next((n for n, cell in enumerate(reversed(cells[2:])) if cell.strip()), len(cells[2:]))


class FirstRows:
    """The first rows of a table: what the settings give, the header names and the cells hold.

    given, named: the text and label columns of the settings and the header, counted from 0, None if
    unknown. more: further columns of the text, if several are given. weight, group: the columns of
    weights and of groups, which are neither texts nor labels. whole: there are no more rows.
    """

    def __init__(self, task: ReadTask, rows: Sequence[TableRow], whole: bool = True) -> None:
        """Raises DataError if a column that was asked for by name does not exist."""
        self.task, self.whole = task, whole
        self.spare = min(_spare(row.cells) for row in rows) if len(rows) >= BELOW else 0
        self.rows = [row._replace(cells=row.cells[: len(row.cells) - self.spare]) for row in rows]
        names = [cell.strip() for cell in self.rows[0].cells]
        self.row_names = self._has_row_names(names)
        names = [""] * self.row_names + names
        self.width, header = len(names), task.config.header
        texts, label = self._wanted_texts(names), _column(task.config.label)
        apart = {what: _column(getattr(task.config, what)) for what in OF_TRAINING}
        if header is None:
            optional = task.inherited if task.training else task.inherited.union(OF_TRAINING)
            wanted = *(("text", each) for each in texts), ("label", label), *apart.items()
            sure = [column for what, column in wanted if what not in optional or column in names]
            by_name = any(isinstance(column, str) for column in sure)
            header = by_name or _has_header(task, names, self._columns(1))
        self.header, self.names = header, names if header else []
        self.columns = self._columns(int(header))
        locate = self._locate if task.training else self._unneeded
        self.weight, self.group = (locate(column, what) for what, column in apart.items())
        self.apart = [at for at in (self.weight, self.group) if at is not None]
        self.named = self._named()
        text, *more = [self._locate(each, "text", several=len(texts) > 1) for each in texts]
        self.more = tuple(at for at in more if at is not None)
        if len({text, *more}) <= len(more):
            raise UsageError(f"--text {task.config.text} names a column twice; name it once")
        self.given = text, self._locate(label, "label")

    def _wanted_texts(self, names: Sequence[str]) -> list[Column | None]:
        """Return the columns that the settings name for the text, or several of the training file.

        One of None if the settings name none.
        """
        texts = listed(self.task.config.text, names)
        in_training = listed(self.task.names.text, names)
        if not texts and len(in_training) > 1:
            texts = in_training
        return [_column(text) for text in texts] or [None]

    def _has_row_names(self, names: Sequence[str]) -> bool:
        """Whether the first column has R's row names: all distinct, and without a column name."""
        rows = self.rows[1:]
        first = column_cells(rows, 0)
        if not (1 < first.distinct == len(rows) and first.generated and are_names(names)):
            return False
        delimiter_at_end = not any(row.cells[-1].strip() for row in rows)
        return {len(row.cells) for row in rows} == {len(names) + 1} and not delimiter_at_end

    def _columns(self, start: int) -> list[Cells]:
        return [column_cells(self.rows[start:], at) for at in range(self.width)]

    def _named(self) -> Places:
        """Return the columns that the header names, as in the training file or by known names."""
        same_text, same_label = same = _named_as_in_training(self.task.names, self.names)
        names = ["" if at in self.apart else name for at, name in enumerate(self.names)]
        text, label = (None if at in same else at for at in find_names(names))
        self.language = same_label is None and label is not None and is_language(self.names[label])
        if self.language and not self._may_be_languages(label or 0):
            label = None
        return text if same_text is None else same_text, label if same_label is None else same_label

    def _locate(self, wanted: Column | None, what: str, several: bool = False) -> int | None:
        """Return where a column is. Several texts are read as they were, or not at all."""
        inherited = what in self.task.inherited and not several
        if wanted is None:
            return None
        if isinstance(wanted, int):
            return wanted if not inherited or self._fits(wanted, what) else None
        if wanted in self.names:
            return self.names.index(wanted)
        unneeded = what == "label" and not self.task.labelled
        if unneeded or (inherited and (not self.task.labelled or None not in self.named)):
            return None
        row = self.rows[0]
        meant = closest(wanted, self.names)
        hint = f" (did you mean {excerpt(meant)}?)" if meant else ""
        problem = f"no column {excerpt(wanted)} in the header {excerpt(row.raw)}{hint}"
        raise row_error(self.rows, self.task, row, problem, f"name the {what} column with --{what}")

    def _unneeded(self, wanted: Column | None, what: str) -> int | None:
        """Return where a column is that only training needs, if the file has it."""
        place = self.names.index(wanted) if wanted in self.names else wanted
        fits = what == "group" or (isinstance(place, int) and self.cells(place).numbers)
        return place if isinstance(place, int) and place < self.width and fits else None

    def _fits(self, at: int, what: str) -> bool:
        """Whether a column may be the same as in the training file."""
        if at >= self.width or (what == "label" and not self.task.labelled):
            return False
        if at in self.named or self.named[what == "label"] is not None:
            return self.named[what == "label"] == at
        if what == "label":
            return self.known in (None, at)
        return at != self.known and (
            not self._cannot_be_texts(at) or all(map(self._cannot_be_texts, range(self.width)))
        )

    def _cannot_be_texts(self, at: int) -> bool:
        cells = self.cells(at)
        return cells.numbers or (len(self.rows) > BELOW and any(cells.unlike_texts))

    @property
    def by_place(self) -> bool:
        """Whether neither header nor settings name columns: of two, the first is the label."""
        return not self.header and self.given == (None, None) and not self.apart

    @property
    def even(self) -> bool:
        """Whether all rows have the same three or more columns, unlike texts with tabs in them."""
        widths = {len(row.cells) for row in self.rows}
        return len(self.rows) >= FEW and widths == {self.width} and self.width > 2

    @property
    def missing_columns(self) -> str:
        """A message if the first row lacks columns that all others have."""
        widths = {len(row.cells) - _spare(row.cells) for row in self.rows[1:]}
        if (
            self.row_names
            or len(self.rows) <= BELOW
            or len(widths) > 1
            or max(widths) <= self.width
        ):
            return ""
        return f"all rows have {max(widths)} columns, but the first one has {self.width}"

    @property
    def or_predict(self) -> str:
        """The other remedy for missing labels, if a run is evaluated; else ""."""
        return ", or label the texts with srucli predict" if self.task.known_labels else ""

    @property
    def left_out(self) -> str:
        """Say that columns were not considered, if one is guessed among too many; else ""."""
        wanted = [*zip(self.given, self.named, strict=True)][: 1 + self.task.labelled]
        if self.width <= _TRIED or all({*both} != {None} for both in wanted):
            return ""
        return f"only the {_TRIED} likeliest of {self.width:,} columns were considered"

    def pairs(self, text: int | None = None, label: int | None = None) -> list[Pair]:
        """Return possible text and label columns, the most likely first."""
        texts, labels = [1, 0], [0, 1]
        if self.width > 2:
            texts = sorted(range(self.width), key=self._unlike_texts)
            labels = sorted(range(self.width), key=self._unlike_labels)
        texts = [at for at in texts if at not in self.apart]
        texts = texts[:_TRIED] if text is None else [text]
        labels = [at for at in labels if at not in (*self.more, *self.apart)]
        labels = labels[:_TRIED] if label is None else [label]
        return [(text, label) for text, label in product(texts, labels) if text != label]

    def _unlike_texts(self, at: int) -> tuple[object, ...]:
        """Return reasons why a column is not the text, the strongest first."""
        cells = self.cells(at)
        return *cells.unlike_texts, self.is_other(at), -cells.mean_length

    def _unlike_labels(self, at: int) -> tuple[bool, ...]:
        cells = self.cells(at)
        same = cells.distinct < 2
        return not cells.filled, cells.rarely_repeat, cells.measurements, self.is_other(at), same

    def _may_be_languages(self, at: int) -> bool:
        varied = self.width < 3 or self.cells(at).distinct > 1
        return varied and self.known in (None, at)

    def is_other(self, at: int) -> bool:
        """Whether a column is neither text nor label, by its name or its cells."""
        named = at < len(self.names) and is_other(self.names[at])
        return named or SPLITS.issuperset(map(str.lower, self.cells(at).filled))

    def likely(self, open_ended: bool) -> list[Pair]:
        """Return the pairs that settings, header and position allow. Raises UsageError for none."""
        text, label = (
            named if given is None else given
            for given, named in zip(self.given, self.named, strict=True)
        )
        if not self.task.labelled:
            if text is not None or self.width == 1:
                return [(text or 0, -1)]
            pairs = self.pairs(None, self.known if label is None else label)
            pairs = [(1, 0), (0, 1)] if open_ended else pairs
            enough = len(self.rows) >= BELOW
            unfit = self._wanted_texts(self.names)[0]  # inherited and not in this file
            left = [p for p in pairs if not (enough and self.cells(p[0]).numbers) and p[0] != unfit]
            return left or pairs
        if self.by_place and (open_ended or self.width <= 2):
            return [(0, 1)] if self.known == 1 and self.width == 2 else [(1, 0)]
        if label not in self.more and (pairs := self.pairs(text, label)):
            return pairs
        if label is None:
            names = [*self.names, *[""] * self.width]
            columns = ", ".join(names[at] or str(at + 1) for at in (text or 0, *self.more))
            problem = f"no column of labels besides the text's: {excerpt(columns)}"
            raise self.task.error(self.rows[0].line, problem, f"add one{self.or_predict}")
        number = ((text or 0) if label is None else label) + 1
        raise UsageError(f"text and label are both column {number}; see --text and --label")

    @cached_property
    def known(self) -> int | None:
        """The column with known labels, None without one."""
        return next((at for at, cells in enumerate(self.columns) if cells.known(self.task)), None)

    def texts(self, at: int) -> Cells:
        """Return the cells of a text column, joined with those of further ones."""
        if not self.more:
            return self.cells(at)
        columns = (self.cells(each).all for each in (at, *self.more))
        return Cells(map(joined, zip(*columns, strict=False)))

    def cells(self, at: int) -> Cells:
        """Return the cells of a column; no cells if it does not exist."""
        return self.columns[at] if at < len(self.columns) else Cells(())


def row_error(
    rows: Sequence[TableRow], task: ReadTask, row: TableRow, problem: str, remedy: str
) -> DataError:
    """Return an error for a row; if it has one column, name the format that `rows` may be in."""
    alone = bool(rows) and len(row.cells) == 1
    if hint := _other_format(task, row.raw, rows) if alone else None:
        problem, remedy = f"{problem}; it seems to be {hint[0]}", f"pass {hint[1]}"
    elif alone and task.labelled and all(len(each.cells) == 1 for each in rows):
        problem = f"no label, only one column: {excerpt(row.raw)}"
        mark = task.config.delimiter or ("," if task.format == "csv" else "\t")
        shown = f"positive{mark}a good film".replace("\t", "<TAB>")
        remedy = f"write a label before each text, as in {shown}"
        if task.format == "tsv" and _repeat(_first_words(rows)):
            remedy += ", or pass --format pairs if the first word of each line is its label"
    return task.error(row.line, problem, remedy)


def _other_format(task: ReadTask, line: str, rows: Sequence[TableRow]) -> tuple[str, str] | None:
    """Return a description of the format, and the flags that read it."""
    if line.lstrip().startswith("__label__"):
        return "fastText lines", "--format fasttext"
    if line.startswith(("{", "[")):
        return "JSON lines", "--format jsonl"
    if "\t" in line:
        return "separated by tabs", "--format tsv"
    match = _CSV_LIKE.match(line)
    mark = match[1] or match[2] if match else None
    if mark and (task.format, mark) != ("csv", task.config.delimiter or ","):
        name = {",": "commas", ";": "semicolons", "|": "bars"}[mark]
        flags = "--format csv" if mark == "," else f"--format csv --delimiter '{mark}'"
        return f"separated by {name}", flags
    words = _first_words(rows)
    one_column = all(len(row.cells) == 1 for row in rows)
    pairs = " " in line and task.format == "tsv" and one_column and _are_labels(words)
    mark = _other_delimiter(rows)
    if mark and not (pairs and _is_in_label(mark, words.all)):
        return f"separated by {mark!r}", f"--format csv --delimiter {shell_word(mark)}"
    return ("a label, a blank and a text", "--format pairs") if pairs else None


def _first_words(rows: Sequence[TableRow]) -> Cells:
    return Cells(row.raw.split(maxsplit=1)[0] for row in rows)


def _repeat(words: Cells) -> bool:
    """Whether so few of the first words are distinct that they may be labels."""
    return 2 * words.distinct <= max(len(words.filled), 2 * BELOW)


def _are_labels(words: Cells) -> bool:
    """Whether the first words are labels: unlike those of sentences, hardly any occurs once."""
    once = sum(count == 1 for count in Counter(words.filled).values())
    few = len(words.filled) <= 2 * BELOW
    return _repeat(words) and (few or once <= len(words.filled) * ONCE)


def _is_in_label(mark: str, words: Sequence[str]) -> bool:
    """Whether the first words are labels of two levels, like LOC:city."""
    wholes: dict[str, set[str]] = {}
    for whole, _, part in (word.partition(mark) for word in words):
        wholes.setdefault(part, set()).add(whole)
    return 2 * sum(len(found) == 1 for found in wholes.values()) > len(wholes)


def _other_delimiter(rows: Sequence[TableRow]) -> str | None:
    """Return a mark that each row has once, with values that repeat like labels on one side."""
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
