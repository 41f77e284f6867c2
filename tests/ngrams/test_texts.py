"""The n-grams of texts, compared with lists of them made by regular expressions."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srucli.kernels.cpu_grams import ALONE, LETTER, LONGEST, LONGEST_WORD, SPACE
from srucli.ngrams import texts as module
from srucli.ngrams.texts import grams

WORDS = "the cat, sat! on_it 12 a.b Straße 가나다 ไทย 漢字かな"


def named(text: str) -> Counter[tuple[str, ...]]:
    """Return how often each n-gram of a text occurs: of characters, and of words in a tuple."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    found: Counter[tuple[str, ...]] = Counter()
    for chunk in re.split(r"[\s\x00-\x1f\x7f-\x9f]+", folded):
        if not chunk:
            continue
        padded = f" {chunk} "
        for n in range(1, LONGEST + 1):
            found.update(("c", padded[i : i + n]) for i in range(len(padded) - n + 1))
    del found["c", " "]
    words: list[str] = []
    for character in folded:
        kind = unicodedata.category(character)
        ideograph = "\u4e00" <= character <= "\u9fff"
        joins = (kind[0] in "LNM" or character == "_") and not ideograph
        if joins and words and words[-1] and words[-1][-1] != "\0":
            words[-1] += character
        elif joins:
            words.append(character)
        elif character.isspace() or kind in ("Cc", "Zs"):
            words.append("")
        else:
            words.append(character + "\0")
    real = [word for word in words if word]
    before = ""
    for word in real:
        if len(word.rstrip("\0")) > LONGEST_WORD:
            before = ""
            continue
        found["w", word] += 1
        if before:
            found["w", before, word] += 1
        before = word
    return found


def hashed(text: str) -> Counter[int]:
    ((_, (own, times, ends)),) = grams([text])
    assert ends.tolist() == [0, own.size]
    return Counter(dict(zip(own.tolist(), times.tolist(), strict=True)))


def check(text: str) -> None:
    """The same counts, as hashes of 31 bits of a few n-grams hardly ever collide."""
    wanted, found = named(text), hashed(text)
    for block, name in enumerate("cw"):
        counts = [count for gram, count in found.items() if gram & 1 == block]
        assert sorted(counts) == sorted(n for gram, n in wanted.items() if gram[0] == name)


@pytest.mark.parametrize(
    "text",
    [WORDS, "a", "!", "a b", "a  b\tc", "aa aa aa", "x" * LONGEST_WORD, "y" * 40 + " z", "\n"],
)
def test_n_grams(text: str) -> None:
    check(text)


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from("ab A.,!_1\t é가ไ้ßＡ"), min_size=1, max_size=60))
def test_n_grams_of_any_text(text: str) -> None:
    if normalized := unicodedata.normalize("NFKC", text).casefold().strip():
        check(text)
        assert hashed(text) == hashed(normalized)


def test_equal_n_grams_have_equal_hashes_in_any_text() -> None:
    one, other = hashed("the cat sat"), hashed("on the cat")
    assert named("the cat sat").keys() & named("on the cat").keys()
    common = named("the cat sat").keys() & named("on the cat").keys()
    assert len(one.keys() & other.keys()) == len(common)


def test_case_and_width_make_no_difference() -> None:
    assert hashed("Ｓｔｒａßｅ 한글") == hashed("STRASSE 한글")


def test_texts_are_read_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{n} {WORDS[n % 20 :]}" for n in range(50)] + ["", " "]
    together = _by_text(many)
    monkeypatch.setattr(module, "AT_ONCE", 100)
    assert len(list(grams(many))) > 10
    assert _by_text(many) == together
    assert together[0] == hashed(many[0])
    assert together[-2:] == [Counter(), Counter()]


def _by_text(many: list[str]) -> list[Counter[int]]:
    found: list[Counter[int]] = []
    for first, (own, times, ends) in grams(many):
        assert first == len(found)
        for start, stop in pairwise(ends):
            pairs: Any = zip(own[start:stop].tolist(), times[start:stop].tolist(), strict=True)
            found.append(Counter(dict(pairs)))
    return found


def test_lone_surrogates_are_read() -> None:
    assert hashed("a \ud800 b")


def test_every_character_has_a_kind() -> None:
    codes = np.array([0x09, 0x20, 0x41, 0x5F, 0x0E34, 0x21, 0xAC00, 0x6F22, 0x10FFFF], np.uint32)
    kinds = module._kinds_of(codes).tolist()
    assert kinds == [SPACE] * 2 + [LETTER] * 3 + [ALONE, LETTER, ALONE, ALONE]
