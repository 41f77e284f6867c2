"""Flags that several commands share, so that one name means one thing everywhere.

Each is a type to annotate a parameter with: `device: options.Device = None`. None means "not
given": the defaults stand in `srucli/config/`. The flags of data files come by `reads_data`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.errors import InputMissingError
from srucli.io.console import say

if TYPE_CHECKING:
    from srucli.config import Config

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="tsv, csv, fasttext, jsonl, pairs or lines (a text on each); auto goes by the file's "
        "ending or first line.",
        show_default=False,
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="COLUMN",
        help="Column of the text: its name, or its number from 1.",
        show_default=False,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="COLUMN",
        help="Column of the label: its name, or its number from 1.",
        show_default=False,
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first row names the columns.",
        show_default=False,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="CHAR",
        help="What separates columns; \\t is a tab.",
        show_default=False,
    ),
]
Quotes = Annotated[
    bool | None,
    typer.Option(
        "--quotes/--no-quotes",
        help="Whether quotes around cells are no part of them.",
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="Character encoding, as utf-8, cp949 or latin-1.",
        show_default=False,
    ),
]
Errors = Annotated[
    str | None,
    typer.Option(
        "--errors",
        metavar="NAME",
        help="strict, replace or ignore: what becomes of bytes that the encoding lacks.",
        show_default=False,
    ),
]
MultiLabel = Annotated[
    bool | None,
    typer.Option(
        "--multi-label/--single-label",
        help="Whether a text may have several labels, or none.",
        show_default=False,
    ),
]
LabelDelimiter = Annotated[
    str | None,
    typer.Option(
        "--label-delimiter",
        metavar="TEXT",
        help="What joins the labels of one multi-label text.",
        show_default=False,
    ),
]
MergeLabels = Annotated[
    bool | None,
    typer.Option(
        "--merge-labels",
        help="Take labels that look the same, or are alike as Pos and pos, for one.",
        show_default=False,
    ),
]
MaxRatio = Annotated[
    float | None,
    typer.Option(
        "--max-ratio",
        min=1,
        metavar="X",
        help="Refuse compressed files that grow beyond X times their size.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="cpu, cuda or cuda:N; auto takes the GPU where there is one.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=0, max=1024, help="CPU threads; 0 takes all cores.", show_default=False
    ),
]

ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Settings in YAML.")
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        help="As adam or adagrad; `srucli optimizers` lists them.",
        show_default=False,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="RATE",
        help="Peak learning rate. [default: the optimizer's own]",
        show_default=False,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="Passes over the texts. [default: by their number and that of labels]",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Texts in a step.",
        show_default=False,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="sru|lstm|gru|cnn|bag",
        help="What reads the pieces.",
        show_default=False,
    ),
]
Layers = Annotated[
    int | None,
    typer.Option(
        "--layers",
        min=1,
        help="Layers of the encoder.",
        show_default=False,
    ),
]
Hidden = Annotated[
    int | None,
    typer.Option(
        "--hidden",
        min=1,
        help="Units of each layer and direction.",
        show_default=False,
    ),
]
SubwordDropout = Annotated[
    float | None,
    typer.Option(
        "--subword-dropout",
        min=0,
        max=1,
        help="How freely texts are cut into pieces, afresh each epoch.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help="Seed of everything random.",
        show_default=False,
    ),
]

FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="METRIC=VALUE",
        help="Exit with 3 if the metric is worse than VALUE, as accuracy=0.9. Repeatable.",
    ),
]


DATA: dict[str, Any] = {
    "format": Format,
    "text": Text,
    "label": Label,
    "header": Header,
    "delimiter": Delimiter,
    "quotes": Quotes,
    "encoding": Encoding,
    "errors": Errors,
    "multi_label": MultiLabel,
    "label_delimiter": LabelDelimiter,
    "merge_labels": MergeLabels,
    "max_ratio": MaxRatio,
}
# What says how bytes become lines, and not what a line holds.
OF_LINES = {"data.encoding", "data.errors", "data.max_ratio"}
Settings = dict[str, object]


def reads_data(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of DATA but those named, and it them as its argument `data`.

    `data` has the flags that were given as dotted settings, such as {"data.format": "csv"}.
    """
    names = [name for name in DATA if name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        plain = inspect.signature(command, eval_str=True)
        own = [each for each in plain.parameters.values() if each.name != "data"]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        flags = [inspect.Parameter(n, kind, default=None, annotation=DATA[n]) for n in names]
        signature = plain.replace(parameters=[*own, *flags])

        @functools.wraps(command)
        def run(**given: Any) -> None:
            data = data_settings({name: given.pop(name) for name in names})
            command(**given, data=data)

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in [*own, *flags]}
        return run

    return decorate


def data_settings(given: Mapping[str, Any]) -> Settings:
    """The flags that were given, by their names in DATA, as dotted settings.

    A column that is a number becomes one; the two characters \\t become a tab.
    Raises UsageError for an unknown format.
    """
    read = {"format": _format, "text": _column, "label": _column}
    read |= {"delimiter": _with_tabs, "label_delimiter": _with_tabs}
    found = {name: value for name, value in given.items() if value is not None}
    return {
        f"data.{name}": read[name](value) if name in read else value
        for name, value in found.items()
    }


def names(data: Settings) -> list[str]:
    """The names in DATA of the flags that were given."""
    return [key.removeprefix("data.") for key in data]


def _format(value: str) -> str:
    from srucli.data.formats import format_named

    return format_named(value)


def _column(value: str) -> str | int:
    return int(value) if value.isdecimal() else value


def _with_tabs(value: str) -> str:
    return value.replace("\\t", "\t")


def resolved(
    file: Path | None, overrides: Sequence[str] | None, flags: Mapping[str, Any]
) -> Config:
    """The configuration, as `config.resolve`; says which flags an override replaces."""
    from srucli.config import overridden, resolve

    settings = resolve(file, overrides or (), flags)
    for line in overridden(overrides or (), flags):
        say(line)
    return settings


def say_of_files(settings: Config) -> None:
    """Say that what a YAML file names for `srucli run` is not looked at."""

    if settings.files is not None:
        say("the section 'files' has no effect: `srucli run` alone reads it")


def need_run(run: Path) -> None:
    """Refuse a run that is not there before the model is loaded. Raises InputMissingError."""
    if not run.is_dir():
        raise InputMissingError(f"{run}: no such run; give the folder that `srucli train` printed")


def need_file(source: str) -> None:
    """Refuse a file that is not there before anything slow happens. Raises InputMissingError."""
    if source != "-" and not Path(source).exists():
        raise InputMissingError(f"{source}: no such file; check the name and the folder")
