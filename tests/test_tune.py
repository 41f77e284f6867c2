"""The search: budgets are kept, the default recipe is a trial, the recipe found trains."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, RunMain, Tiny

pytest.importorskip("optuna")

from srucli.config import resolve
from srucli.data import read_examples
from srucli.run_dir import RunDir
from srucli.tune import SPACE, Search, Task, is_given, value_of

SMALL = ("train.epochs=2", "model.hidden=16", "train.threads=1", "train.batch_size=16")


def test_a_recipe_is_found_in_time_and_trains(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    recipe = tmp_path / "recipe.yaml"
    start = time.monotonic()
    ended = run_main("tune", tiny.train, "--minutes", 0.1, "--max-mb", 2, "-o", recipe, *SMALL)
    assert (ended.code, ended.out) == (0, f"{recipe}\n"), ended.err
    assert time.monotonic() - start < 60
    trials = [line for line in ended.err.splitlines() if line.startswith("trial ")]
    assert trials
    assert "  *" in trials[0]
    sizes = [float(re.search(r"([\d.]+) MB", line)[1]) for line in trials]  # type: ignore[index]
    assert max(sizes) <= 2
    found = resolve(recipe)
    # What was given is kept, and is not searched over.
    assert (found.train.epochs, found.model.hidden) == (2, 16)
    assert is_given(found, "model.wide_buckets")
    trained = run_main("train", tiny.train, "-c", recipe, "-o", tmp_path / "run")
    assert trained.code == 0, trained.err
    run = RunDir.open(tmp_path / "run")
    parts = (
        run.path / "tokenizer.model",
        *run.path.glob("checkpoints/*/model.*"),
    )  # no dev, no best
    assert sum(part.stat().st_size for part in parts) <= 2.05e6


def test_the_size_that_is_kept_to_is_the_size_of_a_run(tiny: Tiny, tmp_path: Path) -> None:
    run = RunDir.open(tiny.run)
    config = run.config()
    examples = list(read_examples(str(tiny.train), config.data))
    task = Task(config, str(tiny.train), None, examples, run.labels(), 1.0, 1e9)
    search = Search(task, tmp_path)
    own = ("tokenizer.model", "labels.json", "config.yaml", "run.json")
    last = (run.path / "last").read_text().strip()
    names = ("model.safetensors", "state.json", "manifest.json")
    used = [*own, *(f"checkpoints/{last}/{name}" for name in names)]
    size = sum((run.path / name).stat().st_size for name in used)
    assert search.bytes_of(config) == pytest.approx(size, abs=15_000)


def test_the_first_trial_is_the_default_recipe(tiny: Tiny, tmp_path: Path) -> None:
    config = resolve()
    examples = list(read_examples(str(tiny.train), config.data))
    task = Task(config, str(tiny.train), None, examples, list(tiny.labels), 1.0, float("inf"))
    search = Search(task, tmp_path)
    trial = search._study().ask()
    base = task.complete({})
    for key, suggestion in SPACE.items():
        assert suggestion(trial, key, search.base[key]) == value_of(base, key)


def test_an_interrupt_keeps_the_best_so_far(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    words = ["tune", tiny.train, "--minutes", 9, "-o", recipe, *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "srucli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(line.startswith("trial 1: dev accuracy ") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{recipe}\n"), said
    assert "stopped: the best so far is kept" in said
    assert resolve(recipe).train.epochs == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--max-mb", 0.02), 2, "the smallest model that is tried has"),
        (("--minutes", 0), 2, "--minutes"),
        (("optim.name=adamm",), 2, "unknown optimizer 'adamm'"),
    ],
)
def test_what_cannot_be_tuned(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, words: tuple[object, ...], code: int, said: str
) -> None:
    ended = run_main("tune", tiny.train, "-o", tmp_path / "recipe.yaml", *SMALL, *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert not list(tmp_path.iterdir())


def test_stdin_and_a_recipe_that_is_there_are_refused(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    assert "cannot be stdin" in run_main("tune", "-", "-o", tmp_path / "a.yaml").err
    (tmp_path / "b.yaml").write_text("")
    ended = run_main("tune", tiny.train, "-o", tmp_path / "b.yaml")
    assert ended.code == 73
    assert "exists already" in ended.err
