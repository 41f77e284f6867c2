"""`srucli tune`: the flags and the output of `srucli/experiments/tune.py`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import next_steps, options, process
from srucli.errors import OutputError, UsageError


class Command(options.Command):
    """The flags of `srucli tune` that stand for settings."""

    settings = ("data", "train.device", "train.threads", "train.seed")
    without = ("data.group",)
    often = ("--minutes", "--max-mb", "--output", "--dev")
    examples = (
        "srucli tune reviews.tsv --minutes 30",
        "srucli train reviews.tsv -c recipe.yaml",
    )


def command(
    context: typer.Context,
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="Labelled file.")],
    overrides: options.Overrides = None,
    minutes: Annotated[
        float, typer.Option(min=0.05, metavar="MINUTES", help="How long to search.")
    ] = 10.0,
    max_mb: Annotated[
        float | None,
        typer.Option(
            "--max-mb",
            min=0.01,
            metavar="MB",
            help="Largest size of a model, as copied for prediction.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File for the recipe.")
    ] = Path("recipe.yaml"),
    config: options.ConfigFile = None,
    dev: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Labelled file to evaluate trials on. [default: a tenth of TRAIN]"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the recipe's file.")] = False,
) -> None:
    """Search for a better recipe, within limits of time and size.

    The recipe's file, for `srucli train TRAIN -c recipe.yaml`, is printed on stdout; progress goes
    to stderr. Ctrl-C ends the search early and keeps the best recipe so far.
    """
    settings = options.resolved(config, overrides, context.obj)
    if not find_spec("optuna"):
        raise UsageError("srucli tune needs optuna: pip install 'srucli[tune]'")
    _check_paths(output, train, dev, config, force=force)
    options.warn_of_files(settings)
    import optuna

    from srucli.experiments.tune import tune
    from srucli.io.files import write_atomic
    from srucli.runtime import tune_process

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tune_process(settings.train.threads)
    with process.interruptible() as stop:
        recipe, _ = tune(settings, train, dev, minutes=minutes, max_mb=max_mb, stop=stop)
    try:
        write_atomic({output: recipe.encode()})
    except OutputError:
        print(recipe, end="")  # of a search of minutes or hours
        raise
    next_steps.after_tune(train, dev, output)
    print(output)


def _check_paths(
    output: Path, train: str, dev: str | None, config: Path | None, *, force: bool
) -> None:
    """Refuse, before the search, an output that cannot be written and inputs that it cannot use."""
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; name a file with -o")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output}: its folder does not exist; make it first")
    if output.exists() and not force:
        raise OutputError(f"{output}: exists already; choose another -o, or add --force")
    from srucli.io.files import check_writable
    from srucli.io.streams import display_name, is_piped
    from srucli.runs.claim import refuse_inputs

    options.need_files(train, dev)
    for source in filter(None, (train, dev)):
        if is_piped(source):
            name = display_name(source)
            raise UsageError(f"{name}: is read once a trial, so it cannot be a pipe; give a file")
    refuse_inputs([output], [train, dev, config])
    check_writable(output)
