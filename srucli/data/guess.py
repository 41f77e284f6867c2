"""Choose the text and label columns of a table by its first rows, or refuse the table.

A choice is refused if no classifier can be meant to learn its labels. The message names the flags
for other columns. `docs/decisions.md` explains how the thresholds were chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from srucli.data.cells import BELOW, MANY, Cells, are_lists, column_cells, label_parts
from srucli.data.first_rows import FEW, FirstRows, Pair, are_names
from srucli.data.layout import Columns, ReadTask, comma_list
from srucli.data.tables import Dialect, TableRow
from srucli.errors import DataError, UsageError
from srucli.io.console import excerpt, shell_word

# Labels with a longer mean length (in characters), if also longer than the texts, are texts.
LONG_LABEL = 12
# A column with a longer mean length has sentences, not labels.
MAX_LABEL_LENGTH = 40
# Texts with a mean of so many rows each are labels, if the labels are more diverse.
REPEATED = 5


def choose(
    task: ReadTask, rows: Sequence[TableRow], dialect: Dialect, *, whole: bool = True
) -> tuple[Columns, DataError | None]:
    """Return the columns of a table by its first rows, and an error if they make no sense.

    Raises DataError if a named column does not exist, UsageError for text and label in one column.
    """
    table = FirstRows(task, rows, whole)
    # Without names and quotes a line is the label, a delimiter, and the text as it stands.
    open_ended = table.by_place and not dialect.quotes
    if not task.labelled:
        open_ended = open_ended and table.width > 1 and table.known in (None, 0) and not table.even
    rest = Cells(dialect.delimiter.join(row.cells[1:]) for row in table.rows)

    def fault(pair: Pair) -> str:
        text, label = table.texts(pair[0]), table.cells(pair[1])
        return _fault(table, rest if open_ended and pair == (1, 0) else text, label)

    likely = table.likely(open_ended)
    text, label = chosen = next((pair for pair in likely if not fault(pair)), likely[0])
    for what, at in (("weight", table.weight), ("group", table.group)):
        if at in (text, label, *table.more):
            wanted = getattr(task.config, what)
            raise UsageError(f"--{what} {wanted} is the column of texts or of labels; name another")
    width = 2 if open_ended else table.width
    if not dialect.quotes and not table.header and not table.by_place:
        width = max(
            text + 1,
            *(at + 1 for at in table.more),
            label + 1,
            min(len(row.cells) for row in table.rows),
        )
    labels, multi_label = table.cells(label), task.config.multi_label
    width = max(width, *(at + 1 for at in table.apart), 0)
    hints = [table.left_out]
    lists = task.labelled and are_lists(labels.filled, multi_label=multi_label)
    if task.labelled and not lists:
        hints.append(_hint(table, chosen, open_ended))
    columns = Columns(
        text=text,
        label=label if task.labelled else None,
        width=width,
        header=table.header,
        names=tuple(table.names),
        row_names=table.row_names,
        spare=table.spare,
        lists=lists,
        hint="; ".join(filter(None, hints)),
        more=table.more,
        weight=table.weight,
        group=table.group,
    )
    if not task.labelled:
        return columns, None
    if refusal := _refusal(table, chosen, fault, open_ended):
        return columns, task.error(table.rows[0].line, *refusal)
    if not _may_be_header(table, *chosen):
        return columns, None
    if None not in table.given or labels.known(task):
        with_header = replace(task, config=task.config.model_copy(update={"header": True}))
        return choose(with_header, rows, dialect, whole=whole)
    name = excerpt(table.rows[0].cells[label])
    problem = f"the first row looks like a header: its label {name} is on no other row"
    remedy = "pass --header, or --no-header if it is not a name"
    return columns, task.error(table.rows[0].line, problem, remedy)


def _refusal(
    table: FirstRows, chosen: Pair, fault: Callable[[Pair], str], open_ended: bool
) -> tuple[str, str] | None:
    """Return what is wrong with the chosen columns, and the flags that help."""
    (text, label), width = chosen, table.width
    text_is_last = open_ended or width - 1 in (text, *table.more)  # it may contain the delimiter
    if (width == 1 or not text_is_last) and (missing := table.missing_columns):
        return missing, "add the others, or remove the line"
    if reason := fault(chosen):
        wanted = table.task.names.label
        if table.header and table.given[1] is None and wanted and wanted not in table.names:
            problem = f"no column {excerpt(wanted)} in the header {excerpt(table.rows[0].raw)}"
            return problem, f"name the label column with --label{table.or_predict}"
        return f"the labels in column {label + 1} are {reason}", _other_flags(table, chosen, fault)
    if open_ended and table.even and not table.cells(label).known(table.task):
        problem = f"all of the first rows have {width} columns, and nothing says what they are"
        return problem, _other_flags(table, chosen, fault)
    if binary := _binary_columns(table, label):
        names = excerpt(", ".join(table.names[at] for at in binary))
        problem = f"the columns {names} hold 0 and 1, as if each were a label"
        flags = f"pass {_flags(table, chosen)} for the first of them"
        return problem, f"write labels into one column, or {flags}"
    if not open_ended and (rivals := _rivals(table, chosen)):
        names = ", ".join(_name(table, at) for at in rivals)
        ways = [f"{_flags(table, (text, at))} for {_name(table, at)}" for at in rivals]
        return f"nothing says which column holds the labels: {names}", f"pass {', or '.join(ways)}"
    return None


def _other_flags(table: FirstRows, chosen: Pair, fault: Callable[[Pair], str]) -> str:
    """Return the flags for more likely columns, if any, and for the chosen ones."""
    pairs = (pair for pair in table.pairs() if not table.cells(pair[0]).numbers)
    better = next((pair for pair in pairs if not fault(pair)), chosen)
    remedy = "name others (--label, --text)"
    if better != chosen:
        remedy = f"pass {_flags(table, better)}"
    if table.given[1] is None:
        remedy += f", or {_flags(table, chosen)} if they are right"
    return remedy


def _fault(table: FirstRows, text: Cells, label: Cells) -> str:
    """Return why no classifier can be meant to learn these labels; "" if one can."""
    if not text.filled or label.known(table.task):
        return ""
    elsewhere = "not those of the model, which are in another column"
    if table.given[1] is not None and "label" not in table.task.inherited:
        return elsewhere if table.known is not None else ""
    rows, reasons = min(len(text.filled), len(label.filled)), []
    label = Cells(part for cell in label.filled for part in label_parts(table.task, cell))
    rows = min(rows, len(label.filled))
    if rows >= FEW and label.too_distinct(text):
        count = len(label.filled)
        reasons.append(f"nearly all different ({label.distinct} among {count})")
    if None not in table.named:  # then the header decides
        return " and ".join(reasons)
    longer = label.mean_length > max(LONG_LABEL, text.mean_length)
    if longer and rows >= BELOW and (text.numbers or label.distinct >= text.distinct):
        reasons.append("longer than the texts")
    elif rows >= FEW and text.distinct * REPEATED <= rows and label.distinct > text.distinct:
        reasons.append("more diverse than the texts")
    if table.known is not None:
        reasons.append(elsewhere)
    return " and ".join(reasons)


def _binary_columns(table: FirstRows, label: int) -> list[int]:
    """Return the columns of 0 and 1, if the label was guessed to be one of several."""
    certain = not table.header or table.given[1] is not None or table.named[1] is not None
    if certain or table.cells(label).known(table.task):
        return []
    columns = enumerate(cells.filled for cells in table.columns)
    binary = [at for at, cells in columns if len(cells) > BELOW and {*cells} <= {"0", "1"}]
    binary = [at for at in binary if at not in table.apart]
    return binary if label in binary and len(binary) > 1 else []


def _rivals(table: FirstRows, pair: Pair) -> list[int]:
    """Return the guessed label column and those that are as likely, if there are any."""
    label = pair[1]
    certain = table.named[1] is not None and not table.language
    if certain or table.given[1] is not None or table.known is not None or table.width < 3:
        return []
    rivals = [at for at in range(table.width) if at == label or _is_rival(table, at, pair)]
    return rivals if len(rivals) > 1 else []


def _is_rival(table: FirstRows, at: int, pair: Pair) -> bool:
    """Whether a column is as likely as the guessed label, by its cells and its name.

    If the file has more rows, a column of one value may change later: rows may be sorted by label.
    """
    text, label = pair
    cells, filled = table.cells(at), len(table.cells(at).filled)
    too_long = cells.mean_length > MAX_LABEL_LENGTH
    apart = at in (text, *table.more, *table.apart)
    if apart or cells.measurements or filled <= BELOW or too_long:
        return False
    if table.is_other(label) and not table.is_other(at) and cells.distinct > 1:
        return not cells.rarely_repeat
    if cells.distinct < 2:
        may_change = not table.whole and filled == len(cells.all) and not table.is_other(at)
        return may_change and (table.header or at < label) and table.cells(label).distinct > 1
    return 2 * cells.distinct < filled and table.is_other(at) <= table.is_other(label)


def _hint(table: FirstRows, pair: Pair, open_ended: bool) -> str:
    """Return advice on the label's delimiter, texts with delimiters, or a second text column."""
    text, label = pair
    if hint := _delimiter_hint(table, label):
        return hint
    if open_ended and any(len(row.cells) > 2 for row in table.rows):
        return "a text is all that follows its label, and --text 2 reads column 2 alone"
    if table.given[0] is not None or table.by_place:
        return ""
    rest = [at for at in range(table.width) if at not in pair and _may_be_text(table, at)]
    both = sorted((text, *rest))
    return f"--text {_flag_value(table, both)} reads these columns together" if rest else ""


