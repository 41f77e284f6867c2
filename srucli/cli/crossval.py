"""`srucli crossval`: the flags and the output of `srucli/experiments/crossval.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import next_steps, options, process
from srucli.cli.evaluate import check_gates, parse_gates
from srucli.io.console import fitting_table, put
from srucli.io.json_text import json_text


class Command(options.Command):
    """The flags of `srucli crossval` that stand for settings."""

    settings = (
        *("data", "model.encoder", "model.layers", "model.hidden", "optim.name", "optim.lr"),
        *("train.epochs", "train.batch_size", "train.subword_dropout", "train.seed"),
        *("train.device", "train.threads"),
    )
    often = (
        *("--folds", "--repeats", "--group", "--output", "--text", "--label", "--multi-label"),
        *("--epochs", "--jobs", "--fail-under"),
    )
    examples = (
        "srucli crossval reviews.tsv",
        "srucli crossval posts.csv --group author --folds 10 -c recipe.yaml",
    )


def command(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labelled file; - is stdin.")],
    overrides: options.Overrides = None,
    folds: Annotated[int, typer.Option(min=2, metavar="K", help="Number of folds.")] = 5,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="How often folds are drawn, each time with another seed."
        ),
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            metavar="DIR",
            help="Folder of the cross-validation. [default: runs/crossval-FILE]",
        ),
    ] = None,
    config: options.ConfigFile = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=0, max=256, metavar="N", help="Folds at once; 0: one per core, or one on a GPU."
        ),
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another cross-validation in the output folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    fail_under: options.FailUnder = None,
) -> None:
    """Measure a recipe on a file without a test file.

    The texts are divided into folds, each with its share of every label. For each fold, a run is
    trained on the others, as `srucli train` does it, and tested once on the fold. A table of all
    metrics is printed on stdout: mean and standard deviation over folds, and the metric of all
    out-of-fold predictions together, with its 95% interval. The last line is the file of these
    predictions, JSON lines that `srucli train` reads as soft labels. Progress goes to stderr.

    The seed of the first repeat's folds is train.seed, of the next that plus 1. A finished fold is
    never trained again: the same command resumes what was stopped. --fail-under is about the means;
    the exit code is 3 if it fails.
    """
    settings = options.resolved(config, overrides, context.obj)
    gates = parse_gates(fail_under, settings.data.multi_label)
    options.need_files(file)
    options.warn_of_files(settings)
    from srucli.experiments.crossval import crossval
    from srucli.experiments.crossval_results import table_rows
    from srucli.experiments.fold_trials import Plan

    plan, folder = Plan(settings, folds, repeats), output or default_folder(file)
    with process.term_as_int():
        found = crossval(plan, file, folder, jobs=jobs, force=force, reads=[config])
    next_steps.after_crossval(plan, file)
    if as_json:
        print(json_text(found.to_json()))
    else:
        put(*fitting_table(*table_rows(found)))
        print(found.predictions)
    check_gates(gates, found.means)


def default_folder(file: str) -> Path:
    """Return runs/crossval-NAME for NAME.tsv, so that the same command resumes there."""
    name = "stdin" if file == "-" else Path(file).name.split(".")[0]
    return Path("runs") / f"crossval-{name}"
