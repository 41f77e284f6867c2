"""Runs of every version that is read give the same probabilities; those of others are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from srucli.inference.predictor import Predictor
from srucli.runs.facts import FORMAT_VERSION
from tests.support import ROOT, RunMain, Tiny, tree

RUNS = Path(__file__).parents[1] / "formats"
# Of the first release. Earlier ones were never promised to be read.
FIRST = 4
NAMES = [f"v{number}" for number in range(FIRST, FORMAT_VERSION + 1)]
BEFORE = "format version {}, from before the first release, is no longer read; train again"


@pytest.mark.parametrize("name", NAMES)
def test_an_old_run_gives_its_old_probabilities(name: str) -> None:
    wanted = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    predictor = Predictor.load(RUNS / name, "cpu")
    assert predictor.labels == wanted["labels"]
    found = predictor.probabilities(list(wanted["texts"]))
    np.testing.assert_allclose(found, list(wanted["texts"].values()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_commands_read_an_old_run(run_main: RunMain, tmp_path: Path, name: str) -> None:
    (tmp_path / "texts.txt").write_text("the film was lovely\nwhat a broken lamp\n")
    ended = run_main("predict", RUNS / name, tmp_path / "texts.txt")
    assert (ended.code, ended.out) == (0, "good\nbad\n")
    assert run_main("info", RUNS / name).code == 0


def test_every_format_has_a_run_and_a_place_in_the_policy() -> None:
    versions = range(FIRST, FORMAT_VERSION + 1)
    assert {path.name for path in RUNS.iterdir() if path.is_dir()} == set(NAMES)
    for number in versions:
        facts = json.loads((RUNS / f"v{number}" / "run.json").read_text())
        assert facts["format_version"] == number
    policy = (ROOT / "docs" / "reliability.md").read_text().split("## Run formats")[1]
    rows = [line.split("|")[1].strip() for line in policy.split("\n\n")[2].splitlines()[2:]]
    assert rows == [*map(str, reversed(versions)), "1 to 3", "newer"]
    assert f"`{BEFORE.format(FIRST - 1)}`" in policy
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


@pytest.mark.parametrize("version", range(1, FIRST))
def test_formats_from_before_the_release_are_refused(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, version: int
) -> None:
    """Nothing in the folder changes."""
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"format_version": version}))
    before = tree(run)
    for words in (
        *(("predict", run, tiny.train), ("eval", run, tiny.train), ("info", run), ("slim", run)),
        ("train", "--resume", run),
    ):
        done = run_main(*words)
        assert (done.code, done.out) == (65, ""), words
        assert " ".join(done.err.split()).endswith(BEFORE.format(version)), words
    assert tree(run) == before
