"""Training and encoding agree with SentencePiece; invalid input is refused in one sentence."""

from __future__ import annotations

import io
import math
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from srucli.config import DataConfig, TokenizerConfig
from srucli.data.readers import read_inputs
from srucli.errors import DataError, InputMissingError, UsageError
from srucli.io.lines import Lines
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import TrainedTokenizer, train_tokenizer
from tests.support import child_environment


def made_up_lines(count: int = 400, seed: int = 0) -> list[str]:
    """Return lines of artificial words with natural frequencies."""
    draw = random.Random(seed)
    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(300)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=draw.randint(3, 12))) for _ in range(count)]


LINES = made_up_lines()


def trained(lines: list[str] = LINES, lower_vocab: bool = False, **options: Any) -> Tokenizer:
    return trained_with_report(lines, lower_vocab, **options).tokenizer


def trained_with_report(
    lines: list[str] = LINES, lower_vocab: bool = False, **options: Any
) -> TrainedTokenizer:
    config = TokenizerConfig.model_validate({"vocab_size": 200, **options})
    return train_tokenizer(lines, config, lower_vocab=lower_vocab)


@pytest.fixture(scope="module", params=["unigram", "bpe", "word", "char"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return trained(model_type=request.param, vocab_size=120 if request.param == "word" else 200)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def sampling_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return trained(model_type=request.param)


def pieces_and_scores(model: bytes) -> list[tuple[str, float]]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(processor.IdToPiece(i), processor.GetScore(i)) for i in range(len(processor))]


def trained_by_sentencepiece(file: Path, **options: Any) -> list[tuple[str, float]]:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        input=str(file), model_writer=model, minloglevel=2, **options
    )
    return pieces_and_scores(model.getvalue())


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize(
    ("corpus", "vocab_size", "threads"),
    [("botchan", 2000, 1), ("botchan", 2000, 16), ("wagahaiwa_nekodearu", 8000, 1)],
)
def test_tokens_and_scores_equal_sentencepieces(
    shared_data: Path, tmp_path: Path, corpus: str, vocab_size: int, threads: int, model_type: str
) -> None:
    source = shared_data / "corpora" / f"{corpus}.txt.gz"
    plain = tmp_path / "plain.txt"
    plain.write_bytes(b"".join(line.encode() + b"\n" for _, line in Lines(source)))
    options: dict[str, Any] = {
        "vocab_size": vocab_size,
        "model_type": model_type,
        "num_threads": threads,
    }
    ours = trained([line for _, line in Lines(source)], **options)
    assert pieces_and_scores(ours.model_bytes) == trained_by_sentencepiece(plain, **options)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_korean_tokens_equal_sentencepieces(
    shared_data: Path, tmp_path: Path, model_type: str
) -> None:
    source = shared_data / "nsmc_rebuilt" / "test.tsv.gz"
    texts = [row.text for row in islice(read_inputs(source, DataConfig()), 4000)]
    plain = tmp_path / "plain.txt"
    plain.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    options: dict[str, Any] = {"vocab_size": 3000, "model_type": model_type, "num_threads": 1}
    ours = trained(texts, **options)
    assert pieces_and_scores(ours.model_bytes) == trained_by_sentencepiece(plain, **options)


