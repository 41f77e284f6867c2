"""Branches of hashed n-grams, and the speller, which turns tokens into characters."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srucli.kernels.hashing import places
from srucli.kernels.ngrams import ngram_sums
from srucli.model.embedding import Tabulated, embedding_table

SPACE = 0x2581  # as SentencePiece writes it
# The character codes of all tokens of the vocabulary in one row, and offsets (vocab_size + 1,).
Spelling = tuple[NDArray[np.int64], NDArray[np.int64]]


class NgramBranch(Tabulated):
    """Logits from hashed n-grams of symbols: a linear model of them, at the low rank of a table.

    `product` has the logits that each row of the table adds.
    """

    def __init__(self, longest: int, buckets: int, size: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.longest = longest
        self.table = embedding_table(buckets, size)
        self.head = nn.Linear(size, classes, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, symbols: Tensor, offsets: Tensor) -> Tensor:
        """symbols (N,), offsets (B+1,) -> logits (B, C)."""
        scale = (offsets.diff() * self.longest).clamp(min=1).rsqrt().unsqueeze(1)
        if self.product is not None:
            return ngram_sums(self.product, symbols, offsets, self.longest) * scale
        sums = ngram_sums(self.table.weight, symbols, offsets, self.longest) * scale
        logits: Tensor = self.head(self.dropout(sums))
        return logits

    def tabulate(self) -> None:
        """Multiply the table by the head if that makes it narrower."""
        if self.head.out_features < self.head.in_features:
            self.product = self.head(self.table.weight)


class Speller(nn.Module):
    """Turns tokens into characters, which do not depend on how a text was tokenized.

    A space follows a text's last token, so that n-grams show the end of its last word too.
    """

    codes: Tensor
    starts: Tensor

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        codes, starts = map(torch.from_numpy, spelling)
        self.register_buffer(
            "codes", nn.functional.pad(codes, (0, 1), value=SPACE), persistent=False
        )
        self.register_buffer("starts", torch.cat((starts, starts[-1:] + 1)), persistent=False)

    def forward(
        self, tokens: Tensor, offsets: Tensor, characters: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """tokens (N,), offsets (B+1,) -> characters (M,) and the texts' offsets in them (B+1,).

        `characters` is M if it is known, which saves waiting for a GPU. If it is too small, the
        last texts are truncated; if it is too large, the last text is extended.
        """
        space, texts = self.starts.numel() - 2, offsets.numel() - 1
        text, place = places(offsets, tokens.numel())
        offsets = offsets + torch.arange(texts + 1, device=tokens.device)
        tokens = tokens.new_full((tokens.numel() + texts,), space).index_put(
            (offsets.index_select(0, text) + place,), tokens
        )
        lengths = self.starts.diff().index_select(0, tokens)
        ends = nn.functional.pad(lengths.cumsum(0), (1, 0))
        shift = self.starts.index_select(0, tokens) - ends[:-1]
        if characters is None:
            characters = int(ends[-1])
        else:
            ends = nn.functional.pad(ends[:-1].clamp(max=characters), (0, 1), value=characters)
        at = torch.arange(characters, device=tokens.device)
        at += shift.repeat_interleave(ends.diff(), output_size=characters)
        codes = self.codes.index_select(0, at.clamp(max=self.codes.numel() - 1))
        return codes, ends.index_select(0, offsets)
