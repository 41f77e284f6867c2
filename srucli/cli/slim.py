"""`srucli slim`: remove from a run what only a longer training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import completion
from srucli.cli import help as pages
from srucli.io.console import say, warn


class Command(pages.Command):
    """The help page of `srucli slim`."""

    examples = ("srucli slim runs/reviews",)


def command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run.", autocompletion=completion.runs),
    ],
) -> None:
    """Remove the optimizer's state from a run.

    With Adam, that is two thirds of its size. The run predicts as before. It can still be trained
    longer, or resumed if it was stopped, but then ends with other weights: the optimizer starts
    anew from those that are saved. The last line on stdout is the run folder.
    """
    from srucli.runs.choice import unfinished
    from srucli.runs.run_dir import RunDir

    RunDir.open(run)
    with RunDir.claim(run) as held:
        note = unfinished(held) if held.checkpoints.names() else None
        if note:
            warn(f"{note}; when resumed, the optimizer starts anew, so it ends with other weights")
        before, _ = held.sizes()
        held.slim()
        after, _ = held.sizes()
    say(f"{run}: removed {(before - after) / 1e6:,.1f} MB, {after / 1e6:,.1f} MB are left")
    print(run)
