"""Vectors of tokens by skip-gram, which can be saved and restored between any two parts.

A pair of tokens near each other is a positive example, and the same token with random ones are
negative examples (Mikolov et al. 2013, arXiv 1310.4546, sections 2.2 and 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srucli.config import PretrainConfig
from srucli.data.store import TokenStore
from srucli.kernels.cpu_skipgram import learn

Floats = NDArray[np.float32]
# A token with the share f of all tokens is kept with the probability sqrt(t / f) + t / f, where t
# is FREQUENT, or the mean share of a token if that is larger. Negatives are drawn with
# probabilities in proportion to f to this POWER.
FREQUENT, POWER = 1e-4, 0.75
# The tokens that are learned between two occasions to save.
PART = 2**20


class Part(NamedTuple):
    """What was learned: the number of tokens and of pairs, and the sum of the pairs' losses."""

    tokens: int
    pairs: int
    loss: float


class SkipGram:
    """Vectors (V, E) of tokens as they are (inputs), and as the others around them (outputs).

    epoch: finished epochs. texts: the texts that were learned in the current one.
    """

    def __init__(self, inputs: Floats, outputs: Floats, epoch: int = 0, texts: int = 0) -> None:
        self.inputs, self.outputs, self.epoch, self.texts = inputs, outputs, epoch, texts

    @classmethod
    def new(cls, tokens: int, size: int, seed: int) -> Self:
        """Return small random vectors, and zeros as outputs."""
        inputs = np.random.default_rng(seed).uniform(-0.5 / size, 0.5 / size, (tokens, size))
        return cls(inputs.astype(np.float32), np.zeros((tokens, size), np.float32))

    def train(
        self,
        encoded: Callable[[int], TokenStore],
        settings: PretrainConfig,
        epochs: int,
        seed: int,
    ) -> Iterator[Part]:
        """Learn the rest of all epochs, and yield after each part.

        encoded: returns the tokens of the texts in an epoch, counted from 0. The vectors depend on
        nothing else but the arguments, however often they were saved and restored.
        """
        for epoch in range(self.epoch, epochs):
            store = encoded(epoch)
            counts = np.bincount(store.ids, minlength=len(self.inputs)).astype(np.float64)
            tokens = _kept(counts), *alias_table(counts**POWER)
            order = np.random.default_rng((seed, epoch)).permutation(len(store.lengths))
            ends = np.concatenate(([0], np.cumsum(store.lengths[order])))
            for first, stop in _parts(ends, self.texts):
                done = (epoch + ends[[first, stop]] / max(ends[-1], 1)) / epochs
                texts = order[first:stop]
                random = np.random.SeedSequence((seed, epoch, first))
                loss, pairs = learn(
                    *(store.ids, store.offsets[texts], store.offsets[texts + 1], *tokens),
                    *(settings.lr * (1 - done), settings.window, settings.negatives),
                    *(self.inputs, self.outputs, random.generate_state(1, np.uint64)),
                )
                over = stop == len(order)
                self.epoch, self.texts = (epoch + 1, 0) if over else (epoch, stop)
                yield Part(int(ends[stop] - ends[first]), pairs, loss)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that further learning depends on."""
        position = torch.tensor([self.epoch, self.texts])
        vectors = {"inputs": self.inputs, "outputs": self.outputs}
        return {name: torch.from_numpy(own) for name, own in vectors.items()} | {
            "position": position
        }

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the vectors with this `state_dict`."""
        epoch, texts = state["position"].tolist()
        return cls(state["inputs"].numpy(), state["outputs"].numpy(), epoch, texts)


def _parts(ends: NDArray[np.int64], first: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of texts, from `first` on, that have up to PART tokens, or one text.

    ends (B+1,): the number of tokens before each text, and of all.
    """
    while first < ends.size - 1:
        stop = int(np.searchsorted(ends, ends[first] + PART, side="right")) - 1
        stop = max(stop, first + 1)
        yield first, stop
        first = stop


def _kept(counts: NDArray[np.float64]) -> Floats:
    """Return the probabilities (V,) with which tokens that occur so often are kept."""
    ratio = max(FREQUENT, 1 / counts.size) * counts.sum() / counts.clip(min=1)
    kept: Floats = (np.sqrt(ratio) + ratio).astype(np.float32)
    return kept


def alias_table(weights: NDArray[np.float64]) -> tuple[Floats, NDArray[np.int32]]:
    """Return the table (V,), (V,) by which indices are drawn in proportion to weights (V,).

    An index drawn uniformly is taken with its own probability, and else replaced by the other one
    (Walker 1977; Vose 1991). With weights of 0 only, all indices are as likely.
    """
    total = weights.sum()
    shares = weights * (weights.size / total) if total else np.ones(weights.size)
    other = np.arange(weights.size, dtype=np.int32)
    scarce, ample = (list(np.flatnonzero(own)) for own in (shares < 1, shares >= 1))
    while scarce and ample:
        index, giver = scarce.pop(), ample[-1]
        other[index] = giver
        shares[giver] -= 1 - shares[index]
        if shares[giver] < 1:
            scarce.append(ample.pop())
    shares[scarce + ample] = 1.0  # rounding errors
    return shares.astype(np.float32), other
