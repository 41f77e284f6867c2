"""The training examples as batches: tokenized, in random order, from any position in an epoch.

Each epoch has its own order and, with subword dropout, its own tokens. Both depend only on the seed
and the number of the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from srucli.config import TrainConfig
from srucli.data.batch import Batch, Ints, order, uploaded
from srucli.data.dataset import Dataset
from srucli.data.store import TokenStore
from srucli.errors import located
from srucli.io.console import say
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.truncation import Limits, Notices

# The settings that determine which examples are in which batch of an epoch, and their tokens.
FINGERPRINTED = (
    *("batch_size", "batch_tokens", "accumulate", "max_tokens", "subword_dropout", "seed"),
)


class Position(BaseModel):
    """What was yielded so far, under the names in training.json.

    step, texts, pieces: steps, examples and tokens of all epochs. epoch: finished epochs. batches,
    taken: batches and examples of the current epoch.
    """

    model_config = ConfigDict(strict=True)

    step: NonNegativeInt = 0
    texts: NonNegativeInt = 0
    pieces: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    batches: NonNegativeInt = 0
    taken: NonNegativeInt = 0


class DataLoader:
    """The batches of the training examples, in one list for each optimizer step.

    `position` advances as steps are yielded. `store` has the tokens of the current epoch.
    """

    store: TokenStore

    def __init__(
        self,
        settings: TrainConfig,
        data: Dataset,
        tokenizer: Tokenizer,
        limits: Limits,
        device: torch.device,
    ) -> None:
        assert settings.epochs is not None  # set by `complete`
        self.settings, self.epochs, self.device = settings, settings.epochs, device
        self.data, self.tokenizer, self.limits = data, tokenizer, limits
        self.position = Position()
        self._order: list[Ints] = []
        self._tokenized: tuple[int, TokenStore] | None = None

    @property
    def planned_texts(self) -> int:
        """The number of examples in all epochs together."""
        return self.epochs * len(self.data)

    @property
    def planned_steps(self) -> int:
        """The approximate number of steps: batches may have fewer texts than `batch_size`."""
        batches = -(-len(self.data) // self.settings.batch_size)
        return self.settings.steps or self.epochs * -(-batches // self.settings.accumulate)

    @property
    def epoch_number(self) -> int:
        """The current epoch, counted from 1, or the one that has just ended."""
        return self.position.epoch + bool(self.position.taken)

    @property
    def steps_of_epoch(self) -> int:
        """The number of steps yielded of the current epoch."""
        return -(-self.position.batches // self.settings.accumulate)

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether all examples of the current epoch were yielded."""
        return self.position.taken == len(self.data)

    @property
    def is_exhausted(self) -> bool:
        """Whether all epochs, or the configured number of steps, were yielded."""
        return self.spent is not None

    @property
    def spent(self) -> str | None:
        """The setting that ended the training."""
        if self.settings.steps is not None and self.position.step >= self.settings.steps:
            return "train.steps"
        return "--epochs" if self.position.epoch >= self.epochs else None

    def tokenize(self, epoch: int) -> TokenStore:
        """Return the tokens in an epoch, counted from 0. Only sampling makes epochs differ."""
        settings = self.settings
        if not self.tokenizer.samples(settings.subword_dropout):
            epoch = 0
        if self._tokenized is None or self._tokenized[0] != epoch:
            with located(self.data.source, self.data.lines.__getitem__):
                store = TokenStore.encode(
                    self.tokenizer,
                    self.data.texts,
                    self.data.learned,
                    limits=self.limits,
                    subword_dropout=settings.subword_dropout,
                    seed=settings.seed * 1_000_003 + epoch,
                    weights=self.data.weights,
                )
            self._tokenized = epoch, store
        return self._tokenized[1]

    def epochs_left(self) -> Iterator[Iterator[list[Batch]]]:
        """Yield, for each remaining epoch, an iterator over the batches of each remaining step.

        Call `end_epoch` after each of them. Reports truncated texts before the first.
        """
        first = self.position.epoch
        for epoch, store in enumerate(self._stores(), first):
            self.store = store
            if epoch == first:
                say(*Notices(self.data.source).last(store.tally))
            yield self._steps()

    def _stores(self) -> Iterator[TokenStore]:
        """Yield the tokens of each remaining epoch; a GPU trains while the next are computed."""
        left = range(self.position.epoch, self.epochs)
        if self.device.type == "cpu":
            yield from map(self.tokenize, left)
            return
        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(self.tokenize, left[0])
            for epoch in left[1:]:
                store = ahead.result()
                ahead = thread.submit(self.tokenize, epoch)
                yield store
            yield ahead.result()

    def _steps(self) -> Iterator[list[Batch]]:
        """Yield the batches of each remaining step of the current epoch, on the device."""
        settings, done = self.settings, self.position
        sizes = settings.batch_size, settings.batch_tokens
        self._order = order(self.store.lengths, *sizes, (settings.seed, done.epoch))
        left = map(self.store.batch, self._order[done.batches :])
        batches = uploaded(left, self.device)
        while group := list(islice(batches, settings.accumulate)):
            examples = sum(batch.texts for batch in group)
            done.step += 1
            done.texts += examples
            done.pieces += sum(batch.tokens.numel() for batch in group)
            done.batches += len(group)
            done.taken += examples
            yield group

    def latest_step(self) -> Ints:
        """Return the examples of the latest step, by their numbers in `store` (B,)."""
        batches, size = self.position.batches, self.settings.accumulate
        return np.concatenate(self._order[(batches - 1) // size * size : batches])

    def end_epoch(self) -> None:
        """Advance to the next epoch, unless the last step ended this one early."""
        if self.is_at_end_of_epoch:
            self.position.epoch += 1
            self.position.batches = self.position.taken = 0

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that determines what a position within an epoch means."""
        return sha256(self.data.identity.encode() + self._batching).hexdigest()

    @property
    def _batching(self) -> bytes:
        return repr([getattr(self.settings, key) for key in FINGERPRINTED]).encode()

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the fingerprint."""
        return {"progress": self.position.model_dump(), "place": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a position; if the examples or batches changed, the beginning of its epoch.

        Raises LookupError, ValueError.
        """
        self.position = done = Position.model_validate(state["progress"])
        place = state["place"]
        if place == self.fingerprint:
            return
        if done.batches:
            say(f"the texts or their batches have changed: epoch {done.epoch + 1} starts again")
        done.batches = done.taken = 0
        done.texts = done.epoch * len(self.data)
