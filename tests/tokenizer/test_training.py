"""The tokenizer of a classifier: its vocabulary size and its training lines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srucli.config import TokenizerConfig
from srucli.errors import OutOfMemoryError, UsageError
from srucli.tokenizer.training import make_tokenizer, short_lines, train_tokenizer, vocab_size
from tests.support import children


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["가" * 1_000] * 1_000, 6_000),  # three bytes each; counting bytes would give 10,392
        (["a" * 1_000] * 1_000, 6_000),
        (["é" * 100, "😀" * 300] * 1_000, 3_795),
        (["a"], 1_000),
        (["a" * 10_000_000], 16_000),
    ],
    ids=["Hangul", "ASCII", "two and four bytes", "hardly any text", "much text"],
)
def test_the_vocabulary_size_depends_on_the_characters(texts: list[str], wanted: int) -> None:
    assert vocab_size(TokenizerConfig(), texts) == wanted


def test_a_configured_size_is_used() -> None:
    assert vocab_size(TokenizerConfig(vocab_size=77), ["a" * 1_000_000]) == 77


def test_a_hard_limit_applies_if_given() -> None:
    """By default, a size that the text does not allow is replaced by the nearest one."""
    texts = ["the film was good", "a book that was bad"] * 20
    assert make_tokenizer(TokenizerConfig(vocab_size=9000), texts, "x").tokenizer.vocab_size < 100
    hard = TokenizerConfig(vocab_size=9000, hard_vocab_limit=True)
    with pytest.raises(UsageError, match=r"pass tokenizer\.vocab_size=\d+ or less, or tokenizer"):
        make_tokenizer(hard, texts, "x")


def test_a_killed_process_names_the_setting_to_lower() -> None:
    before = children(os.getpid())

    def texts() -> Iterator[str]:
        yield from ["the film was good"] * 100
        (child,) = {*children(os.getpid())} - {*before}
        os.kill(child, signal.SIGKILL)

    said = r"was killed, probably because memory ran out; use fewer lines: --input-sentence-size 50"
    with pytest.raises(OutOfMemoryError, match=f"training the tokenizer {said}"):
        train_tokenizer(texts(), TokenizerConfig())


@given(st.lists(st.text("ab \u3042", max_size=60)), st.integers(2, 20))
def test_short_lines_keep_all_text(texts: list[str], longest: int) -> None:
    lines = list(short_lines(texts, longest))
    assert "".join(lines) == "".join(texts)
    assert max(map(len, lines), default=0) <= longest
    assert list(short_lines(["one two  three"], 8)) == ["one two", "  three"]
