"""The comparison of encoders: the choice of learning rates, and the measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import encoders
from benchmarks.sets import Files
from tests.support import sentences, write_tsv


def test_a_rate_is_chosen_and_an_encoder_measured(
    tmp_path: Path,
    commands: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command on a small set; a second one reuses the comparison."""
    (tmp_path / "made").mkdir()
    rows = sentences()
    write_tsv(tmp_path / "made" / "train.tsv", rows[:200])
    write_tsv(tmp_path / "made" / "test.tsv", rows[200:260])

    def measured() -> str:
        given = ["--sets", "made", "--encoders", "cnn", "--ways", "alone", "--seeds", "1"]
        given += ["--data", str(tmp_path), "-o", str(tmp_path / "runs" / "found.jsonl")]
        monkeypatch.setattr(sys, "argv", ["encoders", *given])
        encoders.main()
        return capsys.readouterr().out

    monkeypatch.setattr(encoders, "RATES", (1e-5, 1e-2))
    table = measured()
    assert [words[0] for words in commands] == ["compare", "train", "eval"]
    (mean,) = json.loads(table.splitlines()[-1])
    assert (mean["set"], mean["way"], mean["encoder"]) == ("made", "alone", "cnn")
    assert "| made | alone | cnn | 0.01 |" in table
    assert measured() == table
    assert [words[0] for words in commands[3:]] == ["compare"]


def test_large_sets_choose_their_rate_on_fewer_examples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("".join(f"{n % 2}\ttext {n}\n" for n in range(30)))
    files = Files(train, train, None)
    assert encoders.fewer(files, tmp_path) == files
    monkeypatch.setattr(encoders, "MAX_TEXTS", 10)
    short = encoders.fewer(files, tmp_path)
    assert short.test == train
    lines = short.train.read_text().splitlines()
    assert len(set(lines)) == 10
    assert set(lines) < set(train.read_text().splitlines())
