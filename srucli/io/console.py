"""Messages on stderr, text that is safe on a terminal, colours, and tables of text."""

from __future__ import annotations

import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import dropwhile
from typing import Any, TextIO

from srucli.errors import shortened

# The width in cells that tables and lines of progress keep to, as most terminals have it.
WIDTH = 80
# The most characters of an input, and of another package's message, that a message quotes.
MAX_EXCERPT, MAX_REASON = 54, 300
# The parameters of the escape sequence that starts a colour.
COLOURS = {"good": "32", "warning": "33", "error": "1;31"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


# Invisible characters that are needed to write Persian, Hindi and many emoji.
JOINERS = "\u200c\u200d"
_quiet = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """In a block, write to people only what is a warning: no notes and no progress."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def say(
    *lines: str,
    colour: str | None = None,
    good: str = "",
    whole: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Write lines to stderr or `stream`, `for_people`, above a progress bar if one is shown.

    good: a mark at their ends, in the colour of that name. whole: whether nothing is left out and
    a terminal breaks the lines itself, so that a command can be copied as one line.
    """
    from tqdm import tqdm  # here, so that `srucli --help` does not load it

    if _quiet.get() and colour != "warning":
        return
    stream = _below(stream or sys.stderr)
    with suppress(OSError):  # nobody reads stderr any more, or its disk is full
        for line in lines:
            shown = one_line(escaped_lines(line) if whole else for_people(line))
            for row in [shown] if whole else folded(shown, stream):
                marked = coloured(row, colour, stream) + coloured(good, "good", stream)
                tqdm.write(marked, file=stream)


def fail(message: str) -> None:
    """Write the message of an error to stderr, `for_people`."""
    stream = _below(sys.stderr)
    stream.write(f"{coloured('srucli:', 'error', stream)} {one_line(for_people(message))}\n")


def warn(*lines: str) -> None:
    """Write lines to stderr that say what is missing, or not as it was asked for."""
    say(*lines, colour="warning")


def put(*lines: str, colour: str | None = None, indent: int = 2) -> None:
    """Print lines of a report to stdout; on a terminal `escaped_lines`, coloured and `folded`.

    Elsewhere they are data, which no variable colours.
    """
    stream = _below(sys.stdout)
    colour = colour if stream.isatty() else None
    for line in lines:
        shown = line if stream is sys.stdout else escaped_lines(line)
        for row in folded(shown, stream, indent):
            print(coloured(row, colour, stream), file=stream)


def coloured(text: str, colour: str | None, stream: TextIO) -> str:
    """Return `text` in a colour of COLOURS, if `stream` shows colours."""
    if colour is None or not text or not _shows_colours(stream):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def _shows_colours(stream: TextIO) -> bool:
    """Return whether to write colours, by the conventions of no-color.org and CLICOLOR."""
    given = os.environ.get
    if given("NO_COLOR"):
        return False
    if given("FORCE_COLOR", "0") not in ("", "0") or given("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return given("TERM") != "dumb" and given("CLICOLOR") != "0" and stream.isatty()


def folded(line: str, stream: TextIO, indent: int = 2) -> Iterator[str]:
    """Yield the rows in which a terminal shows a line, broken at spaces; elsewhere the line.

    Rows after the first are indented. A word that is longer than a row, such as a path, stays
    whole, so that it can be copied.
    """
    columns = _columns(stream)
    if columns is None or _width(line) <= columns:
        yield line
        return
    row, *words = line.split(" ")
    for word in words:
        if row.strip() and _width(f"{row} {word}") > columns:
            yield row.rstrip()
            row = " " * indent + word
        else:
            row += f" {word}"
    yield row.rstrip()


def _columns(stream: TextIO) -> int | None:
    """Return the width of a terminal in cells, or None if `stream` is no terminal."""
    if not stream.isatty():
        return None
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or None
    return None


def progress_bar(**options: Any) -> Any:
    """Return tqdm's bar on stderr, shown on a terminal or in a notebook, until it is closed.

    It starts no monitor: that is a thread which would outlive a library call. Without it, each
    update must check whether the bar is to be drawn again.
    """
    in_notebook = _in_notebook()
    if in_notebook:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm  # type: ignore[assignment]

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0

    hidden = True if _quiet.get() else False if in_notebook else None  # None: if no terminal
    always = {"file": _below(sys.stderr), "disable": hidden, "leave": False, "miniters": 1}
    return Bar(**{**always, "dynamic_ncols": True, **options})


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def escaped(text: str) -> str:
    """Return `text` with control and invisible characters escaped, as `\\x1b`."""
    return "".join(
        c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode() for c in text
    )


def for_people(message: str) -> str:
    """Return a message `shortened`, with all but its line ends and tabs `escaped`."""
    return shortened(escaped_lines(shortened(message)))


def one_line(text: str) -> str:
    """Return `text` with its line ends escaped, such as those in names of files."""
    return text.replace("\n", "\\n")


def shell_line(words: Iterable[str]) -> str:
    """Return a command that can be copied from a message, as one line."""
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    """Quote a word for a shell; where messages would escape it, as bash, zsh and ksh read it."""
    if escaped(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_in_shell, word))}'"


