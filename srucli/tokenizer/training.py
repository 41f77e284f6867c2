"""Train SentencePiece models on lines of text, in a child process that can be killed."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import IO, Any

from srucli.config import DEFAULT_VOCAB_SIZE, TokenizerConfig, given
from srucli.errors import DataError, InputMissingError, OutOfMemoryError, SrucliError, UsageError
from srucli.io.children import child
from srucli.io.console import say
from srucli.io.memory import KILLED, NO_MEMORY, ending, says_so
from srucli.tokenizer import proto
from srucli.tokenizer.child import REFUSED, TOO_FEW, TOO_MANY
from srucli.tokenizer.model import Tokenizer

# Takes a few words about the progress; not always called from the same thread.
OnProgress = Callable[[str], None]
# Takes the name and value of a setting, and returns how the user sets it.
Named = Callable[[str, object], str]

_Line = tuple[int, str]
# The rules of NFKC have 0.3 MB.
MAX_RULES_FILE = 2**24
_META = ("unk", "bos", "eos", "pad")
_NOT_SENTENCEPIECE = {"input_sentence_size", "shuffle_input_sentence", "seed"}
_RESERVED = "\u2585"  # SentencePiece marks unknown text with it, and skips lines that contain it
_COVERED = re.compile(r"Done: ([\d.]+)% characters are covered")
# How the process ends, and its last line, if C++ cannot start a thread.
_ABORTED, _TERMINATED = -6, "terminate called"
_LOG_LINE = re.compile(r"[IWEF]\d{4} [^\]]*\] (.*)")


@dataclass(frozen=True)
class TrainedTokenizer:
    """A new tokenizer and facts about its training."""

    tokenizer: Tokenizer
    config: TokenizerConfig
    lines: int  # read
    used: int  # lines trained on
    characters: int  # in the used lines
    too_long: int  # lines left out because of max_sentence_length
    reserved: int  # lines left out because they contain U+2585
    wanted: int  # the requested vocabulary size
    seconds: float
    covered: str | None = None  # percent of the characters in the vocabulary, as logged

    def describe(self) -> str:
        """Return a summary in one line."""
        config = self.config
        used = f" ({self.used:,} used)" if self.used != self.lines else ""
        parts = [f"{config.model_type}: {self.lines:,} lines{used}"]
        parts.append(f"{self.characters:,} characters")
        if self.too_long:
            limit = config.max_sentence_length
            parts.append(f"{self.too_long:,} lines of over {limit} bytes left out")
        if self.reserved:
            parts.append(f"{self.reserved:,} lines with the reserved character U+2585 left out")
        if self.covered:
            parts.append(f"{self.covered}% of the characters known")
        parts.append(f"{self.wanted:,} pieces wanted, {self.tokenizer.vocab_size:,} obtained")
        threads = f"{config.num_threads} thread" + "s" * (config.num_threads != 1)
        return "; ".join([*parts, f"{self.seconds:.1f} s, {threads}"])


class _Filter:
    """Select and count the lines that SentencePiece trains on; it skips others almost silently."""

    def __init__(self, limit: int, progress: OnProgress | None) -> None:
        self.limit, self.progress = limit, progress
        self.lines = self.too_long = self.reserved = 0

    def select(self, texts: Iterable[str]) -> Iterator[_Line]:
        """Yield lines with their numbers. A text from JSON or CSV may have several lines."""
        for line in itertools.chain.from_iterable(text.split("\n") for text in texts):
            self.lines += 1
            if self.progress and self.lines % 50_000 == 0:
                self.progress(f"{self.lines:,} lines read")
            if len(line) * 4 > self.limit and len(line.encode()) > self.limit:
                self.too_long += 1
            elif _RESERVED in line:
                self.reserved += 1
            elif line:
                yield self.lines, line


def _draw(lines: Iterator[_Line], config: TokenizerConfig) -> Iterable[_Line]:
    """Take `input_sentence_size` lines, in order: the first, or by Vitter's algorithm R."""
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
    options = config.model_dump(mode="json", exclude=_NOT_SENTENCEPIECE)
    options["vocab_size"] = config.vocab_size or DEFAULT_VOCAB_SIZE
    # Encoded text never holds a space, so a symbol with one would never be found.
    symbols = [symbol.replace(" ", "\u2581") for symbol in config.user_defined_symbols]
    return options | {"user_defined_symbols": symbols}


