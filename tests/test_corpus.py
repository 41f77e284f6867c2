"""The size of an automatic tokenizer."""

from __future__ import annotations

import pytest

from srucli.config import resolve
from srucli.corpus import vocab_size


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["가" * 1_000] * 1_000, 6_000),  # three bytes each: of bytes it would be 10,392
        (["a" * 1_000] * 1_000, 6_000),
        (["é" * 100, "😀" * 300] * 1_000, 3_795),
        (["a"], 1_000),
        (["a" * 10_000_000], 16_000),
    ],
    ids=["Hangul", "ASCII", "two and four bytes", "hardly any text", "much text"],
)
def test_the_vocabulary_goes_by_characters(texts: list[str], wanted: int) -> None:
    assert vocab_size(resolve(), texts) == wanted


def test_a_size_that_is_set_is_taken() -> None:
    assert vocab_size(resolve(overrides=["tokenizer.vocab_size=77"]), ["a" * 1_000_000]) == 77
