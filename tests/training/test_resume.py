"""Resuming gives bit-equal weights from wherever the training stopped; when it is refused."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srucli import optim
from srucli.config import OptimConfig, known_keys, parse_overrides, resolve
from srucli.errors import (
    DataError,
    InterruptedRun,
    OutOfMemoryError,
    OutputError,
    SrucliError,
    UsageError,
)
from srucli.inference.predictor import Predictor
from srucli.io import locks
from srucli.io.folders import OpenFolder
from srucli.optim import OPTIMIZERS
from srucli.runs.checkpoints import TRAINING, TRAINING_TENSORS, Checkpoints
from srucli.runs.run_dir import RunDir, is_begun
from srucli.runs.tensors import tensors_of
from srucli.runs.training_state import OptimizerState, from_files, random_states, set_random_states
from srucli.runtime import max_threads
from srucli.training.interrupts import Interrupt
from srucli.training.resume import as_yaml, may_change, refused_changes, saved_training
from srucli.training.run import resume, train
from srucli.training.validation import Best
from tests import support
from tests.support import (
    QUICK,
    OnStep,
    RunMain,
    Tiny,
    child_environment,
    quick,
    sentences,
    tree,
    write_tsv,
)


def run_training(tiny: Tiny, output: Path, *overrides: str, **how: Any) -> Path:
    """Train with a checkpoint every seven steps."""
    return support.run_training(tiny, output, "train.save_steps=7", *overrides, **how)


class Killed(BaseException):
    """Ends a training like a kill: no handler catches it."""


@pytest.fixture
def kill_after(on_step: OnStep) -> Any:
    """Kill the training after n steps; None: do not kill it."""

    def arrange(steps: int | None) -> None:
        def kill(number: int) -> None:
            if steps is not None and number > steps:
                raise Killed

        on_step(kill)

    return arrange


def killed(tiny: Tiny, output: Path, *overrides: str) -> None:
    """Run a training that `kill_after` kills."""
    with pytest.raises(Killed):
        run_training(tiny, output, *overrides)


def complete_and_killed(tiny: Tiny, folder: Path, kill_after: Any, batches: int) -> Path:
    """Return the folder of a complete training; `run` is one killed within an epoch."""
    kill_after(None)
    whole = run_training(tiny, folder / "whole")
    kill_after(batches)
    killed(tiny, folder / "run")
    kill_after(None)
    return whole


def assert_same_runs(one: Path, other: Path) -> None:
    """Compare weights, states and records; only the seconds may differ."""
    for which in ("last", "best"):
        a, b = (RunDir.open(run).checkpoint(which) for run in (one, other))
        assert a.state == b.state
        assert a.weights.keys() == b.weights.keys()
        for name, weight in a.weights.items():
            assert torch.equal(weight, b.weights[name]), (which, name)
    for name in ("metrics.jsonl", "diagnostics.jsonl"):
        assert records(one / name) == records(other / name)


def files_of(run: RunDir, name: str) -> dict[str, bytes]:
    """Return the files of a checkpoint without its manifest."""
    files = ("model.safetensors", "state.json", "training.json", "training.safetensors")
    return {file: run.checkpoints.read(name, file) for file in files}


def records(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: record[key] for key in record if key != "seconds"} for record in found]


# --- to the same weights -----------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resuming_is_bit_equal_for_every_optimizer(
    tiny: Tiny, tmp_path: Path, kill_after: Any, name: str
) -> None:
    settings = (f"optim.name={name}", "train.steps=30")
    kill_after(None)
    whole = run_training(tiny, tmp_path / "whole", *settings)
    for batches in (12, 18):
        kill_after(batches)
        killed(tiny, tmp_path / "run", *settings)
    kill_after(None)
    assert RunDir.open(tmp_path / "run").state("last") == {
        "step": 21,
        "epoch": 0,
        "finished": False,
    }
    assert_same_runs(whole, run_training(tiny, tmp_path / "run", *settings))


@pytest.mark.parametrize("name", ["schedulefree:AdamWScheduleFree", "schedulefree:SGDScheduleFree"])
def test_resuming_is_bit_equal_for_optimizers_that_average_weights(
    tiny: Tiny, tmp_path: Path, kill_after: Any, name: str
) -> None:
    pytest.importorskip("schedulefree")
    settings = (f"optim.name={name}", "train.save_steps=10")
    kill_after(None)
    whole = run_training(tiny, tmp_path / "whole", *settings)
    kill_after(25)
    killed(tiny, tmp_path / "run", *settings)
    kill_after(15)
    killed(tiny, tmp_path / "run", *settings)
    kill_after(None)
    assert_same_runs(whole, run_training(tiny, tmp_path / "run", *settings))


@pytest.mark.parametrize(
    "settings",
    [
        ("train.diagnose=5",),
        ("train.accumulate=2", "train.save_steps=3"),
        ("train.steps=43",),
        ("train.metric=log_loss", "train.patience=1", "optim.lr=1e-9", "train.epochs=9"),
        ("model.encoder=lstm", "model.layers=2", "train.tensorboard=false"),
        ("train.save_steps=0", "train.save_minutes=1e-9"),
        ("train.save_steps=0", "train.save_minutes=0"),
        ("optim.clip=0", "train.subword_dropout=0", "model.word_dropout=0.1"),
        ("train.keep_checkpoints=3", "train.use_checkpoint=best"),
    ],
)
def test_resuming_is_bit_equal_for_every_kind_of_training(
    tiny: Tiny, tmp_path: Path, kill_after: Any, settings: tuple[str, ...]
) -> None:
    kill_after(None)
    whole = run_training(tiny, tmp_path / "whole", *settings)
    for batches in (9, 35, 16):
        kill_after(batches)
        try:
            run_training(tiny, tmp_path / "run", *settings)
        except Killed:
            continue
        break
    kill_after(None)
    if not RunDir.open(tmp_path / "run").state("last")["finished"]:
        run_training(tiny, tmp_path / "run", *settings)
    assert_same_runs(whole, tmp_path / "run")


def test_multi_label_thresholds_are_kept_within_an_epoch(tmp_path: Path, kill_after: Any) -> None:
    pairs = zip(sentences(), sentences(1), strict=True)
    rows = [(",".join(sorted({a, b} - {"none"})), f"{x} and {y}") for (a, x), (b, y) in pairs]
    data = str(write_tsv(tmp_path / "x.tsv", rows[:300]))
    config = quick("data.multi_label=true", "train.epochs=3", "train.save_steps=7")
    whole = train(config, data, None, tmp_path / "whole")
    kept = []
    for batches in (22, 9):  # both within the second epoch
        kill_after(batches)
        with pytest.raises(Killed):
            train(config, data, None, tmp_path / "run")
        kept.append(RunDir.open(tmp_path / "run").state("last"))
    assert [state["step"] for state in kept] == [21, 28]
    assert kept[1]["thresholds"] == kept[0]["thresholds"] != [0.5] * len(kept[0]["thresholds"])
    kill_after(None)
    assert_same_runs(whole, train(config, data, None, tmp_path / "run"))


def test_random_states_are_restored() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]

    kept = random_states(torch.device("cpu"))
    try:
        before, other = draw(), draw()
        assert all(one != two for one, two in zip(before, other, strict=True))
        set_random_states(kept, torch.device("cpu"))
        assert draw() == before
    finally:
        set_random_states(kept, torch.device("cpu"))


def test_before_the_first_checkpoint_training_starts_again(
    tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(None)
    whole = run_training(tiny, tmp_path / "whole")
    with RunDir.claim(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints" / ".step-7.tmp").mkdir(parents=True)
    (tmp_path / "run" / "lock").write_text("process 1 on a machine that is gone\n")
    (tmp_path / "run" / ".run.json.1.tmp").write_text("{")
    assert_same_runs(whole, run_training(tiny, tmp_path / "run"))
    for name in ("best", "last", "README.md", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert_same_runs(whole, resume(tmp_path / "run", {}))


def test_a_damaged_checkpoint_is_named_and_skipped(
    tiny: Tiny, tmp_path: Path, kill_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = complete_and_killed(tiny, tmp_path, kill_after, 17)
    newest = tmp_path / "run" / "checkpoints" / "step-14" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert_same_runs(whole, resume(tmp_path / "run", {}))
    said = capsys.readouterr().err
    assert f"skipped a damaged checkpoint: {newest}: damaged: not what manifest.json says" in said
    assert "resuming from step 7, after 0 complete epochs" in said
    shutil.copytree(tmp_path / "whole", tmp_path / "none")
    for folder in (tmp_path / "none" / "checkpoints").iterdir():
        (folder / "training.json").unlink()
    with pytest.raises(
        DataError, match=r"no checkpoint to resume from: .*; it can still predict"
    ) as no:
        resume(tmp_path / "none", {"train.epochs": 3})
    assert no.value.remedy == "train in another folder, with -o; it can still predict"
    assert Predictor.load(tmp_path / "none").labels == Predictor.load(tmp_path / "whole").labels
    for folder in (tmp_path / "none" / "checkpoints").iterdir():
        (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"; to start again: srucli train ") as again:
        resume(tmp_path / "none", {"train.epochs": 3})
    words = shlex.split(again.value.remedy.removeprefix("to start again: "))
    assert words[:5] == ["srucli", "train", str(tiny.train), "--dev", str(tiny.test)]
    assert words[-3:] == ["-o", str(tmp_path / "none"), "--force"]
    assert resolve(overrides=words[5:-3]) == RunDir(tmp_path / "none").config()


# --- what is allowed and what is not -----------------------------------------------------------


def test_a_finished_run_continues_with_more_epochs_only(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_training(tiny, tmp_path / "run")
    assert resume(run, {}) == run
    assert "run: is finished; a larger --epochs continues it" in capsys.readouterr().err
    resume(run, {"train.epochs": 4})
    assert [record["epoch"] for record in records(run / "metrics.jsonl")] == [1, 2, 3, 4]
    assert RunDir.open(run).facts().epochs == 4
    with pytest.raises(UsageError, match=r"train\.epochs: 4 -> 3"):
        resume(run, {"train.epochs": 3})
    with pytest.raises(UsageError, match=r"train\.epochs: 4 -> 2"):
        run_training(tiny, run)
    assert run_training(tiny, run, "train.epochs=4") == run


def test_changed_settings_are_shown_and_refused(
    tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    wanted = (
        r"optim\.lr: 0\.002 -> 0\.01\); to resume with these: srucli train --resume .*run --force "
        r"optim\.lr=0\.01; or train in another folder"
    )
    with pytest.raises(UsageError, match=wanted):
        run_training(tiny, tmp_path / "run", "optim.lr=0.01")
    with pytest.raises(UsageError, match=r"optim\.lr: 0\.002 -> 0\.01"):
        resume(tmp_path / "run", {"optim.lr": 0.01})
    resume(tmp_path / "run", {"optim.lr": 0.01}, force=True)
    assert RunDir.open(tmp_path / "run").config().optim.lr == 0.01
    with pytest.raises(
        UsageError, match=r"run: was trained with a different network \(model\.hidden: 8 -> 9\)"
    ):
        resume(tmp_path / "run", {"model.hidden": 9}, force=True)
    assert RunDir.open(tmp_path / "run").config().model.hidden == 8


def test_changed_examples_are_shown_and_refused(
    tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    fewer = str(write_tsv(tmp_path / "fewer.tsv", sentences()[:300]))
    with pytest.raises(UsageError, match=r"train examples: SHA-256 \w{8} -> \w{8}"):
        resume(tmp_path / "run", {}, fewer)
    run = resume(tmp_path / "run", {}, fewer, force=True)
    assert RunDir.open(run).facts().data.texts == 300
    other = str(write_tsv(tmp_path / "other.tsv", [("a", "x"), ("b", "y")] * 9))
    with pytest.raises(UsageError, match="was trained with different labels"):
        resume(run, {"train.epochs": 9}, other, force=True)
    own = write_tsv(tmp_path / "own.tsv", sentences())
    made = train(quick("train.epochs=1"), str(own), None, tmp_path / "own")
    with pytest.raises(UsageError, match="--tokenizer: the run was trained with another one"):
        train(quick(), str(own), None, made, tokenizer=tiny.run / "tokenizer.model")


# Settings that may change on resume without --force: to any value, and to a larger one.
MAY_CHANGE = {
    *("train.device", "train.threads", "train.kernel", "train.tensorboard", "train.patience"),
    *("train.use_checkpoint", "train.save_steps", "train.save_minutes", "train.keep_checkpoints"),
    *("train.detect_anomaly", "train.mlflow", "train.wandb"),
}
MAY_GROW = {"train.epochs", "train.steps"}


@pytest.mark.parametrize("key", [key for key in known_keys() if not key.startswith("files.")])
def test_which_settings_may_change_on_resume(key: str) -> None:
    reading = key.startswith("data.") and key != "data.multi_label"
    always = reading or key in MAY_CHANGE or key.startswith("pretrain.")
    assert may_change(key, 2, 3) == (always or key in MAY_GROW)
    assert may_change(key, 3, 2) == always
    assert may_change(key, None, 3) == always


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        pytest.param(
            ("train.threads=3", "train.save_minutes=1", "train.keep_checkpoints=9", "data.text=2"),
            {},
            id="any value",
        ),
        pytest.param(("train.epochs=3",), {}, id="more epochs"),
        pytest.param(("train.epochs=1",), {"train.epochs": (2, 1)}, id="fewer epochs"),
        pytest.param(("train.seed=1",), {"train.seed": (0, 1)}, id="seed"),
        pytest.param(
            ("data.multi_label=true",), {"data.multi_label": (False, True)}, id="multi-label"
        ),
    ],
)
def test_only_settings_that_may_not_change_are_refused(
    settings: tuple[str, ...], refused: dict[str, Any]
) -> None:
    assert refused_changes(quick(), quick(*settings)) == refused


RESCALED = re.compile(
    r"the length of the schedule changed: the learning rate was (\S+) at step (\d+), and "
    r"continues from (\S+)"
)


@pytest.mark.parametrize(
    ("settings", "longer", "was", "now"),
    [
        pytest.param((), {"train.epochs": 4}, 0.0, (480 * 2, 480 * 4), id="epochs"),
        pytest.param(("train.steps=20",), {"train.steps": 40}, 0.0, (20, 40), id="steps"),
        pytest.param(
            ("optim.schedule=constant",), {"train.epochs": 4}, 0.01, (960, 1920), id="constant"
        ),
        pytest.param(
            *(("optim.schedule=constant",), {"train.epochs": 4, "optim.lr": 0.05}, 0.01),
            (960, 1920),
            id="another rate",
        ),
    ],
)
def test_a_learning_rate_that_jumps_is_reported(
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: tuple[str, ...],
    longer: dict[str, object],
    was: float,
    now: tuple[int, int],
) -> None:
    run = run_training(tiny, tmp_path / "run", "optim.lr=0.01", *settings)
    capsys.readouterr()
    resume(run, longer, force="optim.lr" in longer)
    (line,) = filter(None, map(RESCALED.fullmatch, capsys.readouterr().err.splitlines()))
    schedule = RunDir.open(run).config().optim.schedule
    assert float(line[1]) == pytest.approx(was, abs=1e-9)
    assert int(line[2]) == (20 if "train.steps" in longer else 60)
    rate = float(str(longer.get("optim.lr", 0.01)))
    assert float(line[3]) == pytest.approx(rate * optim.lr_factor(schedule, *now, 0.1), rel=5e-3)
    resume(run, longer)
    assert not any(map(RESCALED.fullmatch, capsys.readouterr().err.splitlines()))


def test_the_advice_to_continue_a_finished_training_works(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("optim.name=sgd", "optim.lr=1e-30", "train.patience=1", "train.epochs=2")
    run = run_training(tiny, tmp_path / "run", *still)
    resume(run, {})
    said = "is finished; a larger train.patience and --epochs continues it"
    assert said in capsys.readouterr().err
    resume(run, {"train.patience": 5, "train.epochs": 3})
    assert [record["epoch"] for record in records(run / "metrics.jsonl")] == [1, 2, 3]
    assert RunDir.open(run).config().train.use_checkpoint == "best"


def test_patience_that_is_set_on_resume_selects_the_best_checkpoint(
    tiny: Tiny, tmp_path: Path
) -> None:
    run = run_training(tiny, tmp_path / "run")
    assert RunDir.open(run).config().train.use_checkpoint == "last"
    resume(run, {"train.patience": 1})
    assert RunDir.open(run).config().train.use_checkpoint == "best"
    resume(run, {"train.patience": 2, "train.use_checkpoint": "last"})
    assert RunDir.open(run).config().train.use_checkpoint == "last"


def test_state_that_does_not_fit_is_refused(tiny: Tiny, tmp_path: Path, kill_after: Any) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run", "optim.name=momentum")
    kill_after(None)
    run = RunDir(tmp_path / "run")
    files = files_of(run, "step-14")
    plain = json.loads(files["training.json"])
    for damaged in (b"[]", b"{", b'{"dict": []}', b"1" * 9999, json.dumps(plain["dict"]).encode()):
        run.checkpoints.save(14, {**files, "training.json": damaged}, {"last"}, 1)
        with pytest.raises(DataError, match="does not fit this training"):
            run_training(tiny, tmp_path / "run", "optim.name=momentum")
    small = files["training.json"].replace(b'"batches", 14', b'"batches", -1')
    assert small != files["training.json"]
    run.checkpoints.save(14, {**files, "training.json": small}, {"last"}, 1)
    with pytest.raises(DataError, match="does not fit this training"):
        run_training(tiny, tmp_path / "run", "optim.name=momentum")


# --- interrupts and locks ------------------------------------------------------------------------


def test_an_interrupt_saves_within_an_epoch(tiny: Tiny, tmp_path: Path, on_step: OnStep) -> None:
    whole = run_training(tiny, tmp_path / "whole", "train.save_steps=0")
    stop = Interrupt()

    def interrupt(step: int) -> None:
        assert stop.checked
        stop.requested = step == 40

    on_step(interrupt)
    said = r"run: stopped at step 40, in epoch 2 of 2, and saved; to resume: srucli train --resume"
    with pytest.raises(InterruptedRun, match=said):
        run_training(tiny, tmp_path / "run", "train.save_steps=0", stop=stop)
    assert RunDir.open(tmp_path / "run").state("last")["step"] == 40
    assert_same_runs(whole, run_training(tiny, tmp_path / "run", "train.save_steps=0"))


@pytest.mark.parametrize("resumed", [False, True])
def test_running_out_of_memory_names_the_batch(
    tiny: Tiny, tmp_path: Path, on_step: OnStep, kill_after: Any, resumed: bool
) -> None:
    """Also in the first step of a resumed training, where other errors are the checkpoint's."""
    small = ("model.ngrams=false", "model.embedding_size=2")
    if resumed:
        kill_after(20)
        killed(tiny, tmp_path / "run", *small)

    def fail(step: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    on_step(fail)
    with pytest.raises(OutOfMemoryError) as raised:
        run_training(tiny, tmp_path / "run", *small)
    step = (
        rf"; step {15 if resumed else 1} had a batch of \d+ tokens: set (train\.batch_tokens=\d+)$"
    )
    said = re.search(r"^training ran out of GPU memory \(.* 2\.00 GiB\)" + step, str(raised.value))
    assert said, raised.value
    on_step(lambda step: None)
    train_again = {"force": True} if resumed else {}
    run_training(tiny, tmp_path / "run", *small, said[1], **train_again)


def test_a_run_of_a_larger_machine_resumes(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    run, threads = run_training(tiny, tmp_path / "run", "train.epochs=1"), max_threads() + 1
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("threads: 1\n", f"threads: {threads}\n"))
    asked = run_main("train", "--resume", run, "--epochs", 2, "--threads", threads)
    assert asked.code == 2
    assert f"use at most {max_threads()} threads" in asked.err
    done = run_main("train", "--resume", run, "--epochs", 2)
    assert done.code == 0, done.err
    assert f"was trained with {threads} threads, more than the {max_threads()} that are" in done.err
    assert RunDir.open(run).config().train.threads == 0
    assert f"{threads} threads" not in run_main("train", "--resume", run, "--epochs", 3).err


@pytest.mark.parametrize(
    "value", ["adam", "x:y", "null", "true", "no", "on", "y", "a:", "긍정", ""]
)
def test_the_settings_of_a_command_are_read_as_they_were(value: str) -> None:
    assert parse_overrides([f"data.label={as_yaml(value)}"]) == {"data": {"label": value}}


def test_two_trainings_cannot_share_a_folder(tiny: Tiny, tmp_path: Path, kill_after: Any) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    with OpenFolder.at(tmp_path / "run") as folder, locks.locked(folder):
        assert locks.is_locked(tmp_path / "run")
        said = r"another training writes there \(process \d+ on"
        with pytest.raises(OutputError, match=said):
            run_training(tiny, tmp_path / "run")
        with pytest.raises(OutputError, match=said):
            resume(tmp_path / "run", {})
    assert not locks.is_locked(tmp_path / "run")
    assert (tmp_path / "run" / "last").exists()
    run_training(tiny, tmp_path / "run")
    assert not (tmp_path / "run" / "lock").exists()


def test_several_processes_are_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="srucli trains in one process"):
        run_training(tiny, tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "1")
    run_training(tiny, tmp_path / "run", "train.epochs=1")