@dataclass
class _Log:
    """The trainer's log: its last line, and the percentage of characters in the vocabulary."""

    last: str = "no word"
    covered: str | None = None

    def follow(self, stream: IO[bytes], progress: OnProgress | None) -> None:
        """Read the log to its end."""
        with stream:
            for raw in stream:
                self.last = raw.decode("utf-8", "replace").rstrip()
                if match := _COVERED.search(self.last):
                    self.covered = match[1]
                if progress and (match := _LOG_LINE.match(self.last)):
                    progress(match[1])


def _send(pipe: IO[bytes], job: dict[str, Any], lines: Iterable[_Line]) -> tuple[int, int]:
    """Write the job and its lines. Return the number of lines and of characters."""
    used = characters = 0
    try:
        pipe.write(json.dumps(job).encode() + b"\n")
        for _, line in lines:
            used, characters = used + 1, characters + len(line)
            pipe.write(line.encode() + b"\n")
        pipe.write(b"\n")
        pipe.flush()
    except BrokenPipeError:  # the trainer has refused the job; its answer says why
        used = max(used, 1)
    return used, characters


def as_flag(name: str, value: object = None) -> str:
    """Return how `srucli tokenize` takes a setting: `--vocab-size 66`."""
    flag = name.replace("_", "-")
    if value is None or isinstance(value, bool):
        return f"--no-{flag}" if value is False else f"--{flag}"
    return f"--{flag} {value}"


def as_setting(name: str, value: object = None) -> str:
    """Return how other commands take a setting: `tokenizer.vocab_size=66`."""
    shown = str(value).lower() if isinstance(value, bool) else value
    return f"tokenizer.{name}" if value is None else f"tokenizer.{name}={shown}"


def _refusal(message: str, options: Mapping[str, Any], named: Named) -> UsageError:
    """Return the error for a message of the trainer, in terms of settings if it is known."""
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
        meta = sum(options[f"{piece}_id"] >= 0 for piece in _META)
        symbols = len(options["user_defined_symbols"]) + len(options["control_symbols"]) + meta
        symbols += 256 if options["byte_fallback"] else 0
        least = named("vocab_size", symbols + 1)  # one token from the text
        return UsageError(f"{size} is too small for the symbols alone; pass {least} or more")
    if "insert_id(" in message:
        *ids, last = [named(f"{piece}_id", None) for piece in _META]
        ids_and_last = f"{', '.join(ids)} and {last}"
        return UsageError(f"{ids_and_last} must differ (or be -1) and lie below {size}")
    reason = re.sub(r"^[A-Z_]+: (src/\S+ )?", "", message).strip()
    return UsageError(f"SentencePiece refuses these settings: {reason}")


def _trained(model: bytes, config: TokenizerConfig, named: Named) -> Tokenizer:
    """Load the trained model. Raises UsageError for settings that SentencePiece does not check."""
    try:
        return Tokenizer(model)
    except proto.UnusableModelError:
        if config.model_type != "char" or not config.required_chars:
            raise
        setting = named("required_chars", config.required_chars)
        raise UsageError(
            f"{setting}: a char model has no piece for a character that its text lacks; remove it"
        ) from None


def check_rules(config: TokenizerConfig, named: Named) -> None:
    """Refuse a file of normalization rules that SentencePiece might read without end.

    Raises InputMissingError, DataError.
    """
    path = config.normalization_rule_tsv
    if not path:
        return
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        setting = named("normalization_rule_tsv", path)
        raise InputMissingError(f"{setting}: no such file; check the name and the folder") from None
    remedy = "name a file of rules"
    if not stat.S_ISREG(status.st_mode):
        raise DataError(path, None, "is not a regular file", remedy)
    if status.st_size > MAX_RULES_FILE:
        problem = f"has over {MAX_RULES_FILE >> 20} MiB, the most that rules may have"
        raise DataError(path, None, problem, remedy)


