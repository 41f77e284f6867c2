"""`srucli train`: the flags and the output of `srucli/training/run.py`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import completion, next_steps, options, process
from srucli.cli.corpus import files_of, warn_of_labels
from srucli.errors import UsageError
from srucli.io.console import say

if TYPE_CHECKING:
    from srucli.config import Config
    from srucli.training.pretrain import RawText


class Command(options.Command):
    """The flags of `srucli train` that stand for settings."""

    settings = (
        *("data", "model.encoder", "model.layers", "model.hidden", "optim.name", "optim.lr"),
        *("train.epochs", "train.batch_size", "train.subword_dropout", "train.save_steps"),
        *("train.save_minutes", "train.keep_checkpoints", "train.seed", "train.device"),
        *("train.threads", "train.detect_anomaly", "train.diagnose"),
    )
    without = ("data.group",)
    often = (
        *("--output", "--dev", "--text", "--label", "--multi-label"),
        *("--epochs", "--lr", "--encoder", "--seed", "--resume"),
    )
    examples = (
        "srucli train reviews.tsv",
        "srucli train reviews.csv --text body --label stars --dev dev.csv -o runs/a",
        "srucli train reviews.tsv --encoder cnn --epochs 5 model.dropout=0.3",
        "srucli train more.tsv --from runs/a -o runs/b",
        "srucli train --resume runs/a --epochs 20",
    )


def command(
    context: typer.Context,
    train: Annotated[
        str | None,
        typer.Argument(
            metavar="TRAIN", help="Labelled file: TSV, CSV, JSON; - is stdin.", show_default=False
        ),
    ] = None,
    overrides: options.Overrides = None,
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
    base: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            autocompletion=completion.bases,
            help="Start from this run, with its tokenizer, weights and labels; or from what "
            "`srucli pretrain` made.",
        ),
    ] = None,
    raw: Annotated[
        list[str] | None,
        typer.Option(
            "--raw",
            metavar="CORPUS",
            help="Start from vectors that are learned from this raw text first: a file with a text "
            "in each line, a folder, a comma list; may be repeated.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            autocompletion=completion.runs,
            help="Resume a run that was stopped; train a finished one longer with --epochs N.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace a run in the output folder; with --resume, accept changed settings and "
            "examples.",
        ),
    ] = False,
) -> None:
    """Train a classifier from labelled texts.

    The folder of the run is printed on stdout; progress and results go to stderr. `srucli predict`
    and `srucli eval` use the folder.

    If a run was stopped or killed, the same command resumes it, and so does
    `srucli train --resume RUN`. The first Ctrl-C, TERM or USR1 saves a checkpoint and exits with
    75.

    Settings without a flag are given as KEY=VALUE; `srucli info settings` lists them all.
    """
    with process.interruptible() as stop:
        if resume:
            fixed: dict[str, object] = {"-o": output, "-c": config, "--tokenizer": tokenizer}
            fixed |= {"--from": base, "--raw": raw}
            given = [flag for flag, value in fixed.items() if value]
            if given:
                raise UsageError(f"--resume {resume}: the run has its own; leave out {given[0]}")
            files = (train, dev)
            folder = _resumed(resume, files, overrides or (), context.obj, force=force, stop=stop)
            next_steps.after_train(folder)
            print(folder)
            return
        if train is None or _is_override(train):
            raise UsageError("no TRAIN; name a labelled file, or a run with --resume")
        settings = options.resolved(config, overrides, context.obj)
        options.need_files(train, dev)
        corpus = files_of(raw) if raw else []
        if raw and base:
            raise UsageError("--raw and --from: give one of them")
        if "-" in corpus and "-" in (train, dev):
            raise UsageError("standard input (-) can be read only once")
        folder, note = (output, ()) if output else default_folder(train)
        from srucli.runtime import tune_process
        from srucli.training.from_raw import train_from_raw
        from srucli.training.run import train as run_training

        options.warn_of_files(settings)
        tune_process(settings.train.threads)
        how: dict[str, Any] = {"tokenizer": tokenizer, "force": force, "stop": stop}
        how["reads"] = [config, *corpus]
        if raw:
            read = partial(_raw_text, settings, corpus)
            train_from_raw(settings, train, dev, folder, read, **how)
        else:
            run_training(settings, train, dev, folder, base=base, **how)
        say(*note)
        next_steps.after_train(folder)
        print(folder)


def _resumed(
    run: Path,
    files: tuple[str | None, str | None],
    overrides: Sequence[str],
    flags: Mapping[str, Any],
    **how: Any,
) -> Path:
    """Resume a run. The word in the place of TRAIN may be the first override."""
    train, dev = files
    if train and _is_override(train):
        overrides, train = [train, *overrides], None
    options.need_files(train, dev)
    from srucli.config import flat, parse_overrides

    options.resolved(None, overrides, flags)
    settings = {**flags, **flat(parse_overrides(overrides))}
    from srucli.runtime import tune_process
    from srucli.training.run import resume

    tune_process()
    return resume(run, settings, train, dev, **how)


def _raw_text(settings: Config, files: Sequence[str]) -> RawText:
    """Read the files of raw text."""
    from srucli.config import DataConfig
    from srucli.data.corpus import texts_of
    from srucli.training.pretrain import RawText

    warn_of_labels(files, "`srucli pretrain --format auto`, then --from, takes the texts alone")
    lines = DataConfig(**settings.data.model_dump(include=options.OF_LINES))
    return RawText([*texts_of(files, lines, False, ())], files)


def _is_override(word: str) -> bool:
    """Return whether the word in the place of TRAIN is a setting."""
    return "=" in word and not Path(word).exists()


def default_folder(source: str) -> tuple[Path, Sequence[str]]:
    """Return runs/NAME for the file NAME.tsv.gz, or the first free one of NAME-2, NAME-3, ...

    A run that the same command has not finished counts as free: the command resumes it. The second
    value has a sentence if the folder could not be runs/NAME.
    """
    name = "stdin" if source == "-" else Path(source).name.split(".")[0] or "run"
    number, folder = 1, Path("runs") / name
    while folder.exists():
        from srucli.training.resume import is_resumed_by

        if is_resumed_by(folder, sys.argv):
            break
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    if number == 1 or folder.exists():
        return folder, ()
    taken = Path("runs") / name
    return folder, [f"{taken} is there already: the run is {folder}; -o FOLDER sets another"]
