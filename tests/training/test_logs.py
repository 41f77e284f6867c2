"""What a log writes, and what it cuts off when a training resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from srucli.runs.run_dir import RunDir
from srucli.tokenizer.truncation import Tally
from srucli.training.logs import Log


def add_epoch(log: Log, epoch: int, value: float = 0.5, skipped: int = 0) -> None:
    cut = Tally(9, cut=2)
    tallies = {"train": cut, "dev": None if epoch == 1 else Tally(9)}
    log.add_epoch(6 * epoch, epoch, 1.5, 0.25, {"auc": value}, tallies, skipped)


def test_the_record_of_an_epoch(tmp_path: Path) -> None:
    add_epoch(Log(RunDir(tmp_path)), 1, math.nan, skipped=3)
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record.pop("seconds") >= 0
    assert record == {
        "step": 6,
        "epoch": 1,
        "train_loss": 1.5,
        "lr": 0.25,
        "dev": {"auc": None},
        "reading": {"train": Tally(9, cut=2).to_json()},
        "skipped": 3,
    }


def test_records_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    log = Log(RunDir(tmp_path))
    log.add_diagnostics({"step": 1})
    add_epoch(log, 1)
    state, kept = log.state_dict(), (tmp_path / "metrics.jsonl").read_bytes()
    add_epoch(log, 2)
    log.add_diagnostics({"step": 2})
    state["progress"]["seconds"] = 3600.0
    resumed = Log(RunDir(tmp_path))
    resumed.load_state_dict(state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
    assert (tmp_path / "diagnostics.jsonl").read_text() == '{"step": 1}\n'
    assert 3600 <= resumed.seconds < 7200


@pytest.mark.parametrize("part", ["logs", "progress"])
def test_an_incomplete_state_cuts_nothing(tmp_path: Path, part: str) -> None:
    log = Log(RunDir(tmp_path))
    state = log.state_dict()
    add_epoch(log, 1)
    del state[part]
    with pytest.raises(LookupError):
        log.load_state_dict(state)
    assert (tmp_path / "metrics.jsonl").stat().st_size > 0
