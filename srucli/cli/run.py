"""`srucli run`: tokenize, train and eval from one YAML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import options, process
from srucli.cli.evaluate import check_gates, hold, parse_gates
from srucli.errors import UsageError
from srucli.io.console import say


@options.reads_data()
def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Settings and files.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder of the run: files.output."),
    ] = None,
    fail_under: options.FailUnder = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run that is in the output folder.")
    ] = False,
    device: options.Device = None,
    threads: options.Threads = None,
    *,
    data: options.Settings,
) -> None:
    """Train and measure as one YAML file says.

    Its section `files` names train, test and output.
    The table of the evaluation goes to stdout; its last line is the run's folder.
    """
    gates = parse_gates(fail_under or [])
    flags = {"files.output": output, "train.device": device, "train.threads": threads, **data}
    settings = options.resolved(config, overrides, flags)
    files = settings.files
    if files is None:
        raise UsageError(
            f"{config}: it has no section 'files'; set files.train=FILE and files.output=FOLDER"
        )
    if gates and files.test is None:
        raise UsageError("--fail-under has nothing to measure on; set files.test=FILE")
    check_gates(gates, settings.data.multi_label)
    for source in (files.train, files.dev, files.test):
        if source is not None:
            options.need_file(source)
    from srucli.runtime import tune_process
    from srucli.training.run import train

    tokenizer = Path(files.tokenizer) if files.tokenizer else None
    tune_process(settings.train.threads)
    with process.interruptible() as stop:
        folder = train(
            settings,
            files.train,
            files.dev,
            Path(files.output),
            tokenizer=tokenizer,
            force=force,
            stop=stop,
            reads=[config, files.test],
        )
    if files.test is None:
        print(folder)
        return
    from srucli.config import given
    from srucli.data.readers import read_examples
    from srucli.inference.evaluation import evaluate
    from srucli.inference.predictor import Predictor

    predictor = Predictor.load(folder, settings.train.device)

    names = predictor.names
    examples = read_examples(files.test, settings.data, predictor.labels, names=names)
    merge = settings.data.merge_labels
    told = examples.told(say, given(settings.data))
    result = evaluate(predictor, told, source=files.test, merge=merge)
    for note in result.notes:
        say(note)
    print(result.to_text())
    print(folder)
    sys.stdout.flush()
    hold(gates, result.figures)
