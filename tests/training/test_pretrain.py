"""Vectors from raw text: what they learn, resuming to the bit, the folder, and bad input."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from srucli.config import Config, PretrainConfig, resolve
from srucli.data.store import TokenStore
from srucli.errors import DataError, DivergedError, InterruptedRun, OutputError
from srucli.io.files import to_json
from srucli.kernels.cpu_skipgram import learn
from srucli.runs.pretrained_dir import FACTS, METRICS, STATE, VECTORS, PretrainedDir, Progress
from srucli.tokenizer.truncation import Limits
from srucli.training import pretrain as pretraining
from srucli.training import skipgram
from srucli.training.interrupts import Interrupt
from srucli.training.pretrain import RawText, epochs_of, fingerprint, pretrain
from srucli.training.skipgram import SkipGram, alias_table

TOPICS = ("soup bread salt plate spoon", "train track wheel engine signal")
SETTINGS = ("model.embedding_size=8", "tokenizer.vocab_size=60", "pretrain.epochs=4")


def corpus() -> list[str]:
    """Return 400 lines of six words, all of the same topic."""
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(TOPICS[n % 2].split(), 6)) for n in range(400)]


def config(*settings: str) -> Config:
    return resolve(overrides=[*SETTINGS, *settings])


def raw(texts: list[str] | None = None) -> RawText:
    return RawText(corpus() if texts is None else texts, ["corpus.txt"])


@pytest.mark.parametrize("weights", [[1.0], [1, 2, 3, 4], [0, 5, 0, 1], [1e-9, 1, 1e3], [0, 0]])
def test_alias_table_has_the_distribution(weights: list[float]) -> None:
    sure, other = alias_table(np.array(weights, np.float64))
    found = sure.astype(np.float64)
    np.add.at(found, other, 1.0 - sure)
    wanted = np.array(weights) / sum(weights) if sum(weights) else np.full(len(weights), 0.5)
    np.testing.assert_allclose(found / len(weights), wanted, atol=1e-6)


def stored(texts: list[NDArray[np.int32]]) -> TokenStore:
    lengths = [len(text) for text in texts]
    return TokenStore(np.concatenate(texts), np.concatenate(([0], np.cumsum(lengths))))


def similarity(vectors: NDArray[Any], first: list[int], second: list[int]) -> float:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(np.mean([unit[a] @ unit[b] for a in first for b in second if a != b]))


def test_tokens_of_a_topic_become_similar() -> None:
    draw = np.random.default_rng(0)
    texts = [draw.integers(0, 40, 12).astype(np.int32) + 40 * (n % 2) for n in range(600)]
    vectors = SkipGram.new(80, 16, seed=0)
    losses = [
        part.loss / part.pairs
        for part in vectors.train(lambda _: stored(texts), PretrainConfig(), 20, seed=0)
    ]
    assert losses[-1] < 0.9 * losses[0]
    first, second = list(range(40)), list(range(40, 80))
    centred = vectors.inputs - vectors.inputs.mean(axis=0)
    assert similarity(centred, first, first) > similarity(centred, first, second) + 0.5


def test_saved_vectors_continue_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of an epoch was the last."""
    monkeypatch.setattr(skipgram, "PART", 50)
    draw = np.random.default_rng(0)
    texts = [draw.integers(0, 30, n % 9).astype(np.int32) for n in range(60)]

    def learned(stops: int) -> dict[str, torch.Tensor]:
        vectors = SkipGram.new(30, 8, seed=5)
        while vectors.epoch < 3:
            for number, _ in enumerate(
                vectors.train(lambda epoch: stored(texts[epoch:]), PretrainConfig(), 3, seed=5)
            ):
                if number == stops:
                    break
            copies = {name: each.clone() for name, each in vectors.state_dict().items()}
            vectors = SkipGram.restored(copies)
        return vectors.state_dict()

    whole = learned(10**9)
    for stops in (0, 1, 3):
        assert all(torch.equal(learned(stops)[name], whole[name]) for name in whole)


def test_the_folder_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pretrain(config(), raw(), tmp_path / "base")
    found = PretrainedDir(folder).read()
    assert found.vectors.shape == (found.tokenizer.vocab_size, 8)
    assert bool(found.vectors.isfinite().all())
    assert (found.facts.texts, found.facts.epochs) == (400, 4)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    others = {"README.md", "metrics.jsonl", "srucli.json", "tokenizer.model"}
    assert {path.name for path in folder.iterdir()} == {FACTS, VECTORS, *others}
    before = (folder / VECTORS).stat().st_mtime_ns
    assert pretrain(config(), raw(), folder) == folder
    assert "is finished already" in capsys.readouterr().err
    assert (folder / VECTORS).stat().st_mtime_ns == before


def test_interrupted_pretraining_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skipgram, "PART", 1_000)
    whole = PretrainedDir(pretrain(config(), raw(), tmp_path / "whole")).read()
    stop, parts = Interrupt(), count(1)

    def interrupted(*arguments: Any) -> Any:
        stop.requested = next(parts) in (2, 5, 7)
        return learn(*arguments)

    monkeypatch.setattr("srucli.training.skipgram.learn", interrupted)
    for _ in range(3):
        with pytest.raises(InterruptedRun, match="the same command resumes"):
            pretrain(config(), raw(), tmp_path / "base", stop=stop)
        stop.requested = False
    pretrain(config(), raw(), tmp_path / "base", stop=stop)
    found = PretrainedDir(tmp_path / "base").read()
    assert torch.equal(found.vectors, whole.vectors)
    assert found.tokenizer.model_bytes == whole.tokenizer.model_bytes
    assert not (tmp_path / "base" / STATE).exists()
    lines = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / name / METRICS).open()]
        for name in ("base", "whole")
    ]
    assert lines[0] == lines[1]


