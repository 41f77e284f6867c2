"""Pretraining: from raw texts to a folder with a tokenizer and vectors of its tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from srucli.config import Config
from srucli.data.store import TokenStore
from srucli.errors import DataError, DivergedError, InterruptedRun, OutputError, TextError
from srucli.io.console import progress_bar, say, shell_word
from srucli.io.json_text import json_text
from srucli.io.streams import display_name, recorded_name
from srucli.runs.claim import Source
from srucli.runs.pretrained_dir import PretrainedDir, PretrainedFacts, Progress
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import as_setting, check_rules, make_tokenizer
from srucli.tokenizer.truncation import Limits, Notices
from srucli.training.interrupts import Interrupt
from srucli.training.skipgram import Part, SkipGram

# What all epochs together learn by default, in tokens, and the limits of their number.
TOKENS, MIN_EPOCHS, MAX_EPOCHS = 30_000_000, 3, 50
# The seconds between checkpoints, and about how many epochs are reported.
SECONDS, ROWS = 300.0, 10
# With fewer different texts there is nothing to learn.
MIN_TEXTS = 2


@dataclass(frozen=True, eq=False)
class RawText:
    """Texts without labels, and the names of the files they are from."""

    texts: Sequence[str]
    sources: Sequence[str]

    @property
    def name(self) -> str:
        """What messages call it."""
        return ", ".join(map(display_name, self.sources)) or "raw texts"

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the texts, in order."""
        digest = sha256()
        for text in self.texts:
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()


def pretrain(
    config: Config,
    raw: RawText,
    output: Path,
    *,
    tokenizer: Path | None = None,
    force: bool = False,
    stop: Interrupt | None = None,
    reads: Sequence[Source] = (),
) -> Path:
    """Learn vectors of the tokens of raw text, and return their folder.

    If the folder holds the vectors of the same texts and settings, nothing is done, or they are
    finished if they are not, unless `force` starts anew. tokenizer: a SentencePiece model; one is
    trained otherwise. stop: can request an early end. reads: other files that must not be replaced.
    Raises SrucliError of any kind.
    """
    given = Tokenizer.load(tokenizer) if tokenizer else None
    _check_texts(raw)
    wanted = fingerprint(config, raw, given)
    with PretrainedDir.claim(output, (*raw.sources, tokenizer, *reads)) as folder:
        saved = None if force else _saved(folder, wanted)
        if saved and folder.is_complete:
            folder.drop_state()
            say(f"{output}: is finished already")
        else:
            _learn(folder, saved, _Task(config, raw, given, wanted, stop or Interrupt()))
    return output


def fingerprint(config: Config, raw: RawText, tokenizer: Tokenizer | None) -> str:
    """Return a hash of all that determines the vectors of raw texts. Raises SrucliError."""
    check_rules(config.tokenizer, as_setting)
    if tokenizer:
        of_tokens: object = sha256(tokenizer.model_bytes).hexdigest()
    else:
        rules = config.tokenizer.normalization_rule_tsv
        content = sha256(Path(rules).read_bytes()).hexdigest() if rules else ""
        of_tokens = [config.tokenizer.model_dump(mode="json"), content]
    settings = [
        config.pretrain.model_dump(mode="json"),
        *(config.model.embedding_size, config.train.seed, config.train.subword_dropout),
    ]
    digest = sha256(json_text([of_tokens, settings]).encode())
    digest.update(raw.sha256.encode())
    return digest.hexdigest()


def epochs_of(config: Config, tokens: int) -> int:
    """Return the configured number of epochs, or the one by which TOKENS are learned in all."""
    if config.pretrain.epochs is not None:
        return config.pretrain.epochs
    return min(max(round(TOKENS / max(tokens, 1)), MIN_EPOCHS), MAX_EPOCHS)


def _check_texts(raw: RawText) -> None:
    """Raise DataError for texts from which nothing can be learned; count repeated ones."""
    texts, different = len(raw.texts), len({*raw.texts})
    if different < MIN_TEXTS:
        found = {0: "no text", 1: "one text"}.get(texts, f"the same text {texts:,} times")
        raise DataError(raw.name, None, found, "give raw text with different lines")
    if repeated := texts - different:
        say(f"{raw.name}: {repeated:,} of {texts:,} texts repeat earlier ones")


def _saved(folder: PretrainedDir, wanted: str) -> PretrainedFacts | None:
    """Return what the folder holds, if it has vectors. Raises DataError if it is damaged.

    Raises OutputError if they are of other texts or settings.
    """
    found = folder.facts() if folder.has_vectors else None
    if found and found.fingerprint != wanted:
        raise OutputError(
            f"{folder.path}: was pretrained on other texts or with other settings; choose another "
            "-o, or add --force"
        )
    return found


