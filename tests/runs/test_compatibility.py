"""Runs of earlier versions are still read, with the same probabilities."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from srucli.inference.predictor import Predictor
from srucli.runs.facts import FORMAT_VERSION
from srucli.runs.run_dir import RunDir
from tests.support import ROOT, RunMain, tree

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


def test_every_format_has_a_run_and_a_place_in_the_policy() -> None:
    versions = range(1, FORMAT_VERSION + 1)
    assert {path.name for path in RUNS.iterdir() if path.is_dir()} == {f"v{n}" for n in versions}
    for number in versions:
        facts = json.loads((RUNS / f"v{number}" / "run.json").read_text())
        assert facts["format_version"] == number
    policy = (ROOT / "docs" / "reliability.md").read_text().split("## Run formats")[1]
    rows = [line.split("|")[1].strip() for line in policy.split("\n\n")[2].splitlines()[2:]]
    assert rows == [*map(str, reversed(versions)), "newer"]
    assert f"This srucli writes version {FORMAT_VERSION}." in policy


def test_a_newer_format_is_refused_and_unknown_facts_are_not(
    run_main: RunMain, tmp_path: Path
) -> None:
    run, texts = tmp_path / "run", tmp_path / "texts.txt"
    texts.write_text("the film was lovely\n")
    shutil.copytree(RUNS / f"v{FORMAT_VERSION}", run)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"of_tomorrow": 1}))
    assert run_main("predict", run, texts).code == 0
    (run / "run.json").write_text(json.dumps(facts | {"format_version": FORMAT_VERSION + 1}))
    before = tree(run)
    said = f"format version {FORMAT_VERSION + 1}, this srucli reads up to {FORMAT_VERSION}"
    assert f"`{said}; upgrade srucli`" in (ROOT / "docs" / "reliability.md").read_text()
    for words in (("predict", run, texts), ("info", run), ("train", "--resume", run)):
        done = run_main(*words)
        assert (done.code, done.out) == (65, "")
        assert " ".join(done.err.split()).endswith(f"{said}; upgrade srucli")
    assert tree(run) == before
