"""A short chaos run (`chaos.py`), and tests that chaos runs detect damage."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from srucli.runs.run_dir import RunDir
from tests.robustness import chaos
from tests.robustness.faulty import Disk
from tests.support import Tiny

# Every way, and twice the ways that stop at a call that writes.
STOPS = ("calls", "kill", "faults", "term", "calls", "faults")


def test_stopped_training_resumes_to_equal_weights(tiny: Tiny, tmp_path: Path) -> None:
    assert set(STOPS) == set(chaos.WAYS)
    tokenizer = ("--tokenizer", str(tiny.run / "tokenizer.model"))
    arguments = [str(tiny.train), *tokenizer, *chaos.SETTINGS, "train.epochs=10"]
    training = chaos.Training(tmp_path, arguments, faulty_share=0.02)
    result = chaos.stop_repeatedly(training, STOPS, longest=training.whole(), seed=1)
    assert result.violations == []
    assert result.stops == len(STOPS)
    assert result.finished >= 1


def test_chaos_runs_detect_damage(tiny: Tiny, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    assert chaos.damage(run) == []
    assert chaos.differences(run, tiny.run) == []
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines, lines[-1]]))
    assert chaos.differences(run, tiny.run) == ["metrics.jsonl differs"]
    opened = RunDir.open(run)
    found = opened.checkpoint("last")
    found.weights["blend"] += 1e-6
    opened.save(10**6, found.weights, found.state, {"last"})
    assert "the weights of last differ" in chaos.differences(run, tiny.run)
    (run / "checkpoints" / "step-1000000" / "state.json").write_text("{}")
    (violation,) = chaos.damage(run)
    assert violation.startswith("last: ")
    assert chaos.violations("kill", 1, "", run, run)
    assert (
        "term: exit code 1: Traceback"
        in chaos.violations("term", 1, "Traceback", tiny.run, tiny.run)[0]
    )


def test_faulty_disk_fails_only_calls_that_write_to_it(tmp_path: Path) -> None:
    disk = Disk("fail", str(tmp_path / "disk"), 0, 1.0)
    outside = disk.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    assert disk.write(outside, b"xy") == 2
    with pytest.raises(OSError, match=r"No space|Input/output|quota") as raised:
        disk.open(tmp_path / "disk" / "file", os.O_WRONLY | os.O_CREAT)
    assert raised.value.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT)
    for name in ("mkdir", "replace"):
        with pytest.raises(OSError, match=r"No space|Input/output|quota"):
            disk.on_path(name, tmp_path / "disk", tmp_path / "other")
    (tmp_path / "disk").mkdir()
    disk.share = 0.0
    inside = disk.open(tmp_path / "disk" / "file", os.O_WRONLY | os.O_CREAT)
    disk.share, disk.random = 1.0, random.Random(3)
    with pytest.raises(OSError, match=r"No space|Input/output|quota"):
        disk.write(inside, b"x" * 1000)
    assert 0 < (tmp_path / "disk" / "file").stat().st_size < 1000
    folder = disk.open(tmp_path / "disk", os.O_RDONLY)
    with pytest.raises(OSError, match=r"No space|Input/output|quota"):
        disk.on_path("unlink", "file", dir_fd=folder)
    disk.share = 0.0
    disk.on_path("unlink", "file", dir_fd=folder)
    assert not list((tmp_path / "disk").iterdir())
    os.close(folder)
    os.close(outside)
    os.close(inside)
