"""All models that SentencePiece trains are parsed correctly; harmful ones are refused."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from srucli.data.store import TokenStore
from srucli.errors import DataError, SrucliError, TextError, located
from srucli.tokenizer import proto
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.proto import BYTE, CONTROL, UNKNOWN, UNUSED, USER_DEFINED, parse_model
from srucli.tokenizer.truncation import Limits
from tests.robustness.mutate import parse, serialize
from tests.tokenizer.test_model import LINES, trained

RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")
Fields = list[tuple[int, int | bytes]]
# Keys of the fields of a model, of a piece and of rules: number and wire type.
PIECE, TRAINER, NORMALIZER, SELF_TEST = 1 << 3 | 2, 2 << 3 | 2, 3 << 3 | 2, 4 << 3 | 2
TEXT, SCORE, TYPE, CHARSMAP = 1 << 3 | 2, 2 << 3 | 5, 3 << 3, 2 << 3 | 2


def made(**options: Any) -> bytes:
    """Return a model from SentencePiece's own trainer."""
    model = io.BytesIO()
    lines = [*LINES, "긍정 부정 중립 ﷺ ㍿ Ａ ①"] * 2
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        minloglevel=2,
        hard_vocab_limit=False,
        **{"vocab_size": 300, "character_coverage": 1.0, **options},
    )
    return model.getvalue()


def agrees_with_sentencepiece(model: bytes) -> None:
    found, own = parse_model(model), sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(len(own))
    assert found.proto == model
    assert found.pieces == [own.IdToPiece(index) for index in ids]
    assert found.scores == [own.GetScore(index) for index in ids]
    kinds = {UNKNOWN: own.IsUnknown, CONTROL: own.IsControl, BYTE: own.IsByte, UNUSED: own.IsUnused}
    for kind, is_kind in kinds.items():
        assert [kind == each for each in found.types] == [is_kind(index) for index in ids]
    assert found.unknown == own.unk_id()
    tokenizer = Tokenizer.from_bytes(model, "x")
    texts = ["긍정 ﷺ x", *LINES[:5]]
    assert tokenizer.encode(texts)[0].tolist() == [
        index for row in own.Encode(texts) for index in row
    ]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", ["unigram", "bpe", "word", "char"])
def test_every_kind_and_every_rule(kind: str, rules: str) -> None:
    model = made(model_type=kind, normalization_rule_name=rules)
    agrees_with_sentencepiece(model)
    assert parse_model(model).type == kind


@pytest.mark.parametrize(
    "options",
    [
        {"byte_fallback": True, "vocab_size": 600},
        {"byte_fallback": True, "vocab_size": 600, "model_type": "bpe"},
        {"user_defined_symbols": ["<url>", "한국", "a b", *(f"u{'x' * n}" for n in range(99))]},
        {"control_symbols": ["<cls>", "q"], "unk_id": 5, "bos_id": -1, "eos_id": -1, "pad_id": 0},
        {"treat_whitespace_as_suffix": True, "remove_extra_whitespaces": False},
        {"add_dummy_prefix": False, "unk_piece": "[UNK]", "unk_surface": "?"},
        {"self_test_sample_size": 0, "max_sentencepiece_length": 100, "split_by_whitespace": False},
    ],
)
def test_every_option(options: dict[str, object]) -> None:
    agrees_with_sentencepiece(made(**options))


def test_custom_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.tsv"
    longest = " ".join(["61"] * 300)
    rules.write_text(f"41\t61\nE000\t{longest}\n{longest}\t62\nAC00\t\nB098 B2E4\t20\n")
    model = made(normalization_rule_tsv=str(rules))
    agrees_with_sentencepiece(model)


