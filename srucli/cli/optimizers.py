"""`srucli optimizers`: print the table of `srucli/optim/table.py`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from srucli.cli import completion
from srucli.cli import help as pages
from srucli.io.console import put, text_table
from srucli.io.json_text import json_text


class Command(pages.Command):
    """The help page of `srucli optimizers`."""

    examples = ("srucli optimizers", "srucli optimizers adam", "srucli optimizers momentum")


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|WORD]...",
            autocompletion=completion.optimizers,
            help="An optimizer to describe, or words to search for, such as fused or momentum.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List optimizers, or describe one: rule, options, state.

    The list or description is printed on stdout.

    Optimizers of other packages are named `schedulefree:CLASS` and `pytorch_optimizer:CLASS`; `pip
    install 'srucli[schedulefree]'` or `'srucli[pytorch-optimizer]'` installs them.
    """
    from srucli.optim import OPTIMIZERS, describe, matching

    if words and len(words) == 1 and words[0] in OPTIMIZERS:
        row = describe(words[0])
        _print_json(row) if as_json else _print_row(row)
        return
    rows = [describe(name) for name in matching(words or [])]
    _print_json(rows) if as_json else _print_table(rows)


def _print_json(data: Any) -> None:
    print(json_text(data))


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = [("name", "rate", "fused on", "what it does")]
    for row in rows:
        fused = ", ".join(row["fused"]) or "-"
        table.append((row["name"], f"{row['lr']:g}", fused, row["summary"]))
    put(*text_table(table, left=(0, 2, 3)))


def _print_row(row: dict[str, Any]) -> None:
    print(f"{row['name']}: {row['summary']}")
    print(f"paper: {row['paper']}")
    print(f"learning rate {row['lr']:g}, weight decay {row['weight_decay']:g}")
    print(f"fused on: {', '.join(row['fused']) or 'nothing'}")
    print(f"in CUDA graphs: {'yes' if row['captured'] else 'no'}")
    print("\nupdate rule:")
    for line in row["rule"]:
        print(f"  {line}")
    print("\noptions (optim.options.NAME=VALUE):" if row["options"] else "\nno options")
    for name, option in row["options"].items():
        print(f"  {name}={option['default']}  {option['meaning']}; {option['wanted']}")
    print("\nstate per weight:" if row["state"] else "\nno state")
    for name, meaning in row["state"].items():
        print(f"  {name}  {meaning}")
