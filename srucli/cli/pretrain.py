"""`srucli pretrain`: raw text in, a folder with a tokenizer and vectors of its tokens out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srucli.cli import next_steps, options, process
from srucli.cli.corpus import files_of, warn_of_labels


class Command(options.Command):
    """The flags of `srucli pretrain` that stand for settings."""

    settings = ("tokenizer", "data", "pretrain", "model.embedding_size", "train.seed")
    without = (*options.OF_LABELS, "tokenizer.seed")
    labelled = False
    often = ("--output", "--epochs", "--vocab-size", "--tokenizer", "--seed", "--force")
    examples = (
        "srucli pretrain corpus.txt -o runs/base",
        "srucli train reviews.tsv --from runs/base",
        "srucli pretrain reviews.csv --text body -o runs/base",
    )


def command(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS...",
            help="Files (also gz, xz, zst), comma lists of files, folders; - is stdin. Each line "
            "is raw text. With --format or --text, the texts of labelled files are read.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder of the result.", show_default=False
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="SentencePiece model. [default: trained on CORPUS]"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier command put there.")
    ] = False,
) -> None:
    """Learn vectors of tokens from raw text.

    No labels are needed. `srucli train FILE --from DIR` starts from the vectors, which helps most
    if few texts are labelled and much text of the same kind is not. The folder is printed on
    stdout; progress goes to stderr.

    If it was stopped or killed, the same command resumes. The first Ctrl-C, TERM or USR1 saves, and
    exits with 75.
    """
    from srucli.config import resolve
    from srucli.errors import UsageError

    with process.interruptible() as stop:
        if output is None:
            raise UsageError("no --output; pass -o runs/base to make the folder runs/base")
        config, data = resolve(flags=context.obj), options.of_data(context.obj)
        files = files_of(inputs or [])
        labelled = bool(data.keys() - options.OF_LINES)
        if not labelled:
            warn_of_labels(files)
        from srucli.data.corpus import texts_of
        from srucli.runtime import tune_process
        from srucli.training.pretrain import RawText, pretrain

        tune_process(config.train.threads)
        raw = RawText([*texts_of(files, config.data, labelled, data)], files)
        pretrain(config, raw, output, tokenizer=tokenizer, force=force, stop=stop)
        next_steps.after_pretrain(output)
        print(output)