def test_a_text_that_rules_make_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before it takes memory; a text of the same length that stays so is encoded."""
    rules = tmp_path / "rules.tsv"
    rules.write_text(f"E000\t{' '.join(['61'] * 400)}\n")
    tokenizer = Tokenizer(made(normalization_rule_tsv=str(rules)))
    monkeypatch.setattr("srucli.tokenizer.model.MAX_NORMALIZED", 100_000)
    said = r"a text of 300 characters would have over 100,000 when normalized: '\\ue000"
    for encode in (
        lambda text: tokenizer.encode([text]),
        lambda text: tokenizer.encode([text], subword_dropout=0.1),
        tokenizer.line_encoder(str),
        tokenizer.line_encoder(str, subword_dropout=0.1),
    ):
        with pytest.raises(SrucliError, match=said):
            encode("\ue000" * 300)
        encode("ab" * 150)
        encode("\ue000" * 200)
    texts, limits = ["a b", "\ue000" * 300], Limits()
    with (
        pytest.raises(DataError, match=rf"^x\.tsv:8: {said}"),
        located("x.tsv", [7, 8].__getitem__),
    ):
        TokenStore.encode(tokenizer, texts, limits=limits)


@pytest.mark.parametrize("kind", ["unknown", "rules"])
def test_tokens_that_decode_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By what the unknown token stands for, and by rules for decoded text."""
    options: dict[str, str] = {"unk_surface": "?" * 400}
    if kind == "rules":
        rules = tmp_path / "rules.tsv"
        rules.write_text(f"61\t{' '.join(['62'] * 400)}\n")
        options = {"denormalization_rule_tsv": str(rules)}
    tokenizer = Tokenizer(made(**options))
    word = tokenizer.pieces[tokenizer.unknown] if kind == "unknown" else "a"
    size = 400 * 2_000
    assert size <= len(tokenizer.decode([word] * 2_000)) <= size + 2_000
    monkeypatch.setattr("srucli.tokenizer.model.MAX_NORMALIZED", 700_000)
    with pytest.raises(TextError, match=r"tokens of up to \d+,\d+ .* at most 700,000 are"):
        tokenizer.decode([word] * 2_000)


def test_self_test_texts_of_a_model_are_removed() -> None:
    """SentencePiece 0.2.2 encodes all self-test samples when it loads a model."""
    model = trained().model_bytes
    sample = serialize([(1 << 3 | 2, b"hello"), (2 << 3 | 2, b"no such pieces")])
    tested = model + serialize([(SELF_TEST, serialize([(1 << 3 | 2, sample)]))])
    assert parse_model(tested).proto == model
    tokenizer = Tokenizer.from_bytes(tested, "x")
    assert tokenizer.model_bytes == tested
    assert len(tokenizer.encode(["hello"])[0])


# ---------------------------------------------------------------- pieces


def with_piece(**changed: object) -> Callable[[Fields], None]:
    """Change the text, score (float) or type of one token."""

    def change(fields: Fields) -> None:
        place = [index for index, (key, _) in enumerate(fields) if key == PIECE][50]
        value = fields[place][1]
        assert isinstance(value, bytes)
        parts = dict(parse(value)) | {
            {"text": TEXT, "score": SCORE, "type": TYPE}[name]: struct.pack("<f", new)
            if isinstance(new, float)
            else new
            for name, new in changed.items()
        }
        fields[place] = PIECE, serialize(sorted(parts.items()))

    return change


def without_unknown(fields: Fields) -> None:
    del fields[next(index for index, (key, _) in enumerate(fields) if key == PIECE)]


def twice(key: int) -> Callable[[Fields], None]:
    return lambda fields: fields.append(next(field for field in fields if field[0] == key))


def trainer_with(key: int, value: int | bytes) -> Callable[[Fields], None]:
    def change(fields: Fields) -> None:
        place = next(index for index, field in enumerate(fields) if field[0] == TRAINER)
        held = fields[place][1]
        assert isinstance(held, bytes)
        fields[place] = TRAINER, held + serialize([(key, value)])

    return change


