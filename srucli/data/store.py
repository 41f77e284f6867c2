"""The tokens of many texts, and the batches gathered from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srucli.data.batch import Batch, Ints
from srucli.io.memory import groups
from srucli.tokenizer.truncation import Limits, Tally

if TYPE_CHECKING:
    from srucli.tokenizer.model import Tokenizer

# How many characters are tokenized at once. One text may be longer.
AT_ONCE = 2**21
Targets = Ints | NDArray[np.float32]


class TokenStore:
    """The tokens of B texts as one row, and the texts' targets and weights.

    ids (N,) int32, offsets (B+1,) int64, lengths (B,), targets (B,) int64 or (B, C) float32,
    weights (B,) float32. `tally` has the limits, and counts the truncated texts.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        offsets: Ints,
        targets: Targets | None = None,
        tally: Tally | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        self.ids, self.offsets = ids, offsets
        self.targets, self.weights = targets, weights
        self.lengths = np.diff(offsets)
        self.tally = tally or Tally(len(self.lengths))

    @classmethod
    def encode(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        targets: Targets | None = None,
        *,
        limits: Limits,
        subword_dropout: float = 0.0,
        seed: int = 0,
        weights: NDArray[np.float32] | None = None,
    ) -> TokenStore:
        """Encode texts, each truncated to its limit. Raises TextError for an unusable text."""
        ids, lengths, tally = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], Tally(limits=limits)
        for first, group in groups(texts, AT_ONCE):
            read = [text[: limits.characters] for text in group]
            found, offsets = tokenizer.encode(read, subword_dropout, seed, first)
            own = np.diff(offsets)
            long = np.array([len(text) > limits.characters for text in group])
            unknown = np.flatnonzero(found == tokenizer.unknown)
            tally += Tally(
                texts=len(own),
                cut=int(((own > limits.text) | long).sum()),
                encoded_in_part=int((np.minimum(own, limits.text) > limits.encoder).sum()),
                unknown_characters=len(np.unique(np.searchsorted(offsets, unknown, side="right"))),
                unknown_tokens=len(unknown),
                without_tokens=int((own == 0).sum()),
                limits=limits,
            )
            if own.max() > limits.text:
                place = np.arange(found.size) - np.repeat(offsets[:-1], own)
                found, own = found[place < limits.text], np.minimum(own, limits.text)
            ids.append(found)
            lengths.append(own)
        found, offsets = np.concatenate(ids), _offsets(np.concatenate(lengths))
        return cls(found, offsets, targets, tally, weights)

    def batch(self, texts: Ints) -> Batch:
        """Return the batch of these texts, given by their numbers, in this order."""
        starts, lengths = self.offsets[texts], self.lengths[texts]
        offsets = _offsets(lengths)
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        targets, weights = (
            None if each is None else torch.from_numpy(each[texts])
            for each in (self.targets, self.weights)
        )
        tokens = torch.from_numpy(self.ids[rows].astype(np.int64))
        return Batch(tokens, torch.from_numpy(offsets), targets, self._part(lengths), weights)

    def _part(self, lengths: Ints) -> tuple[Tensor, Tensor] | None:
        """Select the beginning and the end of texts that are too long for the encoder."""
        limit = self.tally.limits.encoder
        if lengths.max(initial=0) <= limit:
            return None
        place = np.concatenate([np.arange(length) for length in lengths])
        left = np.repeat(lengths, lengths) - place
        selected = np.flatnonzero((place < limit - limit // 2) | (left <= limit // 2))
        offsets = _offsets(np.minimum(lengths, limit))
        return torch.from_numpy(selected), torch.from_numpy(offsets)


def _offsets(lengths: Ints) -> Ints:
    """Return where each of B texts begins and the last one ends (B+1,)."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
