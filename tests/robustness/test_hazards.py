"""Full disks, removed folders, jumping clocks, non-finite numbers, hostile files and terminals."""

from __future__ import annotations

import gzip
import itertools
import lzma
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from srucli.config import resolve
from srucli.data.readers import read_examples
from srucli.errors import DataError, OutputError, SrucliError
from srucli.inference.predictor import Predictor
from srucli.io.lines import Lines
from srucli.model.encoders import Encoder
from srucli.runs.checkpoints import TRAINING, TRAINING_TENSORS
from srucli.runs.run_dir import RunDir
from srucli.training.run import resume, train
from tests.support import (
    QUICK,
    SETTINGS,
    OnStep,
    RunCli,
    RunMain,
    Tiny,
    child_environment,
    quick,
    run_training,
    sentences,
    write_tsv,
)

# --- the machine -------------------------------------------------------------------------------


def run_in_namespace(folder: Path, *lines: str, **variables: str) -> list[str]:
    """Run lines of `commands.py`, which may mount file systems; return the lines of its output.

    There is no network. variables: of the environment.
    """
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    if subprocess.run(["unshare", "-rmn", "true"], capture_output=True).returncode:
        pytest.skip("this user may not create namespaces")
    words = " , ".join(lines).split()
    done = subprocess.run(
        ["unshare", "-rmn", sys.executable, "-m", "tests.commands", *words],
        cwd=folder,
        env=child_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout.splitlines()


def test_full_disk_read_only_disk_and_resuming(tiny: Tiny, tmp_path: Path) -> None:
    flags = f"--epochs 3 --tokenizer {tiny.run / 'tokenizer.model'} {' '.join(map(str, QUICK))}"
    command = f"train {tiny.train} -o disk/run {flags}"
    lines = run_in_namespace(
        tmp_path,
        "! mkdir disk",
        "! mount -t tmpfs -o size=400k tmpfs disk",
        command,
        "info disk/run",
        "! mount -o remount,size=50m disk",
        command,
        "! mount -o remount,ro disk",
        "train --resume disk/run --epochs 4",
    )
    codes = [line for line in lines if line.startswith("code ")]
    assert codes == ["code 73", "code 0", "code 0", "code 73"], lines
    full = next(line for line in lines if "No space left" in line)
    assert full.startswith("srucli: disk/run/checkpoints/step-")
    assert full.endswith("cannot be written (No space left on device); make room")
    assert any(line.startswith("resuming from step ") for line in lines)
    assert any("disk/run" in line and "Read-only file system" in line for line in lines)


def test_comparison_with_little_shared_memory(tiny: Tiny, tmp_path: Path) -> None:
    flags = f"--grid 1 --seeds 1 --epochs 1 {' '.join(SETTINGS)}"
    lines = run_in_namespace(
        tmp_path,
        "! mount -t tmpfs -o size=1m tmpfs /dev/shm",
        f"compare {tiny.train} -o cmp --optimizer adam,sgd {flags}",
    )
    assert lines[-1] == "code 0", lines


def test_folder_removed_during_training(tiny: Tiny, tmp_path: Path, on_step: OnStep) -> None:
    def remove(step: int) -> None:
        if step == 41:
            shutil.rmtree(tmp_path / "run")

    on_step(remove)
    with pytest.raises(OutputError, match=r"run: was removed or renamed, or is another folder"):
        run_training(tiny, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_jumping_clock(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_training(tiny, tmp_path / "whole")
    generator = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: generator.uniform(-1e10, 1e10))
    run = run_training(tiny, tmp_path / "run")
    one, other = (RunDir.open(each).checkpoint("last").weights for each in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("command", ["info run", "predict run -", "train train.tsv"])
def test_closed_stdout(tiny: Tiny, command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m srucli {command} >&-"],
        cwd=tiny.folder,
        env=child_environment(),
        input="",
        capture_output=True,
        text=True,
    )
    message = "srucli: stdout is closed; send it somewhere, as >/dev/null\n"
    assert (done.returncode, done.stderr) == (73, message)
    assert not (tiny.folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("pos\t좋은 영화 ok", "cp949"),
        ("これは良い映画です", "cp932"),
        ("хороший фильм", "cp1251"),
        ("这部电影非常好看", "gb18030"),
        ("très bon été", "cp1252"),
    ],
)
def test_matching_encoding_is_suggested_first(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "x.txt").write_bytes(f"first\n{text}\n".encode(encoding))
    with pytest.raises(DataError) as caught:
        list(Lines(tmp_path / "x.txt"))
    assert caught.value.remedy.startswith(f"pass the right --encoding ({encoding}, ")
    assert [line for _, line in Lines(tmp_path / "x.txt", encoding)][1] == text


def test_data_is_utf_8_in_every_locale(tiny: Tiny, tmp_path: Path, run_cli: RunCli) -> None:
    """Files would be read as ASCII here, and stdout would be ASCII. stderr is, and is escaped."""
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env["PYTHONIOENCODING"] = "ascii"
    (tmp_path / "\ud55c.txt").write_text("\uc88b\ub2e4\n", encoding="utf-8")
    done = run_cli("predict", tiny.run, "\ud55c.txt", "--with-input", cwd=tmp_path, env=env)
    assert done.stderr.startswith("\\udced\\udc95\\udc9c.txt: plain text")
    assert (done.returncode, done.stdout.split("\t")[1]) == (0, "\uc88b\ub2e4\n"), done.stderr


def test_file_names_that_are_not_unicode(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    """A run stores the names, stdout has their bytes, and stderr shows them escaped."""
    train, run = tmp_path / os.fsdecode(b"caf\xe9.tsv"), tmp_path / os.fsdecode(b"r\xe9sum\xe9")
    shutil.copy(tiny.train, train)
    words = ("train", train, "-o", run, "--tokenizer", tiny.run / "tokenizer.model", "--epochs", 1)
    ended = run_main(*words, "--diagnose", 5, *SETTINGS)
    assert (ended.code, os.fsencode(ended.out)) == (0, os.fsencode(run) + b"\n"), ended.err
    assert RunDir.open(run).facts().sources["train"] == str(train)
    ended = run_main("diagnose", run, "--plots", f"{run}-plots")
    assert ended.code == 0
    assert ended.err.splitlines()[0].endswith(r"r\udce9sum\udce9-plots/optimizer.png")


# --- non-finite numbers -------------------------------------------------------------------------


SetNaN = Callable[[Container[int]], None]


@pytest.fixture
def set_nan() -> Iterator[SetNaN]:
    """Return a function that makes the encoder's output NaN in training batches by number."""
    batches, chosen = itertools.count(), list[Container[int]]([()])

    def hook(module: nn.Module, inputs: object, states: tuple[Tensor, ...]) -> Any:
        if isinstance(module, Encoder) and torch.is_grad_enabled() and next(batches) in chosen[0]:
            return tuple(each * math.nan for each in states)
        return states

    def choose(numbers: Container[int]) -> None:
        chosen[0] = numbers

    with register_module_forward_hook(hook):
        yield choose


def test_steps_with_non_finite_gradients_are_skipped_and_counted(
    tiny: Tiny, tmp_path: Path, set_nan: SetNaN, capsys: pytest.CaptureFixture[str]
) -> None:
    set_nan({0, 3, 9, 59})
    run = run_training(tiny, tmp_path / "run")
    message = capsys.readouterr().err
    assert "3 of 30 steps were skipped because of non-finite gradients" in message
    counts = [each.get("skipped") for each in RunDir(run).records("metrics.jsonl")]
    assert counts == [3, 1]
    assert "1 of 30 steps were skipped" in message
    assert Predictor.load(run, "cpu").probabilities(["x"]).shape == (1, 3)
    assert "nan" not in (run / "metrics.jsonl").read_text().lower()


@pytest.mark.parametrize("clip", [0, 1])
def test_many_skipped_steps_end_the_training_at_a_good_checkpoint(
    tiny: Tiny, tmp_path: Path, set_nan: SetNaN, run_main: RunMain, clip: int
) -> None:
    """The command in the message resumes from it."""
    set_nan(range(33, 99))
    message = (
        r"27 steps in a row had non-finite gradients at step 60: training diverged; lower .*; "
        r"(srucli train --resume .*run --force optim\.lr=0\.0002) resumes from step-30"
    )
    with pytest.raises(SrucliError, match=message) as caught:
        run_training(tiny, tmp_path / "run", f"optim.clip={clip}")
    weights = RunDir.open(tmp_path / "run").checkpoint("last").weights
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    set_nan(())
    command = re.search(message, str(caught.value))
    assert command
    ended = run_main(*shlex.split(command[1])[1:])
    assert ended.code == 0, ended.err
    assert "resuming from step 30, after 1 complete epochs" in ended.err


def test_a_run_that_cannot_be_resumed_is_not_advised_to(
    tiny: Tiny, tmp_path: Path, set_nan: SetNaN, capsys: pytest.CaptureFixture[str]
) -> None:
    """The optimizer has a state that cannot be saved, as some of other packages have."""

    def add_state(optimizer: torch.optim.Optimizer, *_: object) -> None:
        optimizer.state["own"] = {"rule": add_state}  # type: ignore[index]

    set_nan(range(33, 99))
    with (
        register_optimizer_step_post_hook(add_state),
        pytest.raises(SrucliError, match=r"training diverged; lower optim\.lr") as caught,
    ):
        run_training(tiny, tmp_path / "run")
    assert "--resume" not in str(caught.value)
    message = (
        "this run cannot be resumed: the state of adam contains a function at optimizer.others."
    )
    assert message in capsys.readouterr().err


def test_training_of_which_every_step_is_skipped(
    tiny: Tiny, tmp_path: Path, set_nan: SetNaN
) -> None:
    set_nan(range(99))
    with pytest.raises(SrucliError, match=r"in a row had non-finite gradients"):
        run_training(tiny, tmp_path / "run", "optim.name=adamw")


@pytest.mark.parametrize("size", [16, 1], ids=["batches of 16", "batches of 1"])
def test_anomaly_is_traced_to_its_line(tmp_path: Path, size: int) -> None:
    """Only one text has the letter z, whose embedding overflows in the resumed checkpoint."""
    rows = sentences()[:200]
    rows.insert(123, ("good", "a puzzzle"))
    data = write_tsv(tmp_path / "x.tsv", rows)
    settings = ["train.epochs=1", "train.dev_share=0", "train.detect_anomaly=true"]
    settings += ["tokenizer.model_type=char", "tokenizer.character_coverage=1"]
    config = quick(*settings, f"train.batch_size={size}")
    run = RunDir.open(train(config, str(data), None, tmp_path / "run"))
    name, saved = run.checkpoints.pointed("last"), run.checkpoint("last")
    ids, _ = Predictor.load(run.path, "cpu").tokenizer.encode(["z"])
    saved.weights["embedding.weight"][ids[-1]] = 3e38
    state = {key: value for key, value in saved.state.items() if key != "step"}
    training = {file: run.checkpoints.read(name, file) for file in (TRAINING, TRAINING_TENSORS)}
    run.save(saved.state["step"], saved.weights, state, {"last"}, training)
    message = r"x\.tsv:124: its loss is nan at step \d+; look at the text"
    with pytest.raises(DataError, match=message):
        resume(run.path, {"train.epochs": 2})


def test_anomaly_that_no_single_text_causes(tiny: Tiny, tmp_path: Path) -> None:
    overrides = ("optim.name=sgd", "optim.lr=1e30", "train.detect_anomaly=true")
    with pytest.raises(
        SrucliError, match=r"no single example causes it, at step \d+: training div"
    ):
        run_training(tiny, tmp_path / "run", *overrides)


# --- files and terminals -----------------------------------------------------------------------


def zstandard_bomb(size: int) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.ZstdCompressor().compress(b"x" * size))


@pytest.mark.parametrize(("kind", "size"), [("gz", 2**27), ("xz", 2**27), ("zst", 2**28)])
def test_compression_bombs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    """A long line of one letter is refused by its ratio, or by its length with little memory."""
    bomb = tmp_path / f"bomb.tsv.{kind}"
    monkeypatch.setattr("srucli.io.lines.MAX_LINE", 2**23)
    make: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "xz": lzma.compress}
    data = make[kind](b"a\t" + b"x" * size) if kind in make else zstandard_bomb(size)
    bomb.write_bytes(data)
    with pytest.raises(DataError, match=r"bomb.*:1: grows beyond 100 times its size; raise"):
        list(Lines(bomb, max_ratio=100))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb.*:1: a line of over 8 MB; cut it"):
        list(read_examples(bomb, resolve().data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 2


def test_max_ratio_flag(run_main: RunMain, tmp_path: Path) -> None:
    data = tmp_path / "x.tsv.gz"
    data.write_bytes(gzip.compress(b"a\tx\nb\ty\n" * 10**6))
    ended = run_main("train", data, "-o", tmp_path / "run", "--max-ratio", 10, *QUICK)
    assert ended.code == 65
    assert "grows beyond 10 times its size; raise --max-ratio if you trust it" in ended.err


def test_utf_16_lines_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srucli.io.lines.MAX_LINE", 1000)
    (tmp_path / "x").write_text("short\n" + "x" * 100_000, encoding="utf-16")
    with pytest.raises(DataError, match=r"x:2: a line of over 0 MB"):
        list(Lines(tmp_path / "x", "utf-16"))


def test_labels_are_escaped_only_on_a_terminal(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    """The labels clear the screen; `script` gives the command a terminal."""
    if not shutil.which("script"):
        pytest.skip("script is not installed")
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    (run / "labels.json").write_text('["\\u001b[2Ja", "\\u001b[2Jb", "\\u001b[2Jc"]')
    command = f"printf 'a lovely film\\n' | '{sys.executable}' -m srucli predict run -"
    shown = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        cwd=tmp_path,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
    ).stdout
    assert b"\\x1b[2J" in shown
    assert b"\x1b[2J" not in shown
    piped = run_main("predict", run, "-", input="a lovely film\n")
    assert piped.out.startswith("\x1b[2J")


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-16", b"^\x92\x1b\xdf"),
        ("utf-32", b"^\x92\x1b\xdf\xff"),
        ("idna", b"xn--\xff\n"),
        ("utf-7", b"a +2F4- b\n"),
    ],
)
@pytest.mark.parametrize("errors", ["strict", "replace", "ignore"])
def test_invalid_bytes_in_unusual_encodings(
    tmp_path: Path, encoding: str, data: bytes, errors: str
) -> None:
    (tmp_path / "x").write_bytes(data)
    try:
        lines = [line for _, line in Lines(tmp_path / "x", encoding, errors)]
    except DataError as error:
        lines = [str(error.line)]
    assert lines == ["1"] or all(line.encode() is not None for line in lines)
