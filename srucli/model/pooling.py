"""Pooling: the states of each text to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srucli.kernels.hashing import text_of_rows
from srucli.kernels.pool import ragged_pool


class Pooling(nn.Module):
    """Turns the states of a text into one vector: last, mean, max and attention, concatenated."""

    def __init__(self, kinds: tuple[str, ...], size: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.score = nn.Linear(size, 1, bias=False) if "attention" in kinds else None
        self.output_size = size * len(kinds)

    def _attend(self, states: Tensor, offsets: Tensor) -> Tensor:
        assert self.score is not None
        text = text_of_rows(offsets, states.shape[0])
        scores = self.score(torch.tanh(states))
        highest, _ = ragged_pool(scores.detach(), offsets)
        weights = (scores - highest.index_select(0, text)).exp()
        empty = states.new_zeros(offsets.numel() - 1, states.shape[1])
        total = empty[:, :1].index_add(0, text, weights)
        return empty.index_add(0, text, states * weights) / total.clamp(min=1e-20)

    def forward(self, states: Tensor, last: Tensor, offsets: Tensor) -> Tensor:
        """states (N, D), last (B, D) -> (B, output_size); zeros for an empty text."""
        largest, mean = ragged_pool(states, offsets)
        parts = {"last": last, "max": largest, "mean": mean}
        if self.score is not None:
            parts["attention"] = self._attend(states, offsets)
        return torch.cat([parts[kind] for kind in self.kinds], dim=1)
