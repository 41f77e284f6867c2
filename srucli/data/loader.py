"""The training examples as batches: tokenized, in a random order, from any position in an epoch on.

Every epoch has an order of its own and, under subword dropout, tokens of its own; both depend on
the seed and the number of the epoch alone. What a batch is stands in `batch.py`.
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
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from srucli.config import TrainConfig
from srucli.data.batch import Batch, TokenStore, order, uploaded
from srucli.data.dataset import Dataset
from srucli.io.console import say
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.truncation import Limits, Notices, Tally

# The settings that decide which examples are in which batch of an epoch, and their tokens.
FINGERPRINTED = (
    *("batch_size", "batch_tokens", "accumulate", "max_tokens", "subword_dropout", "seed"),
)


class Position(BaseModel):
    """What was handed out so far. The names are those in training.json.

    step, texts, pieces: steps, examples and tokens in all epochs. epoch: epochs that are finished.
    batches, taken: batches and examples of the current epoch.
    """

    model_config = ConfigDict(strict=True)

    step: NonNegativeInt = 0
    texts: NonNegativeInt = 0
    pieces: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    batches: NonNegativeInt = 0
    taken: NonNegativeInt = 0


class DataLoader:
    """Batches of the training examples, a list of them for each optimizer step.

    `position` moves on as steps are handed out. `store` has the tokens of the current epoch.
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
        assert settings.epochs is not None  # `complete` saw to it
        self.settings, self.epochs, self.device = settings, settings.epochs, device
        self.data, self.tokenizer, self.limits = data, tokenizer, limits
        self.position = Position()
        self._order: list[NDArray[np.int64]] = []
        self._tokenized: tuple[int, TokenStore] | None = None

    @property
    def tally(self) -> Tally:
        """How many examples of the current epoch were not read whole."""
        return self.store.tally

    @property
    def planned_texts(self) -> int:
        """How many examples all epochs have together."""
        return self.epochs * len(self.data)

    @property
    def planned_steps(self) -> int:
        """About how many there will be: batches may be smaller than they could."""
        batches = -(-len(self.data) // self.settings.batch_size)
        return self.settings.steps or self.epochs * -(-batches // self.settings.accumulate)

    @property
    def epoch_number(self) -> int:
        """The current epoch, from 1, or the one that has just ended."""
        return self.position.epoch + bool(self.position.taken)

    @property
    def steps_of_epoch(self) -> int:
        """How many steps of the current epoch were handed out."""
        return -(-self.position.batches // self.settings.accumulate)

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether all examples of the current epoch were handed out."""
        return self.position.taken == len(self.data)

    @property
    def is_exhausted(self) -> bool:
        """Whether all epochs, or steps where those are limited, were handed out."""
        return self.spent is not None

    @property
    def spent(self) -> str | None:
        """The setting that ended the training."""
        if self.settings.steps is not None and self.position.step >= self.settings.steps:
            return "train.steps"
        return "--epochs" if self.position.epoch >= self.epochs else None

    def tokenize(self, epoch: int) -> TokenStore:
        """The examples' tokens in an epoch, from 0. They are kept, and differ by sampling alone."""
        settings = self.settings
        if not self.tokenizer.samples(settings.subword_dropout):
            epoch = 0
        if self._tokenized is None or self._tokenized[0] != epoch:
            store = TokenStore.encode(
                self.tokenizer,
                self.data.texts,
                self.data.targets,
                limits=self.limits,
                subword_dropout=settings.subword_dropout,
                seed=settings.seed * 1_000_003 + epoch,
            )
            self._tokenized = epoch, store
        return self._tokenized[1]

    def epochs_left(self) -> Iterator[Iterator[list[Batch]]]:
        """For each epoch that is left, the batches of each of its steps that are left.

        Call `end_epoch` between two of them. Says before the first which examples are not read
        whole.
        """
        first = self.position.epoch
        for epoch, store in enumerate(self._stores(), first):
            self.store = store
            if epoch == first:
                for line in Notices(self.data.source).last(store.tally):
                    say(line)
            yield self._steps()

    def _stores(self) -> Iterator[TokenStore]:
        """The tokens for each epoch that is left; a GPU trains while the next ones are made."""
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
        """The batches of each step that is left of the current epoch, on the device."""
        settings, done = self.settings, self.position
        seed = (settings.seed, done.epoch)
        sizes = settings.batch_size, settings.batch_tokens
        self._order = order(self.store.lengths, *sizes, seed)
        left = map(self.store.batch, self._order[done.batches :])
        batches = uploaded(left, self.device, np.diff(self.tokenizer.spelling[1]))
        while group := list(islice(batches, settings.accumulate)):
            examples = sum(batch.texts for batch in group)
            done.step += 1
            done.texts += examples
            done.pieces += sum(batch.tokens.numel() for batch in group)
            done.batches += len(group)
            done.taken += examples
            yield group

    def latest_step(self) -> NDArray[np.int64]:
        """The examples of the latest step, by their numbers in `store` (B,)."""
        batches, size = self.position.batches, self.settings.accumulate
        return np.concatenate(self._order[(batches - 1) // size * size : batches])

    def end_epoch(self) -> None:
        """Move on to the next epoch, unless the last step has cut this one short."""
        if self.is_at_end_of_epoch:
            self.position.epoch += 1
            self.position.batches = self.position.taken = 0

    @cached_property
    def fingerprint(self) -> str:
        """What must be the same for a position within an epoch to mean the same."""
        return sha256(self.data.identity.encode() + self._batching).hexdigest()

    @property
    def _batching(self) -> bytes:
        return repr([getattr(self.settings, key) for key in FINGERPRINTED]).encode()

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it holds for."""
        return {"progress": self.position.model_dump(), "place": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position. With other examples or batches it is the beginning of its epoch.

        Raises LookupError, ValueError.
        """
        self.position = done = Position.model_validate(state["progress"])
        if state["place"] == self.fingerprint:
            return
        if state["place"] == self.data.former_digest(self._batching):
            return
        if done.batches:
            say(f"the texts or their batches are others now: epoch {done.epoch + 1} begins anew")
        done.batches = done.taken = 0
        done.texts = done.epoch * len(self.data)
