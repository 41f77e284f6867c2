"""Flags that stand for settings, and other code that commands share.

`--epochs` stands for the setting `train.epochs`. Its type, default and help come from
`srucli/config/`, but only when a command line is parsed: `srucli --help` does not import pydantic.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from srucli.cli import completion
from srucli.cli import help as pages
from srucli.errors import InputMissingError, UsageError, did_you_mean
from srucli.io.console import excerpt, say, warn

if TYPE_CHECKING:
    from srucli.config import Config
    from srucli.inference.predictor import Predictor


def _configuration(word: str) -> Path:
    """Return the file of a recipe or of settings. Raises InputMissingError."""
    from srucli.config import configuration

    return configuration(word)


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        *("-c", "--config"),
        metavar="CONFIG",
        help="Settings: a name that `srucli info recipes` lists, or a YAML file, such as a run's "
        "config.yaml.",
        parser=_configuration,
        autocompletion=completion.configurations,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Folder of a run, as `srucli train` prints it.",
        autocompletion=completion.runs,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings, such as model.layers=4.",
        autocompletion=completion.overrides,
    ),
]
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="METRIC=VALUE",
        help="Exit with 3 if the metric is worse than VALUE, such as accuracy=0.9. Repeatable.",
        rich_help_panel="Output",
        autocompletion=completion.metrics,
    ),
]

# Flags that are not named as their setting is.
NAMES = {"optim.name": "--optimizer", "data.multi_label": "--multi-label/--single-label"}
# What the value of a flag is called, if not after its type.
VALUES = {
    "data.format": "FORMAT",
    "data.text": "COLUMN",
    "data.label": "COLUMN",
    "data.weight": "COLUMN",
    "data.group": "COLUMN",
    "data.delimiter": "MARK",
    "data.label_delimiter": "MARK",
    "data.encoding": "ENCODING",
    "data.errors": "HOW",
    "model.encoder": "NAME",
    "optim.name": "NAME",
    "optim.lr": "RATE",
    "train.save_minutes": "MINUTES",
    "train.device": "DEVICE",
    "tokenizer.normalization_rule_name": "NAME",
    "tokenizer.normalization_rule_tsv": "FILE",
    "tokenizer.model_type": "TYPE",
    "tokenizer.required_chars": "CHARACTERS",
}
# The settings of `data` that are about bytes and lines, and so apply to plain text too.
OF_LINES = {"encoding", "errors", "max_ratio"}
# Those that only files with labels need.
OF_LABELS = (
    *("data.label", "data.weight", "data.group", "data.multi_label", "data.label_delimiter"),
    "data.merge_labels",
)
# The types of a section, without their bounds; evaluating them is slow.
_types = cache(get_type_hints)


class Command(pages.Command):
    """A command with flags for settings; the context's `obj` has the settings that were given.

    `settings` lists sections and dotted settings; `without`, settings of these that get no flag.
    `labelled`: the files have labels.
    """

    settings: Sequence[str] = ()
    without: Sequence[str] = ()
    labelled = True
    _complete = False

    def keys(self) -> list[str]:
        """Return the dotted settings that have a flag."""
        from srucli.config import known_keys

        keys = [key for key in known_keys() if key not in self.without]
        return [key for key in keys if {key, key.partition(".")[0]} & {*self.settings}]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters. The flags are made at the first call, by Typer, as usual."""
        if not self._complete:

            def function() -> None: ...

            flags = [_parameter(key, labelled=self.labelled) for key in self.keys()]
            signature = inspect.Signature(flags)
            function.__signature__ = signature  # type: ignore[attr-defined]
            app = typer.Typer(add_completion=False)
            app.command(add_help_option=False)(function)
            self.params += typer.main.get_command(app).params
            self._complete = True
        return list(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Check the flags, and keep them out of the function's arguments. Raises UsageError."""
        given = {key: ctx.params.pop(_identifier(key)) for key in self.keys()}
        flags = {key: value for key, value in given.items() if value is not None}
        if self.labelled and "data.format" in flags:
            _check_format(flags["data.format"])
        ctx.obj = parse(flags)
        return super().invoke(ctx)


def flag_of(setting: str) -> str:
    """Return the flag of a setting: `--epochs` of `train.epochs`."""
    return NAMES.get(setting, "--" + setting.partition(".")[2].replace("_", "-"))


def group_of(setting: str) -> str:
    """Return the group of a setting's flag in help pages."""
    section = setting.partition(".")[0]
    groups = pages.OF_SETTINGS.items()
    return next(name for key in (setting, section) for name, keys in groups if key in keys)


def _identifier(setting: str) -> str:
    return setting.replace(".", "__")


def _described(setting: str) -> tuple[Any, Any]:
    """Return the field of a setting, and its type without bounds."""
    from srucli.config import Config

    section, _, name = setting.partition(".")
    kind: Any = Config.model_fields[section].annotation
    return kind.model_fields[name], _types(kind)[name]


def _parameter(setting: str, *, labelled: bool) -> inspect.Parameter:
    """Return the flag of a setting as a parameter. Its value stays text, which `parse` reads."""
    field, kind = _described(setting)
    types = (get_origin(kind), kind, *get_args(kind))
    flag, default = flag_of(setting), field.default
    if bool in types:
        flag = flag if "/" in flag else f"{flag}/--no-{flag[2:]}"
        default, metavar = {True: "on", False: "off"}.get(default), None
    elif setting in VALUES:
        metavar = VALUES[setting]
    else:
        words = {tuple: "A,B,...", str: "TEXT", float: "X", int: "N"}
        metavar = next(word for each, word in words.items() if each in types)
    # A run's data settings are the defaults for the files that it is applied to.
    is_fixed = default not in (None, "", ()) and not setting.startswith("data.")
    text = field.description.replace(", lines (texts)", "" if labelled else ", lines (texts)")
    shown = f"{default:g}" if isinstance(default, float) else default
    option = typer.Option(
        flag,
        metavar=metavar,
        help=text + (f" [default: {shown}]" if is_fixed else ""),
        show_default=False,
        rich_help_panel=group_of(setting),
        autocompletion=completion.of_setting(setting) if bool not in types else None,
    )
    return inspect.Parameter(
        _identifier(setting),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[bool | None if bool in types else str | None, option],
    )


def _check_format(name: str) -> None:
    """Raise UsageError for an unknown format, naming those of files with labels."""
    from srucli.config import choices

    known = choices("data.format")
    if name not in known:
        hint = did_you_mean(name, [each for each in known if each != "lines"])
        raise UsageError(f"--format: {excerpt(name)} is unknown{hint}")


def parse(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted settings, from the text of their flags. Raises UsageError naming the flag.

    A column that is a number becomes one, the two characters \\t become a tab.
    """
    return {setting: _value(setting, text) for setting, text in flags.items()}


def _value(setting: str, text: Any) -> Any:
    from srucli.config import build

    section, _, name = setting.partition(".")
    value = text
    if setting == "optim.name":
        from srucli.optim.table import check_name

        check_name(text, flag_of(setting))
    elif VALUES.get(setting) == "COLUMN":
        from srucli.data.layout import numbered

        value = numbered(text)
    elif setting in ("data.delimiter", "data.label_delimiter"):
        value = text.replace("\\t", "\t")
    elif get_origin(_described(setting)[1]) is tuple:
        value = comma_list(flag_of(setting), text)
    return attrgetter(setting)(build({section: {name: value}}, flag_of(setting)))


def comma_list(name: str, text: str) -> list[str]:
    """Return the items of a comma list, which may be quoted as in CSV. Raises UsageError."""
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise UsageError(f"{name} {text}: not a comma list ({error})") from None


def of_data(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `data` among these, by their names in that section."""
    return {
        key.removeprefix("data."): value for key, value in flags.items() if key.startswith("data.")
    }


def load_predictor(run: Path, flags: Mapping[str, Any]) -> Predictor:
    """Return a run, loaded as the flags say; set up the process. Raises UsageError, DataError."""
    from srucli.config import resolve
    from srucli.inference.forward import is_wide
    from srucli.inference.predictor import Predictor
    from srucli.runtime import return_freed_memory, tune_process

    settings = resolve(flags=flags).train
    tune_process(settings.threads)
    predictor = Predictor.load(run, settings.device)
    if is_wide(predictor.model):
        return_freed_memory()
    say(*predictor.notes)
    return predictor


def resolved(
    file: Path | None, overrides: Sequence[str] | None, flags: Mapping[str, Any]
) -> Config:
    """Return the configuration, and say which flags an override replaces. Raises UsageError."""
    from srucli.config import overridden, recipes, resolve

    if file and recipes().get(file.stem) == file and Path(file.stem).is_file():
        warn(f"-c {file.stem} is the recipe; the file of this name is -c ./{file.stem}")
    settings = resolve(file, overrides or (), flags)
    warn(*overridden(overrides or (), flags))
    return settings


def warn_of_files(settings: Config) -> None:
    """Say that the files that a YAML file names are for `srucli run` alone."""
    if settings.files is not None:
        warn("the section 'files' has no effect: `srucli run` alone reads it")


def need_files(*sources: str | None) -> None:
    """Raise InputMissingError if one of the files is missing, before anything slow happens."""
    for source in sources:
        if source and source != "-" and not Path(source).exists():
            raise InputMissingError(f"{source}: no such file; check the name and the folder")
        if source and (Path(source) / "run.json").is_file():
            raise InputMissingError(f"{source}: is a run; name a file of texts")