def test_lines_after_the_saved_state_are_cut(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRun):
        pretrain(config(), raw(), tmp_path / "base", stop=Interrupt(requested=True))
    folder = PretrainedDir(tmp_path / "base")
    before = (folder.path / METRICS).read_bytes() if (folder.path / METRICS).exists() else b""
    folder.add({"epoch": 9, "loss": 1.0, "seconds": 1.0})  # then it was killed
    pretrain(config(), raw(), folder.path)
    after = (folder.path / METRICS).read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["epoch"] for line in after.splitlines()] == [1, 2, 3, 4]


def test_what_resuming_needed_is_removed_later(tmp_path: Path) -> None:
    """It was killed between writing the vectors and removing that."""
    folder = PretrainedDir(pretrain(config(), raw(), tmp_path / "base"))
    (folder.path / STATE).write_bytes(b"left")
    pretrain(config(), raw(), folder.path)
    assert not (folder.path / STATE).exists()


def test_changed_rules_are_other_settings(tmp_path: Path) -> None:
    rules = tmp_path / "rules.tsv"
    rules.write_text("41\t42\n")
    settings = config(f"tokenizer.normalization_rule_tsv={rules}")
    before = fingerprint(settings, raw(), None)
    assert fingerprint(settings, raw(), None) == before
    rules.write_text("41\t43\n")
    assert fingerprint(settings, raw(), None) != before


def test_long_texts_that_are_cut_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srucli.training.pretrain.Limits", lambda: Limits(text=20, chosen=True))
    pretrain(config("pretrain.epochs=1"), raw([*corpus(), "soup and bread " * 40]), tmp_path / "b")
    assert "corpus.txt: 1 of 401 texts" in capsys.readouterr().err


def test_other_texts_or_settings_are_refused(tmp_path: Path) -> None:
    folder = pretrain(config(), raw(), tmp_path / "base")
    before = PretrainedDir(folder).read().vectors
    for settings, texts in ((["train.seed=1"], None), ([], [*corpus(), "salt"])):
        with pytest.raises(OutputError, match=r"other texts or with other settings.*--force"):
            pretrain(config(*settings), raw(texts), folder)
    pretrain(config("train.seed=1"), raw(), folder, force=True)
    assert not torch.equal(PretrainedDir(folder).read().vectors, before)


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ([], "no text; give raw text"),
        (["again"] * 5, "the same text 5 times; give raw text"),
        (["", " "] * 5, "nothing but blank lines; give it text"),
        (["a", "b"], "no text has tokens to learn from; give longer texts"),
    ],
)
def test_text_without_content_is_refused(tmp_path: Path, texts: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=f"corpus.txt: {problem}"):
        pretrain(config("tokenizer.model_type=word"), raw(texts), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_vectors_that_are_not_finite_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"lower pretrain\.lr \(now 1e\+38\)"):
        pretrain(config("pretrain.lr=1e38"), raw(), tmp_path / "base")


def test_repeated_texts_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"soup and bread {n}" for n in range(60)]
    pretrain(config("pretrain.epochs=1"), raw([*texts, *texts[:9]]), tmp_path / "base")
    assert "corpus.txt: 9 of 69 texts repeat earlier ones" in capsys.readouterr().err


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = PretrainedDir(pretrain(config(), raw(), tmp_path / "base"))
    facts = json.loads((folder.path / FACTS).read_text())
    vectors = (folder.path / VECTORS).read_bytes()

    def written(**changes: Any) -> None:
        (folder.path / FACTS).write_bytes(to_json(facts | changes))

    written(format_version=99)
    with pytest.raises(DataError, match=r"format version 99.*upgrade srucli"):
        folder.read()
    written(size="8")
    with pytest.raises(DataError, match="size is not as srucli writes it"):
        folder.read()
    with pytest.raises(DataError, match="size is not as srucli writes it"):
        pretrain(config(), raw(), folder.path)
    written(size=9)
    with pytest.raises(DataError, match="do not fit"):
        folder.read()
    written(size=2**40)
    with pytest.raises(DataError, match="size is not as srucli writes it"):
        folder.read()
    written()
    (folder.path / VECTORS).write_bytes(vectors[:-4])
    with pytest.raises(DataError, match="damaged"):
        folder.read()
    (folder.path / VECTORS).unlink()
    with pytest.raises(DataError, match=r"not finished; run `srucli pretrain` again"):
        folder.read()


def test_a_damaged_position_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRun):
        pretrain(config(), raw(), tmp_path / "base", stop=Interrupt(requested=True))
    folder = PretrainedDir(tmp_path / "base")
    state, progress = folder.state(folder.tokenizer().vocab_size, folder.facts())
    for position in ([1, -1], [1, 400], [5, 0], [-1, 0]):
        folder.save(state | {"position": torch.tensor(position)}, progress)
        with pytest.raises(DataError, match=f"there is no text {position[1]} in epoch"):
            pretrain(config(), raw(), folder.path)
    folder.save(state, Progress(-1.0))
    with pytest.raises(DataError, match="damaged: its progress is"):
        pretrain(config(), raw(), folder.path)


def test_the_number_of_epochs_depends_on_the_tokens() -> None:
    assert epochs_of(config(), 10**9) == 4
    default = resolve()
    assert epochs_of(default, 10**9) == pretraining.MIN_EPOCHS
    assert epochs_of(default, 3_000_000) == 10
    assert epochs_of(default, 0) == pretraining.MAX_EPOCHS
