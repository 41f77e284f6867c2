"""A loaded run: texts to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.layout import ColumnNames
from srucli.data.store import TokenStore
from srucli.inference.forward import BATCH_TOKENS, limited, probabilities
from srucli.io.memory import enough_memory
from srucli.metrics import check_finite
from srucli.model.classifier import sets_size, shapes, uninitialized
from srucli.runs.choice import choose, unfinished
from srucli.runs.run_dir import RunDir
from srucli.runtime import resolve_device
from srucli.tokenizer.truncation import Tally, read_texts


class Predictor:
    """A loaded run, as `eval` and `predict` use it.

    at_least_one: every text gets a label, as every training text has one (multi-label only).
    tally: counts of the texts so far. notes: sentences about the weights that are used.
    """

    def __init__(self, run: RunDir, device: torch.device) -> None:
        self.config, self.labels, self.tokenizer = run.config(), run.labels(), run.tokenizer()
        self.multi_label, self.device = self.config.data.multi_label, device
        facts = run.facts()
        self.at_least_one = self.multi_label and not facts.data.without_labels
        self.names: ColumnNames | None = None
        if (named := facts.columns) is not None:
            self.names = ColumnNames(named.get("text"), named.get("label"))
        self.choice = choose(run, self.config.train.used_checkpoint, self.config.metric)
        self.notes = [note for note in (self.choice.note, unfinished(run)) if note]
        model, classes = self.config.model, len(self.labels)
        self._shapes = shapes(model, self.tokenizer.vocab_size, classes)
        with enough_memory(
            "loading the model", lambda: self._smaller(sets_size(model, self._shapes))
        ):
            checkpoint = run.checkpoint(self.choice.name, self._shapes)
            self.thresholds = checkpoint.thresholds(classes, str(run.path))
            self.model = uninitialized(model, self.tokenizer.vocab_size, classes)
            self.model.load_state_dict(checkpoint.weights)
            self.model.to(device).eval().tabulate()
            self.ngrams = run.ngrams(classes, self.multi_label) if model.ngrams else None
        self.tally = Tally(limits=limited(self.model.limits(self.config.train), self.model))

    @classmethod
    def load(cls, run: Path, device: str = "auto") -> Predictor:
        """Load a run folder. Raises UsageError, InputMissingError, DataError."""
        found = resolve_device(device)
        return cls(RunDir.open(run), found)

    def probabilities(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return probabilities (B, C) of B texts; rows sum to 1 in a single-label model.

        Raises DivergedError if one is NaN or Inf, as with weights that are too large, and TextError
        for an unusable text.
        """
        if not texts:
            return np.empty((0, len(self.labels)), np.float32)
        with enough_memory("tokenization", lambda: _shorter(texts)):
            store = TokenStore.encode(self.tokenizer, texts, limits=self.tally.limits)
            scores = self._scores(texts)
        self.tally += store.tally
        classes = len(self.labels)
        with enough_memory("prediction", lambda: self._smaller(self._limit(store))):
            found = probabilities(self.model, store, self.device, classes, self.multi_label, scores)
        check_finite(found)
        return found

    def _scores(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Return the scores (B, C) of the linear model of n-grams, if there is one."""
        if self.ngrams is None:
            return None
        read = read_texts(texts, self.tokenizer, self.tally.limits)
        return self.ngrams.scores(read, len(self.labels), multi_label=self.multi_label)

    def _smaller(self, setting: str) -> str:
        """Return what to do if the memory of the device is too small: a setting is too large."""
        if self.device.type == "cuda":
            return "use --device cpu"
        return f"free some of it, or train with a lower {setting}"

    def _limit(self, store: TokenStore) -> str:
        """Return the setting that limits the memory for a batch: of its only text, or of each."""
        longest = int(store.lengths.max())
        if longest > BATCH_TOKENS:
            return f"train.max_tokens (a text has {longest:,} tokens)"
        return f"model.hidden (now {self.config.model.hidden:,})"


def _shorter(texts: Sequence[str]) -> str:
    """Return what to do if there is no memory for the tokens of texts."""
    longest = max(map(len, texts))
    return f"free some of it, or split long texts (the longest has {longest:,} characters)"
