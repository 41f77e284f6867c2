"""`srucli encode` and `srucli decode`: text to tokens and back, one output line per input line.

They work in pipes: output is flushed before they wait for more input.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import options
from srucli.errors import DataError, UsageError, located
from srucli.io.console import beginning, excerpt, say, warn
from srucli.io.json_text import json_text, json_value

if TYPE_CHECKING:
    from srucli.io.lines import Lines
    from srucli.tokenizer.model import Tokenizer


_ONE_LINE = str.maketrans("\n\r", "  ")


class Form(StrEnum):
    """How tokens are written: as pieces (strings) or as ids."""

    PIECE = "piece"
    ID = "id"


class Command(options.Command):
    """The flags of `srucli encode` that stand for settings."""

    settings = ("data.encoding", "data.errors")
    examples = (
        "srucli encode m.model corpus.txt --output-format id > ids.txt",
        "echo 'a good film' | srucli encode m.model",
    )


class DecodeCommand(options.Command):
    """The same of `srucli decode`."""

    settings = Command.settings
    examples = ("srucli decode m.model ids.txt --input-format id",)


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .model file of srucli tokenize or spm_train.")
]
Source = Annotated[str, typer.Argument(metavar="[FILE]", help="Text; - is stdin.")]


def _write_lines(lines: Iterable[str], source: str) -> None:
    """Write lines, also those before an error; flush before reading may have to wait."""
    out, may_wait = sys.stdout, source == "-" or not os.path.isfile(source)
    try:
        for line in lines:
            out.write(f"{line}\n")
            if may_wait and not (source == "-" and _has_more()):
                out.flush()
    finally:
        out.flush()


def _has_more() -> bool:
    """Whether standard input can be read without waiting. Unknown on Windows, so not there."""
    try:
        return bool(select.select([sys.stdin], [], [], 0)[0])
    except OSError:
        return False


@contextmanager
def _opened(source: str, flags: Mapping[str, Any]) -> Iterator[Lines]:
    """Read lines as the flags say; after the block, say how many bytes were replaced or ignored."""
    from srucli.config import resolve
    from srucli.io.encodings import replacement_notes
    from srucli.io.lines import Lines
    from srucli.io.streams import display_name

    data = resolve(flags=flags).data
    lines = Lines(source, data.encoding, data.errors)
    try:
        yield lines
    finally:
        notes = replacement_notes(lines.counts, lines.encoding, lines.errors)
        say(*(f"{display_name(source)}: {note}" for note in notes))


def encode(
    context: typer.Context,
    model: Model,
    source: Source = "-",
    output_format: Annotated[
        Form, typer.Option("--output-format", help="Write pieces or their ids.")
    ] = Form.PIECE,
    nbest: Annotated[
        int,
        typer.Option(
            "--nbest",
            "--nbest-size",
            min=1,
            max=512,
            metavar="N",
            help="Write the N best encodings, at most 512, separated by tabs (unigram).",
        ),
    ] = 1,
    subword_dropout: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Sample the encoding: from 0 (the best encoding) to 1 (most random); for unigram "
            "and bpe.",
        ),
    ] = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Seed of --subword-dropout. [default: 0]", show_default=False
        ),
    ] = None,
    bos: Annotated[bool, typer.Option("--bos", help="Add the begin-of-text token.")] = False,
    eos: Annotated[bool, typer.Option("--eos", help="Add the end-of-text token.")] = False,
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON array per line.")] = False,
) -> None:
    """Encode lines of text as tokens: pieces or ids.

    Each line becomes a line of tokens on stdout, separated by spaces; notes go to stderr.
    With --json, each line is an array, or an array of arrays with --nbest.
    """
    from srucli.io.streams import display_name
    from srucli.tokenizer.model import Tokenizer
    from srucli.tokenizer.truncation import Notices, Tally

    tokenizer = Tokenizer.load(model)
    for name, asked in (("bos", bos), ("eos", eos)):
        if asked and tokenizer.control_id(name) < 0:
            raise UsageError(f"--{name}: {model} was trained without it (--{name}-id -1)")
    _check_way(tokenizer.model_type, nbest, subword_dropout)
    if seed is not None and not subword_dropout:
        warn("--seed has no effect: it needs --subword-dropout")
    if subword_dropout:
        from srucli.kernels.jit import announce_compiling

        announce_compiling()
    encoder = tokenizer.line_encoder(
        str if output_format is Form.PIECE else int,
        nbest=nbest,
        bos=bos,
        eos=eos,
        reverse=reverse,
        subword_dropout=subword_dropout,
        seed=seed or 0,
    )
    tally, notices = Tally(), Notices(display_name(source))

    def line_of(number: int, text: str) -> str:
        nonlocal tally
        with located(display_name(source), [number].__getitem__):
            rows = encoder(text)
        if output_format is Form.ID:  # unlike ids, pieces show unknown characters
            unknown = (rows[0] if nbest > 1 else rows).count(tokenizer.unknown)
            tally += Tally(1, unknown_characters=bool(unknown), unknown_tokens=unknown)
            say(*notices.first(tally))
        if as_json:
            return json_text(rows)
        return "\t".join(" ".join(map(str, row)) for row in (rows if nbest > 1 else [rows]))

    with _opened(source, context.obj) as lines:
        try:
            _write_lines((line_of(*line) for line in lines), source)
        finally:
            say(*notices.last(tally))


def _check_way(model_type: str, nbest: int, subword_dropout: float) -> None:
    """Raise UsageError if a type of model cannot encode in the way that is asked for."""
    if subword_dropout and model_type not in ("unigram", "bpe"):
        raise UsageError(f"--subword-dropout: a {model_type} model has one way to cut")
    if nbest > 1 and subword_dropout:
        raise UsageError("--nbest and --subword-dropout exclude each other; pass one of them")
    if nbest > 1 and model_type != "unigram":
        raise UsageError(f"--nbest needs a unigram model; this one is {model_type}")


def _shown(word: Any) -> str:
    return excerpt(word) if isinstance(word, str) else beginning(json_text(word))


def _ids(row: list[Any], limit: int) -> list[int]:
    ids = []
    for word in row:
        digits = word if isinstance(word, str) else json_text(word)
        if not (digits.isascii() and digits.isdecimal()):
            raise ValueError(f"{_shown(word)} is not an id")
        # Python refuses to convert thousands of digits.
        short = digits.lstrip("0") or "0"
        if len(short) > len(str(limit)) or int(short) >= limit:
            raise ValueError(f"the id {beginning(digits)} is not below {limit}")
        ids.append(int(short))
    return ids


def _pieces(row: list[Any]) -> list[str]:
    for word in row:
        try:
            word.encode()
        except (AttributeError, UnicodeEncodeError):
            raise ValueError(f"{_shown(word)} is not a piece") from None
    return row


def _decoded(
    tokenizer: Tokenizer, lines: Iterable[tuple[int, str]], source: str, form: Form, as_json: bool
) -> Iterator[str]:
    from json import JSONDecodeError

    from srucli.io.streams import display_name
    from srucli.tokenizer.model import MAX_ENCODED

    remedy = f"give {form.value}s of this model" + (" in JSON arrays" if as_json else "")
    for number, text in lines:
        if text.count("," if as_json else " ") >= MAX_ENCODED:
            problem = f"over {MAX_ENCODED:,} tokens: {excerpt(text)}"
            raise DataError(display_name(source), number, problem, "break it into shorter lines")
        try:
            row = json_value(text) if as_json else [word for word in text.split(" ") if word]
            if not isinstance(row, list):
                raise ValueError(f"not an array: {excerpt(text)}")
            row = _ids(row, tokenizer.vocab_size) if form is Form.ID else _pieces(row)
        except (ValueError, RecursionError) as error:
            invalid = isinstance(error, JSONDecodeError | RecursionError)
            problem = f"not valid JSON: {excerpt(text)}" if invalid else str(error)
            raise DataError(display_name(source), number, problem, remedy) from None
        with located(display_name(source), [number].__getitem__):
            decoded = tokenizer.decode(row)
        # Byte tokens can decode to line ends, which would split the line.
        yield json_text(decoded) if as_json else decoded.translate(_ONE_LINE)


def decode(
    context: typer.Context,
    model: Model,
    source: Source = "-",
    input_format: Annotated[
        Form, typer.Option("--input-format", help="The lines hold pieces or ids.")
    ] = Form.PIECE,
    as_json: Annotated[
        bool, typer.Option("--json", help="Read a JSON array per line, and write a JSON string.")
    ] = False,
) -> None:
    """Decode lines of tokens, pieces or ids, to text.

    Each line becomes a line of text on stdout; notes go to stderr.
    With --json, each input line is an array, and each output line a JSON string.
    """
    from srucli.tokenizer.model import Tokenizer

    tokenizer = Tokenizer.load(model)
    with _opened(source, context.obj) as lines:
        _write_lines(_decoded(tokenizer, lines, source, input_format, as_json), source)
