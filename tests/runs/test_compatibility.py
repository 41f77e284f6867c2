"""Runs of earlier versions are still read, with the same probabilities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srucli.inference.predictor import Predictor
from srucli.runs.run_dir import RunDir
from tests.support import RunMain

RUNS = Path(__file__).parents[1] / "formats"


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_an_old_run_gives_its_old_probabilities(name: str) -> None:
    wanted = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    predictor = Predictor.load(RUNS / name, "cpu")
    assert predictor.labels == wanted["labels"]
    found = predictor.probabilities(list(wanted["texts"]))
    np.testing.assert_allclose(found, list(wanted["texts"].values()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_commands_read_an_old_run(run_main: RunMain, tmp_path: Path, name: str) -> None:
    (tmp_path / "texts.txt").write_text("the film was lovely\nwhat a broken lamp\n")
    ended = run_main("predict", RUNS / name, tmp_path / "texts.txt")
    assert (ended.code, ended.out) == (0, "good\nbad\n")
    assert run_main("info", RUNS / name).code == 0


@pytest.mark.parametrize(("name", "keep_checkpoints"), [("v1", None), ("v2", 1)])
def test_former_names_of_settings_are_read(name: str, keep_checkpoints: int | None) -> None:
    """`train.keep` and `train.checkpoints` in the first runs."""
    train = RunDir.open(RUNS / name).config().train
    assert train.use_checkpoint == "best"
    assert train.keep_checkpoints == keep_checkpoints
