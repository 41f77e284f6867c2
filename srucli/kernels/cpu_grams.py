"""The hashed n-grams of texts: words and pairs of words, and characters within words.

A task is one text. It writes its n-grams, each once with its count, to its own place in arrays
that are large enough for any text of that length (`MOST`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.kernels.hashing import BITS, HASH, MIX
from srucli.kernels.jit import inner, kernel
from srucli.kernels.threads import by_rows, run

_U = np.uint64
_HASH, _MIX, _BITS = _U(HASH), _U(MIX), _U(BITS)
# What a character is, as `kinds` says: a space, part of a word, or a word alone, as marks are.
SPACE, LETTER, ALONE = 0, 1, 2
LONGEST = 5  # characters of an n-gram
# Longer ones are not words, but parts of a text in a script without spaces.
LONGEST_WORD = 16
# n-grams of a text of L characters are at most MOST * (L + 1): L + 1 spaces, and L words and pairs.
MOST = 2 * LONGEST + 2
_BLANK = _U(0x20)
# The time of a character, in steps of the recurrence of one unit.
_WORK = 200
Grams = tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int64]]


@inner
def _mixed(value, block):  # type: ignore[no-untyped-def]
    """Return 32 bits of a hash; the lowest is the block: 0 for characters, 1 for words."""
    value = ((value ^ (value >> _U(15))) * _MIX) & _BITS
    value = ((value ^ (value >> _U(13))) * _HASH) & _BITS
    return np.uint32(((value ^ (value >> _U(16))) & _U(0xFFFFFFFE)) | block)


@inner
def _characters(codes, first, end, grams, at):  # type: ignore[no-untyped-def]
    """Write the n-grams of a word with a space on both sides; return where the next begin."""
    length = end - first + 2
    for last in range(length):
        value = _U(0)
        for n in range(min(LONGEST, last + 1)):
            place = last - n
            code = _BLANK if place == 0 or place == length - 1 else _U(codes[first + place - 1])
            value = ((value + code + _U(1)) * _HASH) & _BITS
            if n or code != _BLANK:
                grams[at] = _mixed(value, _U(0))
                at += 1
    return at


@inner
def _words(codes, kinds, start, stop, grams, at):  # type: ignore[no-untyped-def]
    """Write the words and pairs of neighbouring words; return where the next n-grams begin."""
    before, place = _U(0), start
    while place < stop:
        kind, began = kinds[place], place
        value = _U(kind)
        while kind == LETTER and place < stop and kinds[place] == LETTER:
            value = ((value + _U(codes[place]) + _U(1)) * _HASH) & _BITS
            place += 1
        if kind != LETTER:
            value = ((value + _U(codes[place]) + _U(1)) * _HASH) & _BITS
            place += 1
        if kind == SPACE:
            continue
        if place - began > LONGEST_WORD:
            before = _U(0)
            continue
        grams[at] = _mixed(value, _U(1))
        at += 1
        if before:
            grams[at] = _mixed((before * _MIX + value) & _BITS, _U(1))
            at += 1
        before = value | (_U(1) << _U(32))
    return at


@inner
def _distinct(grams, counts, base, end):  # type: ignore[no-untyped-def]
    """Keep each n-gram of a text once, in the order of first occurrence; return their number."""
    size = 16
    while size < 2 * (end - base):
        size *= 2
    slots, most = np.full(size, np.int32(-1)), _U(size - 1)
    distinct = 0
    for row in range(base, end):
        gram = grams[row]
        slot = _U(gram >> np.uint32(1)) & most
        while slots[slot] >= 0 and grams[base + slots[slot]] != gram:
            slot = (slot + _U(1)) & most
        if slots[slot] < 0:
            slots[slot] = distinct
            grams[base + distinct], counts[base + distinct] = gram, 1
            distinct += 1
        else:
            counts[base + slots[slot]] += 1
    return distinct


@kernel()
def _grams(first, end, codes, kinds, offsets, grams, counts, found):  # type: ignore[no-untyped-def]
    for text in range(first, end):
        start, stop = offsets[text], offsets[text + 1]
        base = MOST * (start + text)
        at, place = base, start
        while place < stop:
            if kinds[place] == SPACE:
                place += 1
                continue
            word = place
            while place < stop and kinds[place] != SPACE:
                place += 1
            at = _characters(codes, word, place, grams, at)
        at = _words(codes, kinds, start, stop, grams, at)
        found[text] = _distinct(grams, counts, base, at)


@kernel()
def _joined(first, end, offsets, grams, counts, ends, own, times):  # type: ignore[no-untyped-def]
    for text in range(first, end):
        base, start = MOST * (offsets[text] + text), ends[text]
        for row in range(ends[text + 1] - start):
            own[start + row] = grams[base + row]
            times[start + row] = counts[base + row]


def grams_of(codes: NDArray[Any], kinds: NDArray[Any], offsets: NDArray[Any]) -> Grams:
    """Return the distinct n-grams (M,) of each of B texts, their counts (M,), and offsets (B+1,).

    codes (L,) uint32: the characters of all texts; kinds (L,) uint8: what each is; offsets (B+1,)
    int64: where each text begins. An n-gram is a hash of 31 bits, and the lowest bit is 1 if it is
    of words. A character n-gram is within a word with a space on both sides.
    """
    texts = offsets.size - 1
    room = MOST * (codes.size + texts)
    grams, counts = np.empty(room, np.uint32), np.empty(room, np.int32)
    found, ends = np.zeros(texts, np.int64), np.zeros(texts + 1, np.int64)
    shares = by_rows(offsets, _WORK)
    run(_grams, shares, codes, kinds, offsets, grams, counts, found)
    np.cumsum(found, out=ends[1:])
    own, times = np.empty(ends[-1], np.uint32), np.empty(ends[-1], np.int32)
    run(_joined, shares, offsets, grams, counts, ends, own, times)
    return own, times, ends
