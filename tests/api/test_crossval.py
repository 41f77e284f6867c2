"""`srucli.crossval`: the folds and metrics of the command, from texts in memory."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import PredefinedSplit, cross_val_score

import srucli
from srucli.errors import UsageError
from srucli.sklearn import SRUClassifier
from tests.api.test_training import LABELS, SMALL, TEXTS
from tests.support import QUICK, RunMain, interrupted_when

# So few texts and steps that the runs make mistakes.
FEW: dict[str, Any] = {**SMALL, "steps": 2, "device": "auto", "model.ngrams": False}


def test_the_results_are_those_of_the_command(tmp_path: Path, run_main: RunMain) -> None:
    found = srucli.crossval(TEXTS, LABELS, folds=3, **FEW)
    data = tmp_path / "train.tsv"
    data.write_text("".join(f"{a}\t{b}\n" for a, b in zip(LABELS, TEXTS, strict=True)))
    settings = (*QUICK, "train.steps=2", "model.ngrams=false")
    said = run_main("crossval", data, "--folds", 3, "-o", tmp_path / "out", "--json", *settings)
    assert said.code == 0, said.err
    rows = json.loads(said.out)["per_fold"]
    own = [score.metrics["accuracy"] for score in found.scores]
    assert own == pytest.approx([row["metrics"]["accuracy"] for row in rows])
    assert len({*own}) > 1
    assert found.probabilities.shape == (len(TEXTS), 3)


def test_scikit_learn_finds_the_same_fold_by_fold() -> None:
    found = srucli.crossval(TEXTS, LABELS, folds=3, **FEW)
    fold = np.zeros(len(TEXTS), int)
    for number, score in enumerate(found.scores):
        fold[score.rows] = number
    estimator = SRUClassifier(random_state=0, **FEW)
    scores = cross_val_score(estimator, TEXTS, LABELS, cv=PredefinedSplit(fold))
    assert list(scores) == [score.metrics["accuracy"] for score in found.scores]


def test_groups_stay_together() -> None:
    groups = [number // 8 for number in range(len(TEXTS))]
    found = srucli.crossval(TEXTS, LABELS, groups=groups, folds=2, **FEW)
    one, two = ({groups[row] for row in score.rows} for score in found.scores)
    assert not one & two


def test_an_interrupt_keeps_finished_folds(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"folds": 4, "jobs": 1, "output": tmp_path / "out", **FEW}
    finished = partial(tmp_path.glob, "out/folds/*/*/result.json")
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: [*finished()]):
        srucli.crossval(TEXTS, LABELS, **how)
    assert "finished folds are kept; the same call resumes" in capfd.readouterr().err
    again = srucli.crossval(TEXTS, LABELS, **how)
    assert "folds are finished already" in capfd.readouterr().err
    straight = srucli.crossval(TEXTS, LABELS, folds=4, **FEW)
    assert (again.probabilities == straight.probabilities).all()
    assert again.predictions is not None
    assert again.predictions.is_file()


def test_wrong_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="3 texts, but 1 groups"):
        srucli.crossval(["a", "b", "c"], ["x", "y", "x"], groups=["g"])
    with pytest.raises(UsageError, match="unknown setting 'fold'"):
        srucli.crossval(TEXTS, LABELS, fold=3)
    found = srucli.crossval(TEXTS, iter(LABELS), folds=2, quiet=True, **FEW)
    assert capfd.readouterr().err == ""
    assert found.predictions is None
    accuracy = found.summary["accuracy"]
    assert f"2 folds of 480 texts: accuracy {accuracy.mean:.4f}" in repr(found)