def test_vocab_equals_the_file_of_spm_train(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("\n".join(LINES), encoding="utf-8")
    for model_type in ("unigram", "bpe"):
        prefix = tmp_path / model_type
        sentencepiece.SentencePieceTrainer.Train(
            input=str(plain),
            model_prefix=str(prefix),
            vocab_size=200,
            model_type=model_type,
            num_threads=1,
            minloglevel=2,
        )
        theirs = prefix.with_suffix(".vocab").read_text(encoding="utf-8")
        assert trained(model_type=model_type).vocab == theirs


@pytest.mark.parametrize("model_type", ["unigram", "bpe", "word"])
def test_the_error_for_a_large_vocabulary_names_flag_and_limit(model_type: str) -> None:
    with pytest.raises(UsageError, match=r"--vocab-size 50000 is more .* pass --v") as caught:
        trained(model_type=model_type, vocab_size=50_000)
    limit = int(str(caught.value).split("pass --vocab-size ")[1].split(" ")[0])
    assert trained(model_type=model_type, vocab_size=limit).vocab_size == limit


def test_the_error_for_a_small_vocabulary_names_flag_and_limit() -> None:
    with pytest.raises(UsageError, match=r"--vocab-size 5 is too small .* pass --v") as caught:
        trained(vocab_size=5)
    limit = int(str(caught.value).split("pass --vocab-size ")[1].split(" ")[0])
    assert trained(vocab_size=limit).vocab_size == limit


def test_lower_vocab_adapts_the_size_to_the_text() -> None:
    for wanted in (5, 50_000):
        report = trained_with_report(lower_vocab=True, vocab_size=wanted)
        assert report.wanted == wanted
        assert report.tokenizer.vocab_size != wanted
        assert (
            f"{wanted:,} pieces wanted, {report.tokenizer.vocab_size:,} obtained"
            in report.describe()
        )


def test_without_a_hard_limit_the_size_is_reported() -> None:
    report = trained_with_report(vocab_size=50_000, hard_vocab_limit=False)
    assert report.wanted == 50_000
    assert report.tokenizer.vocab_size < 5_000


def test_lines_left_out_are_counted() -> None:
    report = trained_with_report(
        [*LINES, "é" * 60, "a ▅ b", "", "e" * 100], max_sentence_length=110
    )
    assert (report.too_long, report.reserved) == (1 + sum(len(line) > 110 for line in LINES), 1)
    assert report.lines == len(LINES) + 4
    assert report.used == report.lines - report.too_long - report.reserved - 1
    kept = [line for line in [*LINES, "e" * 100] if len(line) <= 110]
    assert report.characters == sum(map(len, kept))
    assert "lines of over 110 bytes left out" in report.describe()


def test_the_sampled_lines_depend_only_on_the_seed() -> None:
    def draw(**options: Any) -> str:
        report = trained_with_report(input_sentence_size=150, vocab_size=100, **options)
        assert report.used == 150
        return report.tokenizer.vocab

    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    first = trained(LINES[:150], vocab_size=100).vocab
    assert draw(shuffle_input_sentence=False) == first != draw(seed=1)


def test_a_text_of_several_lines_is_several_lines() -> None:
    assert trained(["\n".join(LINES)]).vocab == trained().vocab


def test_symbols_may_contain_commas_spaces_and_quotes() -> None:
    symbols = ("a,b", "New York", 'q"z', "<url>")
    for model_type in ("unigram", "bpe"):
        tokenizer = trained(model_type=model_type, user_defined_symbols=symbols)
        cut = tokenizer.line_encoder(str)('in New York a,b <url> q"z')
        assert {"a,b", "New▁York", 'q"z', "<url>"} <= set(cut)


NO_TEXT = {"nothing": [], "empty": [""], "blanks": [" ", "\t"], "too long": ["x" * 5000]}


@pytest.mark.parametrize("lines", NO_TEXT.values(), ids=NO_TEXT)
def test_no_text_is_a_data_error(lines: list[str]) -> None:
    with pytest.raises(DataError, match="the training text: "):
        trained(lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bos_id": 2}, "must differ"),
        ({"pad_id": 9_999}, "must differ"),
        ({"user_defined_symbols": ("x", "x")}, "duplicated symbols"),
    ],
)
def test_settings_that_sentencepiece_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        trained(**options)


def test_a_refusal_stops_reading() -> None:
    def endless() -> object:
        while True:
            yield "text"

    with pytest.raises(UsageError, match="must differ"):
        train_tokenizer(endless(), TokenizerConfig(bos_id=2))  # type: ignore[arg-type]


def test_an_error_in_the_lines_ends_the_child() -> None:
    def broken() -> object:
        yield from LINES
        raise DataError("f", 7, "bad", "mend it")

    with pytest.raises(DataError, match="f:7: bad; mend it"):
        train_tokenizer(broken(), TokenizerConfig())  # type: ignore[arg-type]
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if children.exists():
        for child in children.read_text().split():
            assert b"srucli.tokenizer.child" not in Path(f"/proc/{child}/cmdline").read_bytes()


def test_progress_is_reported() -> None:
    words: list[str] = []
    train_tokenizer(LINES, TokenizerConfig(vocab_size=200), progress=words.append)
    assert any("EM" in word for word in words)


