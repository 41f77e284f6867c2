"""Runs that earlier versions wrote: read for ever, to the same probabilities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srucli.inference.predictor import Predictor
from tests.support import RunMain

RUNS = Path(__file__).parents[1] / "formats"


@pytest.mark.parametrize("name", ["v1"])
def test_an_old_run_gives_its_old_probabilities(name: str) -> None:
    wanted = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    predictor = Predictor.load(RUNS / name, "cpu")
    assert predictor.labels == wanted["labels"]
    found = predictor.probabilities(list(wanted["texts"]))
    np.testing.assert_allclose(found, list(wanted["texts"].values()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["v1"])
def test_commands_read_an_old_run(run_main: RunMain, tmp_path: Path, name: str) -> None:
    (tmp_path / "texts.txt").write_text("the film was lovely\nwhat a broken lamp\n")
    ended = run_main("predict", RUNS / name, tmp_path / "texts.txt")
    assert (ended.code, ended.out) == (0, "good\nbad\n")
    assert run_main("info", RUNS / name).code == 0