HARMFUL = {
    "empty": (with_piece(text=b""), "a piece is empty"),
    "NUL": (with_piece(text=b"a\0b"), "a piece contains a NUL character"),
    "long": (with_piece(text=b"a" * 2049), "a piece is too long"),
    "a second unknown by name": (with_piece(text=b"<unk>"), "two pieces are the same"),
    "NaN": (with_piece(score=float("nan")), "a score is too large or not a number"),
    "infinite": (with_piece(score=float("-inf")), "a score is too large or not a number"),
    "large": (with_piece(score=3e38), "a score is too large or not a number"),
    "type 7": (with_piece(type=7), "a piece is of an unknown type"),
    "type beyond 32 bits": (with_piece(type=2**32 + 1), "a piece is of an unknown type"),
    "a second unknown": (with_piece(type=UNKNOWN), "it does not have exactly one unknown piece"),
    "a byte without a name": (with_piece(type=BYTE), "its byte pieces are incomplete or misnamed"),
    "a byte that is none": (
        with_piece(type=BYTE, text=b"<0xZZ>"),
        "its byte pieces are incomplete or misnamed",
    ),
    "no unknown": (without_unknown, "it does not have exactly one unknown piece"),
    "two trainers": (twice(TRAINER), "it has two parts of one kind"),
    "a piece twice": (twice(PIECE), "two pieces are the same"),
    "model type 9": (trainer_with(3 << 3, 9), "model type 9 is unknown"),
}


@pytest.mark.parametrize(("change", "said"), HARMFUL.values(), ids=HARMFUL)
def test_harmful_tokens_are_refused(change: Callable[[Fields], None], said: str) -> None:
    fields = parse(trained().model_bytes)
    change(fields)
    with pytest.raises(DataError, match=rf"x: a SentencePiece model that cannot be used: {said}; "):
        Tokenizer.from_bytes(serialize(fields), "x")


NO_MODELS: dict[str, Callable[[Fields], None]] = {
    "a piece that is no UTF-8": with_piece(text=b"\xff"),
    "half of a surrogate pair": with_piece(text=b"\xed\xa0\x80"),
    "a surface that is no UTF-8": trainer_with(44 << 3 | 2, b"\xff"),
    "a key beyond 32 bits": lambda fields: fields.append((2**35 | PIECE, b"")),
    "a group": lambda fields: fields.append((1 << 3 | 3, b"")),
}


@pytest.mark.parametrize("change", NO_MODELS.values(), ids=NO_MODELS)
def test_other_messages_are_refused(change: Callable[[Fields], None]) -> None:
    fields = parse(trained().model_bytes)
    change(fields)
    with pytest.raises(DataError, match="x: not a SentencePiece model; name a"):
        Tokenizer.from_bytes(serialize(fields), "x")


ENDLESS: dict[str, tuple[bytes, type[Exception], str]] = {
    "cut": (b"\x0a\x80", IndexError, "out of range"),
    "outside": (b"\x0a" + b"\xff" * 9 + b"\x01", ValueError, "outside of its message, or too many"),
    "endless": (b"\x08" + b"\x80" * 11 + b"\x01", ValueError, "a number of more than ten bytes"),
    "fields": (b"\x08\0" * 4_000_000, ValueError, "outside of its message, or too many"),
    "settings": (
        b"\x12\x80\x80\x80\x04" + b"\x0a\0" * 4_194_304,
        ValueError,
        "outside of its message, or too many",
    ),
    "pieces": (b"\x0a\0" * 4_000_000, ValueError, "it has more than 1,048,576 pieces"),
}


@pytest.mark.parametrize(("content", "kind", "said"), ENDLESS.values(), ids=ENDLESS)
def test_fields_that_never_end(content: bytes, kind: type[Exception], said: str) -> None:
    """The message shows that the limit ended parsing, not the end of the data."""
    with pytest.raises(DataError, match=r"^x: .*; name a \.model file") as caught:
        Tokenizer.from_bytes(content, "x")
    error = caught.value.__context__
    assert isinstance(error, kind)
    assert said in str(error)


def test_the_unknown_token_may_have_any_name() -> None:
    """Its id, not its name, is passed to the sampler's kernels."""
    fields = parse(trained().model_bytes)
    trainer_with(45 << 3 | 2, b"no such piece")(fields)
    tokenizer = Tokenizer.from_bytes(serialize(fields), "x")
    ids, _ = tokenizer.encode(["한"], 0.1)
    assert tokenizer.pieces[ids[-1]] == "<unk>"
    assert tokenizer.line_encoder(str, subword_dropout=0.1)("한")[-1] == "한"


