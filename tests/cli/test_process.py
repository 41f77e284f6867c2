"""The settings of a command's process, and its signal handlers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from srucli.cli.process import SIGNALS, interruptible, term_as_int
from srucli.runs.run_dir import RunDir
from tests.support import (
    QUICK,
    RunMain,
    Tiny,
    child_environment,
    children,
    cpu_seconds,
    is_running,
    unique_words,
    until,
    write_tsv,
)

ENVIRONMENT = child_environment()
FIRST = "\nsrucli: stopping after this step; once more to stop at once\n"
SECOND = "\nsrucli: stopped at once\n"
TOO_EARLY = "\nsrucli: stopped before the first step; the same command starts again\n"

RAISE = """
import signal, sys
from srucli.cli.process import interruptible
with interruptible() as interrupt:
    interrupt.checked = sys.argv[1] == "checked"
    for name in sys.argv[2:]:
        signal.raise_signal(signal.Signals[name])
    print(interrupt.requested)
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("unchecked SIGINT", 75, TOO_EARLY),
        ("unchecked SIGTERM", 75, TOO_EARLY),
        ("unchecked SIGUSR1", 75, TOO_EARLY),
        ("checked SIGUSR1", 0, FIRST),
        ("checked SIGTERM SIGINT", 130, FIRST + SECOND),
    ],
)
def test_a_signal_requests_an_interrupt_or_exits(words: str, code: int, said: str) -> None:
    command = [sys.executable, "-c", RAISE, *words.split()]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout == ("" if code else "True\n")


def test_handlers_are_restored_and_ignored_signals_stay_ignored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible() as interrupt:
        interrupt.checked = True
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
    assert [signal.getsignal(number) for number in SIGNALS] == before
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with interruptible() as interrupt:
            signal.raise_signal(signal.SIGUSR1)
            assert not interrupt.requested
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_term_raises_keyboard_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), term_as_int():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def words(source: str) -> list[str]:
    """Return the arguments of a short training into the folder `run`."""
    return ["train", source, "-o", "run", "--epochs", "1", *map(str, QUICK)]


def training(folder: Path, source: str) -> subprocess.Popen[str]:
    """Start a training with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "srucli", *words(source)],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_training_stopped_before_its_first_step_starts_again(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = training(tmp_path, "-")
    until((tmp_path / "run" / "lock").exists)  # it waits for stdin
    process.send_signal(signal.SIGTERM)
    assert process.communicate() == ("", TOO_EARLY)
    assert process.returncode == 75
    monkeypatch.chdir(tmp_path)
    again = run_main(*words("-"), input=tiny.train.read_text())
    assert (again.code, again.out) == (0, "run\n"), again.err
    assert RunDir.open(tmp_path / "run").state("last")["finished"]
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_the_tokenizers_child_process_ends_with_the_command(tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", [(word[0], word) for word in unique_words()])
    process = training(tmp_path, "a.tsv")
    # It has read its lines, and trains. Older joblib starts others, which end.
    until(lambda: any(cpu_seconds(child) > 1 for child in children(process.pid)))
    [child] = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said[-len(TOO_EARLY) :]) == (75, TOO_EARLY)
    until(lambda: not is_running(child))
