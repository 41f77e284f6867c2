"""Parse and check a SentencePiece model before SentencePiece loads it.

SentencePiece is C++ and trusts the scores, ids and normalization trie of a model, which may come
from anybody. A model that passes has usable tokens and scores, one unknown token, and normalization
rules whose lookups end. The format is `sentencepiece_model.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The largest public vocabularies have 262,144 tokens of 7 bytes on average.
MAX_PIECES, MAX_PIECE_BYTES, MAX_TEXT_BYTES = 2**20, 2048, 2**24
# Bytes of the normalization rules: all rules, the text that one replaces, and its replacement.
MAX_RULES_BYTES, MAX_RULE_BYTES, MAX_REPLACEMENT_BYTES = 2**22, 512, 512
# Fields of a message: training settings, files and symbols; and of a token.
MAX_FIELDS, MAX_PIECE_FIELDS = 2**21, 8
MAX_SCORE = 1e30

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_BYTE_PIECES = {b"<0x%02X>" % byte for byte in range(256)}


def _key(number: int, kind: int) -> int:
    return number << 3 | kind


_PIECE, _TRAINER, _NORMALIZER, _DENORMALIZER = (_key(number, _BYTES) for number in (1, 2, 3, 5))
_PARTS = (_TRAINER, _NORMALIZER, _DENORMALIZER)
_TEXT, _SCORE, _TYPE = _key(1, _BYTES), _key(2, _FIXED32), _key(3, _VARINT)
_MODEL_TYPE, _UNK_SURFACE = _key(3, _VARINT), _key(44, _BYTES)
_CHARSMAP = _key(2, _BYTES)


# The fields of each token: text, score, type.
_Tokens = list[tuple[bytes, bytes, int]]
Ints = NDArray[np.int64]


class UnusableModelError(ValueError):
    """The model is complete but would not work; the message says why."""


class Model(NamedTuple):
    """The content of a model of V tokens."""

    proto: bytes  # for SentencePiece to load, without texts for self-tests
    type: str  # unigram, bpe, word or char
    pieces: list[str]
    scores: list[float]
    types: list[int]  # NORMAL, UNKNOWN, ...
    unknown: int  # the id of the unknown token
    growth: int  # the most bytes by which normalization replaces a byte
    decoded_growth: int  # the same of what is applied to decoded text
    unknown_surface: str  # what the unknown token is decoded to


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a position, and its end. Raises ValueError, IndexError."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value, start, shift = value & 0x7F, at, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at + 1
        if at - start == 9:
            raise ValueError("a number of more than ten bytes")


def _fields(data: bytes, most: int) -> Iterator[tuple[int, int | bytes, int]]:
    """Yield key (number and wire type), value and end of fields. Raises ValueError, LookupError."""
    at = count = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, count = key & 7, count + 1
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if kind == _BYTES else (_FIXED_SIZES[kind], at)
            value, at = data[at : at + size], at + size
        if at > len(data) or key >= 2**32 or count > most:
            raise ValueError("a field that ends outside of its message, or too many")
        yield key, value, at


def _message(data: bytes, most: int) -> dict[int, Any]:
    """Return the fields by key; of repeated fields the last, like SentencePiece."""
    return {key: value for key, value, _ in _fields(data, most)}


def parse_model(data: bytes) -> Model:
    """Parse a model. Raises UnusableModelError; ValueError or LookupError for other data."""
    pieces: _Tokens = []
    parts: dict[int, bytes] = {}
    needed: list[bytes] = []
    start = 0
    for key, value, end in _fields(data, MAX_PIECES + MAX_FIELDS):
        if key == _PIECE:
            assert isinstance(value, bytes)
            _require(len(pieces) < MAX_PIECES, f"it has more than {MAX_PIECES:,} pieces")
            piece = _message(value, MAX_PIECE_FIELDS)
            score = piece.get(_SCORE, b"\0\0\0\0")
            pieces.append((piece.get(_TEXT, b""), score, piece.get(_TYPE, NORMAL)))
        elif key in _PARTS:
            assert isinstance(value, bytes)
            _require(key not in parts, "it has two parts of one kind")
            parts[key] = value
        if key == _PIECE or key in _PARTS:
            needed.append(data[start:end])
        start = end
    trainer = _message(parts.get(_TRAINER, b""), MAX_FIELDS)
    kind = trainer.get(_MODEL_TYPE, 1)
    _require(kind in _MODEL_TYPES, f"model type {kind} is unknown")
    surface = trainer.get(_UNK_SURFACE, b"").decode()
    growth, decoded_growth = (
        _check_rules(_message(parts.get(key, b""), MAX_FIELDS).get(_CHARSMAP, b""))
        for key in (_NORMALIZER, _DENORMALIZER)
    )
    names, scores, types = _checked_pieces(pieces)
    proto = data if sum(map(len, needed)) == len(data) else b"".join(needed)
    unknown = types.index(UNKNOWN)
    kinds = _MODEL_TYPES[kind], names, scores, types, unknown
    return Model(proto, *kinds, growth, decoded_growth, surface)


def _require(holds: bool | np.bool_, otherwise: str) -> None:
    if not holds:
        raise UnusableModelError(otherwise)


def _checked_pieces(pieces: _Tokens) -> tuple[list[str], list[float], list[int]]:
    """Return names, scores and types of tokens from their fields. Raises ValueError."""
    texts, numbers, kinds = zip(*pieces, strict=True)
    types = list(kinds)
    joined = b"\0".join(texts)
    _require(all(texts), "a piece is empty")
    _require(max(map(len, texts)) <= MAX_PIECE_BYTES, "a piece is too long")
    _require(len(joined) <= MAX_TEXT_BYTES, "its pieces are too long in total")
    _require(joined.count(b"\0") == len(texts) - 1, "a piece contains a NUL character")
    _require(len(set(texts)) == len(texts), "two pieces are the same")
    _require(set(types) <= set(range(NORMAL, BYTE + 1)), "a piece is of an unknown type")
    _require(types.count(UNKNOWN) == 1, "it does not have exactly one unknown piece")
    found = {text for text, kind in zip(texts, types, strict=True) if kind == BYTE}
    _require(found in (set(), _BYTE_PIECES), "its byte pieces are incomplete or misnamed")
    scores = np.frombuffer(b"".join(numbers), "<f4")
    _require((np.abs(scores) <= MAX_SCORE).all(), "a score is too large or not a number")
    return joined.decode().split("\0"), scores.tolist(), types


def _check_rules(rules: bytes) -> int:
    """Refuse normalization rules that do not end, or point outside of their data.

    Returns the bytes of the longest replacement, at least 1.

    The rules are the size of a trie in bytes, the trie, which maps text to positions of its
    replacement, and the replacements, each with a NUL at its end. The trie is a double array of
    Darts: the children of unit u are at u ^ offset(u) ^ label, and its value at u ^ offset(u).
    Raises UnusableModelError, UnicodeError.
    """
    if not rules:
        return 1
    size = int.from_bytes(rules[:4], "little")
    whole = 4 + size < len(rules) <= MAX_RULES_BYTES and size and not size % 1024
    _require(bool(whole), "its normalization rules are incomplete or too large")
    units, texts = np.frombuffer(rules, "<u4", size // 4, 4), rules[4 + size :]
    texts.decode()
    letters = np.frombuffer(texts, np.uint8)
    lengths = np.diff(np.flatnonzero(letters == 0), prepend=-1) - 1
    _require(texts[-1] == 0, "its normalization rules are incomplete")
    _require(lengths.max() <= MAX_REPLACEMENT_BYTES, "a normalization rule is too long")
    inner = np.flatnonzero(units < 2**31)
    _require(bool(units[0] < 2**31), "its normalization rules point outside")
    below = inner ^ (units[inner] >> 10 << ((units[inner] & 2**9) >> 6))
    _require(below.max(initial=0) < len(units), "its normalization rules point outside")
    values = units[below[units[inner] & 2**8 != 0]] & (2**31 - 1)
    _require(values.max(initial=0) < len(texts), "its normalization rules point outside")
    begins = (letters[values] & 0xC0) != 0x80
    _require(begins.all(), "a normalization rule begins within a character")
    _check_depth(below[:1], below, inner ^ (units[inner] & 0xFF))
    return max(int(lengths.max()), 1)


def _check_depth(root: Ints, below: Ints, above: Ints) -> None:
    """Refuse a trie with cycles or of excessive depth, where a lookup would not end.

    below (K,): the position of the children of each of K units. above (K,): that of the children of
    its parent. root (1,): that of the children of the root.
    """
    order = np.argsort(above, kind="stable")
    above, below = above[order], below[order]
    level, visits = root, 0
    for _ in range(MAX_RULE_BYTES):
        starts = np.searchsorted(above, level)
        counts = np.searchsorted(above, level, "right") - starts
        total = int(counts.sum())
        children = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(total)
        level, visits = np.unique(below[children]), visits + total
        if not total:
            return
        _require(visits <= 16 * len(below), "its normalization rules contain a cycle")
    raise UnusableModelError("its normalization rules contain a cycle")
