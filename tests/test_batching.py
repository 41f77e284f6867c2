"""Batches: every text once, within the caps, in an order that a seed fixes; gathered whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from srucli.batching import POOL_BATCHES, TokenStore, order
from srucli.reading import Limits

LENGTHS = st.lists(st.integers(0, 40), max_size=200).map(lambda x: np.array(x, np.int64))
SEEDS = st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9))


def store(lengths: NDArray[np.int64]) -> TokenStore:
    """Text t holds the ids 1000 t, 1000 t + 1, ...; its target is t."""
    ids = [1000 * text + place for text, length in enumerate(lengths) for place in range(length)]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return TokenStore(np.array(ids, np.int32), offsets, np.arange(len(lengths)))


@given(LENGTHS, st.integers(1, 20), st.integers(1, 60), SEEDS)
def test_every_text_once_and_within_the_caps(
    lengths: NDArray[np.int64], size: int, tokens: int, seed: tuple[int, int] | None
) -> None:
    batches = order(lengths, size, tokens, seed)
    assert sorted(text for batch in batches for text in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert lengths[batch].sum() <= tokens or len(batch) == 1


@given(LENGTHS, SEEDS)
def test_the_same_seed_gives_the_same_order(
    lengths: NDArray[np.int64], seed: tuple[int, int] | None
) -> None:
    first, second = (order(lengths, 4, 50, seed) for _ in range(2))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]


def test_the_order_differs_by_epoch_and_by_seed() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 500)
    orders = {
        tuple(np.concatenate(order(lengths, 8, 1000, seed)).tolist())
        for seed in ((0, 0), (0, 1), (1, 0))
    }
    assert len(orders) == 3


def test_which_texts_share_a_batch_differs_by_epoch() -> None:
    lengths = np.full(200, 5)
    first, second = (
        {frozenset(batch.tolist()) for batch in order(lengths, 8, 1000, (0, epoch))}
        for epoch in range(2)
    )
    assert not first & second


def test_batches_hold_texts_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 8 * POOL_BATCHES)
    batches = order(lengths, 8, 10_000, (0, 0))
    assert len(batches) == POOL_BATCHES
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 5
    assert [len(batch) for batch in batches] == [8] * POOL_BATCHES


def test_an_overlong_text_is_alone() -> None:
    lengths = np.array([1, 100, 1, 1])
    batches = order(lengths, 4, 10, None)
    assert [batch.tolist() for batch in batches] == [[0, 2, 3], [1]]


def test_a_cap_is_filled_to_the_last_piece() -> None:
    assert [batch.tolist() for batch in order(np.array([5, 5, 5]), 4, 10, None)] == [[0, 1], [2]]


def test_no_texts_no_batches() -> None:
    assert order(np.empty(0, np.int64), 4, 10, (0,)) == []
    assert order(np.empty(0, np.int64), 4, 10, None) == []


@given(LENGTHS.filter(len), st.data())
def test_a_batch_holds_the_pieces_of_its_texts(
    lengths: NDArray[np.int64], data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9))
    batch = store(lengths).batch(np.array(texts))
    assert batch.texts == len(texts)
    assert batch.tokens.dtype == batch.offsets.dtype == torch.int64
    bounds = batch.offsets.tolist()
    for text, start, stop in zip(texts, bounds, bounds[1:], strict=False):
        wanted = [1000 * text + place for place in range(lengths[text])]
        assert batch.tokens[start:stop].tolist() == wanted
    assert bounds[-1] == batch.tokens.numel()
    assert batch.targets is not None
    assert batch.targets.tolist() == texts


@given(LENGTHS, st.integers(1, 20), st.integers(1, 60), SEEDS, st.integers(0, 5))
def test_all_batches_of_a_store_hold_every_text_once_and_whole(
    lengths: NDArray[np.int64], size: int, tokens: int, seed: tuple[int, int] | None, first: int
) -> None:
    full = store(lengths)
    batches = list(full.batches(size, tokens, seed))
    found = {}
    for batch in batches:
        assert batch.targets is not None
        bounds = batch.offsets.tolist()
        for text, start, stop in zip(batch.targets.tolist(), bounds, bounds[1:], strict=False):
            found[text] = batch.tokens[start:stop].tolist()
    assert sum(batch.texts for batch in batches) == len(found) == len(lengths)
    for text, length in enumerate(lengths):
        assert found[text] == [1000 * text + place for place in range(length)]
    rest = [batch.tokens.tolist() for batch in full.batches(size, tokens, seed, first)]
    assert rest == [batch.tokens.tolist() for batch in batches[first:]]


def test_several_labels_keep_their_rows() -> None:
    full = store(np.array([2, 1, 3]))
    full.targets = np.eye(3, dtype=np.float32)
    batch = full.batch(np.array([2, 0]))
    assert batch.targets is not None
    assert batch.targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    full.targets = None
    assert full.batch(np.array([1])).targets is None


class Letters:
    """A tokenizer of letters: what `TokenStore.encode` needs of one, without its training."""

    unknown = ord("?")

    def encode(
        self, texts: list[str], subword_dropout: float, seed: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        offsets = np.cumsum([0, *map(len, texts)])
        return np.array([ord(c) for text in texts for c in text], np.int32), offsets


@pytest.mark.parametrize(
    ("longest", "kept"),
    [(1, ["a", "", "d", "e"]), (2, ["ab", "", "d", "ef"]), (9, ["abc", "", "d", "efgh"])],
)
def test_texts_are_cut_after_the_longest_length(longest: int, kept: list[str]) -> None:
    texts = ["abc", "", "d", "efgh"]
    cut = TokenStore.encode(Letters(), texts, limits=Limits(longest, longest))  # type: ignore[arg-type]
    assert "".join(map(chr, cut.ids)) == "".join(kept)
    assert cut.lengths.tolist() == [len(text) for text in kept]
    assert cut.offsets[0] == 0