def _in_shell(c: str) -> str:
    if escaped(c) == c and c not in "'\\":
        return c
    how = "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", how))


def escaped_lines(text: str) -> str:
    """Return `text` with all but its line ends and tabs `escaped`."""
    if text.isprintable():
        return text
    parts = re.split(r"([\n\t])", text)
    return "".join(part if part in "\n\t" else escaped(part) for part in parts)


class EscapedStream:
    """A text stream that escapes what is written to it, so that no input controls a terminal.

    Everything else about it is as in the stream below. Colours and progress bars are written to
    that, see `_below`.
    """

    def __init__(self, below: TextIO, escape: Callable[[str], str]) -> None:
        self.below, self._escape = below, escape

    def write(self, text: str) -> int:
        return self.below.write(self._escape(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


def _below(stream: TextIO) -> TextIO:
    """Return the stream that does not escape, for what is escaped already."""
    return stream.below if isinstance(stream, EscapedStream) else stream


def excerpt(value: object) -> str:
    """Quote the beginning of a text for a message: escaped, under 60 characters.

    Another value is shown as Python writes it, cut in the same way.
    """
    if not isinstance(value, str):
        return beginning(repr(value))
    start = value[:MAX_EXCERPT]
    while len(repr(start)) > MAX_EXCERPT + 2:
        start = start[:-1]
    return repr(start) if start == value else f"{start!r}..."


def beginning(text: str, most: int = MAX_EXCERPT) -> str:
    """Return the beginning of `text` for a message, escaped, without quotes."""
    return escaped(text[:most]) + "..." * (len(text) > most)


def text_table(
    rows: Iterable[Sequence[str]], left: Collection[int] = frozenset({0})
) -> Iterator[str]:
    """Yield a line for each row, columns two spaces apart. left: the left-aligned columns.

    The cells are `escaped`.
    """
    table = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(cell))
            cells.append(cell + space if place in left else space + cell)
        yield "  ".join(cells).rstrip()


def fitting_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], droppable: Iterable[Collection[int]] = ()
) -> Iterator[str]:
    """Yield the lines of a table that is at most WIDTH wide, if that can be done.

    Headings are broken into two rows if need be. If that is not enough, each of the `droppable`
    groups of columns is left out in turn.
    """
    table, left = list(rows), set(range(len(heads)))
    for dropped in ((), *droppable):
        left -= {*dropped}
        for names in ([heads], _in_two_rows(heads)):
            lines = [*text_table([[row[n] for n in sorted(left)] for row in (*names, *table)])]
            if is_narrow(lines):
                yield from lines
                return
    yield from lines


def is_narrow(lines: Iterable[str]) -> bool:
    """Return whether no line is wider than WIDTH."""
    return all(_width(line) <= WIDTH for line in lines)


def _in_two_rows(heads: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return headings, each broken at the blank that makes it narrowest, or in the lower row."""
    upper, lower = [], []
    for head in heads:
        words = head.split(" ")
        halves = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(len(words))]
        above, below = min(halves, key=lambda pair: max(map(_width, pair)))
        upper.append(above)
        lower.append(below)
    return upper, lower


def abridged(text: str, width: int) -> str:
    """Return `text` without its middle if it is wider than this number of cells."""
    if _width(text) <= width:
        return text
    head = _within(text, (width - 2) // 2)
    tail = _within(text[::-1], width - 3 - _width(head))[::-1]
    whole = dropwhile(lambda c: not _width(c), tail)  # marks of a letter that is left out
    return f"{head}...{''.join(whole)}"


def _within(text: str, width: int) -> str:
    """Return the beginning of `text` that takes at most this number of cells."""
    cells = 0
    for end, character in enumerate(text):
        cells += _width(character)
        if cells > width:
            return text[:end]
    return text


def _width(text: str) -> int:
    """Return the width on a terminal: two for wide characters, zero for combining marks."""
    text = _COLOUR.sub("", text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
