"""`srucli encode` and `srucli decode`: pipe tools over a tokenizer, a line out for each line in.

They wait for no more input than one line: what is written is flushed when no input is at hand.
"""

from __future__ import annotations

import json
import operator
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import options
from srucli.errors import DataError, OutputError, UsageError
from srucli.io.console import say

if TYPE_CHECKING:
    from srucli.io.lines import Lines
    from srucli.tokenizer.model import Tokenizer


class Form(StrEnum):
    """How a segmentation is written: pieces or their ids."""

    PIECE = "piece"
    ID = "id"

    @property
    def kind(self) -> type[str] | type[int]:
        """The type that SentencePiece calls it by."""
        return str if self is Form.PIECE else int


Model = Annotated[str, typer.Argument(help="A .model file of srucli tokenize or spm_train.")]
Source = Annotated[str, typer.Argument(metavar="[FILE|-]", help="Text; - is standard input.")]
AsJson = Annotated[bool, typer.Option("--json", help="Lines of JSON instead of plain ones.")]


def _must_wait(source: str) -> Callable[[], bool]:
    """A function that tells whether the next line has to be waited for."""
    if source != "-":
        endless = not stat.S_ISREG(os.stat(source).st_mode) if os.path.exists(source) else False
        return lambda: endless
    stdin = sys.stdin.fileno()
    return lambda: not select.select([stdin], [], [], 0)[0]


def _write_lines(lines: Iterable[str], source: str) -> None:
    """Write and flush lines as they come; lines before a bad one are written too."""
    must_wait, out = _must_wait(source), sys.stdout.buffer
    try:
        try:
            for line in lines:
                out.write(line.encode() + b"\n")
                if must_wait():
                    out.flush()
        finally:
            out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from None


def _losses(lines: Lines, source: str) -> Iterator[str]:
    """What is said of bytes that were replaced or left out."""
    from srucli.io.streams import display_name

    return (f"{display_name(source)}: {line}" for line in lines.losses())


def _encoder(tokenizer: Tokenizer, form: Form, nbest: int, **how: Any) -> Callable[[str], Any]:
    if nbest <= 1:
        return tokenizer.line_encoder(form.kind, **how)
    if how.pop("subword_dropout") > 0.0:
        raise UsageError("--nbest and --subword-dropout exclude each other; pass one of them")
    if tokenizer.model_type != "unigram":
        raise UsageError(f"--nbest needs a unigram model; this one is {tokenizer.model_type}")
    how.pop("seed")
    return tokenizer.nbest_encoder(form.kind, nbest, **how)


def _plain(row: list[Any]) -> str:
    return " ".join(map(str, row))


