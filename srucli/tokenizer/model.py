"""SentencePiece models: training them on lines of text, and using them.

This is the only file that knows SentencePiece's interface. It opens no text files
(`data/readers.py` does) and knows nothing of padding or batches: pieces leave as one
flat row of ids and its offsets.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from srucli.config import DEFAULT_VOCAB_SIZE, TokenizerConfig
from srucli.errors import DataError, InputMissingError, SrucliError, UsageError
from srucli.io.children import child
from srucli.tokenizer import proto
from srucli.tokenizer.child import REFUSED, TOO_FEW, TOO_MANY

if TYPE_CHECKING:
    from srucli.tokenizer.sampling import Sampler

Progress = Callable[[str], None]

MAX_MODEL_BYTES = 256 * 2**20
NAME_ANOTHER = "name a .model file that srucli tokenize or spm_train wrote"

_MATCHED = (proto.NORMAL, proto.USER_DEFINED)
_FIRST_BYTE = 0x110000  # beyond the last code point
_META = ("unk", "bos", "eos", "pad")
_OURS = {"input_sentence_size", "shuffle_input_sentence", "seed"}
_RESERVED = "\u2585"  # SentencePiece's own mark for the unknown; it skips lines that hold it
_COVERED = re.compile(r"Done: ([\d.]+)% characters are covered")
_LOG_LINE = re.compile(r"[IWEF]\d{4} [^\]]*\] (.*)")


# ---------------------------------------------------------------- using a model


def _arguments(form: type[str] | type[int], bos: bool, eos: bool, reverse: bool) -> dict[str, Any]:
    return {"return_type": form, "add_bos": bos, "add_eos": eos, "reverse": reverse}


class Tokenizer:
    """A SentencePiece model. Made by `load`, `from_bytes` or `train_tokenizer`."""

    def __init__(self, model: bytes) -> None:
        """Raises RuntimeError, LookupError or ValueError for bytes that are no model."""
        self._model = proto.check(model)
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(self._model.proto)
        self.model_bytes = model
        self.model_type, self.pieces = self._model.type, self._model.pieces
        self.unknown = self._model.unknown

    @classmethod
    def from_bytes(cls, data: bytes, source: str, remedy: str = NAME_ANOTHER) -> Tokenizer:
        """A tokenizer from a serialized model. Raises DataError naming `source`."""
        try:
            return cls(data)
        except proto.UnusableModelError as error:
            problem = f"a SentencePiece model that cannot be used: {error}"
            raise DataError(source, None, problem, remedy) from None
        except (RuntimeError, LookupError, ValueError):
            raise DataError(source, None, "not a SentencePiece model", remedy) from None

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a `.model` file. Raises InputMissingError, DataError naming the file."""
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_MODEL_BYTES + 1)
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise InputMissingError(f"{path}: {problem}; {NAME_ANOTHER}") from error
        if len(data) > MAX_MODEL_BYTES:
            limit = f"larger than {MAX_MODEL_BYTES >> 20} MB, so not a SentencePiece model"
            raise DataError(str(path), None, limit, NAME_ANOTHER)
        return cls.from_bytes(data, str(path))

    @property
    def vocab_size(self) -> int:
        """Number of pieces; ids are below it."""
        return len(self.pieces)

    @property
    def vocab(self) -> str:
        """The text of SentencePiece's `.vocab` file: piece, tab, score on each line."""
        rows = zip(self.pieces, self._model.scores, strict=True)
        return "".join(f"{piece}\t{score:g}\n" for piece, score in rows)

    def has_control(self, name: str) -> bool:
        """Whether the model has the control piece `name`: "bos", "eos" or "pad"."""
        return int(getattr(self._processor, f"{name}_id")()) >= 0

    @cached_property
    def _sampler(self) -> Sampler:
        from srucli.tokenizer.sampling import (  # Numba takes a second that few commands need
            Piece,
            Sampler,
        )

        rows = zip(self.pieces, self._model.scores, self._model.types, strict=True)
        known = {piece: index for index, piece in enumerate(self.pieces)}
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        return Sampler(
            [
                Piece(text, score, kind in _MATCHED, kind == proto.USER_DEFINED)
                for text, score, kind in rows
            ],
            unigram=self.model_type == "unigram",
            unknown=self.unknown,
            byte_ids=[known[name] for name in names] if self._model.has_bytes else [],
        )

    def _codes(self, index: int) -> list[int]:
        """The characters of one piece, as `spelling` has them."""
        piece, kind = self.pieces[index], self._model.types[index]
        if kind == proto.UNKNOWN:
            return [0]
        if kind == proto.BYTE:
            return [_FIRST_BYTE + int(piece[1:-1], 16)]
        return [] if kind == proto.CONTROL else list(map(ord, piece))

    @property
    def spelling(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The characters of all pieces as one row of code points, and its offsets (vocab_size+1,).

        The unknown piece is spelt 0, the byte b of a byte piece 0x110000 + b; control pieces have
        no characters.
        """
        rows = list(map(self._codes, range(self.vocab_size)))
        codes = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
        return codes, np.cumsum([0, *map(len, rows)], dtype=np.int64)

    def _alpha(self, subword_dropout: float) -> float | None:
        """The sampler's alpha for one measure of randomness over both model types; None: do not.

        For BPE p is the share of merges that are dropped. For unigram, alpha = 0.08
        sqrt((1 - p) / p) sharpens the distribution over all segmentations. Measured growth of the
        number of pieces at p = 0.05, 0.1, 0.2, 0.3: on TREC (4,000 pieces) BPE 1.16, 1.32, 1.62,
        1.92 and unigram 1.14, 1.29, 1.51, 1.66; on Korean reviews (8,000 pieces) BPE 1.06, 1.11,
        1.23, 1.36 and unigram 1.14, 1.22, 1.30, 1.36. Word and char models know one way only.
        """
        if not 0.0 <= subword_dropout < 1.0:
            raise UsageError(f"subword dropout {subword_dropout} is not in [0, 1)")
        if subword_dropout == 0.0 or self.model_type not in ("unigram", "bpe"):
            return None
        if self.model_type == "bpe":
            return subword_dropout
        return 0.08 * sqrt((1.0 - subword_dropout) / subword_dropout)

    def samples(self, subword_dropout: float) -> bool:
        """Whether `encode` draws a text's tokens, so that they depend on its seed."""
        return self._alpha(subword_dropout) is not None

    def encode(
        self, texts: Sequence[str], subword_dropout: float = 0.0, seed: int = 0, first: int = 0
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids of B texts as one row: ids (N,), offsets (B+1,); an empty text has no ids.

        `subword_dropout` in [0, 1) is how freely texts are cut: 0 always gives the best pieces, and
        any other value a draw that depends on `seed` and on the text's number, counted from
        `first`: the same in every process. Raises UsageError.
        """
        alpha = self._alpha(subword_dropout)
        if alpha is not None:
            ids, _, offsets = self._sampler.draw(
                self._processor.Normalize(list(texts)), alpha, seed, first
            )
            return ids, offsets
        # One thread: most of the time goes into making the lists, which more of them do not share.
        rows = self._processor.Encode(list(texts), return_type=int, num_threads=1)
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
        ids = np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(offsets[-1]))
        return ids, offsets

    def line_encoder(
        self,
        form: type[str] | type[int],
        *,
        subword_dropout: float = 0.0,
        seed: int = 0,
        bos: bool = False,
        eos: bool = False,
        reverse: bool = False,
    ) -> Callable[[str], list[Any]]:
        """A function from one text to its pieces (str) or ids (int), for a stream of texts.

        The n-th call draws what `encode` draws for the n-th text. Raises UsageError.
        """
        alpha = self._alpha(subword_dropout)
        if alpha is None:
            arguments = _arguments(form, bos, eos, reverse)
            return lambda text: list(self._processor.Encode(text, **arguments))
        begin = [self._control("bos", form)] if bos else []
        end = [self._control("eos", form)] if eos else []
        number = itertools.count()

        def draw(text: str) -> list[Any]:
            row = self._drawn(text, form, alpha, seed, next(number))
            return [*begin, *(reversed(row) if reverse else row), *end]

        return draw

    def _control(self, name: str, form: type[str] | type[int]) -> str | int:
        index = int(getattr(self._processor, f"{name}_id")())
        return self.pieces[index] if form is str else index

    def _drawn(
        self, text: str, form: type[str] | type[int], alpha: float, seed: int, number: int
    ) -> list[Any]:
        normalized = self._processor.Normalize(text)
        ids, ends, _ = self._sampler.draw([normalized], alpha, seed, number)
        if form is int:
            return list(ids.tolist())
        starts, unknown = [0, *ends.tolist()], self.unknown
        return [
            normalized[start:end] if index == unknown else self.pieces[index]
            for index, start, end in zip(ids.tolist(), starts, ends.tolist(), strict=False)
        ]

    def nbest_encoder(
        self,
        form: type[str] | type[int],
        count: int,
        *,
        bos: bool = False,
        eos: bool = False,
        reverse: bool = False,
    ) -> Callable[[str], list[list[Any]]]:
        """A function from one text to its `count` best segmentations, best first; unigram only."""
        arguments = _arguments(form, bos, eos, reverse)
        return lambda text: list(self._processor.NBestEncode(text, nbest_size=count, **arguments))

    def decode(self, row: list[int] | list[str]) -> str:
        """The text of one row of ids or pieces. Ids must be below `vocab_size`."""
        return str(self._processor.Decode(row))


# ---------------------------------------------------------------- training one


@dataclass(frozen=True)
class TrainedTokenizer:
    """A new tokenizer and what is worth saying about its training."""

    tokenizer: Tokenizer
    config: TokenizerConfig
    lines: int  # read
    used: int  # of them, trained on
    characters: int  # in those used
    too_long: int  # lines left out for max_sentence_length
    reserved: int  # lines left out because they hold U+2585
    wanted: int  # pieces
    seconds: float
    covered: str | None = None  # percent of the characters that got a piece, as the trainer logs it

    @property
    def obtained(self) -> int:
        """Pieces that the model has."""
        return self.tokenizer.vocab_size

    def describe(self) -> str:
        """A summary of one line."""
        left_out = [
            f"{count:,} {why} left out"
            for count, why in (
                (self.too_long, f"lines of over {self.config.max_sentence_length} bytes"),
                (self.reserved, "lines with the reserved character U+2585"),
            )
            if count
        ]
        drawn = f" ({self.used:,} used)" if self.used != self.lines else ""
        threads = (
            "1 thread" if self.config.num_threads == 1 else f"{self.config.num_threads} threads"
        )
        parts = [
            f"{self.config.model_type}: {self.lines:,} lines{drawn}",
            f"{self.characters:,} characters",
            *left_out,
            *([f"{self.covered}% of the characters known"] if self.covered else []),
            f"{self.wanted:,} pieces wanted, {self.obtained:,} obtained",
            f"{self.seconds:.1f} s, {threads}",
        ]
        return "; ".join(parts)


class _Line(NamedTuple):
    order: int
    text: str


class _Sieve:
    """Lines that SentencePiece trains on, counted; it skips the others all but silently."""

    def __init__(self, limit: int, progress: Progress | None) -> None:
        self.limit, self.progress = limit, progress
        self.lines = self.too_long = self.reserved = 0

    def pass_through(self, texts: Iterable[str]) -> Iterator[_Line]:
        """A text that has several lines (from JSON or CSV) is several lines here too."""
        for line in itertools.chain.from_iterable(text.split("\n") for text in texts):
            self.lines += 1
            if self.progress and self.lines % 50_000 == 0:
                self.progress(f"{self.lines:,} lines read")
            if len(line) * 4 > self.limit and len(line.encode()) > self.limit:
                self.too_long += 1
            elif _RESERVED in line:
                self.reserved += 1
            elif line:
                yield _Line(self.lines, line)


def _draw(lines: Iterator[_Line], config: TokenizerConfig) -> Iterable[_Line]:
    """`input_sentence_size` lines: the first, or by Vitter's algorithm R, in their first order."""
    size = config.input_sentence_size
    if not size or not config.shuffle_input_sentence:
        return itertools.islice(lines, size or None)
    drawn = list(itertools.islice(lines, size))
    random_below = random.Random(config.seed).randrange
    for seen, line in enumerate(lines, size + 1):
        place = random_below(seen)
        if place < size:
            drawn[place] = line
    return sorted(drawn)


def _options(config: TokenizerConfig) -> dict[str, Any]:
    options = config.model_dump(mode="json", exclude=_OURS)
    options["vocab_size"] = config.vocab_size or DEFAULT_VOCAB_SIZE
    # Encoded text never holds a space, so a symbol with one would never be found.
    symbols = [symbol.replace(" ", "\u2581") for symbol in config.user_defined_symbols]
    return options | {"user_defined_symbols": symbols}


@dataclass
class _Log:
    """What the trainer logged: its last line, and what share of the characters got a piece."""

    last: str = "no word"
    covered: str | None = None


def _follow(log: IO[bytes], kept: _Log, progress: Progress | None) -> None:
    with log:
        for raw in log:
            line = raw.decode("utf-8", "replace").rstrip()
            kept.last = line
            if match := _COVERED.search(line):
                kept.covered = match[1]
            if progress and (match := _LOG_LINE.match(line)):
                progress(match[1])


def _wrote(pipe: IO[bytes], data: bytes) -> bool:
    """False once the trainer has refused and closed its end; its answer then says why."""
    try:
        pipe.write(data)
    except BrokenPipeError:
        return False
    return True


def _send(pipe: IO[bytes], job: dict[str, Any], lines: Iterable[_Line]) -> tuple[int, int]:
    """Write the job and its lines. Returns the number of lines and of characters."""
    used = characters = 0
    _wrote(pipe, json.dumps(job).encode() + b"\n")
    for line in lines:
        used, characters = used + 1, characters + len(line.text)
        if not _wrote(pipe, line.text.encode() + b"\n"):
            break
    with suppress(BrokenPipeError):
        pipe.write(b"\n")
        pipe.flush()
    return used, characters


Named = Callable[[str, object], str]


def as_flag(name: str, value: object = None) -> str:
    """How `srucli tokenize` takes one of its settings: `--vocab-size 66`."""
    flag = name.replace("_", "-")
    if value is None or isinstance(value, bool):
        return f"--no-{flag}" if value is False else f"--{flag}"
    return f"--{flag} {value}"


def as_setting(name: str, value: object = None) -> str:
    """How every other command takes it: `tokenizer.vocab_size=66`."""
    shown = str(value).lower() if isinstance(value, bool) else value
    return f"tokenizer.{name}" if value is None else f"tokenizer.{name}={shown}"


def _refusal(message: str, options: Mapping[str, Any], named: Named) -> UsageError:
    """The trainer's message, in terms of settings where it is a known one."""
    size = named("vocab_size", options["vocab_size"])
    if limit := TOO_MANY.search(message):
        return UsageError(
            f"{size} is more than this text allows; pass {named('vocab_size', limit[1])} or less, "
            f"or {named('hard_vocab_limit', False)}"
        )
    if limit := TOO_FEW.search(message):
        return UsageError(
            f"{size} is too small for this text's characters and the symbols; pass "
            f"{named('vocab_size', limit[1])} or more, or lower "
            f"{named('character_coverage', None)}"
        )
    if "(vocab_size) >= (0)" in message:
        least = named("vocab_size", _symbols(options) + 1)  # beside them, a piece of the text
        return UsageError(f"{size} is too small for the symbols alone; pass {least} or more")
    if "insert_id(" in message:
        ids = [named(f"{piece}_id", None) for piece in _META]
        return UsageError(
            f"{', '.join(ids[:-1])} and {ids[-1]} must differ (or be -1) and lie below {size}"
        )
    reason = re.sub(r"^[A-Z_]+: (src/\S+ )?", "", message).strip()
    return UsageError(f"SentencePiece refuses these settings: {reason}")


def _symbols(options: Mapping[str, Any]) -> int:
    """How many pieces there are before any comes from the text."""
    given = len(options["user_defined_symbols"]) + len(options["control_symbols"])
    meta = [piece for piece in _META if options[f"{piece}_id"] >= 0]
    return given + len(meta) + (256 if options["byte_fallback"] else 0)


def _ended(code: int, last: str, named: Named) -> SrucliError:
    if code == -9:
        return SrucliError(
            "the training process was killed, most likely for want of memory; train on fewer lines "
            f"with {named('input_sentence_size', 100_000)}"
        )
    return SrucliError(f"the training process ended with {code}: {last}")


def _trained(model: bytes, config: TokenizerConfig, named: Named) -> Tokenizer:
    """The tokenizer that a training made. Raises UsageError for what SentencePiece lets pass."""
    try:
        return Tokenizer(model)
    except proto.UnusableModelError:
        if config.model_type != "char" or not config.required_chars:
            raise
        given = named("required_chars", config.required_chars)
        raise UsageError(
            f"{given}: a char model has no piece for a character that its text lacks; take it out"
        ) from None


def train_tokenizer(
    lines: Iterable[str],
    config: TokenizerConfig,
    *,
    lower_vocab: bool = False,
    named: Named = as_flag,
    progress: Progress | None = None,
    source: str = "the training text",
) -> TrainedTokenizer:
    """Train a model on lines of text, in a process that ends with this call however it ends.

    The pieces and scores are those that SentencePiece's trainer gives for the same lines and
    options. With `lower_vocab` a vocabulary size that the text does not allow is moved to the
    nearest one that it does. `named` says how a person sets what; `progress` is called with a few
    words now and then, not always from this thread. Raises UsageError for settings that cannot be,
    DataError naming `source` where no text is left, SrucliError where the process is killed, and
    what iterating over `lines` raises.
    """
    start = time.monotonic()
    sieve = _Sieve(config.max_sentence_length, progress)
    options = _options(config)
    wanted = options["vocab_size"]
    log = _Log()
    with child("srucli.tokenizer.child", own_stderr=True) as (process, stdin, stdout, stderr):
        assert stderr is not None
        follower = threading.Thread(target=_follow, args=(stderr, log, progress), daemon=True)
        follower.start()
        chosen = _draw(sieve.pass_through(lines), config)
        used, characters = _send(stdin, {"options": options, "fit": lower_vocab}, chosen)
        if not used:
            remedy = f"raise {named('max_sentence_length', None)}"
            remedy = remedy if sieve.too_long else "give it text"
            raise DataError(source, None, "no line to train on", remedy)
        answer = stdout.read()
        code = process.wait()
        follower.join()
    if code == REFUSED:
        message = answer.decode("utf-8", "replace")
        if "all_chars_count" in message:
            raise DataError(source, None, "nothing but blank lines", "give it text")
        raise _refusal(message, options, named)
    if code:
        raise _ended(code, log.last, named)
    return TrainedTokenizer(
        _trained(answer, config, named),
        config,
        sieve.lines,
        used,
        characters,
        sieve.too_long,
        sieve.reserved,
        wanted,
        time.monotonic() - start,
        log.covered,
    )
