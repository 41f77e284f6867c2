"""Folds: shares of labels, groups that stay together, determinism, what cannot be divided."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from srucli.data.folds import folds
from srucli.errors import UsageError

Found = list[NDArray[np.int64]]


def counts(labels: Sequence[tuple[Any, ...]], rows: NDArray[np.int64]) -> Counter[Any]:
    return Counter(label for row in rows for label in labels[row])


def away_from_shares(labels: Sequence[tuple[Any, ...]], found: Found) -> float:
    """Return by how many examples all folds and labels are away from equal shares."""
    total = counts(labels, np.arange(len(labels)))
    return sum(
        abs(own[label] - total[label] / len(found))
        for own in (counts(labels, rows) for rows in found)
        for label in total
    )


def check_division(found: Found, examples: int) -> None:
    """Every example is in one fold, and every fold has an example, in order."""
    assert sorted(np.concatenate(found).tolist()) == list(range(examples))
    assert all(len(rows) and (np.diff(rows) > 0).all() for rows in found)


@given(
    st.lists(st.sampled_from("aaaabbcd"), min_size=2, max_size=120),
    st.integers(2, 8),
    st.integers(0, 9),
)
def test_each_fold_has_its_share_of_each_label(labels: list[str], count: int, seed: int) -> None:
    count = min(count, len(labels))
    found = folds(labels, count, seed)
    check_division(found, len(labels))
    sizes = [len(rows) for rows in found]
    assert max(sizes) - min(sizes) <= 1
    for label in set(labels):
        own = [sum(labels[row] == label for row in rows) for rows in found]
        assert max(own) - min(own) <= 1
    as_tuples = folds([(label,) for label in labels], count, seed)
    assert all(np.array_equal(*pair) for pair in zip(found, as_tuples, strict=True))


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abcd")).map(tuple), st.integers(0, 30)),
        min_size=2,
        max_size=150,
    ),
    st.integers(2, 6),
    st.integers(0, 9),
)
def test_groups_never_cross_folds(
    examples: list[tuple[tuple[str, ...], int]], count: int, seed: int
) -> None:
    labels, groups = [own for own, _ in examples], [group for _, group in examples]
    if len({*groups}) < count:
        with pytest.raises(UsageError, match=r"groups?, and each fold needs one"):
            folds(labels, count, seed, groups)
        return
    found = folds(labels, count, seed, groups)
    check_division(found, len(examples))
    homes = [{groups[row] for row in rows} for rows in found]
    assert sum(map(len, homes)) == len({*groups})


def test_multi_label_folds_are_closer_to_equal_shares_than_random_ones(shared_data: Path) -> None:
    with gzip.open(shared_data / "goemotions" / "train.tsv.gz", "rt", encoding="utf-8") as lines:
        labels = [tuple(line.split("\t")[0].split(",")) for line in lines][:6000]
    found = folds(labels, 5, 0)
    check_division(found, len(labels))
    random = np.array_split(np.random.default_rng(0).permutation(len(labels)), 5)
    assert away_from_shares(labels, found) < 0.1 * away_from_shares(labels, random)
    own = [counts(labels, rows) for rows in found]
    assert all(max(c[name] for c in own) - min(c[name] for c in own) <= 3 for name in own[0])
    assert max(map(len, found)) - min(map(len, found)) < 0.02 * len(labels)


def test_texts_without_a_label_are_divided_too() -> None:
    labels: list[tuple[str, ...]] = [(), ("a",), ("a", "b")] * 20
    for rows in folds(labels, 4, 0):
        assert Counter(labels[row] for row in rows) == {(): 5, ("a",): 5, ("a", "b"): 5}


def test_folds_of_groups_are_as_stratified_as_those_of_scikit_learn() -> None:
    ours, theirs = 0.0, 0.0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        groups = rng.choice(100, size=2000, p=rng.dirichlet(np.ones(100)))
        habits = rng.dirichlet(np.full(4, 0.5), size=100)
        labels = [(int(rng.choice(4, p=habits[group])),) for group in groups]
        found = folds(labels, 5, seed, groups.tolist())
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        other = [rows for _, rows in splitter.split(labels, [y for (y,) in labels], groups)]
        ours += away_from_shares(labels, found)
        theirs += away_from_shares(labels, other)
    assert ours <= theirs


def test_the_seed_decides() -> None:
    labels, groups = ["a", "b", "b"] * 30, [number % 40 for number in range(90)]
    for given_groups in (None, groups):
        first, again, other = (folds(labels, 5, seed, given_groups) for seed in (3, 3, 4))
        assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
        assert not all(np.array_equal(*pair) for pair in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("count", "groups", "said"),
    [
        (1, None, "1 folds: 2 or more are needed, to train on one and test on another"),
        (4, None, "--folds 4: there are only 3 examples, and each fold needs one; pass --folds 3"),
        (
            3,
            ["x", "y", "x"],
            "--folds 3: there are only 2 groups, and each fold needs one; pass --folds 2",
        ),
        (
            2,
            ["x", "x", "x"],
            "--folds 2: there is only 1 group, and each fold needs one; add others",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(count: int, groups: list[str] | None, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        folds(["a", "b", "a"], count, 0, groups)
    assert str(raised.value) == said
