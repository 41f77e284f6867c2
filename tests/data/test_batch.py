"""Which texts share a batch: every text once, within the limits, in an order fixed by a seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from srucli.data.batch import POOL_BATCHES, order

LENGTHS = st.lists(st.integers(0, 40), max_size=200).map(lambda x: np.array(x, np.int64))
SEEDS = st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9))


@given(LENGTHS, st.integers(1, 20), st.integers(1, 60), SEEDS)
def test_each_text_is_in_one_batch_within_the_limits(
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


def test_texts_share_other_batches_in_each_epoch() -> None:
    lengths = np.full(200, 5)
    first, second = (
        {frozenset(batch.tolist()) for batch in order(lengths, 8, 1000, (0, epoch))}
        for epoch in range(2)
    )
    assert not first & second


def test_batches_come_in_random_order() -> None:
    """Texts are sorted within a pool, so its batches would go from short to long."""
    lengths = np.random.default_rng(0).integers(1, 100, 8 * POOL_BATCHES)
    for seed in range(5):
        means = [float(lengths[batch].mean()) for batch in order(lengths, 8, 10_000, (seed, 0))]
        assert abs(np.corrcoef(means, np.arange(POOL_BATCHES))[0, 1]) < 0.5


def test_texts_are_sorted_within_pools_only() -> None:
    """So chance decides which texts share a batch, although their lengths are similar."""
    lengths = np.arange(8 * POOL_BATCHES * 4)
    batches = order(lengths, 8, 10**9, (0, 0))
    assert all((np.diff(lengths[batch]) > 0).all() for batch in batches)
    assert 16 < np.mean([np.ptp(lengths[batch]) for batch in batches]) < 64


def test_without_a_seed_batches_go_from_short_to_long() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 300)
    assert (np.diff(lengths[np.concatenate(order(lengths, 8, 10_000, None))]) >= 0).all()


def test_a_batch_has_texts_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 8 * POOL_BATCHES)
    batches = order(lengths, 8, 10_000, (0, 0))
    assert len(batches) == POOL_BATCHES
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 5
    assert [len(batch) for batch in batches] == [8] * POOL_BATCHES


def test_a_text_above_the_limit_is_a_batch_of_its_own() -> None:
    lengths = np.array([1, 100, 1, 1])
    batches = order(lengths, 4, 10, None)
    assert [batch.tolist() for batch in batches] == [[0, 2, 3], [1]]


def test_a_batch_may_reach_the_limit_of_tokens() -> None:
    assert [batch.tolist() for batch in order(np.array([5, 5, 5]), 4, 10, None)] == [[0, 1], [2]]


def test_no_texts_make_no_batches() -> None:
    assert order(np.empty(0, np.int64), 4, 10, (0,)) == []
    assert order(np.empty(0, np.int64), 4, 10, None) == []
