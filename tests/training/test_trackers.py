"""Trackers: what MLflow and Weights & Biases hold of trainings that were killed, and failing ones.

The real packages run, offline. They are not in the extra `dev`, since they bring forty packages.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from srucli.runs.run_dir import RunDir
from srucli.training import trackers
from srucli.training.trackers.tracker import Start
from tests.support import QUICK, RunMain, Tiny, child_environment, quick
from tests.test_library_calls import state

# Trains, and kills its own process when the metrics of the third epoch were sent but not saved.
KILLED = """
import os, signal, sys, time
from srucli.cli import main
from srucli.runs.run_dir import RunDir

add = RunDir.add

def add_and_die(self, name, record):
    add(self, name, record)
    if name == "metrics.jsonl" and record["epoch"] == 3:
        time.sleep(float(os.environ["WAIT"]))
        os.kill(os.getpid(), signal.SIGKILL)

if "--kill" in sys.argv:
    sys.argv.remove("--kill")
    RunDir.add = add_and_die
main()
"""


def needs(package: str) -> pytest.MarkDecorator:
    missing = find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs {package}: pip install 'srucli[{package}]'")


def train_in_two_processes(
    tiny: Tiny, folder: Path, name: str, wait: int = 0, **variables: str
) -> RunDir:
    """Train for four epochs; the first process is killed in the third, after `wait` seconds."""
    words = [str(word) for word in ("train", tiny.train, "-o", "run", "--epochs", 4, *QUICK)]
    for flags, code in ((["--kill"], -signal.SIGKILL), ([], 0)):
        # Into a file: a pipe would also wait for processes that outlive the training.
        with (folder / "said").open("w") as file:
            done = subprocess.run(
                [sys.executable, "-c", KILLED, *words, f"train.{name}=true", *flags],
                cwd=folder,
                env=child_environment(WAIT=str(wait), **variables),
                stdout=file,
                stderr=file,
                check=False,
            )
        said = (folder / "said").read_text()
        assert done.returncode == code, said
        assert "failed" not in said, said
    return RunDir.open(folder / "run")


def measured(run: RunDir) -> dict[int, float]:
    records = run.records("metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    return {record["step"]: record["train_loss"] for record in records}


@needs("mlflow")
@pytest.mark.timeout(600)
def test_mlflow_has_one_run_with_each_step_once(tiny: Tiny, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    store = (tmp_path / "store").as_uri()
    variables: dict[str, Any] = {"MLFLOW_TRACKING_URI": store}
    variables["MLFLOW_ALLOW_FILE_STORE"] = "true"
    variables["MLFLOW_EXPERIMENT_NAME"] = "reviews"
    run = train_in_two_processes(tiny, tmp_path, "mlflow", **variables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(store)
        (experiment,) = (e for e in client.search_experiments() if e.name == "reviews")
        (found,) = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == list(measured(run).items())
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["model.layers"] == "1"
    assert {"train/lr", "dev/accuracy"} <= found.data.metrics.keys()


@needs("wandb")
@pytest.mark.timeout(600)
def test_wandb_has_one_run_with_each_step_once(tiny: Tiny, tmp_path: Path) -> None:
    # Offline, Weights & Biases writes its file every 15 seconds.
    run = train_in_two_processes(tiny, tmp_path, "wandb", wait=30, WANDB_MODE="offline")
    parts = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(parts) == 2
    assert len({part.name for part in parts}) == 1  # the id of the run
    rows = [row for part in parts for row in history(part)]
    steps = [int(row["_step"]) for row in rows]
    assert steps == list(measured(run))
    assert [row["train/loss"] for row in rows] == pytest.approx(list(measured(run).values()))


def payloads(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, in blocks of 32 KiB, after 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(data):
        if (left := 32_768 - position % 32_768) < 7:
            position += left
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        start = position + 7
        parts = (b"" if kind in (1, 2) else parts) + data[start : start + length]
        position = start + length
        if kind in (1, 4):  # whole, or the last part
            yield parts


def history(file: Path) -> list[dict[str, Any]]:
    """Return the metrics in a file that Weights & Biases wrote offline."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for data in payloads(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def changed_by_a_training(data: str, folder: Path, name: str) -> list[str]:
    """Train with a tracker in this process; return what that changed."""
    from srucli.training.run import train

    def everything() -> dict[str, Any]:
        return {**state(), "variables": dict(os.environ), "exception hook": sys.excepthook}

    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(folder)}
    os.environ |= {"MLFLOW_TRACKING_URI": (folder / "store").as_uri()}
    os.environ |= {"MLFLOW_ALLOW_FILE_STORE": "true"}
    train(quick("train.epochs=1"), data, None, folder / "first")
    before = everything()
    train(quick("train.epochs=1", f"train.{name}=true"), data, None, folder / "run")
    after = everything()
    assert list(folder.glob("wandb/offline*" if name == "wandb" else "store/*"))
    return [key for key in before if before[key] != after[key]]


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs(n)) for n in ("mlflow", "wandb")])
@pytest.mark.timeout(900)
def test_a_library_call_leaves_the_process_unchanged(tiny: Tiny, tmp_path: Path, name: str) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(changed_by_a_training, str(tiny.train), tmp_path, name).result() == []


class Failing:
    """A tracker whose service is away from its second epoch on."""

    id = "one"
    closed = 0

    def __init__(self, start: Start) -> None:
        self.added = 0

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        self.added += 1
        if self.added > 1:
            raise ConnectionError("no answer from\nthe server")

    def close(self, *, finished: bool) -> None:
        type(self).closed += 1


def test_a_tracker_that_fails_ends_with_one_warning(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Failing)
    ended = run_main(
        *("train", tiny.train, "-o", tmp_path / "run", "--epochs", 4, *QUICK),
        "train.tensorboard=true",
    )
    assert ended.code == 0, ended.err
    said = "train.tensorboard failed, so the training goes on without it: no answer from the server"
    assert ended.err.count(said) == 1
    assert Failing.closed == 1
    assert len(RunDir.open(tmp_path / "run").records("metrics.jsonl")) == 4


@pytest.mark.parametrize("ids", [{"mlflow": "../x"}, {"other": "a"}, {"wandb": 3}, {"wandb": ""}])
def test_ids_of_a_damaged_checkpoint_are_refused(tmp_path: Path, ids: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        trackers.Trackers(RunDir(tmp_path), []).load_state_dict(ids, 0)
