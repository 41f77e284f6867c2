"""Labelled texts that a caller gives in memory, in place of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srucli.io import streams
from srucli.io.json_objects import Item

# The keys of texts that are not the rows of a table.
TEXT, LABEL, WEIGHT, GROUP = "text", "label", "weight", "group"


@dataclass(frozen=True, eq=False)
class Given:
    """Objects like those of a file of JSON lines. Messages count them as lines, from 1.

    name: what messages call them. is_table: the keys of texts and labels are named by settings or
    guessed, else they are TEXT and LABEL.
    """

    objects: Sequence[Mapping[str, Any]]
    name: str
    is_table: bool = False

    def items(self) -> Iterator[Item]:
        """Yield the objects as the reader of JSON takes them."""
        for line, value in enumerate(self.objects, 1):
            texts = (each for each in value.values() if isinstance(each, str))
            yield Item(line, next(texts, ""), dict(value))


# Where labelled texts are from: a file, as the user gave it (`-` is stdin), or memory.
Source = str | os.PathLike[str] | Given


def display_name(source: Source) -> str:
    """Return the name of a source for messages."""
    return source.name if isinstance(source, Given) else streams.display_name(source)


def file_of(source: Source | None) -> str | None:
    """Return the file of a source, `-` of texts in memory: like a pipe, they cannot be reread."""
    if source is None:
        return None
    return "-" if isinstance(source, Given) else os.fspath(source)
