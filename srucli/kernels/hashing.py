"""Which text a row belongs to, and the hashed n-grams that end at each symbol of ragged texts."""

from __future__ import annotations

import torch
from torch import Tensor

# Odd 32-bit multipliers, so that every bit of a symbol reaches the bucket.
HASH, MIX, BITS = 0x9E3779B1, 0x85EBCA77, 0xFFFFFFFF


def text_of_rows(offsets: Tensor, rows: int) -> Tensor:
    """The number of the text that each of the N rows belongs to (N,)."""
    texts = torch.arange(offsets.numel() - 1, device=offsets.device)
    return texts.repeat_interleave(offsets.diff(), output_size=rows)


def places(offsets: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Where each of the N rows belongs: its text (N,), and its place in the text from 0 (N,)."""
    text = text_of_rows(offsets, rows)
    return text, torch.arange(rows, device=offsets.device) - offsets.index_select(0, text)


def hashed_ngrams(symbols: Tensor, offsets: Tensor, longest: int, buckets: int) -> Tensor:
    """Buckets of the 1- to n-grams that end at each symbol, -1 where a text has none (N, n)."""
    _, place = places(offsets, symbols.numel())
    columns = []
    value = torch.zeros_like(symbols)
    for n in range(longest):
        earlier = symbols.roll(n)
        value = ((value + earlier + 1) * HASH) & BITS
        mixed = ((value ^ (value >> 15)) * MIX & BITS) >> 8
        columns.append(torch.where(place >= n, mixed % buckets, -1))
    return torch.stack(columns, dim=1)
