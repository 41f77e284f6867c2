"""Texts to their hashed n-grams: normalized, with case folded, whatever the tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from srucli.io.memory import groups
from srucli.kernels.cpu_grams import ALONE, LETTER, SPACE, Grams, grams_of

# How many characters are read at once. One text may be longer.
AT_ONCE = 2**18
UNKNOWN = 255
# What each character is, found when it first occurs.
_kinds = np.full(0x110000, UNKNOWN, np.uint8)


def _kind(code: int) -> int:
    """Return what a character is.

    Combining marks, which Thai vowels are, are part of words. An ideograph is a word alone, as
    there are no spaces between words of several.
    """
    if chr(code).isspace() or unicodedata.category(chr(code)) in ("Cc", "Zs"):
        return SPACE
    if unicodedata.name(chr(code), "").startswith("CJK UNIFIED"):
        return ALONE
    return LETTER if unicodedata.category(chr(code))[0] in "LNM" or chr(code) == "_" else ALONE


def normalized(text: str) -> str:
    """Return a text in which case, width and composition make no difference."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def grams(texts: Sequence[str]) -> Iterator[tuple[int, Grams]]:
    """Yield the n-grams of all texts, some texts at a time, and the number of the first of them."""
    for first, group in groups(texts, AT_ONCE):
        yield first, _grams(group)


def _grams(texts: Sequence[str]) -> Grams:
    read = [normalized(text) for text in texts]
    offsets = np.zeros(len(read) + 1, np.int64)
    np.cumsum([len(text) for text in read], out=offsets[1:])
    data = "".join(read).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(data, np.uint32)
    return grams_of(codes, _kinds_of(codes), offsets)


def _kinds_of(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    kinds = _kinds[codes]
    if new := np.unique(codes[kinds == UNKNOWN]).tolist():
        _kinds[new] = [_kind(code) for code in new]
        kinds = _kinds[codes]
    return kinds
