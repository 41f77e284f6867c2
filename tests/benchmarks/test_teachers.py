"""Students of teachers: which texts are labelled, what is run, the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import teachers
from benchmarks.sets import Files
from benchmarks.teachers import Draw
from tests.support import sentences, write_tsv


def test_a_student_learns_from_the_mean_of_runs(
    tmp_path: Path,
    commands: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command on a small set; a second one repeats nothing."""
    folder, output, rows = tmp_path / "made", tmp_path / "found.jsonl", sentences()
    folder.mkdir()
    for part, texts in (("train", rows[:120]), ("test", rows[120:160])):
        write_tsv(folder / f"{part}.tsv", texts)
    monkeypatch.setattr(teachers, "RUNS", 2)
    read: list[dict[str, Any]] = []
    write = Path.write_text

    def kept(path: Path, text: str, **how: Any) -> int:
        if path.name == "soft.jsonl":
            read.extend(map(json.loads, text.splitlines()))
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", kept)

    def measured(*flags: str) -> str:
        given = ["--sets", "made", "--teachers", "runs", "--seeds", "1", *flags]
        given += ["--data", str(tmp_path), "-o", str(output)]
        monkeypatch.setattr(sys, "argv", ["teachers", *given])
        teachers.main()
        return capsys.readouterr().out

    table = measured()
    assert [words[0] for words in commands] == ["train", "predict"] * 2 + ["train", "eval"]
    seeds = [words[words.index("--seed") + 1] for words in commands if words[0] == "train"]
    assert seeds == [0, 1, 0]
    assert [set(line) for line in read] == [{"text", "label"}] * 40 + [
        {"text", "probabilities"}
    ] * 80
    assert all(
        sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5) for line in read[40:]
    )
    cell = json.loads(output.read_text())
    assert (cell["labelled"], cell["unlabelled"]) == (40, 80)
    assert all(0 <= cell[end] <= 1 for end in teachers.ENDS)
    assert "| made | runs | 40 + 80 |" in table
    commands.clear()
    assert measured() == measured("--table") == table
    assert commands == []


def test_no_tested_text_is_learned(tmp_path: Path) -> None:
    rows = sentences()[:90]
    train, test = write_tsv(tmp_path / "train.tsv", rows), write_tsv(tmp_path / "t.tsv", rows[:30])
    first, again, other = (Draw.of(Files(train, test, None), seed) for seed in (0, 0, 1))
    assert first == again != other
    tested = {text for _, text in first.test}
    assert not tested & {text for _, text in [*first.labelled, *first.unlabelled]}
    assert len(first.labelled) == (len(first.labelled) + len(first.unlabelled)) // 3


def test_the_share_of_the_way() -> None:
    cells = [
        {"seed": seed, "single": 0.5, "teacher": 0.6 + seed / 10, "student": 0.55 + seed / 10}
        for seed in range(2)
    ]
    assert teachers.share(cells) == "67%"
    assert teachers.share([{"seed": 0, "single": 0.5, "teacher": 0.5, "student": 0.6}]) == ""
    assert (
        teachers.accuracy([{"a": 0.4, "b": 0.6}, {"a": 0.9, "b": 0.1}], [("b", ""), ("b", "")])
        == 0.5
    )
