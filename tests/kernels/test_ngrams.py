"""Hashed n-grams against plain loops, and both implementations of the sums over them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from srucli.kernels import ngrams
from srucli.kernels.hashing import hashed_ngrams, text_of_rows
from srucli.kernels.ngrams import ngram_sums
from tests.model.test_classifier import LENGTHS, batch, offsets_of


def plain_bucket(gram: list[int], buckets: int) -> int:
    """Return the hash of tokens from the last to the first."""
    value = 0
    for token in reversed(gram):
        value = (value + token + 1) * 0x9E3779B1 % 2**32
    return ((value ^ (value >> 15)) * 0x85EBCA77 % 2**32 >> 8) % buckets


@pytest.mark.parametrize("longest", [1, 3, 5])
def test_ngrams_against_a_plain_loop(longest: int) -> None:
    tokens, offsets = batch(LENGTHS, vocab=10_000)
    found = hashed_ngrams(tokens, offsets, longest, 997)
    wanted = []
    for start, stop in pairwise(offsets.tolist()):
        text = tokens[start:stop].tolist()
        for end in range(len(text)):
            wanted.append(
                [
                    plain_bucket(text[end - n : end + 1], 997) if end >= n else -1
                    for n in range(longest)
                ]
            )
    assert found.tolist() == wanted


def test_ngrams_spread_over_the_buckets() -> None:
    grams = hashed_ngrams(torch.arange(30_000), torch.tensor([0, 30_000]), 2, 4096)
    for column in grams.T:
        counts = torch.bincount(column[column >= 0], minlength=4096).float()
        assert float(counts.var() / counts.mean()) < 1.3


def test_the_text_of_each_row() -> None:
    assert text_of_rows(offsets_of([2, 0, 3]), 5).tolist() == [0, 0, 2, 2, 2]


def inputs(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a table of 50 rows, few enough for many collisions, tokens and offsets."""
    torch.manual_seed(width)
    return torch.randn(50, width, requires_grad=True), *batch([*LENGTHS, 60], vocab=10_000)


def plain_sums(table: Tensor, tokens: Tensor, offsets: Tensor, longest: int) -> Tensor:
    grams = hashed_ngrams(tokens, offsets, longest, 50)
    sums = []
    for start, stop in pairwise(offsets.tolist()):
        rows = [table[bucket] for bucket in grams[start:stop].flatten() if bucket >= 0]
        sums.append(torch.stack(rows).sum(dim=0) if rows else table.new_zeros(table.shape[1]))
    return torch.stack(sums)


@pytest.mark.parametrize("way", [ngram_sums, ngrams._torch_sums])
@pytest.mark.parametrize(("width", "longest"), [(1, 1), (16, 5), (33, 3), (64, 2)])
def test_sums_and_their_gradient_against_a_plain_loop(
    way: Callable[..., Tensor], width: int, longest: int
) -> None:
    table, tokens, offsets = inputs(width)
    weights = torch.randn(offsets.numel() - 1, width)
    exact = table.detach().double().requires_grad_()
    wanted = plain_sums(exact, tokens, offsets, longest)
    (slopes,) = torch.autograd.grad((wanted * weights).sum(), exact)
    found = way(table, tokens, offsets, longest)
    (found_slopes,) = torch.autograd.grad((found * weights).sum(), table)
    torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_slopes, slopes.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_sums_over_nothing(lengths: list[int]) -> None:
    table, offsets = torch.randn(50, 4, requires_grad=True), offsets_of(lengths)
    found = ngram_sums(table, torch.empty(0, dtype=torch.int64), offsets, 3)
    torch.autograd.backward(found.sum())
    assert found.tolist() == [[0.0] * 4] * len(lengths)
    assert table.grad is not None
    assert not table.grad.any()


def test_sums_of_a_text_do_not_depend_on_its_batch() -> None:
    table, tokens, offsets = inputs(40)
    together = ngram_sums(table, tokens, offsets, 5)
    assert torch.equal(together, ngram_sums(table, tokens, offsets, 5))
    for text, (start, stop) in enumerate(pairwise(offsets.tolist())):
        alone = ngram_sums(table, tokens[start:stop], offsets_of([stop - start]), 5)
        assert torch.equal(alone[0], together[text])


def test_operator_contract() -> None:
    torch.library.opcheck(torch.ops.srucli.ngram_sums.default, (*inputs(8), 3))
