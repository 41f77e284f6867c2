"""`srucli compare`: the flags and the output of `srucli/experiments/compare.py`."""

from __future__ import annotations

import sys
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import completion, next_steps, options, process
from srucli.errors import UsageError
from srucli.io.console import fitting_table, put, shell_line, warn
from srucli.io.json_text import json_text

if TYPE_CHECKING:
    from srucli.experiments.compare import Comparison
    from srucli.experiments.trials import Candidate


class Command(options.Command):
    """The flags of `srucli compare` that stand for settings."""

    settings = ("data", "train.epochs", "train.steps", "train.device")
    without = ("data.group",)
    often = (
        *("--optimizer", "--encoder", "--over", "--output", "--dev", "--test"),
        *("--epochs", "--seeds", "--grid", "--jobs"),
    )
    examples = (
        "srucli compare reviews.tsv --optimizer adam,sgd,lion --epochs 3",
        "srucli compare reviews.tsv --over model.layers=1,2,4 --seeds 5",
    )


def command(
    context: typer.Context,
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="Labelled file; - is stdin.")],
    overrides: options.Overrides = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            "--optimizer",
            metavar="A,B,...",
            help="Optimizers to compare.",
            autocompletion=completion.of_setting("optim.name"),
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            metavar="A,B,...",
            help="Encoders to compare.",
            autocompletion=completion.of_setting("model.encoder"),
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            "--over",
            metavar="KEY=A,B,...",
            help="Values of a setting, such as model.layers=1,2,4.",
            autocompletion=completion.keys,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            metavar="DIR",
            help="Folder of the comparison. [default: runs/compare-TRAIN-WHAT]",
        ),
    ] = None,
    config: options.ConfigFile = None,
    dev: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Labelled file to choose the rates on. [default: a tenth of TRAIN]"
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Labelled file to evaluate on once, at the end. [default: a tenth of TRAIN]",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Number of trials at the best rate, each with another seed."
        ),
    ] = 3,
    grid: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of learning rates to start with; 1: only the default rate.",
        ),
    ] = 5,
    target: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Report the time to this value of the metric on dev. [default: 95% of the best]",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=0, max=256, metavar="N", help="Trials at once; 0: one per core, or one on a GPU."
        ),
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another comparison in the output folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare optimizers, encoders or values of any setting.

    Each is compared at its own best learning rate. A table is printed on stdout, and as its last
    line the HTML page with all results; progress goes to stderr.

    All trials have the same examples, tokenizer and number of steps, and for each seed the same
    initial weights and order of examples. A finished trial is never run again: the same command
    resumes a comparison that was stopped.
    """
    settings = options.resolved(config, overrides, context.obj)
    candidates = find_candidates(optimizer, encoder, over)
    sources = {"train": train, "dev": dev, "test": test}
    options.need_files(*sources.values())
    from srucli.experiments.compare import compare, to_json
    from srucli.experiments.trials import Plan

    plan = Plan(settings, candidates, settings.metric, grid, seeds, target)
    folder = output or default_folder(train, candidates)
    options.warn_of_files(settings)
    source = context.get_parameter_source("grid")
    if "optim.lr" in candidates[0].settings and source is not None and source.name == "COMMANDLINE":
        warn("--grid has no effect: the rates are compared")
    from srucli.experiments.page import PAGE, write_page

    command_line = shell_line(["srucli", *sys.argv[1:]])
    with process.term_as_int():
        comparison = compare(
            *(plan, sources, folder),
            jobs=jobs,
            force=force,
            reads=[config],
            show=lambda opened, result: write_page(opened, plan, result, command_line),
        )
    next_steps.after_compare(plan, comparison, sources)
    page = folder / PAGE
    if as_json:
        print(json_text(to_json(comparison) | {"page": str(page)}))
    else:
        _print_table(comparison, candidates)
        print(page)


def _print_table(comparison: Comparison, candidates: list[Candidate]) -> None:
    """Print the rows of the candidates, the best first and in a colour."""
    from srucli.experiments.report import HEADER, LESS_NEEDED, table_rows

    (key,) = candidates[0].settings
    rows = [[name.removeprefix(f"{key}="), *row] for name, *row in table_rows(comparison)]
    lines = [*fitting_table([_named(key), *HEADER[1:]], rows, LESS_NEEDED)]
    best = len(lines) - len(rows)
    put(*lines[:best])
    put(lines[best], colour="good")
    put(*lines[best + 1 :])


def default_folder(train: str, candidates: list[Candidate]) -> Path:
    """Return runs/compare-NAME-optimizer for NAME.tsv, so that the same command resumes there."""
    (key,) = candidates[0].settings
    name = "stdin" if train == "-" else Path(train).name.split(".")[0]
    return Path("runs") / f"compare-{name}-{_named(key)}"


def _named(key: str) -> str:
    """Return the last word of a setting, which says what is compared."""
    return "optimizer" if key == "optim.name" else key.rpartition(".")[2]


def find_candidates(
    optimizer: str | None, encoder: str | None, over: str | None
) -> list[Candidate]:
    """Return the candidates that one of the three flags lists. Raises UsageError."""
    from srucli.config import parse_overrides
    from srucli.experiments.trials import MAX_CANDIDATES, Candidate

    flags = [("optim.name", optimizer), ("model.encoder", encoder)]
    given = [(key, words) for key, words in flags if words]
    if over:
        key, _, words = over.partition("=")
        given.append((key, words))
    if len(given) != 1:
        raise UsageError("give one of --optimizer, --encoder and --over KEY=A,B")
    ((key, listed),) = given
    values: list[Any] = listed.split(",")
    if len(values) > MAX_CANDIDATES:
        raise UsageError(
            f"{len(values):,} values of {key} are too many to compare; list at most "
            f"{MAX_CANDIDATES:,} of them"
        )
    if over:
        trees = (parse_overrides([f"{key}={value}"]) for value in values)
        values = [reduce(getitem, key.split("."), tree) for tree in trees]
    if len(values) < 2 or len(set(map(str, values))) < len(values):
        raise UsageError(f"two or more different values of {key} are needed to compare")
    prefix = f"{key}=" if over else ""
    return [Candidate(f"{prefix}{value}", {key: value}) for value in values]
