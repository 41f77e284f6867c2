"""Random segmentations of text into a SentencePiece model's pieces, drawn from a seed alone.

SentencePiece can sample too, but its generator is salted anew in every process, so that no seed
makes a second run draw what the first drew. The distributions here are its own: for unigram
models forward filtering and backward sampling over the lattice of all segmentations, with scores
times alpha (Kudo 2018, arXiv 1804.10959); for BPE, merges that are dropped with probability alpha
(Provilkov et al. 2020, arXiv 1910.13267). Unlike SentencePiece's own sampling, that of unigram
models leaves user-defined symbols whole. Nothing is trained or normalized here, and nothing runs in
parallel.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.kernels.jit import njit

_ABSENT, _PREFIX = -2, -1
_UNKNOWN_PENALTY = 10.0
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_U27, _U30, _U31, _U11, _U0, _U1 = (np.uint64(value) for value in (27, 30, 31, 11, 0, 1))


class Piece(NamedTuple):
    """What a model says of one piece. `matches` tells whether text can contain it."""

    text: str
    score: float
    matches: bool
    user_defined: bool


class Table(NamedTuple):
    """A model for the kernels: an open hash table of all beginnings of all V pieces, and scores."""

    keys: NDArray[np.uint64]  # (S,) hash of a beginning, 0 where the slot is free
    values: NDArray[np.int32]  # (S,) the id of the piece that it is, or _PREFIX
    scores: NDArray[np.float64]  # (V,)
    user_defined: NDArray[np.bool_]  # (V,)
    bytes: NDArray[np.int32]  # (256,) ids of the byte pieces, or (0,) without byte fallback
    unknown: int
    unknown_score: float


@njit(cache=True)
def _mix(value: np.uint64) -> np.uint64:
    """The finalizer of splitmix64."""
    value = (value ^ (value >> _U30)) * _MIX_1
    value = (value ^ (value >> _U27)) * _MIX_2
    return value ^ (value >> _U31)


@njit(cache=True)
def _extend(code_hash: np.uint64, code: np.uint32) -> np.uint64:
    """The hash of a beginning with one more character; never 0, which marks a free slot."""
    return _mix(code_hash + _GOLDEN + np.uint64(code)) | _U1


@njit(cache=True)
def _find(keys, values, code_hash):  # type: ignore[no-untyped-def]
    slot = code_hash & np.uint64(len(keys) - 1)
    while keys[slot] != code_hash:
        if keys[slot] == _U0:
            return _ABSENT
        slot = (slot + _U1) & np.uint64(len(keys) - 1)
    return values[slot]


@njit(cache=True)
def _fill(keys, values, codes, offsets, ids):  # type: ignore[no-untyped-def]
    """Put all beginnings of the pieces into the table; a whole piece's value is its id."""
    for piece in range(len(ids)):
        code_hash = _U0
        for at in range(offsets[piece], offsets[piece + 1]):
            code_hash = _extend(code_hash, codes[at])
            slot = code_hash & np.uint64(len(keys) - 1)
            while keys[slot] != _U0 and keys[slot] != code_hash:
                slot = (slot + _U1) & np.uint64(len(keys) - 1)
            if keys[slot] == _U0:
                keys[slot], values[slot] = code_hash, _PREFIX
        values[slot] = ids[piece]


@njit(cache=True)
def _uniform(state):  # type: ignore[no-untyped-def]
    """The next number in [0, 1) of the generator whose one word of state is `state[0]`."""
    state[0] += _GOLDEN
    return np.float64(_mix(state[0]) >> _U11) * 2.0**-53