class _Task(NamedTuple):
    """What is learned. given: the tokenizer, if one is given. wanted: the fingerprint."""

    config: Config
    raw: RawText
    given: Tokenizer | None
    wanted: str
    stop: Interrupt

    def encoder(self, tokenizer: Tokenizer) -> Callable[[int], TokenStore]:
        """Return a function from the number of an epoch to its tokens."""
        train = self.config.train

        @lru_cache(maxsize=1)
        def encoded(epoch: int) -> TokenStore:
            try:
                return TokenStore.encode(
                    tokenizer,
                    self.raw.texts,
                    limits=Limits(),
                    subword_dropout=train.subword_dropout,
                    seed=train.seed * 1_000_003 + epoch,
                )
            except TextError as error:
                raise DataError(self.raw.name, None, error.problem, error.remedy) from None

        return encoded


def _learn(folder: PretrainedDir, saved: PretrainedFacts | None, task: _Task) -> None:
    """Learn the vectors, or the rest of their epochs, and write the folder."""
    config, seed = task.config, task.config.train.seed
    if saved:
        tokenizer = folder.tokenizer()
        state, progress = folder.state(tokenizer.vocab_size, saved)
        vectors = SkipGram.restored(state)
        encoded = task.encoder(tokenizer)
        say(f"resuming after {vectors.epoch:,} of {saved.epochs:,} epochs")
    else:
        raw = task.raw
        tokenizer = task.given or make_tokenizer(config.tokenizer, raw.texts, raw.name).tokenizer
        encoded = task.encoder(tokenizer)
        vectors = SkipGram.new(tokenizer.vocab_size, config.model.embedding_size, seed)
        folder.clear()
        store, progress = encoded(0), Progress()
        say(*Notices(raw.name).last(store.tally))
        folder.begin(tokenizer, _facts(task, store.ids.size))
    facts = folder.facts()
    say(f"pretraining: {facts.texts:,} texts, {facts.tokens:,} tokens, {facts.epochs:,} epochs")
    task.stop.checked = True
    learned = vectors.train(encoded, config.pretrain, facts.epochs, seed)
    with progress_bar(total=facts.epochs * facts.tokens, unit=" tokens", unit_scale=True) as bar:
        bar.update(vectors.epoch * facts.tokens)
        _follow(learned, vectors, folder, task, progress, bar)
    task.stop.checked = False
    folder.finish(torch.from_numpy(vectors.inputs), card(folder.path.name, facts))


def _follow(
    parts: Iterator[Part],
    vectors: SkipGram,
    folder: PretrainedDir,
    task: _Task,
    done: Progress,
    bar: Any,
) -> None:
    """Learn part by part: log each epoch, and save now and then.

    done: what was done before. Raises InterruptedRun, DivergedError.
    """
    stop, rate, epochs = task.stop, task.config.pretrain.lr, folder.facts().epochs
    saved_at = time.monotonic()
    start = saved_at - done.seconds
    loss, pairs = done.loss, done.pairs
    for part in parts:
        bar.update(part.tokens)
        loss, pairs = loss + part.loss, pairs + part.pairs
        now = time.monotonic()
        if not vectors.texts:
            if not np.isfinite(vectors.inputs).all():
                raise DivergedError(
                    f"a vector is NaN or Inf after epoch {vectors.epoch}: pretraining diverged; "
                    f"lower pretrain.lr (now {rate:g})"
                )
            if not vectors.outputs.any():
                remedy = "give longer texts"
                raise DataError(task.raw.name, None, "no text has tokens to learn from", remedy)
            mean, loss, pairs = loss / max(pairs, 1), 0.0, 0.0
            if vectors.epoch % max(epochs // ROWS, 1) == 0:
                say(f"epoch {vectors.epoch}/{epochs}: loss {mean:.4f}, {now - start:,.0f} s")
            folder.add({"epoch": vectors.epoch, "loss": mean, "seconds": round(now - start, 3)})
        if stop.requested or now - saved_at > SECONDS:
            folder.save(vectors.state_dict(), Progress(loss, pairs, now - start))
            saved_at = now
        if stop.requested:
            raise InterruptedRun(
                f"{folder.path}: stopped after {vectors.epoch:,} epochs, and saved",
                "the same command resumes",
            )


def _facts(task: _Task, tokens: int) -> dict[str, object]:
    """Return what pretrained.json records, besides the machine."""
    return {
        "sources": [recorded_name(name) for name in task.raw.sources],
        "texts": len(task.raw.texts),
        "tokens": tokens,
        "size": task.config.model.embedding_size,
        "epochs": epochs_of(task.config, tokens),
        "sha256": task.raw.sha256,
        "fingerprint": task.wanted,
    }


def card(name: str, facts: PretrainedFacts) -> str:
    """Return the README.md of the folder."""
    return f"""# {name}

A tokenizer and vectors of its tokens, learned from raw text by srucli {facts.srucli}.

- Vectors of {facts.size} numbers, by skip-gram with negative sampling.
- Learned from {facts.texts:,} texts with {facts.tokens:,} tokens, {facts.epochs} epochs.
- SHA-256 of the texts: `{facts.sha256}`

## Use

    srucli train FILE --from {shell_word(name)}
"""
