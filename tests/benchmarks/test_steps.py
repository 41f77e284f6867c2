"""The parts of a training step, from a profile of a small training."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import steps
from tests.support import NETWORK, RunMain, sentences, write_tsv

PARTS = ("products", "recurrences", "optimizer", "rest")


def train(run_main: RunMain, folder: Path) -> None:
    """Train a small network for two epochs of four steps."""
    write_tsv(folder / "train.tsv", sentences()[:64])
    settings = [*NETWORK, "train.epochs=2", "train.batch_size=16", "model.ngrams=false"]
    done = run_main("train", folder / "train.tsv", "-o", folder / "run", "--threads", 1, *settings)
    assert done.code == 0, done.err


def test_the_parts_of_a_step(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(steps, "WARM_UP", 2)
    monkeypatch.setattr(steps, "TIMED", 3)
    with steps.Watch().watching() as watch:
        train(run_main, tmp_path)
    found = watch.figures()
    assert len(watch.seconds) == 8
    assert found["tokens"] == sum(watch.tokens[2:5]) / 3
    assert found["step"] == 1e3 * sorted(watch.seconds[2:5])[1]
    assert min(found[part] for part in PARTS[:3]) > 0
    assert sum(found[part] for part in PARTS) == pytest.approx(found["step"])
    table = steps.table([{"set": "made", "threads": 1, **found}])
    assert table.splitlines()[-1].startswith("| made | 1 | ")


def test_a_training_with_too_few_steps(run_main: RunMain, tmp_path: Path) -> None:
    with steps.Watch().watching() as watch:
        train(run_main, tmp_path)
    with pytest.raises(ValueError, match="8 steps; 230 are needed"):
        watch.figures()
