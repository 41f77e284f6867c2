"""The size of an automatic tokenizer."""

from __future__ import annotations

import pytest

from srucli.config import resolve
from srucli.data.dataset import make_tokenizer, vocab_size
from srucli.errors import UsageError


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


def test_a_hard_limit_holds_where_it_was_given() -> None:
    """By default a size that the text does not allow becomes the nearest one."""
    texts = ["the film was good", "a book that was bad"] * 20
    size = ["tokenizer.vocab_size=9000"]
    assert make_tokenizer(resolve(overrides=size), texts, "x").tokenizer.vocab_size < 100
    hard = resolve(overrides=[*size, "tokenizer.hard_vocab_limit=true"])
    with pytest.raises(UsageError, match=r"pass tokenizer\.vocab_size=\d+ or less, or tokenizer"):
        make_tokenizer(hard, texts, "x")
