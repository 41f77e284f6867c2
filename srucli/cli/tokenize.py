"""`srucli tokenize`: raw text in, a SentencePiece model out, with the flags of `spm_train`.

The flags of training are made from `TokenizerConfig` when the command line is parsed, so that their
names, defaults and meanings stand in one place and `srucli --help` does not wait for them.
"""

from __future__ import annotations

import csv
import inspect
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from srucli.cli import options
from srucli.errors import InputMissingError, OutputError, UsageError
from srucli.io.console import say
from srucli.io.files import write_atomic
from srucli.runs.claim import refuse_inputs

if TYPE_CHECKING:
    from srucli.config import DataConfig, TokenizerConfig
    from srucli.tokenizer.training import OnProgress

UNDERSCORES: dict[str, Any] = {"token_normalize_func": lambda name: name.replace("_", "-")}

_SWITCH = {"true": "", "1": "", "yes": "", "false": "no-", "0": "no-", "no": "no-"}
_LABELLED = {".tsv", ".csv", ".json", ".jsonl", ".ndjson", ".ft", ".fasttext"}


# ---------------------------------------------------------------- flags


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _fields() -> dict[str, Any]:
    from srucli.config import TokenizerConfig

    return dict(TokenizerConfig.model_fields)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "LIST"
    return {str: "TEXT", float: "FLOAT"}.get(kind, "INTEGER")


def _parameter(name: str, field: Any) -> inspect.Parameter:
    """The flag of one setting. Its value stays text: TokenizerConfig is what checks it."""
    switch, default, flag = field.annotation is bool, field.default, _flag(name)
    if switch:
        default = "on" if default else "off"
    shown = "" if default in (None, "", ()) else f" [default: {default}]"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if switch else flag,
        metavar=None if switch else _metavar(field.annotation),
        help=field.description + shown,
        show_default=False,
    )
    kind = Annotated[bool | None, option] if switch else Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _generated_options() -> list[Any]:
    """Typer's options for the fields of TokenizerConfig, made from a signature as usual."""

    def function() -> None: ...

    fields = _fields()
    signature = inspect.Signature([_parameter(name, field) for name, field in fields.items()])
    function.__signature__ = signature  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return [option for option in typer.main.get_command(app).params if option.name in fields]


def _plain_switch(argument: str, switches: set[str]) -> str:
    """`--byte-fallback` for `--byte_fallback=true`, and `--no-...` for `=false`."""
    name, equals, value = argument.removeprefix("--").replace("_", "-").partition("=")
    if equals and argument.startswith("--") and name in switches and value.lower() in _SWITCH:
        return f"--{_SWITCH[value.lower()]}{name}"
    return argument


class Command(TyperCommand):
    """A command with the flags of TokenizerConfig; the values given are the context's `obj`."""

    _complete = False

    def get_params(self, ctx: Any) -> list[Any]:
        """Own parameters and the generated ones, which are made when they are first asked for."""
        if not self._complete:
            self.params, self._complete = [*self.params, *_generated_options()], True
        return list(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let switches have values, as `spm_train` does."""
        switches = {
            name.replace("_", "-") for name, field in _fields().items() if field.annotation is bool
        }
        return list(super().parse_args(ctx, [_plain_switch(arg, switches) for arg in args]))

    def invoke(self, ctx: Any) -> Any:
        """Keep the generated flags out of the function's arguments."""
        given = {name: ctx.params.pop(name) for name in _fields()}
        ctx.obj = {name: value for name, value in given.items() if value is not None}
        return super().invoke(ctx)


def _symbols(name: str, value: str) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader([value], strict=True), []))
    except csv.Error as error:
        raise UsageError(f"{_flag(name)} {value}: not a comma list ({error})") from None


def _config(given: dict[str, Any]) -> TokenizerConfig:
    """Check the generated flags. Raises UsageError naming the flag."""
    from pydantic import ValidationError

    from srucli.config import TokenizerConfig

    lists = {name for name, field in _fields().items() if get_origin(field.annotation) is tuple}
    values = {key: _symbols(key, value) if key in lists else value for key, value in given.items()}
    try:
        config = TokenizerConfig.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        message = f"{_flag(str(wrong['loc'][0]))} {wrong['input']}: {wrong['msg']}"
        raise UsageError(message) from None
    rules = config.normalization_rule_tsv
    if rules and not os.path.isfile(rules):
        raise InputMissingError(f"--normalization-rule-tsv {rules}: no such file")
    return config


# ---------------------------------------------------------------- input