def encode(
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
            help="Write the N best segmentations, best first, separated by tabs (unigram).",
        ),
    ] = 1,
    subword_dropout: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="How freely to cut: 0 is the best segmentation, up to 1 more and more random; "
            "unigram and bpe alike.",
        ),
    ] = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of --subword-dropout. [default: 0]", show_default=False),
    ] = None,
    bos: Annotated[bool, typer.Option("--bos", help="Begin with the piece for it.")] = False,
    eos: Annotated[bool, typer.Option("--eos", help="End with the piece for it.")] = False,
    reverse: Annotated[bool, typer.Option("--reverse", help="Write backwards.")] = False,
    as_json: AsJson = False,
    encoding: options.Encoding = None,
    errors: options.Errors = None,
) -> None:
    """Cut lines of text into pieces, or their ids.

    They are separated by blanks.
    With --json a line is an array; of arrays with --nbest.
    """
    from srucli.io.lines import read_lines
    from srucli.io.streams import display_name
    from srucli.tokenizer.model import Tokenizer
    from srucli.tokenizer.truncation import Notices, Tally

    tokenizer = Tokenizer.load(model)
    for name, asked in (("bos", bos), ("eos", eos)):
        if asked and not tokenizer.has_control(name):
            raise UsageError(f"--{name}: {model} was trained without it (--{name}-id -1)")
    if subword_dropout and tokenizer.model_type not in ("unigram", "bpe"):
        raise UsageError(f"--subword-dropout: a {tokenizer.model_type} model has one way to cut")
    if seed is not None and not subword_dropout:
        say("--seed has no effect: it needs --subword-dropout")
    how = {"subword_dropout": subword_dropout, "seed": seed or 0}
    cut = _encoder(tokenizer, output_format, nbest, bos=bos, eos=eos, reverse=reverse, **how)

    tally, notices = Tally(), Notices(display_name(source))

    def line_of(text: str) -> str:
        nonlocal tally
        rows = cut(text)
        if output_format is Form.ID:  # pieces show what is unknown
            unknown = (rows[0] if nbest > 1 else rows).count(tokenizer.unknown)
            tally += Tally(1, unknown_characters=bool(unknown), unknown_tokens=unknown)
            for notice in notices.first(tally):
                say(notice)
        if as_json:
            return json.dumps(rows, ensure_ascii=False)
        return "\t".join(map(_plain, rows)) if nbest > 1 else _plain(rows)

    lines = read_lines(source, encoding or "utf-8", errors or "strict")
    try:
        _write_lines((line_of(text) for _, text in lines), source)
    finally:
        for notice in [*notices.last(tally), *_losses(lines, source)]:
            say(notice)


def _row(text: str, as_json: bool) -> list[Any]:
    """The words of a line, or the items of its JSON array. Raises ValueError."""
    row = json.loads(text) if as_json else [word for word in text.split(" ") if word]
    if not isinstance(row, list):
        raise ValueError("not an array")
    return row


def _ids(row: list[Any], limit: int) -> list[int]:
    ids = []
    for word in row:
        try:
            number = int(word) if isinstance(word, str) else operator.index(word)
        except (ValueError, TypeError):
            number = -1
        if number < 0 or isinstance(word, bool):
            raise ValueError(f"{word!r} is not an id")
        if number >= limit:
            raise ValueError(f"the id {number} is not below {limit}")
        ids.append(number)
    return ids


def _pieces(row: list[Any]) -> list[str]:
    for word in row:
        try:
            word.encode()
        except (AttributeError, UnicodeEncodeError):
            raise ValueError(f"{word!r} is not a piece") from None
    return row


def _decoded(
    tokenizer: Tokenizer, lines: Iterable[tuple[int, str]], source: str, form: Form, as_json: bool
) -> Iterator[str]:
    name = "<stdin>" if source == "-" else source
    remedy = f"give {form.value}s of this model" + (" in JSON arrays" if as_json else "")
    for number, text in lines:
        try:
            row = _row(text, as_json)
            row = _ids(row, tokenizer.vocab_size) if form is Form.ID else _pieces(row)
        except (ValueError, RecursionError) as error:
            raise DataError(name, number, str(error), remedy) from None
        decoded = tokenizer.decode(row)
        # Byte pieces can spell a line end, which would make two lines of one.
        yield json.dumps(decoded, ensure_ascii=False) if as_json else decoded.replace("\n", " ")


def decode(
    model: Model,
    source: Source = "-",
    input_format: Annotated[
        Form, typer.Option("--input-format", help="The lines hold pieces or ids.")
    ] = Form.PIECE,
    as_json: AsJson = False,
    encoding: options.Encoding = None,
    errors: options.Errors = None,
) -> None:
    """Put pieces, or their ids, together to text.

    With --json a line is an array, and the text a JSON string.
    """
    from srucli.io.lines import read_lines
    from srucli.tokenizer.model import Tokenizer

    tokenizer = Tokenizer.load(model)
    lines = read_lines(source, encoding or "utf-8", errors or "strict")
    try:
        _write_lines(_decoded(tokenizer, lines, source, input_format, as_json), source)
    finally:
        for notice in _losses(lines, source):
            say(notice)