# ---------------------------------------------------------------- encoding


def test_encode_returns_sentencepieces_ids_with_offsets(any_tokenizer: Tokenizer) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=any_tokenizer.model_bytes)
    texts = ["", *LINES[:50], "  ", "日本 bade", ""]
    ids, offsets = any_tokenizer.encode(texts)
    assert [ids.dtype, offsets.dtype] == [np.dtype(np.int32), np.dtype(np.int64)]
    assert offsets.shape == (len(texts) + 1,)
    rows = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    assert rows == processor.Encode(texts, return_type=int)


def test_encode_of_nothing(sampling_tokenizer: Tokenizer) -> None:
    for texts in ([], [""], ["", " "]):
        for dropout in (0.0, 0.5):
            ids, offsets = sampling_tokenizer.encode(texts, dropout)
            assert ids.tolist() == []
            assert ids.dtype == np.int32
            assert offsets.tolist() == [0] * (len(texts) + 1)


def test_model_type_is_known(any_tokenizer: Tokenizer, tmp_path: Path) -> None:
    kinds = {"unigram", "bpe", "word", "char"}
    assert any_tokenizer.model_type in kinds
    path = tmp_path / "m.model"
    path.write_bytes(any_tokenizer.model_bytes)
    again = Tokenizer.load(path)
    assert (again.pieces, again.model_type) == (any_tokenizer.pieces, any_tokenizer.model_type)
    if any_tokenizer.model_type in ("word", "char"):
        assert np.array_equal(any_tokenizer.encode(LINES, 0.5)[0], any_tokenizer.encode(LINES)[0])


def test_samples_depend_only_on_seed_and_number(sampling_tokenizer: Tokenizer) -> None:
    one = sampling_tokenizer.encode(LINES, 0.2, seed=3)
    again = sampling_tokenizer.encode(LINES, 0.2, seed=3)
    assert np.array_equal(one[0], again[0])
    assert np.array_equal(one[1], again[1])
    assert not np.array_equal(one[0], sampling_tokenizer.encode(LINES, 0.2, seed=4)[0])
    tail, offsets = sampling_tokenizer.encode(LINES[100:], 0.2, seed=3, first=100)
    assert np.array_equal(tail, one[0][one[1][100] :])
    line = sampling_tokenizer.line_encoder(int, subword_dropout=0.2, seed=3)
    rows = [line(text) for text in LINES]
    assert [id for row in rows for id in row] == one[0].tolist()
    assert len(offsets) == len(LINES) - 99


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_unknown_characters_of_two_texts_are_not_merged(model_type: str) -> None:
    tokenizer = trained(model_type=model_type, add_dummy_prefix=False)
    texts = ["bade日", "本bade", "日本"]
    ids, offsets = tokenizer.encode(texts, 1e-9)
    unknown = tokenizer.encode(["日"])[0].tolist()
    assert [ids[a:b].tolist().count(unknown[0]) for a, b in pairwise(offsets)] == [1, 1, 1]


def test_samples_are_the_same_in_another_process(
    sampling_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "m.model").write_bytes(sampling_tokenizer.model_bytes)
    program = (
        "import sys; from srucli.tokenizer.model import Tokenizer;"
        "print(Tokenizer.load(sys.argv[1]).encode([sys.argv[2]] * 20, 0.3, seed=5)[0].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.model"), LINES[0]],
        capture_output=True,
        text=True,
        env=child_environment(),
        check=True,
    )
    here = sampling_tokenizer.encode([LINES[0]] * 20, 0.3, seed=5)[0].tolist()
    assert done.stdout.strip() == str(here)


def test_every_sample_decodes_to_the_text(sampling_tokenizer: Tokenizer) -> None:
    draw = sampling_tokenizer.line_encoder(str, subword_dropout=0.4)
    for text in [*LINES[:100], "日本 ba de 🎉🎉"]:
        assert "".join(draw(text)) == "▁" + text.replace(" ", "▁")