def _inside(folder: Path) -> list[str]:
    """Every file under `folder`, in order, without hidden ones and those of hidden folders."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise InputMissingError(f"{folder}: no files in this folder")
    return [str(path) for path in files]


def _files(inputs: Sequence[str]) -> list[str]:
    """The files that the arguments mean: files, folders, comma lists of them, `-`."""
    names: list[str] = []
    for given in inputs:
        whole = given == "-" or os.path.exists(given)
        for name in [given] if whole else _symbols("input", given):
            if name != "-" and not os.path.exists(name):
                raise InputMissingError(f"{name}: no such file or folder; check the name")
            names += _inside(Path(name)) if os.path.isdir(name) else [name]
    if not names:
        raise UsageError("no input; name files or folders, or - for standard input")
    if names.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    return names


def _texts(
    files: Sequence[str], config: DataConfig, labelled: bool, asked: Sequence[str]
) -> Iterator[str]:
    from srucli.data.readers import read_inputs

    for file in files:
        reading = read_inputs(file, config, plain=None if labelled else config)
        for record in reading.told(say, asked) if labelled else reading:
            yield record.text
        for line in () if labelled else reading.dropped():
            say(f"{file}: {line}")


def _warn_of_idle(config: TokenizerConfig, given: Iterable[str]) -> None:
    """Name the flags that can do nothing beside the others."""
    from srucli.config import Config
    from srucli.training.effects import Setup, idle

    setup = Setup(Config(tokenizer=config), dev=False)
    for line in idle(setup, [f"tokenizer.{name}" for name in given]):
        flags = re.sub(r"tokenizer\.(\w+)", lambda match: _flag(match[1]), line)
        say(f"srucli: {flags}")


def _warn_of_labels(files: Sequence[str]) -> None:
    for name in files:
        if _LABELLED & set(Path(name.lower()).suffixes):
            say(
                f"srucli: {name} is read as raw text, labels and all; "
                "--format auto takes the texts of labelled files"
            )
            return


# ---------------------------------------------------------------- output


def _outputs(prefix: str, force: bool) -> tuple[Path, Path]:
    """The .model and .vocab to write. Raises OutputError where that is bound to fail."""
    prefix = prefix.removesuffix(".model")
    if not prefix or prefix.endswith(os.sep):
        raise UsageError(f"--model-prefix {prefix!r}: name a file, as {prefix}m")
    model, vocab = Path(prefix + ".model"), Path(prefix + ".vocab")
    if not model.parent.is_dir():
        raise OutputError(f"{model.parent}: no such folder; make it first (mkdir -p)")
    if not os.access(model.parent, os.W_OK):
        raise OutputError(f"{model.parent}: no permission to write there")
    for path in (model, vocab):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; choose another prefix")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; choose another prefix or pass --force")
    return model, vocab


@contextmanager
def _status() -> Iterator[OnProgress | None]:
    """One line that shows what is going on, on a terminal only; gone at the end."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = 0.0

    def show(words: str) -> None:
        nonlocal shown
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            width = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r\x1b[K{words[: width - 1]}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")


@options.reads_data("label", "multi_label", "label_delimiter")
def command(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Files (also gz, xz, zst), comma lists of files, folders; - is standard input. "
            "Every line is raw text, whatever a file is called, unless --format or --text is "
            "given: then the texts of labelled files are taken.",
        ),
    ] = None,
    model_prefix: Annotated[
        str,
        typer.Option(
            "--model-prefix",
            "-o",
            metavar="PREFIX",
            help="Write PREFIX.model and PREFIX.vocab.",
            show_default=False,
        ),
    ] = "",
    more_inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="INPUT", help="The same as INPUT, as spm_train has it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    *,
    data: options.Settings,
) -> None:
    """Train a SentencePiece tokenizer from raw text.

    Its kind is unigram, BPE, word or char. SentencePiece's options have its own names, as
    --vocab-size 2000 or --vocab_size=2000.
    Prints the path of the .model, and a summary on stderr.
    """
    from srucli.config import resolve

    if not model_prefix:
        raise UsageError("no --model-prefix; pass -o m to write m.model and m.vocab")
    config = _config(context.obj)
    data_config = resolve(flags=data).data
    labelled = bool(data.keys() - options.OF_LINES)
    model, vocab = _outputs(model_prefix, force)
    files = _files([*(inputs or []), *(more_inputs or [])])
    refuse_inputs([model, vocab], [*files, config.normalization_rule_tsv])
    _warn_of_idle(config, context.obj)
    if not labelled:
        _warn_of_labels(files)

    from srucli.tokenizer.training import train_tokenizer

    with _status() as progress:
        trained = train_tokenizer(
            _texts(files, data_config, labelled, options.names(data)),
            config,
            progress=progress,
            source=", ".join("<stdin>" if file == "-" else file for file in files),
        )
    _outputs(model_prefix, force)
    tokenizer = trained.tokenizer
    write_atomic({vocab: tokenizer.vocab.encode(), model: tokenizer.model_bytes})
    say(f"srucli tokenize: {trained.describe()}")
    print(model)
