"""The n-grams that a model knows, and texts as features: known n-grams with their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.kernels import cpu_linear
from srucli.kernels.cpu_grams import Grams
from srucli.kernels.threads import by_rows, run
from srucli.ngrams.texts import grams

Floats = NDArray[np.float32]
# The most texts of a model: one more has to fit the type of frequencies.
MAX_TEXTS = 2**31 - 2
# The time of an n-gram, in steps of the recurrence of one unit.
_WORK = 20


class Features(NamedTuple):
    """The known n-grams of B texts, those of each from starts (B,) to stops (B,): rows, values."""

    rows: NDArray[np.int32]
    values: Floats
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The known n-grams: keys (R,) uint32, and frequencies (R,) int32, in how many of texts."""

    keys: NDArray[np.uint32]
    frequencies: NDArray[np.int32]
    texts: int

    @cached_property
    def _slots(self) -> NDArray[np.int32]:
        slots = _empty_slots(self.keys.size)
        cpu_linear.index(self.keys, slots)
        return slots

    @cached_property
    def _idf(self) -> Floats:
        """log((1 + n) / (1 + df)) + 1, as in scikit-learn."""
        idf = np.log((1 + self.texts) / (1 + self.frequencies)) + 1
        return idf.astype(np.float32)

    def rows_of(self, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the row (N,) of each of so many keys, -1 for unknown ones."""
        rows = np.searchsorted(self.keys, keys)
        known = np.flatnonzero(rows < self.keys.size)
        same = np.zeros(keys.size, bool)
        same[known] = self.keys[rows[known]] == keys[known]
        return np.where(same, rows, -1)

    def aligned(self, keys: NDArray[np.uint32]) -> Vocabulary:
        """Return a vocabulary of other keys, with frequencies of 0 where they are unknown here."""
        rows = self.rows_of(keys)
        frequencies = np.zeros(keys.size, np.int32)
        frequencies[rows >= 0] = self.frequencies[rows[rows >= 0]]
        return Vocabulary(keys, frequencies, self.texts)

    def features(self, found: Grams) -> Features:
        """Return the features of texts whose n-grams are given."""
        own, times, ends = found
        rows, values = np.empty(own.size, np.int32), np.empty(own.size, np.float32)
        stops = np.empty(ends.size - 1, np.int64)
        known = self.keys, self._slots, self._idf
        shares = by_rows(ends, _WORK)
        run(cpu_linear.features, shares, own, times, ends, *known, rows, values, stops)
        return Features(rows, values, ends[:-1], stops)


def _empty_slots(size: int) -> NDArray[np.int32]:
    """Return slots for so many keys, at most half of them used."""
    return np.full(1 << max(2 * size - 1, 15).bit_length(), -1, np.int32)


def all_grams(texts: Sequence[str]) -> Grams:
    """Return the n-grams of all texts together."""
    parts = [found for _, found in grams(texts)]
    own, times = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    lengths = np.concatenate([np.diff(part[2]) for part in parts])
    return own, times, np.concatenate(([0], np.cumsum(lengths)))


def learn(found: Grams, most: int) -> Vocabulary:
    """Return the vocabulary of texts: their n-grams, at most so many, those in most texts first."""
    keys, counts = _counted(np.array_split(found[0], found[0].size // 2**20 + 1))
    return _commonest(keys, counts, found[2].size - 1, most)


def joined(one: Vocabulary, other: Vocabulary, most: int) -> Vocabulary:
    """Return the n-grams of two vocabularies, at most so many, as if of all their texts."""
    keys = np.union1d(one.keys, other.keys)
    first, second = (each.aligned(keys).frequencies.astype(np.int64) for each in (one, other))
    counts = np.minimum(first + second, MAX_TEXTS).astype(np.int32)
    return _commonest(keys, counts, min(one.texts + other.texts, MAX_TEXTS), most)


def _commonest(
    keys: NDArray[np.uint32], counts: NDArray[np.int32], texts: int, most: int
) -> Vocabulary:
    order = np.lexsort((keys, -counts))[:most]
    order = order[np.argsort(keys[order])]
    return Vocabulary(keys[order], counts[order], texts)


def _larger(array: NDArray[Any], room: int) -> NDArray[Any]:
    return np.concatenate((array, np.empty(room - array.size, array.dtype)))


def _counted(parts: Iterable[NDArray[np.uint32]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the different n-grams of all parts, and how often they occur."""
    size, slots = 0, _empty_slots(0)
    keys, counts = np.empty(0, np.uint32), np.empty(0, np.int32)
    for part in parts:
        if 2 * (size + part.size) > slots.size:
            slots = _empty_slots(2 * (size + part.size))
            cpu_linear.index(keys[:size], slots)
            room = slots.size // 2
            keys, counts = _larger(keys[:size], room), _larger(counts[:size], room)
        size = cpu_linear.count(part, keys, counts, size, slots)
    return keys[:size], counts[:size]