def _may_be_text(table: FirstRows, at: int) -> bool:
    """Whether a column that is not read holds texts too, by its cells and its name."""
    cells = table.cells(at)
    words = sum(" " in cell for cell in cells.filled)
    longer = cells.mean_length > LONG_LABEL and 2 * words > len(cells.filled)
    return longer and cells.rarely_repeat and not any(cells.unlike_texts) and not table.is_other(at)


def _delimiter_hint(table: FirstRows, label: int) -> str:
    """Return advice if another delimiter seems to join the labels in a cell."""
    mark, cells = table.task.config.label_delimiter, table.cells(label)
    if not table.task.config.multi_label or cells.known(table.task):
        return ""
    for other in ";|,":
        count = sum(other in cell for cell in cells.filled)
        if 2 * count >= len(cells.filled) > BELOW and not any(mark in c for c in cells.filled):
            flag = f"--label-delimiter {shell_word(other)}"
            return f"labels look joined by {other!r}, and {flag} splits them"
    return ""


def _name(table: FirstRows, at: int) -> str:
    """Return a column's name, or else its number, for messages."""
    return excerpt(table.names[at]) if table.names and table.names[at] else f"column {at + 1}"


def _flag_value(table: FirstRows, columns: Sequence[int]) -> str:
    """Return columns as --text takes them: by number, or by key in JSON."""
    as_json = table.task.format == "jsonl"
    return shell_word(comma_list([table.names[at] if as_json else str(at + 1) for at in columns]))


def _flags(table: FirstRows, pair: Pair) -> str:
    """Return the flags for text and label columns, by number, or by key in JSON."""
    texts = pair[0], *(table.more if pair[0] == table.given[0] else ())
    text, label = _flag_value(table, texts), _flag_value(table, pair[1:])
    return f"--label {label} --text {text}" + " --header" * _may_be_header(table, *pair)


def _may_be_header(table: FirstRows, text: int, label: int) -> bool:
    """Whether the first row may be a header that was not recognized.

    Its label is on no other row, while other labels repeat; both its cells look like names; and its
    text is shorter than the others.
    """
    first, others = [cell.strip() for cell in table.rows[0].cells], table.rows[1:]
    certain = table.header or table.task.config.header is not None
    if certain or len(others) <= BELOW or max(text, label) >= len(first):
        return False
    labels, texts = column_cells(others, label), column_cells(others, text)
    once = sum(count == 1 for count in Counter(labels.filled).values())
    return (
        are_names([first[label], first[text]])
        and first[label] not in labels.filled
        and once <= len(others) / MANY
        and (len(first[text].split()) == 1 or first[text].istitle())
        and all(" " in each or len(each) > 4 * len(first[text]) for each in texts.filled)
    )
