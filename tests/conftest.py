"""What every test may use: the command as a person runs it, and the real data where present."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parent.parent
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


RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


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
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            timeout=timeout,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


def until(holds: Callable[[], object]) -> None:
    """Wait for something, however long it takes; what never comes is ended by pytest's timeout."""
    while not holds():
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have; Linux alone tells."""
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [each for child in map(int, own) for each in (child, *children(child))]


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


LABELS = {
    "good": ["lovely", "wonderful", "excellent", "friendly", "bright"],
    "bad": ["awful", "terrible", "broken", "rude", "gloomy"],
    "none": ["wooden", "square", "blue", "local", "second"],
}
THINGS = ["soup", "coffee", "train", "hotel", "film", "book", "garden", "phone", "lamp", "coat"]
SHAPES = ("the {0} was {1}", "what a {1} {0}", "{1} {0} , as always", "we found the {0} {1}")
# The flags of a network that trains in a second.
QUICK = (
    *("--threads", 1, "--hidden", 16, "--layers", 1, "--batch-size", 16),
    *("model.embedding_size=16", "model.wide_buckets=512", "model.character_buckets=512"),
    *("model.dropout=0.1", "train.dev_share=0.1"),
)


def sentences(seed: int = 0) -> list[tuple[str, str]]:
    """600 pairs of label and text, of three kinds, in random order."""
    rows = [
        (label, shape.format(thing, word))
        for label, words in LABELS.items()
        for word, thing, shape in itertools.product(words, THINGS, SHAPES)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def write_tsv(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """Write pairs of label and text."""
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Tiny:
    """A small trained run, what it was trained on, and what the command said."""

    folder: Path
    run: Path
    train: Path
    test: Path
    done: subprocess.CompletedProcess[str]
    labels: tuple[str, ...] = tuple(sorted(LABELS))
    texts: int = 480


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


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


RunMain = Callable[..., Ended]


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunMain:
    """Run `srucli` in this process, which saves the seconds that importing torch takes.

    What is no error of srucli's own escapes and fails the test, as a traceback would.
    """
    from srucli.cli import main

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["srucli", *map(str, arguments)])
        capsys.readouterr()
        with patch.dict(os.environ), pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def _same_processor() -> Iterator[None]:
    """Undo what using a model in this process sets: threads, and denormal numbers as zeros."""
    before = "torch" in sys.modules and sys.modules["torch"].get_num_threads()
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
        sys.modules["torch"].set_num_threads(before or len(os.sched_getaffinity(0)))


def tree(folder: Path) -> dict[str, bytes | str]:
    """What is in a folder, and below: bytes of files, targets of links, "" for folders."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else ""
    return found