def train_tokenizer(
    lines: Iterable[str],
    config: TokenizerConfig,
    *,
    lower_vocab: bool = False,
    named: Named = as_flag,
    progress: OnProgress | None = None,
    source: str = "the training text",
) -> TrainedTokenizer:
    """Train a model on lines of text, in a process that ends with this call.

    The model has the pieces and scores that SentencePiece's trainer gives for the same lines and
    options. lower_vocab: replace a vocabulary size that the text does not allow by the nearest
    one that it does. named: how the user sets a setting. progress: called now and then, not always
    from this thread. Raises UsageError for invalid settings, DataError naming `source` if no text
    is left, SrucliError if the process is killed, and what iterating over `lines` raises.
    """
    start = time.monotonic()
    check_rules(config, named)
    filtered = _Filter(config.max_sentence_length, progress)
    options = _options(config)
    wanted = options["vocab_size"]
    log = _Log()
    with child("srucli.tokenizer.child", own_stderr=True) as (process, stdin, stdout, stderr):
        assert stderr is not None
        follower = threading.Thread(target=log.follow, args=(stderr, progress), daemon=True)
        follower.start()
        chosen = _draw(filtered.select(lines), config)
        used, characters = _send(stdin, {"options": options, "fit": lower_vocab}, chosen)
        if not used:
            remedy = f"raise {named('max_sentence_length', None)}"
            remedy = remedy if filtered.too_long else "give it text"
            raise DataError(source, None, "no line to train on", remedy)
        answer = stdout.read()
        code = process.wait()
        follower.join()
    if code == REFUSED:
        message = answer.decode("utf-8", "replace")
        if "all_chars_count" in message:
            raise DataError(source, None, "nothing but blank lines", "give it text")
        raise _refusal(message, options, named)
    if code in (NO_MEMORY, KILLED) or (code and says_so(log.last)):
        ended = ending(code) if code == KILLED else "ran out of memory"
        fewer = named("input_sentence_size", max(used // 2, 1))
        raise OutOfMemoryError(f"training the tokenizer {ended}; use fewer lines: {fewer}")
    if code == _ABORTED and config.num_threads > 1 and _TERMINATED in log.last:
        fewer = named("num_threads", config.num_threads // 2)
        raise SrucliError(f"training the tokenizer could not start all threads; use fewer: {fewer}")
    if code:
        raise SrucliError(f"the training process {ending(code)}: {log.last}")
    return TrainedTokenizer(
        _trained(answer, config, named),
        config,
        filtered.lines,
        used,
        characters,
        filtered.too_long,
        filtered.reserved,
        wanted,
        time.monotonic() - start,
        log.covered,
    )


def short_lines(texts: Iterable[str], longest: int = 1_000) -> Iterator[str]:
    """Yield texts split into lines of at most `longest` characters, at spaces if possible.

    SentencePiece drops long lines, or needs time quadratic in their length.
    """
    for text in texts:
        start = 0
        while len(text) - start > longest:
            space = text.rfind(" ", start + 1, start + longest)
            stop = space if space > 0 else start + longest
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
    """Train the tokenizer of a classifier on its training texts, and report it on stderr.

    A vocabulary size that the texts do not allow is replaced by the nearest one that they do,
    unless hard_vocab_limit=true was given. Raises what `train_tokenizer` raises.
    """
    wanted = vocab_size(config, texts)
    hard = config.hard_vocab_limit and "hard_vocab_limit" in given(config)
    settings: TokenizerConfig = config.model_copy(update={"vocab_size": wanted})
    trained = train_tokenizer(
        short_lines(texts), settings, lower_vocab=not hard, named=as_setting, source=source
    )
    say(f"tokenizer: {trained.describe()}")
    return trained
