"""The token store: truncation, its counts, and batches of whole texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from srucli.data.batch import order, upload
from srucli.data.store import TokenStore
from srucli.tokenizer.truncation import Limits, Tally

LENGTHS = st.lists(st.integers(0, 40), max_size=200).map(lambda x: np.array(x, np.int64))
SEEDS = st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9))


def store(lengths: NDArray[np.int64]) -> TokenStore:
    """Text t has the tokens 1000 t, 1000 t + 1, ... and the target t."""
    ids = [1000 * text + place for text, length in enumerate(lengths) for place in range(length)]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return TokenStore(np.array(ids, np.int32), offsets, np.arange(len(lengths)))


@given(LENGTHS.filter(len), st.data())
def test_a_batch_has_the_tokens_of_its_texts(
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


@given(LENGTHS, st.integers(1, 20), st.integers(1, 60), SEEDS)
def test_the_batches_of_a_store_have_each_text_once_and_whole(
    lengths: NDArray[np.int64], size: int, tokens: int, seed: tuple[int, int] | None
) -> None:
    full = store(lengths)
    batches = [full.batch(texts) for texts in order(lengths, size, tokens, seed)]
    found = {}
    for batch in batches:
        assert batch.targets is not None
        bounds = batch.offsets.tolist()
        for text, start, stop in zip(batch.targets.tolist(), bounds, bounds[1:], strict=False):
            found[text] = batch.tokens[start:stop].tolist()
    assert sum(batch.texts for batch in batches) == len(found) == len(lengths)
    for text, length in enumerate(lengths):
        assert found[text] == [1000 * text + place for place in range(length)]


def test_multi_label_targets_stay_with_their_texts() -> None:
    full = store(np.array([2, 1, 3]))
    full.targets = np.eye(3, dtype=np.float32)
    batch = full.batch(np.array([2, 0]))
    assert batch.targets is not None
    assert batch.targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    full.targets = None
    assert full.batch(np.array([1])).targets is None


class Letters:
    """A tokenizer of letters, with all that `TokenStore.encode` uses."""

    unknown = ord("?")

    def encode(
        self, texts: list[str], subword_dropout: float, seed: int, first: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        offsets = np.cumsum([0, *map(len, texts)])
        return np.array([ord(c) for text in texts for c in text], np.int32), offsets


def encoded(texts: list[str], limits: Limits) -> TokenStore:
    return TokenStore.encode(Letters(), texts, limits=limits)  # type: ignore[arg-type]


def letters(tokens: Iterable[int]) -> str:
    return "".join(map(chr, tokens))


@pytest.mark.parametrize(
    ("longest", "kept"),
    [
        pytest.param(1, ["a", "", "d", "e"], id="one token"),
        pytest.param(2, ["ab", "", "d", "ef"], id="two"),
        pytest.param(9, ["abc", "", "d", "efgh"], id="all"),
    ],
)
def test_texts_are_truncated(longest: int, kept: list[str]) -> None:
    cut = encoded(["abc", "", "d", "efgh"], Limits(longest, longest))
    assert letters(cut.ids) == "".join(kept)
    assert cut.lengths.tolist() == [len(text) for text in kept]
    assert cut.offsets[0] == 0


def test_texts_are_tokenized_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens are those of all texts at once, whose ids would be a list of Python integers."""
    texts = ["abc", "", "defgh?", "i", "", "jklmnopq"]
    whole = encoded(texts, Limits(4, 4))
    groups: list[tuple[int, int]] = []

    class Counted(Letters):
        def encode(self, texts: list[str], subword_dropout: float, seed: int, first: int) -> Any:
            groups.append((first, len(texts)))
            return super().encode(texts, subword_dropout, seed, first)

    monkeypatch.setattr("srucli.data.store.AT_ONCE", 6)
    parts = TokenStore.encode(Counted(), texts, limits=Limits(4, 4))  # type: ignore[arg-type]
    assert groups == [(0, 3), (3, 3)]
    assert letters(parts.ids) == letters(whole.ids) == "abcdefgijklm"
    assert parts.offsets.tolist() == whole.offsets.tolist()
    assert parts.tally == whole.tally


def test_characters_beyond_any_limit_are_not_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a text counts as truncated, even if what was read gives few tokens."""
    monkeypatch.setattr("srucli.tokenizer.truncation.MIN_CHARACTERS", 5)
    limits = Limits(1, 1)
    assert limits.characters == 16
    read: list[int] = []

    class Few(Letters):
        def encode(self, texts: list[str], subword_dropout: float, seed: int, first: int) -> Any:
            read.extend(map(len, texts))
            return super().encode([text[:1] for text in texts], subword_dropout, seed, first)

    store = TokenStore.encode(Few(), ["a" * 17, "b" * 16], limits=limits)  # type: ignore[arg-type]
    assert read == [16, 16]
    assert store.tally == Tally(2, cut=1, limits=limits)
    assert Limits().characters == 2**24


def test_a_store_counts_truncated_and_unknown_texts() -> None:
    texts = ["abcdefg", "?b??", "", "abcd", "abc?", "abcde", "ab", ""]
    limits = Limits(text=5, encoder=4)
    assert encoded(texts, limits).tally == Tally(8, 1, 2, 2, 4, 2, limits)
    assert encoded(texts[-1:], limits).tally == Tally(1, without_tokens=1, limits=limits)
    assert encoded([], limits).tally == Tally(limits=limits)
    assert encoded(["abcde"], Limits(4, 4, chosen=True)).tally.encoded_in_part == 0


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        pytest.param(1, ["a", "", "u", "k"], id="the first token alone"),
        pytest.param(4, ["abij", "", "uv", "klno"], id="as many of both ends"),
        pytest.param(5, ["abcij", "", "uv", "klmno"], id="one more of the beginning"),
        pytest.param(9, ["abcdeghij", "", "uv", "klmno"], id="all but one"),
    ],
)
def test_the_encoder_reads_both_ends_of_a_long_text(most: int, kept: list[str]) -> None:
    texts = ["abcdefghij", "", "uv", "klmno"]
    whole = encoded(texts, Limits(encoder=most)).batch(np.arange(4))
    assert letters(whole.tokens.tolist()) == "".join(texts)
    assert whole.part is not None
    rows, offsets = whole.part
    assert letters(whole.tokens[rows].tolist()) == "".join(kept)
    assert offsets.diff().tolist() == list(map(len, kept))


def test_a_batch_of_short_texts_has_no_part() -> None:
    full = encoded(["abcdefghij", "", "uv"], Limits(encoder=4))
    assert full.batch(np.array([1, 2])).part is None
    assert encoded(["abcd"], Limits(encoder=4)).batch(np.array([0])).part is None
    assert full.batch(np.empty(0, np.int64)).part is None


def test_parts_move_to_the_device_with_their_batch() -> None:
    full = encoded(["abcdefghij", "uv"], Limits(encoder=4))
    batches = [full.batch(np.array([text])) for text in (0, 1)]
    moved = [batch.to(torch.device("meta")) for batch in batches]
    assert [batch.part is None for batch in moved] == [False, True]
    full.targets = np.zeros(2, np.int64)
    batches = [full.batch(np.array([text])) for text in (0, 1)]
    sent = list(upload(batches, torch.device("cpu")))
    assert sent[0].part is not None
    assert sent[0].part[0].tolist() == [0, 1, 8, 9]
    assert sent[1].part is None
