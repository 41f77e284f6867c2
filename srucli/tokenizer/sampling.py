"""Random segmentations of text into a SentencePiece model's tokens, determined by a seed.

SentencePiece's own sampling cannot be repeated: each process seeds it anew. The distributions are
the same: for unigram models, forward filtering and backward sampling over the lattice of all
segmentations, with scores times alpha (Kudo 2018, arXiv 1804.10959); for BPE, merges dropped with
probability alpha (Provilkov et al. 2020, arXiv 1910.13267). Unlike in SentencePiece, unigram
sampling never splits user-defined symbols. Nothing runs in parallel.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.kernels.jit import inner, njit
from srucli.tokenizer.proto import BYTE, NORMAL, USER_DEFINED, Model

Ints = NDArray[np.int64]
_ABSENT, _PREFIX = -2, -1
_UNKNOWN_PENALTY = 10.0
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_U27, _U30, _U31, _U11, _U0, _U1 = (np.uint64(value) for value in (27, 30, 31, 11, 0, 1))


class Table(NamedTuple):
    """A model for the kernels: an open hash table of all prefixes of all V tokens, and scores."""

    keys: NDArray[np.uint64]  # (S,) hash of a prefix, 0 in a free slot
    values: NDArray[np.int32]  # (S,) the id of the token equal to the prefix, or _PREFIX
    scores: NDArray[np.float64]  # (V,)
    user_defined: NDArray[np.bool_]  # (V,)
    bytes: NDArray[np.int32]  # (256,) ids of the byte tokens, or (0,) without byte fallback
    unknown: int
    unknown_score: float


@inner
def _mix(value: np.uint64) -> np.uint64:
    """The finalizer of splitmix64."""
    value = (value ^ (value >> _U30)) * _MIX_1
    value = (value ^ (value >> _U27)) * _MIX_2
    return value ^ (value >> _U31)


@inner
def _extend(code_hash, code):  # type: ignore[no-untyped-def]
    """Return the hash of a prefix with one more character; never 0, which marks a free slot."""
    return _mix(code_hash + _GOLDEN + np.uint64(code)) | _U1


@inner
def _find(keys, values, code_hash):  # type: ignore[no-untyped-def]
    slot = code_hash & np.uint64(len(keys) - 1)
    while keys[slot] != code_hash:
        if keys[slot] == _U0:
            return _ABSENT
        slot = (slot + _U1) & np.uint64(len(keys) - 1)
    return values[slot]


@njit(cache=True)
def _fill(keys, values, codes, offsets, ids):  # type: ignore[no-untyped-def]
    """Add all prefixes of the tokens to the table; a whole token's value is its id."""
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


@inner
def _uniform(state):  # type: ignore[no-untyped-def]
    """Return the next number in [0, 1) of the generator with the state `state[0]`."""
    state[0] += _GOLDEN
    return np.float64(_mix(state[0]) >> _U11) * 2.0**-53


