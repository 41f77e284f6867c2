"""What raw text is worth: which texts are read, what is run, the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import raw_text
from benchmarks.raw_text import Source
from benchmarks.sets import read_rows
from tests.support import sentences, write_tsv

SYSTEMS = "srucli,raw,raw-gru,taught,linear-svm"


def test_every_system_is_measured_on_the_same_draw(
    tmp_path: Path,
    commands: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command on a small set; a second one repeats nothing."""
    folder, output, rows = tmp_path / "made", tmp_path / "found.jsonl", sentences()
    folder.mkdir()
    for part, texts in (("train", rows[:200]), ("test", rows[180:230])):
        write_tsv(folder / f"{part}.tsv", texts)

    def measured(*flags: str) -> str:
        given = ["--sets", "made", "--systems", SYSTEMS, "--seeds", "1", "--texts", "60,all"]
        given += ["--data", str(tmp_path), "-o", str(output), *flags]
        monkeypatch.setattr(sys, "argv", ["raw_text", *given])
        raw_text.main()
        return capsys.readouterr().out

    table = measured()
    ran = [words[0] for words in commands]
    each = ["train", "eval"] * 3 + ["train", "predict", "train", "eval"]
    assert ran == [*each[:2], "pretrain", *each[2:], *each]
    vectors = next(words for words in commands if words[0] == "pretrain")[-1]
    trained = [words for words in commands if words[0] == "train"]
    bases = [words[words.index("--from") + 1] if "--from" in words else None for words in trained]
    assert bases == [None, *[vectors] * 4] * 2
    assert ["model.encoder=gru" in words for words in trained] == [
        False,
        False,
        True,
        False,
        False,
    ] * 2
    first, taught = trained[3][1], trained[4][1]
    assert (first.name, taught.name) == ("made-60-0.tsv", "labelled.jsonl")
    assert commands[-3][2].name == "made-some.txt"
    cells = [json.loads(line) for line in output.read_text().splitlines()]
    assert [cell["system"] for cell in cells] == SYSTEMS.split(",") * 2
    assert [cell["texts"] for cell in cells] == [60] * 5 + [200] * 5
    assert json.loads(table.splitlines()[-1])[0]["system"] == "srucli"
    assert "| made | 200 |" in table
    commands.clear()
    assert measured() == measured("--table") == table
    assert commands == []


def test_no_tested_text_is_raw_text(tmp_path: Path) -> None:
    """Nor is a phrase that is a part of a dev or test sentence, word by word."""
    write_tsv(tmp_path / "train.tsv", [("a", "one two"), ("b", "three four")])
    write_tsv(tmp_path / "dev.tsv", [("a", "five six seven")])
    write_tsv(tmp_path / "test.tsv", [("a", "one two"), ("b", "nine ten")])
    phrases = ["five six", "six sev", "nine", "one two three", "ten", "eleven"]
    write_tsv(tmp_path / "train_phrases.tsv", [("a", phrase) for phrase in phrases])
    source = Source("made", tmp_path, tmp_path)
    assert source.texts == ["three four", "six sev", "one two three", "eleven"]
    assert source.raw.read_text() == "three four\nsix sev\none two three\neleven\n"


def test_a_set_without_a_split_is_tested_on_a_fold(tmp_path: Path) -> None:
    rows = sentences()[:100]
    write_tsv(tmp_path / "all.tsv", rows)
    source = Source("made", tmp_path, tmp_path)
    tested = {text for _, text in read_rows(source.files.test)}
    assert len(read_rows(source.files.train)) == 80
    assert sorted(source.texts) == sorted(text for _, text in rows if text not in tested)
