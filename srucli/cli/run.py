"""`srucli run`: train and evaluate from one YAML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import next_steps, options, process
from srucli.cli.evaluate import check_gates, parse_gates
from srucli.errors import UsageError
from srucli.io.console import put, say


class Command(options.Command):
    """The flags of `srucli run` that stand for settings."""

    settings = ("data", "train.device", "train.threads")
    without = ("data.group",)
    often = ("--output", "--fail-under", "--force")
    examples = (
        "srucli run recipe.yaml",
        "srucli run recipe.yaml train.seed=1 -o runs/seed1 --fail-under accuracy=0.9",
    )


def command(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Settings and files.")],
    overrides: options.Overrides = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder of the run; overrides files.output."
        ),
    ] = None,
    fail_under: options.FailUnder = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run in the output folder.")
    ] = False,
) -> None:
    """Train and evaluate from one YAML file.

    Its section `files` names train, test and output. The evaluation is printed on stdout, and the
    folder of the run as its last line; progress goes to stderr.
    """
    settings = options.resolved(config, overrides, {"files.output": output} | context.obj)
    gates = parse_gates(fail_under, settings.data.multi_label)
    files = settings.files
    if files is None:
        raise UsageError(
            f"{config}: it has no section 'files'; set files.train=FILE and files.output=FOLDER"
        )
    if gates and files.test is None:
        raise UsageError("--fail-under has nothing to measure on; set files.test=FILE")
    options.need_files(files.train, files.dev, files.test)
    from srucli.runtime import tune_process
    from srucli.training.run import train

    tune_process(settings.train.threads)
    with process.interruptible() as stop:
        folder = train(
            settings,
            files.train,
            files.dev,
            Path(files.output),
            tokenizer=Path(files.tokenizer) if files.tokenizer else None,
            force=force,
            stop=stop,
            reads=[config, files.test],
        )
    if files.test is None:
        next_steps.after_train(folder)
        print(folder)
        return
    from srucli.config import given
    from srucli.data.readers import read_examples
    from srucli.inference.evaluation import evaluate
    from srucli.inference.predictor import Predictor

    predictor = Predictor.load(folder, settings.train.device)
    data = settings.data
    reading = read_examples(files.test, data, predictor.labels, names=predictor.names)
    examples = reading.reported(say, given(data))
    result = evaluate(predictor, examples, source=files.test, merge=data.merge_labels)
    say(*result.notes)
    put(*result.to_text().split("\n"))
    print(folder)
    sys.stdout.flush()
    check_gates(gates, result.metrics)
