"""Fixtures: the command as a person runs it, and the real data where present."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.support import (
    QUICK,
    ROOT,
    Ended,
    OnStep,
    RunCli,
    RunMain,
    Tiny,
    child_environment,
    lent_process,
    sentences,
    write_tsv,
)

# A shell starts what runs in its background with interrupts ignored, and so would every command be.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str:
    """Name a case by what it holds, also where pytest would number it."""
    if val is None or isinstance(val, bool | int | float):
        return f"{argname}={val}"
    named = _case(val)
    short = named if len(named) <= 60 else f"{named[:60]}..."
    return (short if short.isprintable() else ascii(short)[1:-1]) or f"no {argname}"


def _case(value: object) -> str:
    if isinstance(value, bytes):
        return ascii(value)[2:-1]
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_case(each)}" for key, each in value.items())
    if isinstance(value, tuple | list | set | frozenset):
        return " ".join(map(_case, value))
    return getattr(value, "__name__", str(value).removeprefix("torch."))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: $SRUCLI_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("SRUCLI_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; set SRUCLI_DATA")
    return folder


@pytest.fixture(scope="session")
def run_cli() -> RunCli:
    """Run `srucli` in a process of its own: run_cli("train", path, input="...", cwd=...)."""

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
    """`srucli train` on sentences by template, in a process of its own. Do not change its files."""
    folder, rows = tmp_path_factory.mktemp("tiny"), sentences()
    train = write_tsv(folder / "train.tsv", rows[:480])
    test = write_tsv(folder / "test.tsv", rows[480:])
    done = run_cli(
        "train", "train.tsv", "-o", "run", "--epochs", 5, "--lr", 0.01, *QUICK, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return Tiny(folder, folder / "run", train, test, done)


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunMain:
    """Run `srucli` in this process, which saves the seconds that importing torch takes.

    What is no error of srucli's own escapes and fails the test, as a traceback would.
    """
    from srucli.cli import main

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["srucli", *map(str, arguments)])
        capsys.readouterr()
        with patch.dict(os.environ), lent_process(), pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def on_step() -> Iterator[OnStep]:
    """Have something called in each optimizer step; a later call replaces an earlier one."""
    from torch.optim import Optimizer, optimizer

    calls: list[Callable[[int], object]] = []
    running: list[Optimizer] = []
    steps = itertools.count(1)

    def before(which: Optimizer, *_: object) -> None:
        if not running:  # else one is a part of another
            for call in calls:
                call(next(steps))
        running.append(which)

    def after(*_: object) -> None:
        running.pop()

    def arrange(call: Callable[[int], object]) -> None:
        nonlocal steps
        calls[:], steps = [call], itertools.count(1)
        running.clear()

    hooks = (
        optimizer.register_optimizer_step_pre_hook(before),
        optimizer.register_optimizer_step_post_hook(after),
    )
    yield arrange
    for hook in hooks:
        hook.remove()