@njit(cache=True)
def _log_add(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high if low == -np.inf else high + np.log1p(np.exp(low - high))


@njit(cache=True)
def _symbols(codes, table, frozen, ends):  # type: ignore[no-untyped-def]
    """Cut a text into characters and user-defined symbols. Returns their number."""
    i = count = 0
    while i < len(codes):
        end, code_hash, frozen[i] = i + 1, _U0, False
        for j in range(i, len(codes)):
            code_hash = _extend(code_hash, codes[j])
            piece = _find(table.keys, table.values, code_hash)
            if piece == _ABSENT:
                break
            if piece >= 0 and table.user_defined[piece]:
                end, frozen[i] = j + 1, True
        i = ends[count] = end
        count += 1
    return count


@njit(cache=True)
def _bounds(codes, table, frozen, ends, bounds):  # type: ignore[no-untyped-def]
    """bounds[i] is where a piece that begins at code i must end at the latest.

    It is minus the end at the beginning of a user-defined symbol, which is never cut, and 0 inside.
    """
    n = len(codes)
    count = _symbols(codes, table, frozen, ends)
    bounds[:n] = 0
    limit = n
    for index in range(count - 1, -1, -1):
        start = ends[index - 1] if index else 0
        if frozen[start]:
            bounds[start], limit = -ends[index], start
        else:
            bounds[start] = limit


@njit(cache=True)
def _weigh(codes, table, alpha, bounds, mass):  # type: ignore[no-untyped-def]
    """mass[i] becomes the log of the summed weights of all segmentations of codes[i:]."""
    n = len(codes)
    mass[n] = 0.0
    for i in range(n - 1, -1, -1):
        if bounds[i] < 0:
            mass[i] = mass[-bounds[i]]
            continue
        mass[i], code_hash, single = -np.inf, _U0, False
        for j in range(i, bounds[i]):
            code_hash = _extend(code_hash, codes[j])
            piece = _find(table.keys, table.values, code_hash)
            if piece == _ABSENT:
                break
            if piece >= 0:
                mass[i] = _log_add(mass[i], alpha * table.scores[piece] + mass[j + 1])
                single = single or i == j
        if not single and bounds[i] > 0:
            mass[i] = _log_add(mass[i], alpha * table.unknown_score + mass[i + 1])


@njit(cache=True)
def _choose(codes, table, alpha, bounds, mass, i, left):  # type: ignore[no-untyped-def]
    """The end of the piece at code i, by `left` in [0, 1): the sum of weights to go past."""
    end, code_hash = i + 1, _U0
    for j in range(i, bounds[i]):
        code_hash = _extend(code_hash, codes[j])
        piece = _find(table.keys, table.values, code_hash)
        if piece == _ABSENT:
            break
        if piece >= 0 or i == j:
            score = table.scores[piece] if piece >= 0 else table.unknown_score
            left -= np.exp(alpha * score + mass[j + 1] - mass[i])
            end = j + 1
            if left < 0.0:
                break
    return end


@njit(cache=True)
def _unigram(codes, table, alpha, state, mass, bounds, frozen, ends):  # type: ignore[no-untyped-def]
    """Draw a segmentation of one text (n codes). Returns its size; `ends` gets the pieces' ends."""
    _bounds(codes, table, frozen, ends, bounds)
    _weigh(codes, table, alpha, bounds, mass)
    i = count = 0
    while i < len(codes):
        if bounds[i] < 0:
            i = -bounds[i]
        else:
            i = _choose(codes, table, alpha, bounds, mass, i, _uniform(state))
        ends[count] = i
        count += 1
    return count


@njit(cache=True)
def _whole(codes, table, start, end):  # type: ignore[no-untyped-def]
    """The id of the piece that codes[start:end] is, or a negative number."""
    code_hash = _U0
    for at in range(start, end):
        code_hash = _extend(code_hash, codes[at])
    return _find(table.keys, table.values, code_hash)


@njit(cache=True)
def _push(heap, codes, table, frozen, left, right, end):  # type: ignore[no-untyped-def]
    """Queue the merge of the symbols [left, right) and [right, end), where that is a piece."""
    if not frozen[left] and not frozen[right]:
        piece = _whole(codes, table, left, end)
        if piece >= 0:
            heapq.heappush(heap, (-table.scores[piece], left, right, end))


@njit(cache=True)
def _bpe(codes, table, alpha, state, before, after, frozen, ends):  # type: ignore[no-untyped-def]
    """Merge the symbols of one text (n codes), dropping merges. Returns their number, as above.

    A symbol goes by its first position: `after` (n+1,) is where it ends, `before` (n+1,) where the
    one to its left begins, -1 for none; `after` is -1 where no symbol begins any more.
    """
    n = len(codes)
    count = _symbols(codes, table, frozen, ends)
    after[:n] = -1
    start, previous = 0, -1
    for index in range(count):
        before[start], after[start] = previous, ends[index]
        previous, start = start, ends[index]
    heap = [(0.0, 0, 0, 0)]
    heap.pop()
    start = 0
    while after[start] < n:
        middle = after[start]
        _push(heap, codes, table, frozen, start, middle, after[middle])
        start = middle
    while heap:
        _, left, right, end = heapq.heappop(heap)
        if after[left] != right or after[right] != end or _uniform(state) < alpha:
            continue
        after[left], after[right] = end, -1
        if end < n:
            before[end] = left
            _push(heap, codes, table, frozen, left, end, after[end])
        if before[left] >= 0:
            _push(heap, codes, table, frozen, before[left], left, end)
    start = count = 0
    while start < n:
        start = ends[count] = after[start]
        count += 1
    return count


@njit(cache=True)
def _spell(code, table, ids, at):  # type: ignore[no-untyped-def]
    """Write the byte pieces of one character's UTF-8 at ids[at:]. Returns where they end."""
    if code < 0x80:
        ids[at] = table.bytes[code]
        return at + 1
    extra = 1 if code < 0x800 else 2 if code < 0x10000 else 3
    lead = (0xC0, 0xE0, 0xF0)[extra - 1]
    ids[at] = table.bytes[lead | (code >> (6 * extra))]
    for index in range(1, extra + 1):
        ids[at + index] = table.bytes[0x80 | ((code >> (6 * (extra - index))) & 0x3F)]
    return at + extra + 1


@njit(cache=True, nogil=True)
def _draw(codes, offsets, table, unigram, alpha, seed, first):  # type: ignore[no-untyped-def]
    """All texts: ids (N,), the code where each ends (N,), and the texts' offsets among ids (B+1,).

    Unknown characters in a row are one unknown piece, or byte pieces, as in SentencePiece.
    """
    longest = max(1, np.max(offsets[1:] - offsets[:-1]))
    mass = np.empty(longest + 1, np.float64)
    before, after = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    frozen, ends = np.empty(longest + 1, np.bool_), np.empty(longest + 1, np.int64)
    room = len(codes) * (4 if len(table.bytes) else 1)
    ids, stops = np.empty(room, np.int32), np.empty(room, np.int64)
    starts = np.zeros(len(offsets), np.int64)
    state = np.empty(1, np.uint64)
    at = 0
    for text in range(len(offsets) - 1):
        state[0] = _mix(_mix(np.uint64(seed) + _GOLDEN) + np.uint64(first + text))
        own = codes[offsets[text] : offsets[text + 1]]
        if len(own) == 0:
            count = 0
        elif unigram:
            count = _unigram(own, table, alpha, state, mass, after, frozen, ends)
        else:
            count = _bpe(own, table, alpha, state, before, after, frozen, ends)
        start = 0
        for index in range(count):
            piece, stop = _whole(own, table, start, ends[index]), at
            if piece >= 0:
                ids[at], at = piece, at + 1
            elif len(table.bytes):
                at = _spell(np.int64(own[start]), table, ids, at)
            elif at > starts[text] and ids[at - 1] == table.unknown:
                stop = at - 1
            else:
                ids[at], at = table.unknown, at + 1
            stops[stop:at] = ends[index]
            start = ends[index]
        starts[text + 1] = at
    return ids[:at].copy(), stops[:at].copy(), starts


def _codes(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    return np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32), offsets


class Sampler:
    """Draws segmentations into the pieces of one model."""

    def __init__(
        self, pieces: Sequence[Piece], *, unigram: bool, unknown: int, byte_ids: Sequence[int]
    ) -> None:
        """`byte_ids` has the ids of the pieces of the 256 bytes, or is empty."""
        self._unigram = unigram
        usable = [index for index, piece in enumerate(pieces) if piece.matches and piece.text]
        codes, offsets = _codes([pieces[index].text for index in usable])
        slots = 1 << max(4, (2 * len(codes)).bit_length())
        keys, values = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
        _fill(keys, values, codes, offsets, np.array(usable, np.int32))
        user_defined = np.array([piece.user_defined for piece in pieces], np.bool_)
        trained = [pieces[index].score for index in usable if not user_defined[index]] or [0.0]
        scores = np.array([piece.score for piece in pieces], np.float64)
        self._table = Table(
            keys,
            values,
            scores,
            user_defined,
            np.array(byte_ids, np.int32),
            unknown,
            min(trained) - _UNKNOWN_PENALTY,
        )

    def draw(
        self, texts: Sequence[str], alpha: float, seed: int, first: int = 0
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Segmentations of B normalized texts: ids (N,), ends (N,), offsets (B+1,).

        `ends` counts characters over all the texts joined to one. The draw of a text depends on
        `seed` and on its number, counted from `first`, and on nothing else.
        """
        codes, offsets = _codes(texts)
        if not len(codes):
            empty = np.zeros(0, np.int64)
            return empty.astype(np.int32), empty, offsets
        ids, ends, starts = _draw(
            codes, offsets, self._table, self._unigram, alpha, seed % 2**63, first
        )
        return ids, ends + np.repeat(offsets[:-1], np.diff(starts)), starts