@inner
def _log_add(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high if low == -np.inf else high + np.log1p(np.exp(low - high))


@inner
def _symbols(codes, table, frozen, ends):  # type: ignore[no-untyped-def]
    """Split a text into characters and user-defined symbols. Return their number."""
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


@inner
def _bounds(codes, table, frozen, ends, bounds):  # type: ignore[no-untyped-def]
    """Set bounds[i] to the last possible end of a token that begins at code i.

    At the beginning of a user-defined symbol, which is never split, it is minus the end; inside, 0.
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


@inner
def _weigh(codes, table, alpha, bounds, mass):  # type: ignore[no-untyped-def]
    """Set mass[i] to the log of the summed weights of all segmentations of codes[i:]."""
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


@inner
def _choose(codes, table, alpha, bounds, mass, i, left):  # type: ignore[no-untyped-def]
    """Return the end of a token at code i, chosen by `left` in [0, 1), the weight to go past."""
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


@inner
def _unigram(codes, table, alpha, state, mass, bounds, frozen, ends):  # type: ignore[no-untyped-def]
    """Sample a segmentation of one text. Return its size; `ends` gets the ends of tokens."""
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


@inner
def _whole(codes, table, start, end):  # type: ignore[no-untyped-def]
    """Return the id of the token codes[start:end], or a negative number."""
    code_hash = _U0
    for at in range(start, end):
        code_hash = _extend(code_hash, codes[at])
    return _find(table.keys, table.values, code_hash)


@inner
def _push(heap, codes, table, frozen, left, right, end):  # type: ignore[no-untyped-def]
    """Queue the merge of the symbols [left, right) and [right, end), if it is a token."""
    if not frozen[left] and not frozen[right]:
        piece = _whole(codes, table, left, end)
        if piece >= 0:
            heapq.heappush(heap, (-table.scores[piece], left, right, end))


@inner
def _bpe(codes, table, alpha, state, before, after, frozen, ends):  # type: ignore[no-untyped-def]
    """Merge the symbols of one text (n codes), dropping merges. Return their number, as above.

    By the first position of a symbol, `after` (n+1,) has its end and `before` (n+1,) the start of
    its left neighbour, -1 without one. `after` is -1 where no symbol begins any more.
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


@inner
def _spell(code, table, ids, at):  # type: ignore[no-untyped-def]
    """Write the byte tokens of one character's UTF-8 at ids[at:]. Return their end."""
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
def _draw(codes, offsets, longest, table, bpe, alpha, seed, first):  # type: ignore[no-untyped-def]
    """Sample all texts. Return ids (N,), the code where each ends (N,), and offsets (B+1,) of ids.

    Consecutive unknown characters become one unknown token, or byte tokens, as in SentencePiece.
    longest: the codes of the longest text. bpe: None for unigram models; Numba then compiles
    nothing of `_bpe`, which takes seconds.
    """
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
        elif bpe is None:
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


def _codes(texts: Sequence[str]) -> tuple[NDArray[np.uint32], Ints]:
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32), offsets


class Sampler:
    """Samples segmentations into the tokens of one unigram or BPE model."""

    def __init__(self, model: Model) -> None:
        self._bpe = None if model.type == "unigram" else True
        types = np.array(model.types)
        defined = types == USER_DEFINED
        usable = np.flatnonzero((types == NORMAL) | defined)
        codes, offsets = _codes([model.pieces[index] for index in usable])
        slots = 1 << max(4, (2 * len(codes)).bit_length())
        keys, values = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
        _fill(keys, values, codes, offsets, usable.astype(np.int32))
        scores = np.array(model.scores, np.float64)
        trained = scores[types == NORMAL]
        unknown_score = (float(trained.min()) if trained.size else 0.0) - _UNKNOWN_PENALTY
        ids = {piece: index for index, piece in enumerate(model.pieces)}
        names = [f"<0x{byte:02X}>" for byte in range(256)] if BYTE in model.types else []
        bytes_ = np.array([ids[name] for name in names], np.int32)
        self._table = Table(keys, values, scores, defined, bytes_, model.unknown, unknown_score)

    def draw(
        self, texts: Sequence[str], alpha: float, seed: int, first: int = 0
    ) -> tuple[NDArray[np.int32], Ints, Ints]:
        """Sample segmentations of B normalized texts: ids (N,), ends (N,), offsets (B+1,).

        `ends` counts characters over all texts joined. The sample of a text depends only on `seed`
        and on the text's number, counted from `first`.
        """
        codes, offsets = _codes(texts)
        if not len(codes):
            empty = np.zeros(0, np.int64)
            return empty.astype(np.int32), empty, offsets
        how = max(map(len, texts)), self._table, self._bpe, alpha, seed % 2**63, first
        ids, ends, starts = _draw(codes, offsets, *how)
        return ids, ends + np.repeat(offsets[:-1], np.diff(starts)), starts
