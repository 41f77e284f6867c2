"""Helpers for tests: small data sets, small trainings, folders, child processes."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from srucli.config import Config

ROOT = Path(__file__).parent.parent

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
# Registers a function that is called before each optimizer step with its number, from 1.
OnStep = Callable[[Callable[[int], object]], None]


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true. pytest's timeout ends the test if it never is."""
    while not condition():
        time.sleep(0.02)


@contextmanager
def interrupted_when(condition: Callable[[], object]) -> Iterator[None]:
    """Send SIGINT to this process, during a block, as soon as a condition is true."""

    def interrupt() -> None:
        until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def children(pid: int) -> list[int]:
    """Return the ids of a process's children and their descendants (on Linux, else none)."""
    try:
        of_threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    direct = " ".join(of_threads).split()
    return [each for child in map(int, direct) for each in (child, *children(child))]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time in user mode, in seconds, of a process and its ended children.

    0 if there is no such process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[13])) / os.sysconf("SC_CLK_TCK")


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a child process that imports this checkout of srucli first."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **variables}


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
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
TABLES = ("model.embedding_size=16", "model.dropout=0.1")
# Flags of a network that trains in a second.
QUICK = (
    *("--threads", 1, "--hidden", 16, "--layers", 1, "--batch-size", 16),
    *(*TABLES, "train.dev_share=0.1"),
)
# Settings of an even smaller network, and of its training by a library call.
NETWORK = (*TABLES, "model.hidden=8", "model.layers=1", "train.batch_size=16")
SETTINGS = (*NETWORK, "train.dev_share=0.1", "train.threads=1")


def sentences(seed: int = 0) -> list[tuple[str, str]]:
    """Return 600 pairs of label and text, with three labels, in random order."""
    rows = [
        (label, shape.format(thing, word))
        for label, words in LABELS.items()
        for word, thing, shape in itertools.product(words, THINGS, SHAPES)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def unique_words() -> list[str]:
    """Return 100,000 different words, on which SentencePiece trains for over 20 s of CPU time."""
    digits_as_letters = str.maketrans("0123456789", "ghijklmnop")
    letters = random.Random(0).randbytes(1_000_000).hex().translate(digits_as_letters)
    return [letters[start : start + 20] for start in range(0, len(letters), 20)]


def write_tsv(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """Write pairs of label and text, and return the path."""
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


RunMain = Callable[..., CommandResult]


@dataclass(frozen=True)
class Tiny:
    """A small trained run, its data, and the result of the command that trained it."""

    folder: Path
    run: Path
    train: Path
    test: Path
    result: CommandResult
    labels: tuple[str, ...] = tuple(sorted(LABELS))
    texts: int = 480


def quick(*overrides: str) -> Config:
    """Return the settings of a training of two epochs that takes a second."""
    from srucli.config import resolve

    return resolve(overrides=[*SETTINGS, "train.epochs=2", *overrides])


def run_training(
    tiny: Tiny, output: Path, *overrides: str, dev: bool = True, **options: Any
) -> Path:
    """Train on the tiny run's examples with its tokenizer; `options` go to `train`."""
    from srucli.training.run import train

    dev_source = str(tiny.test) if dev else None
    tokenizer = tiny.run / "tokenizer.model"
    return train(
        quick(*overrides), str(tiny.train), dev_source, output, tokenizer=tokenizer, **options
    )


@contextmanager
def piped_stdin(data: str | bytes | None) -> Iterator[None]:
    """Let sys.stdin be a pipe with this data; None leaves it unchanged."""
    if data is None:
        yield
        return
    content = data.encode() if isinstance(data, str) else data
    reader, writer = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), open(writer, "wb") as pipe:
            pipe.write(content)

    thread = Thread(target=write)
    thread.start()
    with open(reader) as stdin, patch.object(sys, "stdin", stdin):
        yield
    thread.join()


@contextmanager
def restored_process() -> Iterator[None]:
    """Undo, after a command, the process-wide settings of torch that it changed."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def tree(folder: Path) -> dict[str, bytes | str]:
    """Return the content of a folder by relative path: bytes, link targets, "" for folders."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else ""
    return found