def test_minimal_dropout_gives_the_best_segmentation(sampling_tokenizer: Tokenizer) -> None:
    texts = [*LINES, "", "日本 bade 🎉🎉", "é"]
    best = sampling_tokenizer.line_encoder(str)
    nearly = sampling_tokenizer.line_encoder(str, subword_dropout=1e-13)
    score = dict(pieces_and_scores(sampling_tokenizer.model_bytes))
    for text in texts:
        ours, theirs = nearly(text), best(text)
        if ours != theirs:  # two segmentations with the same score
            totals = [sum(score.get(piece, -99.0) for piece in row) for row in (ours, theirs)]
            assert totals[0] == pytest.approx(totals[1], abs=1e-4)
            assert sampling_tokenizer.model_type == "unigram"


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_samples_follow_sentencepieces_distribution(model_type: str, byte_fallback: bool) -> None:
    tokenizer = trained(
        model_type=model_type,
        byte_fallback=byte_fallback,
        vocab_size=500,
        hard_vocab_limit=False,
        user_defined_symbols=("ba de", "kop") if model_type == "bpe" else (),
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    times, dropout = 20_000, 0.2
    alpha = dropout if model_type == "bpe" else 0.08 * math.sqrt(4)
    for text in (LINES[0][:12], f"ba de koppa {LINES[1][:8]} 日本é x"):
        ids, offsets = tokenizer.encode([text] * times, dropout, seed=1)
        ours = [tuple(ids[a:b].tolist()) for a, b in pairwise(offsets)]
        theirs = [
            tuple(row)
            for row in processor.Encode(
                [text] * times,
                return_type=int,
                enable_sampling=True,
                nbest_size=-1,
                alpha=alpha,
                num_threads=1,
            )
        ]
        counts = Counter(ours)
        assert len(counts) > 1
        for row, count in Counter(theirs).most_common(8):
            share = count / times
            error = math.sqrt(
                2 * share * (1 - share) / times
            )  # standard error of the difference of two shares
            assert counts[row] / times == pytest.approx(share, abs=5 * error)


def test_no_sample_splits_a_user_defined_symbol() -> None:
    """SentencePiece's own sampling splits them in unigram models."""
    for model_type in ("unigram", "bpe"):
        tokenizer = trained(model_type=model_type, user_defined_symbols=("ba de", "kop"))
        draw = tokenizer.line_encoder(str, subword_dropout=0.8)
        for _ in range(50):
            row = draw("la ba dekopla kopkop")
            assert (row.count("ba▁de"), row.count("kop")) == (1, 3)


def test_more_dropout_gives_more_tokens(sampling_tokenizer: Tokenizer) -> None:
    sizes = [len(sampling_tokenizer.encode(LINES, p)[0]) for p in (0.0, 0.05, 0.2, 0.5, 0.9)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.98 * sizes[1]
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(UsageError, match="subword dropout"):
            sampling_tokenizer.encode(["a"], wrong)


def test_a_very_long_text(sampling_tokenizer: Tokenizer) -> None:
    text = "".join(LINES).replace(" ", "") * 10
    assert len(text) > 100_000
    ids, _ = sampling_tokenizer.encode([text], 0.2)
    assert sampling_tokenizer.decode(ids.tolist()) == text


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0" * 100, bytes(range(256)) * 40])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.model"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.model: not a SentencePiece model; "):
        Tokenizer.load(path)


def test_damaged_models_are_refused_or_usable(sampling_tokenizer: Tokenizer) -> None:
    model, draw = sampling_tokenizer.model_bytes, random.Random(0)
    for _ in range(300):
        damaged = bytearray(model)
        for _ in range(draw.choice([1, 5, 50])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        damaged = damaged[: draw.choice([len(damaged), draw.randrange(len(damaged))])]
        try:
            tokenizer = Tokenizer.from_bytes(bytes(damaged), "x")
        except DataError:
            continue
        ids, _ = tokenizer.encode(LINES[:3])
        assert ids.max(initial=0) < tokenizer.vocab_size


def test_missing_files_folders_and_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputMissingError, match=str(path)):
            Tokenizer.load(path)
    monkeypatch.setattr("srucli.tokenizer.model.MAX_MODEL_BYTES", 10)
    (tmp_path / "m").write_bytes(b"x" * 11)
    with pytest.raises(DataError, match="larger than"):
        Tokenizer.load(tmp_path / "m")
