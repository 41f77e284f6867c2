"""Trials in processes: how many at once, their jobs, failures and kills."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pytest

from srucli.config import build, resolve
from srucli.errors import OutOfMemoryError, SrucliError
from srucli.experiments.scheduler import Scheduler
from srucli.experiments.trials import Candidate, Folder, Plan, Result, Trial
from tests.experiments.support import ADAMS, plan, with_data
from tests.support import NETWORK, Tiny, child_environment, children, until

LONG = """
import sys
from pathlib import Path
from srucli.experiments.scheduler import Scheduler
from srucli.experiments.trials import Candidate, Trial, Folder, Plan
from srucli.config import resolve
settings = resolve(overrides=["train.epochs=100000", *sys.argv[2:]])
plan = Plan(settings, [Candidate("adam", {"optim.name": "adam"})], "accuracy", 1, 1, None)
with Scheduler(Folder(Path(sys.argv[1])), plan, 1, print) as scheduler:
    print(scheduler.start().process.pid, flush=True)
    scheduler.run([Trial("adam", 0.002, 0)])
"""


@pytest.mark.parametrize("killed", ["the command", "the server"])
def test_trials_end_if_their_comparison_is_killed(tiny: Tiny, tmp_path: Path, killed: str) -> None:
    """The trial would train for hours; its lock is released when it ends."""
    folder = with_data(tiny, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", LONG, tmp_path, *NETWORK],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    server = int(process.stdout.readline())
    run = folder.path / Trial("adam", 0.002, 0).folder / "run"
    while not (run / "metrics.jsonl").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    with (run / "lock").open() as lock:
        os.kill(process.pid if killed == "the command" else server, signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, said = process.communicate()
    assert ("the process that starts trials was killed" in said) == (killed == "the server")


def test_a_failed_trial_is_reported_with_its_log(tmp_path: Path) -> None:
    """Whatever words are in its path."""
    wanted, folder = plan(), Folder(tmp_path / "training diverged")
    folder.path.mkdir()
    with (
        Scheduler(folder, wanted, 1, lambda trial: None) as scheduler,
        pytest.raises(SrucliError, match=r"seed-0: .*tokenizer\.model: .*; see .*log\.txt"),
    ):
        scheduler.run([Trial("adam", 0.1, 0)])


def test_a_trial_that_runs_out_of_memory_is_named(tiny: Tiny, tmp_path: Path) -> None:
    """Its tables have 3.9 GiB, almost as much as its processes may have in all."""
    folder = with_data(tiny, tmp_path)
    large = resolve(overrides=["model.encoder=bag", "model.bag_buckets=8000000"])
    wanted = Plan(large, ADAMS, "accuracy", 1, 1, None)
    with Scheduler(folder, wanted, 2, lambda trial: None) as scheduler:
        limit = resource.RLIMIT_AS, (2**32, resource.RLIM_INFINITY)
        resource.prlimit(scheduler.start().process.pid, *limit)
        with pytest.raises(OutOfMemoryError) as raised:
            scheduler.run([Trial("adam", 0.1, 0)])
    what = r"making the model ran out of memory \(.*\); lower model.bag_buckets \(now 8,000,000\)"
    where = rf"{tmp_path}/cells/adam/.*/seed-0"
    fewer = r"; see .*log\.txt; trials share the memory: --jobs 1"
    assert re.fullmatch(rf"{where}: {what}{fewer}", str(raised.value))


def test_a_killed_trial_is_named(tiny: Tiny, tmp_path: Path) -> None:
    folder = with_data(tiny, tmp_path)
    with Scheduler(folder, plan(), 2, lambda trial: None) as scheduler:
        server = scheduler.start().process.pid

        def kill() -> None:
            until(lambda: children(server))
            os.kill(children(server)[0], signal.SIGKILL)

        Thread(target=kill).start()
        said = r"seed-0: was killed, probably because memory ran out; see .*: --jobs 1$"
        with pytest.raises(OutOfMemoryError, match=said):
            scheduler.run([Trial("adam", 0.1, 0)])


def test_the_end_of_the_server_is_reported(tmp_path: Path) -> None:
    with Scheduler(Folder(tmp_path), plan(), 1, lambda trial: None) as scheduler:
        scheduler.run([])
        assert scheduler.server is None  # nothing is started for nothing
        scheduler.start().process.kill()
        with pytest.raises(SrucliError, match="the process that starts trials was killed"):
            scheduler.run([Trial("adam", 0.1, 0)])


@pytest.mark.parametrize(
    ("cores", "jobs", "wanted"), [(4, 2, 2), (4, 3, 1), (8, 1, 8), (2, 8, 1), (7, 2, 3)]
)
def test_trials_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, jobs: int, wanted: int
) -> None:
    monkeypatch.setattr("srucli.experiments.scheduler.cores", lambda: cores)
    scheduler = Scheduler(Folder(tmp_path), plan(), jobs, lambda trial: None)
    assert scheduler.job(Trial("adam", 0.1, 0))["config"]["train"]["threads"] == wanted
    given = Plan(resolve(overrides=["train.threads=5"]), ADAMS, "accuracy", 1, 1, None)
    scheduler = Scheduler(Folder(tmp_path), given, jobs, lambda trial: None)
    assert scheduler.job(Trial("adam", 0.1, 0))["config"]["train"]["threads"] == 5


def test_a_job_keeps_every_setting_of_its_trial(tmp_path: Path) -> None:
    """Settings that were not given stay unset."""
    settings = resolve(overrides=["model.dropout=0.1", "optim.options.betas=[0.8, 0.9]"])
    candidate = Candidate("adam", {"optim.name": "adam", "model.pooling": ["max", "last"]})
    wanted = Plan(settings, (candidate,), "accuracy", 1, 1, None)
    trial = Trial("adam", 1 / 3, 7)
    job = json.loads(
        json.dumps(Scheduler(Folder(tmp_path), wanted, 1, lambda trial: None).job(trial))
    )
    found, original = (
        build(job["config"], "job"),
        wanted.config_of(trial, len(os.sched_getaffinity(0))),
    )
    assert found == original
    assert found.model_dump(exclude_unset=True) == original.model_dump(exclude_unset=True)
    assert found.optim.lr == 1 / 3
    assert (found.train.seed, found.train.diagnose) == (7, 50)
    assert job["trial"] == str(trial.folder)
    assert job["files"]["tokenizer"] == str(tmp_path / "data" / "tokenizer.model")
    own = (Candidate("a", {"tokenizer.vocab_size": 100}),)
    differs = Plan(settings, own, "accuracy", 1, 1, None)
    trial = Trial("a", 0.1, 0)
    scheduler = Scheduler(Folder(tmp_path), differs, 1, lambda trial: None)
    assert scheduler.job(trial)["files"]["tokenizer"] is None


@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (2, 2), (9, 5)])
def test_at_most_jobs_trials_run_at_once(tmp_path: Path, jobs: int, most: int) -> None:
    running, seen, sent = 0, [], []

    class Counted(Scheduler[Trial, Result]):
        def _send(self, number: int, trial: Trial) -> None:
            nonlocal running
            running += 1
            seen.append(running)
            sent.append(trial)

        def _wait(self, trials: Sequence[Trial]) -> None:
            nonlocal running
            running -= 1

    trials = [Trial("adam", 0.1, seed) for seed in range(5)]
    with Counted(Folder(tmp_path), plan(), jobs, lambda trial: None) as scheduler:
        scheduler.run(trials)
    assert sent == trials
    assert (running, max(seen)) == (0, most)