# --- as a command ------------------------------------------------------------------------------


def test_resume_on_the_command_line(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("--epochs", 2, "--tokenizer", tiny.run / "tokenizer.model", *QUICK)
    assert run_main("train", tiny.train, "-o", run, *flags).code == 0
    ended = run_main("train", "--resume", run)
    assert (ended.code, ended.out) == (0, f"{run}\n")
    assert "is finished" in ended.err
    ended = run_main("train", "train.epochs=3", "--resume", run, "train.patience=5")
    assert (ended.code, ended.out) == (0, f"{run}\n"), ended.err
    assert records(run / "metrics.jsonl")[-1]["epoch"] == 3
    assert run_main("train", "--resume", run, "--lr", 1).code == 2
    assert run_main("train", "--resume", run, "-o", run).code == 2
    assert run_main("train", "--resume", run, "model.layer=1").code == 2
    assert run_main("train", "--resume", tmp_path / "none").code == 66
    assert run_main("train", "--resume", tmp_path).code == 66
    assert run_main("train").code == 2


def test_the_same_command_without_a_folder_finds_its_run(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_after: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("train", tiny.train, "--epochs", 2, *QUICK, "train.save_steps=5")
    kill_after(12)
    with pytest.raises(Killed):
        run_main(*command)
    kill_after(None)
    with OpenFolder.at(Path("runs/train")) as folder, locks.locked(folder):
        assert run_main(*command).out == "runs/train-2\n"
    assert run_main(*command, "train.seed=1").out == "runs/train-3\n"
    ended = run_main(*command)
    assert ended.out == "runs/train\n"
    assert "resuming from step 10" in ended.err
    assert run_main(*command).out == "runs/train-4\n"


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_eval_and_predict_say_if_the_training_is_not_finished(
    tiny: Tiny, tmp_path: Path, kill_after: Any, run_main: RunMain, command: str
) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    last = (tmp_path / "run" / "last").read_text().strip().removeprefix("step-")
    said = "its training is not finished: step "
    assert f"{said}{last} is the last\n" in run_main(command, tmp_path / "run", tiny.test).err
    assert said not in run_main(command, tiny.run, tiny.test).err


def test_piped_examples_must_be_given_again(
    tiny: Tiny, tmp_path: Path, kill_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_training(tiny, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"sources": {"train": "-", "dev": None}}))
    with pytest.raises(SrucliError, match="its train examples were not in a file; give them"):
        resume(run, {})


def test_a_named_pipe_is_a_pipe_too(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    """Such as `<(...)` of a shell, which is empty when it is read again."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(tiny.train.read_bytes()))
    writer.start()
    words = ("-o", tmp_path / "run", "--tokenizer", tiny.run / "tokenizer.model", *QUICK)
    assert run_main("train", fifo, "--epochs", 1, *words).code == 0
    writer.join()
    assert RunDir.open(tmp_path / "run").facts().sources["train"] == "-"
    ended = run_main("tune", fifo, "-o", tmp_path / "r.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert f"{fifo}: is read once a trial, so it cannot be a pipe; give a file" in ended.err


def test_state_that_lacks_something_is_refused(tiny: Tiny, tmp_path: Path, kill_after: Any) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    run = RunDir(tmp_path / "run")
    files = files_of(run, "step-14")
    for old, new in ((b'"exp_avg_sq"', b'"exp_avg_no"'), (b'["groups", [', b'["groups", ["x", ')):
        other = files["training.json"].replace(old, new)
        assert other != files["training.json"]
        run.checkpoints.save(14, {**files, "training.json": other}, {"last"}, 1)
        with pytest.raises(DataError, match=r"training\.json: does not fit this training"):
            run_training(tiny, tmp_path / "run")


def test_prediction_needs_no_training_state(tiny: Tiny, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    wanted = Predictor.load(run, "cpu").probabilities(["a lovely film"])
    for file in run.glob("checkpoints/*/training.*"):
        file.unlink()
    assert (Predictor.load(run, "cpu").probabilities(["a lovely film"]) == wanted).all()
    with pytest.raises(DataError, match="no checkpoint to resume from"):
        resume(run, {})


def test_a_checkpoint_of_the_same_step_is_not_written_again(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    """An interrupt right after an epoch, or right after resuming, has nothing to save."""
    stop = Interrupt()

    def asked(number: int, figures: Any) -> None:
        stop.requested = True

    with pytest.raises(InterruptedRun, match="stopped at step 30, in epoch 2 of 2"):
        run_training(tiny, tmp_path / "run", on_epoch=asked, stop=stop)
    folder = tmp_path / "run" / "checkpoints" / "step-30"
    before = folder.stat().st_ino
    with pytest.raises(InterruptedRun, match="stopped at step 30, in epoch 2 of 2"):
        run_training(tiny, tmp_path / "run", stop=stop)
    assert folder.stat().st_ino == before
    ended = run_main("info", tmp_path / "run")
    assert ended.out.splitlines()[-1].endswith(f"srucli train --resume {tmp_path / 'run'}")
    run_training(tiny, tmp_path / "run")
    assert "stopped" not in run_main("info", tmp_path / "run").out


# --- without the optimizer's state -------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "schedulefree:AdamWScheduleFree"])
def test_a_slim_run_predicts_the_same_and_trains_longer(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, optimizer: str
) -> None:
    pytest.importorskip("schedulefree")
    folder = run_training(tiny, tmp_path / "run", f"optim.name={optimizer}")
    run, before = RunDir.open(folder), tree(folder)
    done = run_main("slim", folder)
    assert (done.code, done.out) == (0, f"{folder}\n")
    whole, states = run.sizes()
    assert states == 0
    assert done.err.endswith(f"MB, {whole / 1e6:.1f} MB are left\n")
    after = tree(folder)
    assert {name for name in before if before[name] != after.get(name)} == {
        f"checkpoints/{name}/{file}"
        for name in run.checkpoints.names()
        for file in ("manifest.json", TRAINING_TENSORS)
    }
    Predictor.load(folder, "cpu").probabilities(["wonderful"])
    assert run_main("slim", folder).err.startswith(f"{folder}: removed 0.0 MB")
    assert "anew" not in run_main("train", "--resume", folder).err
    longer = run_main("train", "--resume", folder, "--epochs", 3)
    assert longer.code == 0
    assert "the optimizer starts anew from the saved weights" in longer.err
    name = run.checkpoints.pointed("last")
    tensors = tensors_of(run.checkpoints.read(name, TRAINING_TENSORS), name)
    saved = from_files(run.checkpoints.read(name, TRAINING), tensors)["optimizer"]
    counts = {int(state["step"]) for state in saved["weights"].values() if "step" in state}
    counts |= {group["k"] for group in saved["groups"] if "k" in group}
    assert counts == {run.state("last")["step"] // 3}


def test_slimming_an_unfinished_run_says_what_is_lost(
    tiny: Tiny, tmp_path: Path, kill_after: Any, run_main: RunMain
) -> None:
    kill_after(40)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    done = run_main("slim", tmp_path / "run")
    assert done.code == 0
    assert re.search(
        r"is not finished: step \d+ is the last; when resumed, .* ends with other weights\n",
        done.err,
    )
    ended = run_main("train", "--resume", tmp_path / "run")
    assert ended.code == 0
    assert "the training ends with other weights than with it" in ended.err
    assert "not finished" not in run_main("slim", tmp_path / "run").err


def test_removing_the_state_can_be_killed_at_any_instant(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("write", "remove", "sync")
    real = {name: getattr(OpenFolder, name) for name in changes}
    whole = run_training(tiny, tmp_path / "whole", "train.keep_checkpoints=2")
    for at in itertools.count():
        shutil.copytree(whole, tmp_path / f"{at}")
        run, calls = RunDir.open(tmp_path / f"{at}"), itertools.count()

        def change(self: OpenFolder, *given: Any, name: str, calls: Any = calls) -> Any:
            if next(calls) == at:  # noqa: B023
                raise Killed
            return real[name](self, *given)

        for name in changes:
            monkeypatch.setattr(OpenFolder, name, functools.partialmethod(change, name=name))
        try:
            run.slim()
            killed_there = False
        except Killed:
            killed_there = True
        for name in changes:
            monkeypatch.setattr(OpenFolder, name, real[name])
        Predictor.load(run.path, "cpu").probabilities(["wonderful"])
        found = saved_training(run)
        assert (found.checkpoint, found.damaged) == (run.checkpoints.pointed("last"), [])
        run.slim()
        assert run.sizes()[1] == 0
        if not killed_there:
            break
    assert at > 4


def test_the_sizes_of_a_run(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run")
    whole, states = RunDir.open(run).sizes()
    files = {name: len(data) for name, data in tree(run).items() if name != "srucli.json"}
    assert whole == sum(files.values())
    assert 0 < states == sum(size for name, size in files.items() if TRAINING_TENSORS in name)


# --- kills between two writes, and folders of users -------------------------------------------


def test_a_kill_between_a_checkpoint_and_its_pointers(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each checkpoint, before each of its pointers is written."""
    settings = ("train.epochs=3", "train.batch_size=64", "optim.lr=1e-2", "train.save_steps=0")
    whole = run_training(tiny, tmp_path / "whole", *settings)
    real = Checkpoints.point
    for at, pointers in itertools.product(range(3), (0, 1)):
        run, calls = tmp_path / f"run-{at}-{pointers}", itertools.count()

        def point(
            self: Checkpoints,
            name: str,
            which: Any,
            calls: Any = calls,
            at: int = at,
            n: int = pointers,
        ) -> None:
            if next(calls) == at:
                real(self, name, set(sorted(which)[:n]))
                raise Killed
            real(self, name, which)

        monkeypatch.setattr(Checkpoints, "point", point)
        killed(tiny, run, *settings)
        monkeypatch.setattr(Checkpoints, "point", real)
        assert_same_runs(whole, run_training(tiny, run, *settings))
        assert {path.name for path in (run / "checkpoints").iterdir()} == {
            (run / which).read_text().strip() for which in ("best", "last")
        }


def test_a_kill_while_an_earlier_run_is_removed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = run_training(tiny, tmp_path / "earlier")
    count = len(list(earlier.iterdir()))
    real = os.unlink
    for files in range(count - 2):
        run, calls = Path(shutil.copytree(earlier, tmp_path / f"run-{files}")), itertools.count()

        def unlink(
            path: Any, *, dir_fd: int | None = None, calls: Any = calls, files: int = files
        ) -> None:
            if next(calls) == files:
                raise Killed
            real(path, dir_fd=dir_fd)

        monkeypatch.setattr(os, "unlink", unlink)
        with pytest.raises(Killed):
            run_training(tiny, run, "train.seed=1", force=True)
        monkeypatch.setattr(os, "unlink", real)
        run_training(tiny, run, "train.seed=1", "train.epochs=1", force=True)


def test_files_of_users_are_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run")
    (tmp_path / "started").mkdir()
    for name in ("run.json", "config.yaml", "labels.json", "tokenizer.model"):
        shutil.copy(run / name, tmp_path / "started")
    (tmp_path / "started" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        run_training(tiny, tmp_path / "started")
    with pytest.raises(DataError, match="no checkpoint to resume from: there is none"):
        resume(tmp_path / "started", {})
    assert (tmp_path / "started" / "notes.txt").exists()
    (tmp_path / "started" / "notes.txt").unlink()
    with pytest.raises(DataError):
        resume(tmp_path / "started", {}, str(write_tsv(tmp_path / "bad.tsv", [("a", "x")])))
    assert (tmp_path / "started" / "run.json").exists()
    for name, text in (("run.json", '{"mine": 1}'), ("lock", "mine"), ("config.yaml", "a: 1")):
        own = tmp_path / f"own-{name}"
        (own / "checkpoints").mkdir(parents=True)
        (own / name).write_text(text)
        for command in ("train", "resume"):
            with pytest.raises(SrucliError):
                run_training(tiny, own) if command == "train" else resume(own, {})
            assert (own / name).read_text() == text
            assert (own / "checkpoints").is_dir()
    shutil.copytree(run / "checkpoints" / "step-60", run / "checkpoints" / "good")
    resume(run, {"train.epochs": 3})
    assert (run / "checkpoints" / "good" / "state.json").exists()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(OutputError, match="exists already"):
        run_training(tiny, run)
    assert (run / "tokenizer.model").exists()


def test_run_json_is_written_last(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = RunDir.write, []

    def write(self: RunDir, name: str, data: bytes) -> None:
        written.append(name)
        real(self, name, data)

    monkeypatch.setattr(RunDir, "write", write)
    run_training(tiny, tmp_path / "run", "train.epochs=1")
    others = {"config.yaml", "tokenizer.model", "ngrams.safetensors", "labels.json"}
    assert set(written[:5]) == {*others, "run.json"}
    assert written[4] == "run.json"


def test_a_run_with_a_checkpoint_is_not_only_begun(
    tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(10)
    killed(tiny, tmp_path / "run")
    (tmp_path / "run" / "last").unlink()
    (tmp_path / "run" / "best").unlink(missing_ok=True)
    assert not is_begun(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert is_begun(tmp_path / "run")


def test_a_valid_checkpoint_is_resumed_even_without_pointers(
    tiny: Tiny, tmp_path: Path, kill_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = complete_and_killed(tiny, tmp_path, kill_after, 10)
    (tmp_path / "run" / "last").unlink()
    capsys.readouterr()
    assert_same_runs(whole, run_training(tiny, tmp_path / "run"))
    assert "resuming from step 7" in capsys.readouterr().err


# --- what --force may change -------------------------------------------------------------------


def steps_of(run: Path) -> list[int]:
    return [record["step"] for record in records(run / "metrics.jsonl")]


def test_other_batches_restart_the_epoch(
    tiny: Tiny, tmp_path: Path, kill_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    kill_after(3)
    with pytest.raises(Killed):
        resume(tmp_path / "run", {"train.batch_size": 32}, force=True)
    said = "the texts or their batches have changed: epoch 1 starts again"
    assert said in capsys.readouterr().err.splitlines()
    kill_after(None)
    resume(tmp_path / "run", {})  # the settings are those of the run by now
    assert steps_of(tmp_path / "run") == [14 + 15, 14 + 30]


def test_with_fewer_examples_the_schedule_continues_from_the_finished_epochs(
    tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(40)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    fewer = str(write_tsv(tmp_path / "fewer.tsv", sentences()[:100]))
    resume(tmp_path / "run", {"train.epochs": 4}, fewer, force=True)
    rates = [record["lr"] for record in records(tmp_path / "run" / "metrics.jsonl")]
    assert rates[1] > rates[2] > rates[3]
    assert rates[2] > 1e-5


def test_another_optimizer_starts_without_state(
    tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(20)
    killed(tiny, tmp_path / "run")
    kill_after(None)
    resume(tmp_path / "run", {"optim.name": "adafactor"}, force=True)
    config = RunDir.open(tmp_path / "run").config()
    assert (config.optim.name, config.optim.lr) == ("adafactor", 0.03)
    with pytest.raises(UsageError, match=r"train\.diagnose: 0 -> 5"):
        resume(tmp_path / "run", {"train.diagnose": 5, "train.epochs": 3})
    resume(tmp_path / "run", {"train.diagnose": 5, "train.epochs": 3}, force=True)
    assert records(tmp_path / "run" / "diagnostics.jsonl")[0]["optimizer"]["name"] == "adafactor"


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        ({"optim.lr": 0.01}, True),
        ({"optim.name": "adamax"}, False),
        ({"optim.options": {"betas": [0.8, 0.99]}}, False),
    ],
    ids=["another rate", "another optimizer", "other options"],
)
def test_optimizer_state_is_restored_for_the_same_optimizer_only(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: dict[str, Any],
    kept: bool,
) -> None:
    run = run_training(tiny, tmp_path / "run", "train.epochs=1")
    loaded: list[Any] = []
    monkeypatch.setattr(OptimizerState, "load_state_dict", lambda _self, tree: loaded.append(tree))
    resume(run, {**others, "train.epochs": 2}, force=True)
    assert bool(loaded) == kept


def test_settings_of_an_optimizer_are_not_part_of_its_state() -> None:
    model = torch.nn.Linear(2, 2)

    def made(weight_decay: float) -> OptimizerState:
        settings = optim.resolve(OptimConfig(name="adamw", weight_decay=weight_decay))
        return OptimizerState(model, optim.build(settings, model), own=True)

    after = made(0.3)
    after.load_state_dict(made(0.1).state_dict())
    decay = {group["name"]: group["weight_decay"] for group in after.optimizer.param_groups}
    assert decay == {"matrices": 0.3, "vectors": 0}


def test_more_steps_continue_after_the_last_one(tiny: Tiny, tmp_path: Path) -> None:
    even = ("optim.schedule=constant", "optim.warmup=0")
    whole = run_training(tiny, tmp_path / "whole", "train.steps=25", *even)
    run = run_training(tiny, tmp_path / "run", "train.steps=10", *even)
    resume(run, {"train.steps": 25})
    assert steps_of(run) == [10, 25]
    a, b = (RunDir.open(each).checkpoint("last").weights for each in (whole, run))
    # The evaluation at step 10 fitted the weights of the branches, which training does not use.
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(UsageError, match=r"train\.steps: 25 -> 20"):
        resume(run, {"train.steps": 20})


def test_removing_the_limit_of_steps_makes_a_training_longer(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run", "train.steps=5")
    assert steps_of(run) == [5]
    resume(run, {"train.steps": None}, force=True)
    assert steps_of(run)[-1] == 30


def test_a_single_label_run_cannot_become_multi_label(tmp_path: Path) -> None:
    data = str(write_tsv(tmp_path / "x.tsv", [("a", "x"), ("b", "y")] * 9))
    run = train(quick("train.epochs=1"), data, None, tmp_path / "run")
    with pytest.raises(UsageError, match=r"data\.multi_label: False -> True"):
        resume(run, {"data.multi_label": True, "train.epochs": 2})


def test_training_goes_on_if_the_reader_of_stderr_exits(tiny: Tiny, tmp_path: Path) -> None:
    flags = " ".join(map(str, QUICK))
    command = f"'{sys.executable}' -m srucli train {tiny.train} -o run --epochs 3 {flags}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} 2>&1 >/dev/null | head -1"],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert RunDir.open(tmp_path / "run").state("last")["finished"] is True


# --- the best checkpoint -----------------------------------------------------------------------


def progress(run: Path) -> Best:
    """Return the best epoch so far from the newest checkpoint."""
    checkpoints = RunDir(run).checkpoints
    text = checkpoints.read(checkpoints.pointed("last"), TRAINING)
    tensors = checkpoints.read(checkpoints.pointed("last"), TRAINING_TENSORS)
    return Best.model_validate(from_files(text, tensors_of(tensors, "x"))["progress"])


def test_values_of_different_metrics_are_not_compared(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("train.patience=2", "optim.lr=1e-9")
    run = run_training(tiny, tmp_path / "run", *asked, "train.epochs=1")
    before = progress(run)
    assert before.best > 0
    more = {"train.metric": "log_loss", "train.epochs": 2, "optim.lr": 0.003}
    resume(run, more, force=True)
    first, last = records(run / "metrics.jsonl")
    after = progress(run)
    assert -after.best == pytest.approx(min(first["dev"]["log_loss"], last["dev"]["log_loss"]))
    assert "the metric or the dev examples changed" in capsys.readouterr().err


def test_records_without_metrics_are_ignored(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run", "train.epochs=1")
    step = records(run / "metrics.jsonl")[0]["step"]
    size = (run / "metrics.jsonl").stat().st_size  # what is beyond is cut off
    lines = f'{{}}\n{{"step": {step}}}\n{{"step": {step}, "epoch": 1, "dev": 3}}'
    (run / "metrics.jsonl").write_text(f"{lines:{size - 1}}\n")
    resume(run, {"train.metric": "log_loss", "train.epochs": 2}, force=True)
    assert records(run / "metrics.jsonl")[-1]["epoch"] == 2


def test_patience_restarts_with_another_metric(tiny: Tiny, tmp_path: Path) -> None:
    still = ("optim.name=sgd", "optim.lr=1e-30", "train.patience=3", "train.epochs=3")
    run = run_training(tiny, tmp_path / "run", *still)
    assert progress(run).stale == 2
    resume(run, {"train.metric": "log_loss", "train.epochs": 4}, force=True)
    assert progress(run).stale <= 1


def test_metrics_of_different_dev_examples_are_not_compared(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run", "train.patience=1", "train.epochs=1")
    hard = write_tsv(tmp_path / "hard.tsv", [("good", "bad"), ("bad", "good"), ("none", "good")])
    longer: dict[str, Any] = {"train.epochs": 2, "train.patience": 1}
    with pytest.raises(UsageError, match=r"dev examples: SHA-256 \w{8} -> \w{8}"):
        resume(run, longer, None, str(hard))
    resume(run, longer, None, str(hard), force=True)
    _, last = records(run / "metrics.jsonl")
    after = progress(run)
    assert (after.best, after.best_step) == (last["dev"]["accuracy"], last["step"])


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("settings", "others", "said"),
    [
        ({"optim.lr": 0.5}, False, "optim.lr: 0.002 -> 0.5"),
        ({"train.diagnose": 5}, False, "train.diagnose: 0 -> 5"),
        ({"train.epochs": 1}, False, "train.epochs: 2 -> 1"),
        ({}, True, "dev examples: SHA-256"),
    ],
    ids=["rate", "diagnose", "fewer epochs", "other dev examples"],
)
def test_a_finished_training_refuses_changes(
    tiny: Tiny, tmp_path: Path, settings: dict[str, Any], others: bool, said: str, force: bool
) -> None:
    """They would have no effect, and config.yaml would be wrong."""
    run = run_training(tiny, tmp_path / "run")
    before = tree(run)
    few = write_tsv(tmp_path / "few.tsv", [("good", "x"), ("bad", "y")])
    kinds = ["examples"] * others + ["settings"] * bool(settings)
    match = f"is finished, so different {' and '.join(kinds)} would .*{said}"
    with pytest.raises(UsageError, match=match):
        resume(run, settings, None, str(few) if others else None, force=force)
    assert tree(run) == before


def test_a_finished_training_with_more_epochs_allows_changes(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run", "train.epochs=1")
    resume(run, {"optim.lr": 0.5, "train.epochs": 2}, force=True)
    assert [record["epoch"] for record in records(run / "metrics.jsonl")] == [1, 2]
    assert RunDir.open(run).config().optim.lr == 0.5
