"""Messages on stderr, text that is safe on a terminal, and tables of text."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any


def say(*lines: str) -> None:
    """Write lines to stderr, above a progress bar if one is shown."""
    from tqdm import tqdm  # here, so that `srucli --help` does not load it

    with suppress(BrokenPipeError):  # nobody reads stderr any more
        for line in lines:
            tqdm.write(line, file=sys.stderr)


def progress_bar(**options: Any) -> Any:
    """Return tqdm's bar on stderr, shown only on a terminal and until it is closed.

    It starts no monitor: that is a thread which would outlive a library call. Without it, each
    update must check whether the bar is to be drawn again.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0

    return Bar(**{"disable": None, "leave": False, "miniters": 1, **options})


def escaped(text: str) -> str:
    """Return `text` with control and invisible characters escaped, as `\\x1b`."""
    joiners = "\u200c\u200d"  # needed to write Persian, Hindi and many emoji
    return "".join(
        c if c.isprintable() or c in joiners else c.encode("unicode_escape").decode() for c in text
    )


def for_terminal(line: str) -> str:
    """Return a line of output `escaped`, with its tabs kept."""
    return "\t".join(map(escaped, line.split("\t")))


def excerpt(text: str) -> str:
    """Quote the beginning of `text` for an error message: escaped, under 60 characters."""
    start = text[:54]
    while len(repr(start)) > 56:
        start = start[:-1]
    return repr(start) if start == text else f"{start!r}..."


def text_table(
    rows: Iterable[Sequence[str]], left: Collection[int] = frozenset({0})
) -> Iterator[str]:
    """Yield a line for each row, columns two spaces apart. left: the left-aligned columns."""
    table = list(rows)
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(cell))
            cells.append(cell + space if place in left else space + cell)
        yield "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """Return the width on a terminal: two for wide characters, zero for combining marks."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