# ---------------------------------------------------------------- rules of normalization


def with_rules(rules: bytes) -> bytes:
    fields = parse(trained().model_bytes)
    others = [field for field in fields if field[0] != NORMALIZER]
    spec = [field for field in parse(bytes(dict(fields)[NORMALIZER])) if field[0] != CHARSMAP]
    return serialize([*others, (NORMALIZER, serialize([(CHARSMAP, rules), *spec]))])


LEAF = 2**31


def trie(units: dict[int, int], texts: bytes, blocks: int = 2) -> bytes:
    """Return rules: a double array with these units, and the replacements."""
    array = np.full(256 * blocks, LEAF, "<u4")
    for place, unit in units.items():
        array[place] = unit
    return len(array.tobytes()).to_bytes(4, "little") + array.tobytes() + texts


def unit(label: int, offset: int, leaf: bool = False) -> int:
    return offset << 10 | leaf << 8 | label


ROOT, A = unit(0, 256), 256 ^ ord("a")
# 'a' becomes what stands at the place that the unit 256 tells.
REPLACES_A = {0: ROOT, A: unit(ord("a"), A ^ 256 ^ 0x80, leaf=True)}


def test_a_trie_by_hand() -> None:
    tokenizer = Tokenizer.from_bytes(
        with_rules(trie({**REPLACES_A, 256 ^ 0x80: LEAF | 2}, b"x\0ab\0")), "x"
    )
    assert tokenizer._processor.Normalize("car") == "▁cabr"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (b"\0\0\0", "incomplete or too large"),
        (trie({0: ROOT}, b""), "incomplete or too large"),
        ((2**32 - 1).to_bytes(4, "little") + bytes(2048), "incomplete or too large"),
        ((1000).to_bytes(4, "little") + bytes(2048), "incomplete or too large"),
        (trie({0: ROOT}, b"x"), "are incomplete"),
        (trie({0: LEAF}, b"x\0"), "point outside"),
        (trie({0: unit(0, 512)}, b"x\0"), "point outside"),
        (trie({0: unit(0, 1 << 21 | 512)}, b"x\0"), "point outside"),
        (trie({**REPLACES_A, 256 ^ 0x80: LEAF | 3}, b"x\0\0"), "point outside"),
        (trie({**REPLACES_A, 256 ^ 0x80: LEAF | 1}, "é\0".encode()), "begins within a character"),
        (trie({0: ROOT}, b"x" * 513 + b"\0"), "is too long"),
        (trie({0: ROOT, A: unit(ord("a"), ord("a"))}, b"x\0"), "contain a cycle"),
    ],
)
def test_harmful_rules_are_refused(rules: bytes, said: str) -> None:
    with pytest.raises(DataError, match=rf"x: a SentencePiece model that .*: .*{said}; name a"):
        Tokenizer.from_bytes(with_rules(rules), "x")


def test_replacements_must_be_utf8() -> None:
    with pytest.raises(DataError, match="x: not a SentencePiece model"):
        Tokenizer.from_bytes(with_rules(trie({0: ROOT}, b"\xff\0")), "x")


def test_a_trie_with_cycles_is_refused_quickly() -> None:
    """Each of 256 units is the parent of all, so there are too many paths to walk."""
    circles = {256 ^ label: unit(label, label) for label in range(256)}
    with pytest.raises(DataError, match="contain a cycle"):
        Tokenizer.from_bytes(with_rules(trie({0: ROOT, **circles}, b"x\0")), "x")


def test_limits_leave_room_for_the_largest_vocabularies() -> None:
    model = serialize([(PIECE, serialize([(TEXT, b"<unk>"), (TYPE, UNKNOWN)]))])
    model += serialize([(PIECE, serialize([(TEXT, b"%07d" % n)])) for n in range(262_144)])
    parsed = parse_model(model)
    assert len(parsed.pieces) == 262_145
    assert proto.MAX_PIECES > 262_145
    assert USER_DEFINED not in parsed.types
