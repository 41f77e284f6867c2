"""`srucli tokenize`: raw text in, a SentencePiece model out, with the flags of `spm_train`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import next_steps, options
from srucli.cli.corpus import files_of, warn_of_labels
from srucli.errors import OutputError, UsageError
from srucli.io.console import progress_bar, say, warn

if TYPE_CHECKING:
    from srucli.config import Config

UNDERSCORES: dict[str, Any] = {"token_normalize_func": lambda name: name.replace("_", "-")}

_SWITCH = {"true": "", "1": "", "yes": "", "false": "no-", "0": "no-", "no": "no-"}


def _plain_switch(argument: str, switches: set[str]) -> str:
    """Return `--byte-fallback` for `--byte_fallback=true`, and `--no-...` for `=false`."""
    name, equals, value = argument.removeprefix("--").replace("_", "-").partition("=")
    if equals and argument.startswith("--") and name in switches and value.lower() in _SWITCH:
        return f"--{_SWITCH[value.lower()]}{name}"
    return argument


class Command(options.Command):
    """A command with the flags of TokenizerConfig, and with those of data files."""

    settings = ("tokenizer", "data")
    without = (
        *("data.label", "data.weight", "data.group", "data.multi_label"),
        "data.label_delimiter",
    )
    labelled = False
    often = (
        *("--model-prefix", "--vocab-size", "--model-type", "--character-coverage"),
        *("--byte-fallback", "--force"),
    )
    examples = (
        "srucli tokenize corpus.txt -o m --vocab-size 8000",
        "srucli tokenize reviews.csv --text body --model-type bpe -o m",
    )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let switches have values, as `spm_train` does."""
        from srucli.config import TokenizerConfig

        fields = TokenizerConfig.model_fields.items()
        switches = {name.replace("_", "-") for name, field in fields if field.annotation is bool}
        return list(super().parse_args(ctx, [_plain_switch(arg, switches) for arg in args]))


def _warn_of_no_effect(config: Config, flags: Iterable[str]) -> None:
    """Name the flags that have no effect together with the others."""
    from srucli.training.effects import Setup, no_effect

    given = [key for key in flags if key.startswith("tokenizer.")]
    for line in no_effect(Setup(config, dev=False), given):
        warn(re.sub(r"tokenizer\.\w+", lambda match: options.flag_of(match[0]), line))


def _outputs(prefix: str, force: bool) -> tuple[Path, Path]:
    """Return the paths of .model and .vocab. Raises UsageError, or OutputError if they exist."""
    from srucli.io.files import check_writable

    prefix = prefix.removesuffix(".model")
    if not prefix or prefix.endswith(os.sep):
        raise UsageError(f"--model-prefix {prefix!r}: name a file, as {prefix}m")
    model, vocab = Path(prefix + ".model"), Path(prefix + ".vocab")
    if not model.parent.is_dir():
        raise OutputError(f"{model.parent}: no such folder; make it first (mkdir -p)")
    check_writable(model)
    for path in (model, vocab):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; choose another prefix")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; choose another prefix or pass --force")
    return model, vocab


def command(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Files (also gz, xz, zst), comma lists of files, folders; - is stdin. Each line "
            "is raw text, whatever the file is called. With --format or --text, the texts of "
            "labelled files are read.",
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
        typer.Option(
            "--input", metavar="INPUT", help="Another way to give INPUT, as in spm_train."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Train a SentencePiece tokenizer from raw text.

    The path of the .model is printed on stdout, a summary on stderr. SentencePiece's options keep
    their names: --vocab-size 2000 or --vocab_size=2000.
    """
    from srucli.config import resolve

    if not model_prefix:
        raise UsageError("no --model-prefix; pass -o m to write m.model and m.vocab")
    config, data = resolve(flags=context.obj), options.of_data(context.obj)
    from srucli.io.files import write_atomic
    from srucli.runs.claim import refuse_inputs
    from srucli.tokenizer.training import as_flag, check_rules

    rules = config.tokenizer.normalization_rule_tsv
    check_rules(config.tokenizer, as_flag)
    labelled = bool(data.keys() - options.OF_LINES)
    model, vocab = _outputs(model_prefix, force)
    files = files_of([*(inputs or []), *(more_inputs or [])])
    refuse_inputs([model, vocab], [*files, rules])
    _warn_of_no_effect(config, context.obj)
    if not labelled:
        warn_of_labels(files)

    from srucli.data.corpus import texts_of
    from srucli.tokenizer.training import train_tokenizer

    with progress_bar(bar_format="{desc}") as bar:
        trained = train_tokenizer(
            texts_of(files, config.data, labelled, data),
            config.tokenizer,
            progress=None if bar.disable else bar.set_description_str,
            source=", ".join("<stdin>" if file == "-" else file for file in files),
        )
    _outputs(model_prefix, force)
    tokenizer = trained.tokenizer
    write_atomic({vocab: tokenizer.vocab.encode(), model: tokenizer.model_bytes})
    say(f"tokenizer: {trained.describe()}")
    next_steps.after_tokenize(model)
    print(model)
