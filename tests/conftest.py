"""Fixtures: run commands, a small trained run, the public data sets, hooks on optimizer steps."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

import pytest

from tests.support import (
    QUICK,
    ROOT,
    CommandResult,
    OnStep,
    RunCli,
    RunMain,
    Tiny,
    child_environment,
    piped_stdin,
    restored_process,
    sentences,
    write_tsv,
)

# As in the commands: threads of OpenMP that spin while they wait slow down other processes.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
# A shell starts background jobs with SIGINT ignored, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str:
    """Name a test case after its value, also for types that pytest would only number."""
    if val is None or isinstance(val, bool | int | float):
        return f"{argname}={val}"
    name = _case_name(val)
    short = name if len(name) <= 60 else f"{name[:60]}..."
    return (short if short.isprintable() else ascii(short)[1:-1]) or f"no {argname}"


def _case_name(value: object) -> str:
    if isinstance(value, bytes):
        return ascii(value)[2:-1]
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_case_name(each)}" for key, each in value.items())
    if isinstance(value, tuple | list | set | frozenset):
        return " ".join(map(_case_name, value))
    return getattr(value, "__name__", str(value).removeprefix("torch."))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Compute with one thread, because tests run in one process per core."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Fail a test that leaves variables of the environment changed for the tests after it."""
    before = dict(os.environ)
    yield
    # Set by pytest, by torch when it imports its compiler, and by joblib when it is imported.
    others = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "KMP_INIT_AT_FORK"}
    names = {*before, *os.environ} - others
    assert [name for name in names if before.get(name) != os.environ.get(name)] == []


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of the public data sets: $SRUCLI_DATA, or ../shared/data."""
    folder = Path(os.environ.get("SRUCLI_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not in {folder}; set SRUCLI_DATA")
    return folder


@pytest.fixture(scope="session")
def run_cli() -> RunCli:
    """Return a function that runs `srucli` in a child process: run_cli("train", path, cwd=...)."""

    def run(
        *arguments: object,
        input: str | bytes = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 240,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "srucli", *map(str, arguments)],
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True,
            cwd=cwd,
            env=child_environment(**(env or {})),
            timeout=timeout,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


@pytest.fixture(scope="session")
def tiny(run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return a run that `srucli train` made in a child process. Tests do not change its files.

    pytest-xdist's workers share it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    folder.mkdir(exist_ok=True)
    rows, finished = sentences(), folder / "finished.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            write_tsv(folder / "train.tsv", rows[:480])
            write_tsv(folder / "test.tsv", rows[480:])
            words = ("train", "train.tsv", "-o", "run", "--epochs", 5, "--lr", 0.01, *QUICK)
            done = run_cli(*words, cwd=folder)
            assert done.returncode == 0, done.stderr
            finished.write_text(json.dumps([done.stdout, done.stderr]))
    result = CommandResult(0, *json.loads(finished.read_text()))
    return Tiny(folder, folder / "run", folder / "train.tsv", folder / "test.tsv", result)


@pytest.fixture(scope="session")
def run_main() -> RunMain:
    """Return a function that runs `srucli` in this process, which saves the import of torch.

    With `input`, stdin is a pipe. With `stdout`, the output goes there instead of to the result. An
    exception other than a SrucliError escapes and fails the test.
    """
    from srucli.cli import main

    def run(
        *arguments: object, input: str | bytes | None = None, stdout: TextIO | None = None
    ) -> CommandResult:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
        with (
            patch.object(sys, "argv", ["srucli", *map(str, arguments)]),
            patch.dict(os.environ),
            piped_stdin(input),
            redirect_stdout(stdout or out),
            redirect_stderr(err),
            restored_process(),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return CommandResult(code, *map(written, (out, err)))

    return run


def written(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@pytest.fixture
def on_step() -> Iterator[OnStep]:
    """Return a function that registers a call before each optimizer step, in place of the last."""
    from torch.optim import Optimizer, optimizer

    calls: list[Callable[[int], object]] = []
    running: list[Optimizer] = []
    steps = itertools.count(1)

    def before(stepped: Optimizer, *_: object) -> None:
        if not running:  # an optimizer may consist of others
            for call in calls:
                call(next(steps))
        running.append(stepped)

    def after(*_: object) -> None:
        running.pop()

    def register(call: Callable[[int], object]) -> None:
        nonlocal steps
        calls[:], steps = [call], itertools.count(1)
        running.clear()

    hooks = (
        optimizer.register_optimizer_step_pre_hook(before),
        optimizer.register_optimizer_step_post_hook(after),
    )
    yield register
    for hook in hooks:
        hook.remove()
