"""Training SentencePiece models on lines of text, in a process that can be ended."""

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
from math import sqrt
from typing import IO, Any, NamedTuple

from srucli.config import DEFAULT_VOCAB_SIZE, TokenizerConfig, given
from srucli.errors import DataError, SrucliError, UsageError
from srucli.io.children import child
from srucli.io.console import say
from srucli.tokenizer import proto
from srucli.tokenizer.child import REFUSED, TOO_FEW, TOO_MANY
from srucli.tokenizer.model import Tokenizer

# Takes a few words on what is going on; not always called from the same thread.
OnProgress = Callable[[str], None]
# Takes a setting and its value, and returns how a user sets it.
Named = Callable[[str, object], str]

_META = ("unk", "bos", "eos", "pad")
_OURS = {"input_sentence_size", "shuffle_input_sentence", "seed"}
_RESERVED = "\u2585"  # SentencePiece's own mark for the unknown; it skips lines that hold it
_COVERED = re.compile(r"Done: ([\d.]+)% characters are covered")
_LOG_LINE = re.compile(r"[IWEF]\d{4} [^\]]*\] (.*)")


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

    def __init__(self, limit: int, progress: OnProgress | None) -> None:
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


def _follow(log: IO[bytes], kept: _Log, progress: OnProgress | None) -> None:
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
        setting = named("required_chars", config.required_chars)
        raise UsageError(
            f"{setting}: a char model has no piece for a character that its text lacks; take it out"
        ) from None


def train_tokenizer(
    lines: Iterable[str],
    config: TokenizerConfig,
    *,
    lower_vocab: bool = False,
    named: Named = as_flag,
    progress: OnProgress | None = None,
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


def short_lines(texts: Iterable[str], longest: int = 1_000) -> Iterator[str]:
    """Yield texts cut into lines of at most `longest` characters, at blanks where possible.

    SentencePiece drops longer lines, or needs time that grows with the square of their length.
    """
    for text in texts:
        start = 0
        while len(text) - start > longest:
            blank = text.rfind(" ", start + 1, start + longest)
            stop = blank if blank > 0 else start + longest
            yield text[start:stop]
            start = stop
        yield text[start:]


def vocab_size(config: TokenizerConfig, texts: Iterable[str]) -> int:
    """Return the configured vocabulary size, or 6 sqrt(characters), from 1,000 to 16,000.

    Vocabularies grow about as the square root of the text (Heaps 1978, section 7.5).
    """
    if config.vocab_size is not None:
        return config.vocab_size
    characters = sum(map(len, texts))
    return min(max(round(6 * sqrt(characters)), 1_000), 16_000)


def make_tokenizer(config: TokenizerConfig, texts: Sequence[str], source: str) -> TrainedTokenizer:
    """Train the tokenizer of a classifier on its training texts, and describe it on stderr.

    A vocabulary size that the texts do not allow becomes the nearest one that they do, unless
    hard_vocab_limit=true was given. Raises what `train_tokenizer` raises.
    """
    wanted = vocab_size(config, texts)
    hard = config.hard_vocab_limit and "hard_vocab_limit" in given(config)
    settings: TokenizerConfig = config.model_copy(update={"vocab_size": wanted})
    trained = train_tokenizer(
        short_lines(texts), settings, lower_vocab=not hard, named=as_setting, source=source
    )
    say(f"tokenizer: {trained.describe()}")
    return trained
