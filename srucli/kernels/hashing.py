"""The texts that rows of a ragged batch belong to, and hashed n-grams of their symbols."""

from __future__ import annotations

import torch
from torch import Tensor

# Odd 32-bit multipliers, so that every bit of a symbol affects the bucket.
HASH, MIX, BITS = 0x9E3779B1, 0x85EBCA77, 0xFFFFFFFF


def text_of_rows(offsets: Tensor, rows: int) -> Tensor:
    """Return the index of the text that each of the N rows belongs to (N,)."""
    texts = torch.arange(offsets.numel() - 1, device=offsets.device)
    return texts.repeat_interleave(offsets.diff(), output_size=rows)


def places(offsets: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return the text of each of the N rows (N,), and its position in the text from 0 (N,)."""
    text = text_of_rows(offsets, rows)
    return text, torch.arange(rows, device=offsets.device) - offsets.index_select(0, text)


def hashed_ngrams(symbols: Tensor, offsets: Tensor, longest: int, buckets: int) -> Tensor:
    """Return the buckets of the 1- to n-grams that end at each symbol (N, n).

    symbols (N,), offsets (B+1,). -1 where an n-gram would start before its text.
    """
    _, place = places(offsets, symbols.numel())
    columns = []
    value = torch.zeros_like(symbols)
    for n in range(longest):
        earlier = symbols.roll(n)
        value = ((value + earlier + 1) * HASH) & BITS
        mixed = ((value ^ (value >> 15)) * MIX & BITS) >> 8
        columns.append(torch.where(place >= n, mixed % buckets, -1))
    return torch.stack(columns, dim=1)
