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
        """Return each text's mean state, weighted by a softmax over its scores.

        It is a ratio of pooled means: torch's `index_add` adds in any order on a GPU, so that
        reruns would differ.
        """
        assert self.score is not None
        scores = self.score(torch.tanh(states))
        highest, _ = ragged_pool(scores.detach(), offsets)
        text = text_of_rows(offsets, states.shape[0])
        weights = (scores - highest.index_select(0, text)).exp()
        _, means = ragged_pool(torch.cat((states * weights, weights), dim=1), offsets)
        sums, totals = torch.split(means, [states.shape[1], 1], dim=1)
        return sums / totals.clamp(min=1e-20)

    def forward(self, states: Tensor, last: Tensor, offsets: Tensor) -> Tensor:
        """states (N, D), last (B, D) -> (B, output_size); zeros for an empty text."""
        largest, mean = ragged_pool(states, offsets)
        parts = {"last": last, "max": largest, "mean": mean}
        if self.score is not None:
            parts["attention"] = self._attend(states, offsets)
        return torch.cat([parts[kind] for kind in self.kinds], dim=1)
