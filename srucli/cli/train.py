"""`srucli train`: parse, call, print. What trains is `srucli/train.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import options


@options.reads_data()
def command(
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="Labelled file; - is stdin.")],
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run that is in the output folder.")
    ] = False,
    optimizer: options.Optimizer = None,
    lr: options.LearningRate = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    encoder: options.Encoder = None,
    layers: options.Layers = None,
    hidden: options.Hidden = None,
    subword_dropout: options.SubwordDropout = None,
    diagnose: Annotated[
        int | None,
        typer.Option(
            "--diagnose",
            min=1,
            metavar="N",
            help="Look at the optimizer every N steps, for `srucli explain`.",
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

    Every setting is also an override: `srucli train data.tsv model.layers=4 optim.lr=2e-4`;
    `srucli info settings` lists them with their defaults.
    """
    from srucli.config import resolve

    flags = {
        "optim.name": optimizer,
        "optim.lr": lr,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "model.encoder": encoder,
        "model.layers": layers,
        "model.hidden": hidden,
        "train.subword_dropout": subword_dropout,
        "train.diagnose": diagnose,
        "train.seed": seed,
        "train.device": device,
        "train.threads": threads,
        **data,
    }
    settings = resolve(config, overrides or (), flags)
    folder = output or default_folder(train)
    options.need_file(train)
    if dev:
        options.need_file(dev)
    from srucli.train import train as run_training

    print(run_training(settings, train, dev, folder, tokenizer=tokenizer, force=force))


def default_folder(source: str) -> Path:
    """runs/NAME for the file NAME.tsv.gz; the first free one of NAME, NAME-2, NAME-3, ..."""
    name = "stdin" if source == "-" else Path(source).name.split(".")[0] or "run"
    number, folder = 1, Path("runs") / name
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
