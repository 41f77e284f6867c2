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

    from srucli.diagnostics.findings import explain, read

    story = read(run)
    if plots is not None:
        from srucli.experiments.plots import OF_STORY, check_folder

        check_folder(plots, OF_STORY)
    findings = explain(story)
    if as_json:
        facts = {"optimizer": story.optimizer, "steps": story.steps}
        print(json.dumps(facts | {"findings": [asdict(finding) for finding in findings]}))
    else:
        print(f"{story.name}, learning rate {story.peak:g}, {story.steps:,} steps")
        for finding in findings:
            print(f"{'!' if finding.fault else ' '} {finding.text}")
    if plots is not None:
        from srucli.experiments.plots import draw_story

        for path in draw_story(story, plots):
            print(path, file=typer.get_text_stream("stderr"))
