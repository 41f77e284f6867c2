"""`srucli train`: parse, call, print. What trains is `srucli/training/run.py`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from srucli.cli import options, process
from srucli.errors import UsageError
from srucli.io.console import say
from srucli.training.interrupts import Interrupt


@options.reads_data()
def command(
    train: Annotated[
        str | None,
        typer.Argument(metavar="TRAIN", help="Labelled file; - is stdin.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings, as model.layers=4 optim.lr=2e-4."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder of the run. [default: runs/TRAIN]"
        ),
    ] = None,
    config: options.ConfigFile = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Labelled file to evaluate on after each epoch."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="SentencePiece model. [default: trained on TRAIN]"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that was stopped, or with --epochs N for longer.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace a run that is in the output folder; "
            "with --resume, go on although settings or texts are others.",
        ),
    ] = False,
    optimizer: options.Optimizer = None,
    lr: options.LearningRate = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    encoder: options.Encoder = None,
    layers: options.Layers = None,
    hidden: options.Hidden = None,
    subword_dropout: options.SubwordDropout = None,
    save_steps: Annotated[
        int | None,
        typer.Option(
            "--save-steps",
            min=0,
            metavar="N",
            help="Steps between checkpoints within an epoch. [default: by minutes]",
            show_default=False,
        ),
    ] = None,
    save_minutes: Annotated[
        float | None,
        typer.Option(
            "--save-minutes",
            min=0,
            metavar="M",
            help="Minutes between checkpoints within an epoch; 0: none. [default: 5]",
            show_default=False,
        ),
    ] = None,
    keep_checkpoints: Annotated[
        int | None,
        typer.Option(
            "--keep-checkpoints",
            min=1,
            metavar="K",
            help="Newest checkpoints that stay. [default: 2, and 1 at the end]",
            show_default=False,
        ),
    ] = None,
    detect_anomaly: Annotated[
        bool | None,
        typer.Option(
            "--detect-anomaly",
            help="Stop at a gradient that is no number, and name the text it comes from.",
            show_default=False,
        ),
    ] = None,
    diagnose: Annotated[
        int | None,
        typer.Option(
            "--diagnose",
            min=1,
            metavar="N",
            help="Look at the optimizer every N steps, for `srucli diagnose`.",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    threads: options.Threads = None,
    *,
    data: options.Settings,
) -> None:
    """Train a classifier from labelled texts. The last line on stdout is the run's folder.

    The same command goes on with a training that was stopped or killed, and so does
    `srucli train --resume RUN`. A first Ctrl-C, TERM or USR1 saves and exits with 75.

    Every setting is also an override: `srucli train data.tsv model.layers=4 optim.lr=2e-4`;
    `srucli info settings` lists them with their defaults.
    """
    flags = {
        "optim.name": optimizer,
        "optim.lr": lr,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "model.encoder": encoder,
        "model.layers": layers,
        "model.hidden": hidden,
        "train.subword_dropout": subword_dropout,
        "train.save_steps": save_steps,
        "train.save_minutes": save_minutes,
        "train.keep_checkpoints": keep_checkpoints,
        "train.detect_anomaly": detect_anomaly,
        "train.diagnose": diagnose,
        "train.seed": seed,
        "train.device": device,
        "train.threads": threads,
        **data,
    }
    with process.interruptible() as stop:
        if resume:
            fixed = {"-o": output, "-c": config, "--tokenizer": tokenizer}
            given = [flag for flag, value in fixed.items() if value]
            if given:
                raise UsageError(f"--resume {resume}: the run has its own; leave out {given[0]}")
            print(_resumed(resume, train, dev, overrides or (), flags, force, stop))
            return
        if train is None or _is_override(train):
            raise UsageError("no TRAIN; name a labelled file, or a run with --resume")
        settings = options.resolved(config, overrides, flags)
        options.need_file(train)
        if dev:
            options.need_file(dev)
        folder = output or default_folder(train)
        from srucli.runtime import tune_process
        from srucli.training.run import train as run_training

        options.say_of_files(settings)
        how: dict[str, Any] = {"tokenizer": tokenizer, "force": force, "stop": stop}
        tune_process(settings.train.threads)
        run_training(settings, train, dev, folder, reads=[config], **how)
        print(folder)


def _resumed(
    run: Path,
    train: str | None,
    dev: str | None,
    overrides: Sequence[str],
    flags: Mapping[str, Any],
    force: bool,
    stop: Interrupt,
) -> Path:
    """Go on with a run. What stands where TRAIN does may be an override already."""
    if train and _is_override(train):
        overrides, train = [train, *overrides], None
    for source in (train, dev):
        if source:
            options.need_file(source)
    from srucli.config import flat, parse_overrides

    options.resolved(None, overrides, flags)
    settings = {key: value for key, value in flags.items() if value is not None}
    settings |= flat(parse_overrides(overrides))
    from srucli.runtime import tune_process
    from srucli.training.run import resume

    tune_process()
    return resume(run, settings, train, dev, force=force, stop=stop)


def _is_override(word: str) -> bool:
    """Whether what stands where TRAIN does is a setting."""
    return "=" in word and not Path(word).exists()


def default_folder(source: str) -> Path:
    """runs/NAME for the file NAME.tsv.gz, or the first free one of NAME-2, NAME-3, ...

    One that the same command left unfinished is as good as free: the command goes on there.
    """
    name = "stdin" if source == "-" else Path(source).name.split(".")[0] or "run"
    number, folder = 1, Path("runs") / name
    while folder.exists():
        from srucli.training.resume import is_of

        if is_of(folder, sys.argv):
            break
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    if number > 1 and not folder.exists():
        say(f"{Path('runs') / name} is there already: the run is {folder}; -o FOLDER sets another")
    return folder
