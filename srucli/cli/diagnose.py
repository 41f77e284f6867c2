"""`srucli diagnose`: parse, call, print. What finds is `srucli/diagnostics/findings.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder that `srucli train --diagnose N` printed.")
    ],
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Draw what was measured into this folder: PNG and SVG."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what the optimizer did to this model on this data, each sentence with its figures.

    Does it stall, is its memory too short or too long, were the first steps too long, is the
    learning rate at an edge, is a part of the model starved. Faults begin with an exclamation mark.
    """
    import json
    from dataclasses import asdict

    from srucli.diagnostics.findings import diagnose
    from srucli.diagnostics.records import Diagnostics

    diagnostics = Diagnostics.read(run)
    if plots is not None:
        from srucli.experiments.plots import OF_DIAGNOSTICS, check_folder

        check_folder(plots, OF_DIAGNOSTICS)
    findings = diagnose(diagnostics)
    if as_json:
        facts = {"optimizer": diagnostics.optimizer, "steps": diagnostics.steps}
        print(json.dumps(facts | {"findings": [asdict(finding) for finding in findings]}))
    else:
        name, peak, steps = diagnostics.name, diagnostics.peak, diagnostics.steps
        print(f"{name}, learning rate {peak:g}, {steps:,} steps")
        for finding in findings:
            print(f"{'!' if finding.fault else ' '} {finding.text}")
    if plots is not None:
        from srucli.experiments.plots import draw_diagnostics

        for path in draw_diagnostics(diagnostics, plots):
            print(path, file=typer.get_text_stream("stderr"))
