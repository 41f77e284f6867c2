"""`srucli diagnose`: the flags and the output of `srucli/diagnostics/findings.py`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import completion
from srucli.cli import help as pages
from srucli.io.console import put, say
from srucli.io.json_text import json_text


class Command(pages.Command):
    """The help page of `srucli diagnose`."""

    examples = (
        "srucli train reviews.tsv --diagnose 10 -o runs/a",
        "srucli diagnose runs/a --plots plots",
    )


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of a run, as `srucli train --diagnose N` prints it.",
            autocompletion=completion.runs,
        ),
    ],
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write plots to this folder, as PNG and SVG."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Report what the optimizer did in a run, and how it is known.

    The report is printed on stdout.
    It answers: does training stall? Does the optimizer average over too few or too many steps? Were
    the first steps too large? Is the learning rate too low or too high? Does a part of the model
    hardly change? Lines that report a fault begin with an exclamation mark.
    """
    from srucli.diagnostics.findings import diagnose
    from srucli.diagnostics.records import Diagnostics

    diagnostics = Diagnostics.read(run)
    if plots is not None:
        from srucli.experiments.plots import OF_DIAGNOSTICS, check_folder

        check_folder(plots, OF_DIAGNOSTICS)
    findings = diagnose(diagnostics)
    if as_json:
        facts = {"optimizer": diagnostics.optimizer, "steps": diagnostics.steps}
        print(json_text(facts | {"findings": [asdict(finding) for finding in findings]}))
    else:
        name, peak, steps = diagnostics.name, diagnostics.peak, diagnostics.steps
        print(f"{name}, learning rate {peak:g}, {steps:,} steps")
        for finding in findings:
            mark, colour = ("!", "warning") if finding.fault else (" ", None)
            put(f"{mark} {finding.text}", colour=colour)
    if plots is not None:
        from srucli.experiments.plots import draw_diagnostics

        say(*map(str, draw_diagnostics(diagnostics, plots)))
