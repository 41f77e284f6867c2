"""`srucli compare`: parse, call, print. What compares is `srucli/experiments/compare.py`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import options, process
from srucli.errors import UsageError
from srucli.io.console import say, text_table

if TYPE_CHECKING:
    from srucli.experiments.trials import Candidate


@options.reads_data()
def command(
    context: typer.Context,
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="Labelled file; - is stdin.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every training."),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", metavar="A,B,...", help="Optimizers to compare.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="A,B,...", help="Encoders to compare.")
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            "--over", metavar="KEY=A,B,...", help="Values of a setting, as model.layers=1,2,4."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="[default: runs/compare-TRAIN-WHAT]"),
    ] = None,
    config: options.ConfigFile = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Chooses the rates. [default: a tenth of TRAIN]"),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Only measured at last. [default: a tenth of TRAIN]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings at the best rate.")] = 3,
    grid: Annotated[
        int, typer.Option(min=1, help="Learning rates to begin with; 1: the default rate alone.")
    ] = 5,
    target: Annotated[
        float | None,
        typer.Option(help="Dev figure to time. [default: 95% of the best one]", show_default=False),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Trainings at once; 0: one for each core, on a GPU one.")
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another comparison in the output folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    epochs: options.Epochs = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of each.", show_default=False)
    ] = None,
    device: options.Device = None,
    *,
    data: options.Settings,
) -> None:
    """Compare optimizers, encoders or values of a setting, each at its own best learning rate.

    Same texts, tokenizer, budget of steps and, for a seed, initial weights and order of texts. What
    is finished is never run again: the same command goes on where it was stopped. The last line on
    stdout is the page that shows everything.
    """
    flags: dict[str, object] = {"train.epochs": epochs, "train.steps": steps}
    flags |= {"train.device": device} | data
    settings = options.resolved(config, overrides, flags)
    candidates = find_candidates(optimizer, encoder, over)
    sources = {"train": train, "dev": dev, "test": test}
    for source in filter(None, sources.values()):
        options.need_file(source)
    from srucli.experiments.compare import compare, to_json
    from srucli.experiments.trials import Plan

    plan = Plan(settings, candidates, settings.metric, grid, seeds, target)
    folder = output or own_folder(train, candidates)
    options.say_of_files(settings)
    asked = context.get_parameter_source("grid")
    if "optim.lr" in candidates[0].settings and asked is not None and asked.name == "COMMANDLINE":
        say("--grid has no effect: the rates are what is compared")
    from srucli.experiments.report import HEADS, PAGE, cells, write_page

    again = shlex.join(["srucli", *sys.argv[1:]])
    with process.term_as_int():
        found = compare(
            *(plan, sources, folder),
            jobs=jobs,
            force=force,
            reads=[config],
            show=lambda held, found: write_page(held, plan, found, again),
        )
    page = folder / PAGE
    if as_json:
        import json

        print(json.dumps(to_json(found) | {"page": str(page)}))
    else:
        print(*text_table([HEADS, *cells(found)]), page, sep="\n")


def own_folder(train: str, candidates: list[Candidate]) -> Path:
    """runs/compare-NAME-optimizer for the file NAME.tsv: the same one for the same comparison."""
    (key,) = candidates[0].settings
    what = "optimizer" if key == "optim.name" else key.rpartition(".")[2]
    name = "stdin" if train == "-" else Path(train).name.split(".")[0]
    return Path("runs") / f"compare-{name}-{what}"


def find_candidates(
    optimizer: str | None, encoder: str | None, over: str | None
) -> list[Candidate]:
    """What one of the three flags asks to compare. Raises UsageError."""
    from srucli.experiments.trials import Candidate

    given = {"optim.name": optimizer, "model.encoder": encoder}
    asked = {key: words.split(",") for key, words in given.items() if words}
    values: dict[str, list[Any]] = {key: list(words) for key, words in asked.items()}
    if over:
        key, words = _values(over)
        values[key] = words
    if len(values) != 1:
        raise UsageError("give one of --optimizer, --encoder and --over KEY=A,B")
    ((key, found),) = values.items()
    if len(found) < 2 or len(set(map(str, found))) < len(found):
        raise UsageError(f"two or more different values of {key} are needed to compare")
    prefix = f"{key}=" if over else ""
    return [Candidate(f"{prefix}{value}", {key: value}) for value in found]


def _values(over: str) -> tuple[str, list[Any]]:
    """`model.layers=1,2` as its key and values, read as an override is."""
    from srucli.config import parse_overrides

    key, _, words = over.partition("=")
    values = []
    for word in words.split(","):
        value: Any = parse_overrides([f"{key}={word}"])
        for part in key.split("."):
            value = value[part]
        values.append(value)
    return key, values
