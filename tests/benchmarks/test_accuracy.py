"""The accuracy of systems on sets: with and without dev texts, calibration, the results file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy, calibration, sets
from srucli.metrics import METRICS
from tests.support import sentences, write_tsv


def test_a_set_is_measured_with_and_without_dev_texts(
    tmp_path: Path,
    commands: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command on two small sets, of which `short` has no test; then on its results."""
    rows, output = sentences(), tmp_path / "runs" / "found.jsonl"
    for name, dev in (("made", "test"), ("short", "dev")):
        (tmp_path / name).mkdir()
        write_tsv(tmp_path / name / "train.tsv", rows[:200])
        write_tsv(tmp_path / name / f"{dev}.tsv", rows[260:340])
    write_tsv(tmp_path / "made" / "dev.tsv", rows[200:260])

    def measured(*flags: str) -> str:
        given = ["--sets", "made,short", "--systems", "srucli,srucli-no-dev,linear-sum"]
        given += ["--seeds", "1", "--data", str(tmp_path), "-o", str(output), *flags]
        monkeypatch.setattr(sys, "argv", ["accuracy", *given])
        accuracy.main()
        return capsys.readouterr().out

    table = measured()
    trained = [words for words in commands if words[0] == "train"]
    assert [words[1].parent.name for words in trained] == ["made", "made", "short"]
    assert ["--dev" in words for words in trained] == [True, False, False]
    cells = [json.loads(line) for line in output.read_text().splitlines()]
    systems = ["srucli", "srucli-no-dev", "linear-sum", "srucli", "linear-sum"]
    assert [cell["system"] for cell in cells] == systems
    _, no_dev, _, short, _ = cells
    rows_shown = [line for line in table.splitlines() if "| accuracy |" in line]
    for cell, shown in zip((no_dev, short), rows_shown, strict=True):
        errors = [f"{cell[name]:.3f}" for name in ("calibration_error", "calibrated_error")]
        assert shown.endswith(f"| {errors[0]} | {errors[1]} |")
    means = json.loads(table.splitlines()[-1])
    excess = [cell["calibration_error"] - cell["calibrated_error"] for cell in (no_dev, short)]
    pooled = means["single-label sets"]["srucli without dev texts"]
    assert pooled["excess"] == pytest.approx(sum(excess) / 2)
    assert pooled["sets"] == 2
    assert f"over 2 single-label sets: {pooled['calibration_error']:.3f}; " in table
    commands.clear()
    assert measured() == measured("--table") == table
    assert commands == []


def test_results_without_calibration_are_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of earlier versions have none."""
    figures = ("accuracy", "train_seconds", "texts_per_second", "parameters", "megabytes")
    cell = {"set": "trec", "system": "srucli", "seed": 0, "fold": None}
    old = cell | dict.fromkeys(figures, 0.5)
    new = cell | old | {"seed": 1, "with_dev": 0, "calibration_error": 0.2, "calibrated_error": 0.1}
    accuracy.show([old])
    shown = capsys.readouterr().out
    assert "calibration error without" not in shown
    assert shown.splitlines()[2].endswith("|  |  |")
    accuracy.show([old, new])
    shown = capsys.readouterr().out
    assert shown.splitlines()[2].endswith("| 0.200 | 0.100 |")
    assert json.loads(shown.splitlines()[-1])["trec"]["srucli"].keys() == set(figures)


def test_dev_is_the_test_of_a_set_that_has_no_other(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.tsv" for name in ("train", "dev", "test")}
    for name in ("train", "dev"):
        files[name].touch()
    assert sets.split_files(tmp_path) == (files["train"], files["dev"], None)
    files["test"].touch()
    assert sets.split_files(tmp_path) == (files["train"], files["test"], files["dev"])
    files["train"].unlink()
    assert sets.split_files(tmp_path) is None


def test_predictions_have_the_calibration_error_that_eval_reports(
    tiny: Any, run_main: Any, tmp_path: Path
) -> None:
    predictions = tmp_path / "predictions.jsonl"
    printed = run_main("eval", tiny.run, tiny.test, "--json", "--predictions", predictions)
    found = json.loads(printed.out)
    outcome = calibration.read_predictions(predictions)
    error = METRICS["calibration_error"](outcome)
    assert error == pytest.approx(found["metrics"]["calibration_error"], abs=1e-9)
    assert 0 < calibration.calibrated_error(outcome) < found["calibration_error_by_chance"]


@pytest.mark.parametrize("texts", [500, 8_000])
def test_the_error_of_a_calibrated_model_is_that_of_chance(texts: int) -> None:
    """For one confidence p: the mean deviation of a binomial share from p."""
    outcome = calibration.outcome_of(np.full(texts, 0.8), np.zeros(texts, bool))
    wanted = np.sqrt(2 / np.pi * 0.8 * 0.2 / texts)
    assert METRICS["calibration_error"](outcome) == pytest.approx(0.8)
    assert calibration.calibrated_error(outcome) == pytest.approx(wanted, rel=0.15)
