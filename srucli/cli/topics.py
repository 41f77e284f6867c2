"""`srucli help`: a section of the guide, or the help page of a command.

The guide is `srucli/guide.md`, in Markdown. Its paragraphs are wrapped for a terminal, its tables
become columns, and a link's target stands behind its text.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from srucli.cli import help as pages
from srucli.errors import UsageError, did_you_mean
from srucli.io.console import WIDTH, excerpt, put, text_table

GUIDE = Path(__file__).parents[1] / "guide.md"
# What the sections of the guide are called here, in their order.
TOPICS = {
    "formats": "Input files",
    "settings": "Settings and recipes",
    "languages": "Korean and other languages",
    "labels": "Soft labels and weights",
    "exit-codes": "Exit codes",
    "resume": "Resuming a run",
    "raw-text": "Starting from raw text",
    "fine-tuning": "Fine-tuning an earlier run",
    "untrusted": "Untrusted files",
    "runs": "Run folders",
    "containers": "Containers",
    "trackers": "Trackers",
    "json": "The JSON of an evaluation",
    "cross-validation": "Cross-validation",
    "comparing": "Comparing optimizers",
    "python": "SRU in your own PyTorch code",
}


class Command(pages.Command):
    """The help page of `srucli help`."""

    examples = ("srucli help", "srucli help formats", "srucli help train")


def _commands(context: typer.Context) -> dict[str, Any]:
    """Return the commands of srucli by their names."""
    assert context.parent is not None
    commands: dict[str, Any] = context.parent.command.commands  # type: ignore[attr-defined]
    return commands


def _names(context: typer.Context) -> list[str]:
    """Return what a shell is offered."""
    return [*TOPICS, *_commands(context)]


def command(
    context: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]",
            help="A topic or a command. [default: list them]",
            autocompletion=_names,
        ),
    ] = None,
) -> None:
    """Show a section of the guide, or the help of a command.

    Without TOPIC, list both. A word of a section's title names it too. The text is printed on
    stdout.
    """
    parent, commands = context.parent, _commands(context)
    if topic is None:
        assert parent is not None
        put(*parent.get_help().splitlines(), "", "Topics of `srucli help TOPIC`:")
        put(*(f"  {row}" for row in text_table(TOPICS.items(), left=(0, 1))))
    elif title := _title(topic):
        put(title, "")
        put(*section(title))
    elif topic in commands:
        with commands[topic].make_context(topic, [], parent=parent, resilient_parsing=True) as own:
            put(*own.get_help().splitlines())
    else:
        hint = did_you_mean(topic, _names(context))
        raise UsageError(f"no topic or command {excerpt(topic)}{hint}; see srucli help")


def _title(topic: str) -> str | None:
    """Return the title of the section that a topic, or a word of a single title, names."""
    if topic in TOPICS:
        return TOPICS[topic]
    word = topic.casefold()
    found = [title for title in TOPICS.values() if word in re.split("[^a-z-]", title.casefold())]
    return found[0] if len(found) == 1 else None


def section(title: str) -> Iterator[str]:
    """Yield the lines of a section of the guide, at most WIDTH wide where they can be broken."""
    text = GUIDE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    for kind, group in groupby(_with_kinds(text.strip("\n")), key=itemgetter(0)):
        lines = [line for _, line in group]
        if kind == "table":
            yield from _table(lines)
        elif kind == "text":
            for item in re.split(r"\n(?=- )", "\n".join(lines)):
                yield from _wrapped(_plain(" ".join(item.split())), 2 * item.startswith("- "))
        else:
            yield from lines


def _with_kinds(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line with its kind: text, code, table or blank. Code is indented by 4 spaces."""
    fenced = False
    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            yield "code", f"    {line}".rstrip()
        elif not line:
            yield "blank", line
        else:
            starts = {"|": "table", "    ": "code"}
            yield (
                next((kind for start, kind in starts.items() if line.startswith(start)), "text"),
                line,
            )


def _table(lines: list[str]) -> Iterator[str]:
    """Yield the rows of a table in aligned columns, the last one wrapped."""
    rows = [[cell.strip() for cell in _plain(line).strip("|").split("|")] for line in lines]
    del rows[1]  # the line below the heading
    indent = sum(max(map(len, column)) + 2 for column in list(zip(*rows, strict=True))[:-1])
    for row in text_table(rows, left=range(len(rows[0]))):
        yield from _wrapped(row, indent)


def _plain(text: str) -> str:
    """Return Markdown without bold, and with the target of a link behind its text."""
    text = re.sub(r"\[([^]]*)\]\(#[^)]*\)", r"\1", text)
    text = re.sub(r"\[([^]]*)\]\((?:\.\./)?([^)]*)\)", r"\1 <\2>", text)
    return text.replace("**", "")


def _wrapped(text: str, indent: int) -> list[str]:
    """Return the rows of a text, those after the first indented. Words stay whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
