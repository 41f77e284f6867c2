"""Accuracy with few training texts: the draws, the measurements, the table."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import little_data
from benchmarks.results import Cell
from tests.support import sentences, write_tsv

LOST = [("often", f"text {n}") for n in range(500)] + [(f"rare {n}", "same") for n in range(20)]


def test_a_draw_is_random_where_no_label_is_lost() -> None:
    rows = sentences()
    first, again, other = (little_data.draw(rows, 100, seed) for seed in (0, 0, 1))
    assert first == again == random.Random(0).sample(rows, len(rows))[:100]
    assert first != other
    assert len(set(first)) == 100
    assert little_data.draw(rows, 200, 0)[:100] == first


def test_a_draw_keeps_every_label() -> None:
    """Each rare label is there once, as is its text; the others are those of a random draw."""
    drawn = little_data.draw(LOST, 40, 0)
    counts = Counter(label for label, _ in drawn)
    assert set(counts) == {label for label, _ in LOST}
    assert counts["often"] == 20
    often = [row for row in random.Random(0).sample(LOST, len(LOST)) if row[0] == "often"]
    assert [row for row in drawn if row[0] == "often"] == often[:20]
    assert len({label for label, _ in little_data.draw(LOST, 10, 0)}) == 10


def test_systems_are_measured_on_the_same_draws(
    tmp_path: Path,
    commands: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command on a small set; a second one repeats nothing."""
    (tmp_path / "made").mkdir()
    rows, output = sentences(), tmp_path / "runs" / "found.jsonl"
    for part, texts in (("train", rows[:200]), ("dev", rows[200:260]), ("test", rows[260:300])):
        write_tsv(tmp_path / "made" / f"{part}.tsv", texts)
    monkeypatch.setattr(little_data, "SIZES", (60,))

    def measured(*flags: str) -> str:
        given = ["--sets", "made", "--systems", "srucli,linear-svm,linear-sum", "--seeds", "2"]
        given += ["--data", str(tmp_path), "-o", str(output), *flags]
        monkeypatch.setattr(sys, "argv", ["little_data", *given])
        little_data.main()
        return capsys.readouterr().out

    table = measured()
    trained = [words for words in commands if words[0] == "train"]
    assert [list(map(str, words[2:])) for words in trained] == [
        ["-o", str(words[3]), "--seed", str(seed)] for seed, words in enumerate(trained)
    ]
    cells = [json.loads(line) for line in output.read_text().splitlines()]
    systems = ["srucli", "linear-svm", "linear-sum"] * 2
    assert [(cell["system"], cell["seed"]) for cell in cells] == list(
        zip(systems, [0, 0, 0, 1, 1, 1], strict=True)
    )
    assert {cell["texts"] for cell in cells} == {60}
    means = json.loads(table.splitlines()[-1])
    assert [mean["system"] for mean in means] == systems[:3]
    commands.clear()
    assert measured() == measured("--table") == table
    assert commands == []


def test_the_table_marks_the_best_peer() -> None:
    """The last column is about differences of the same draws, whatever their order."""
    grouped: dict[tuple[str, int, str], list[Cell]] = {}
    for system, accuracies in (
        ("srucli", (0.70, 0.80)),
        ("fasttext", (0.60, 0.80)),
        ("linear-sum", (0.69, 0.77)),
    ):
        cells = [{"seed": seed, "accuracy": share} for seed, share in enumerate(accuracies)]
        grouped["sst2", 1_000, system] = cells
    grouped["sst2", 1_000, "linear-sum"].reverse()
    *_, row = little_data.table(grouped, [("sst2", 1_000)]).splitlines()
    cells_shown = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells_shown[:4] == ["sst2", "1,000", "75.0 ± 7.1", "70.0 ± 14.1"]
    assert cells_shown[-2:] == ["**73.0 ± 5.7**", "+2.0 ± 1.4"]


def test_too_few_texts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made").mkdir()
    for part in ("train", "test"):
        write_tsv(tmp_path / "made" / f"{part}.tsv", sentences()[:99])
    given = ["little_data", "--data", str(tmp_path), "-o", str(tmp_path / "found"), "--sets"]
    monkeypatch.setattr(sys, "argv", [*given, "made"])
    with pytest.raises(SystemExit, match="99 texts, fewer than 100"):
        little_data.main()
    monkeypatch.setattr(sys, "argv", [*given, "made,goemotions"])
    with pytest.raises(SystemExit):
        little_data.main()
    assert "goemotions: peers need dev texts" in capsys.readouterr().err
