"""The columns of text and label of a table: chosen by its first rows, or refused.

A choice whose labels no classifier can be meant to learn is refused with the flags that say what
is right. `docs/decisions.md` says how the thresholds were found.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from srucli.data.cell_lists import seem_lists
from srucli.data.cells import BELOW, MANY, Cells, column_cells, label_parts
from srucli.data.first_rows import FEW, FirstRows, Pair
from srucli.data.header import are_names
from srucli.data.layout import Columns, Job
from srucli.data.tables import Row
from srucli.errors import DataError
from srucli.io.console import excerpt

# Labels longer than this (mean, in characters) and than the texts are texts.
LONG_LABEL = 12
# Marks longer than this (mean) are sentences, and not rivals of other labels.
MARK = 40
# Texts that are each on so many rows are labels, if the labels are more various.
REPEATED = 5


def choose(
    job: Job, rows: Sequence[Row], delimiter: str, *, quoted: bool, whole: bool = True
) -> tuple[Columns, DataError | None]:
    """The columns of a table by its first rows, and why it is refused where that is absurd.

    Raises DataError for a name that no column has, UsageError for text and label in one column.
    """
    table = FirstRows(job, rows, whole)
    # Without names and quotes a line is the label, a delimiter, and the text as it stands.
    open_ended = table.by_place and not quoted
    if not job.labelled:
        open_ended = open_ended and table.width > 1 and table.known in (None, 0) and not table.even
    rest = Cells(delimiter.join(row.cells[1:]) for row in table.rows)

    def absurd(pair: Pair) -> str:
        text, label = map(table.cells, pair)
        return _absurd(table, rest if open_ended and pair == (1, 0) else text, label)

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
        lists=job.labelled and _lists(table, label),
        hint=_joined_otherwise(table, label) if job.labelled else "",
    )
    if not job.labelled:
        return found, None
    if refusal := _refusal(table, chosen, absurd, open_ended):
        return found, job.error(table.rows[0].line, *refusal)
    if _may_be_header(table, *chosen):
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
    table: FirstRows, chosen: Pair, absurd: Callable[[Pair], str], open_ended: bool
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
    if several := _switches(table, label):
        names = excerpt(", ".join(table.names[at] for at in several))
        said = f"the columns {names} hold 0 and 1, as if each were a label"
        pass_these = f"pass {_flags(table, chosen)} for the first of them"
        return said, f"write labels into one column, or {pass_these}"
    if not open_ended and (rivals := _rivals(table, chosen)):
        shown = [_name(table, at) for at in rivals]
        said = f"nothing says which column holds the labels: {', '.join(shown)}"
        ways = [f"{_flags(table, (text, at))} for {_name(table, at)}" for at in rivals]
        return said, f"pass {', or '.join(ways)}"
    return None


def _others(table: FirstRows, chosen: Pair, absurd: Callable[[Pair], str]) -> str:
    """The flags for other columns, if there are likelier ones, and for those that are chosen."""
    texts = (pair for pair in table.pairs() if not table.cells(pair[0]).numbers)
    better = next((pair for pair in texts if not absurd(pair)), chosen)
    remedy = "name others (--label, --text)"
    if better != chosen:
        remedy = f"pass {_flags(table, better)}"
    if table.given[1] is None:
        remedy += f", or {_flags(table, chosen)} if they are right"
    return remedy


# ------------------------------------------------------------------ doubts


def _absurd(table: FirstRows, text: Cells, label: Cells) -> str:
    """Why no classifier can be meant by these labels; nothing if one can."""
    if not text.filled or label.known(table.job):
        return ""
    elsewhere = "not those of the model, which are in another column"
    if table.given[1] is not None and "label" not in table.job.lenient:
        return elsewhere if table.known is not None else ""
    rows, reasons = min(len(text.filled), len(label.filled)), []
    label = Cells(part for cell in label.filled for part in label_parts(table.job, cell))
    rows = min(rows, len(label.filled))
    if rows >= FEW and label.differ(text):
        count = len(label.filled)
        reasons.append(f"nearly all different ({label.distinct} among {count})")
    if None not in table.named:  # then they are what the header says
        return " and ".join(reasons)
    longer = label.length > max(LONG_LABEL, text.length)
    if longer and rows >= BELOW and (text.numbers or label.distinct >= text.distinct):
        reasons.append("longer than the texts")
    elif rows >= FEW and text.distinct * REPEATED <= rows and label.distinct > text.distinct:
        reasons.append("more various than the texts")
    if table.known is not None:
        reasons.append(elsewhere)
    return " and ".join(reasons)


def _switches(table: FirstRows, label: int) -> list[int]:
    """Columns of 0 and 1, each for a label, if one of several is guessed to be the label."""
    told = not table.header or table.given[1] is not None or table.named[1] is not None
    if told or table.cells(label).known(table.job):
        return []
    found = [at for at, cells in enumerate(table.columns) if cells.switches]
    return found if label in found and len(found) > 1 else []


def _rivals(table: FirstRows, pair: Pair) -> list[int]:
    """Columns that hold labels as likely as the one that is guessed, which is among them."""
    label = pair[1]
    told = table.named[1] is not None and not table.language
    if told or table.given[1] is not None or table.known is not None or table.width < 3:
        return []
    found = [at for at in range(table.width) if at == label or _is_rival(table, at, pair)]
    return found if len(found) > 1 else []


def _is_rival(table: FirstRows, at: int, pair: Pair) -> bool:
    """Whether a column is as likely as that of the label, by its cells and its name.

    Of a file that goes on, a column may have one label first, as where labels are sorted.
    """
    text, label = pair
    cells, filled = table.cells(at), len(table.cells(at).filled)
    if at == text or cells.measured or filled <= BELOW or cells.length > MARK:
        return False
    if table.is_other(label) and not table.is_other(at) and cells.distinct > 1:
        return not cells.seldom
    if cells.distinct < 2:
        may_change = not table.whole and filled == len(cells.all) and not table.is_other(at)
        return may_change and (table.header or at < label) and table.cells(label).distinct > 1
    return 2 * cells.distinct < filled and table.is_other(at) <= table.is_other(label)


def _lists(table: FirstRows, label: int) -> bool:
    """Whether the labels are in lists."""
    several = table.job.config.multi_label
    return seem_lists(table.cells(label).filled, several=several)


def _joined_otherwise(table: FirstRows, label: int) -> str:
    """What is said where the labels in a cell seem to be joined by another mark."""
    mark, cells = table.job.config.label_delimiter, table.cells(label)
    if not table.job.config.multi_label or _lists(table, label) or cells.known(table.job):
        return ""
    for other in ";|,":
        count = sum(other in cell for cell in cells.filled)
        if 2 * count >= len(cells.filled) > BELOW and not any(mark in c for c in cells.filled):
            flag = f"--label-delimiter {shlex.quote(other)}"
            return f"labels look joined by {other!r}, and {flag} takes them apart"
    return ""


def _name(table: FirstRows, at: int) -> str:
    """A column for people: its name, or its number."""
    return excerpt(table.names[at]) if table.names and table.names[at] else f"column {at + 1}"


def _flags(table: FirstRows, pair: Pair) -> str:
    """What asks for columns of text and label, by number, or by key in JSON."""
    text, label = (
        shlex.quote(table.names[at]) if table.job.format == "jsonl" else at + 1 for at in pair
    )
    return f"--label {label} --text {text}" + " --header" * _may_be_header(table, *pair)


def _may_be_header(table: FirstRows, text: int, label: int) -> bool:
    """Whether the label of the first row is on no other, while those of the others recur.

    Then it may be the name of a column, if it looks like one and its text is a short one.
    """
    first, others = [cell.strip() for cell in table.rows[0].cells], table.rows[1:]
    told = table.header or table.job.config.header is not None
    if told or len(others) <= BELOW or max(text, label) >= len(first):
        return False
    labels, texts = column_cells(others, label), column_cells(others, text)
    once = sum(count == 1 for count in Counter(labels.filled).values())
    words = first[text].split()
    return (
        are_names([first[label], first[text]])
        and first[label] not in labels.filled
        and once <= len(others) / MANY
        and (len(words) == 1 or first[text].istitle())
        and all(" " in each or len(each) > 4 * len(first[text]) for each in texts.filled)
    )
