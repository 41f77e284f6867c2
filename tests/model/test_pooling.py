"""Pooling against a plain loop, and scores that overflow."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from srucli.model.pooling import Pooling
from tests.model.test_classifier import LENGTHS, offsets_of


def plain_pooling(pooling: Pooling, states: Tensor, last: Tensor, offsets: Tensor) -> Tensor:
    rows = []
    for text, (start, stop) in enumerate(pairwise(offsets.tolist())):
        own, parts = states[start:stop], []
        for kind in pooling.kinds:
            if kind == "last":
                parts.append(last[text])
            elif start == stop:
                parts.append(torch.zeros(states.shape[1]))
            elif kind == "attention":
                assert pooling.score is not None
                weights = (torch.tanh(own) @ pooling.score.weight[0]).softmax(dim=0)
                parts.append((weights[:, None] * own).sum(dim=0))
            else:
                parts.append(own.amax(dim=0) if kind == "max" else own.mean(dim=0))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "kinds",
    [("last",), ("mean",), ("max",), ("attention",), ("attention", "max", "last", "mean", "max")],
)
def test_pooling_against_a_plain_loop(kinds: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    pooling = Pooling(kinds, 5)
    offsets = offsets_of(LENGTHS)
    states = torch.randn(sum(LENGTHS), 5, requires_grad=True)
    last = torch.randn(len(LENGTHS), 5)
    found, wanted = (
        function(states, last, offsets)
        for function in (pooling, lambda *given: plain_pooling(pooling, *given))
    )
    assert found.shape == (len(LENGTHS), pooling.output_size)
    torch.testing.assert_close(found, wanted)
    if kinds != ("last",):
        weights = torch.randn_like(found)
        slopes = (
            torch.autograd.grad((result * weights).sum(), states)[0] for result in (found, wanted)
        )
        torch.testing.assert_close(*slopes)


def test_attention_with_large_scores() -> None:
    pooling = Pooling(("attention",), 2)
    with torch.no_grad():
        assert pooling.score is not None
        pooling.score.weight.fill_(500.0)
    states = torch.tensor([[3.0, 3.0], [-3.0, -3.0], [-4.0, -4.0]])
    found = pooling(states, torch.zeros(2, 2), torch.tensor([0, 2, 3]))
    torch.testing.assert_close(found, torch.tensor([[3.0, 3.0], [-4.0, -4.0]]))
