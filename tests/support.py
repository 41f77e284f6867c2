"""What tests share: small data, small trainings, folders, processes."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srucli.config import Config

ROOT = Path(__file__).parent.parent


RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
# Takes what is called with the number of each optimizer step, from 1, before weights change.
OnStep = Callable[[Callable[[int], object]], None]


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


def seconds_of(pid: int) -> float:
    """The processor's seconds that a process has used."""
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]
    return int(used) / os.sysconf("SC_CLK_TCK")


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a child process that imports this checkout of srucli first."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **variables}


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
TABLES = (
    *("model.embedding_size=16", "model.wide_buckets=512", "model.character_buckets=512"),
    "model.dropout=0.1",
)
# The flags of a network that trains in a second.
QUICK = (
    *("--threads", 1, "--hidden", 16, "--layers", 1, "--batch-size", 16),
    *(*TABLES, "train.dev_share=0.1"),
)
# The settings of an even smaller network, and of its training by a library call.
NETWORK = (*TABLES, "model.hidden=8", "model.layers=1", "train.batch_size=16")
SETTINGS = (*NETWORK, "train.dev_share=0.1", "train.threads=1")


def sentences(seed: int = 0) -> list[tuple[str, str]]:
    """600 pairs of label and text, of three kinds, in random order."""
    rows = [
        (label, shape.format(thing, word))
        for label, words in LABELS.items()
        for word, thing, shape in itertools.product(words, THINGS, SHAPES)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def single_words() -> list[str]:
    """300,000 words that never come twice: over a minute of SentencePiece."""
    draw = random.Random(0)
    return ["".join(draw.choices("abcdefghij", k=20)) for _ in range(300_000)]


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


def quick(*overrides: str) -> Config:
    """Settings of a training of two epochs that takes a second."""
    from srucli.config import resolve

    return resolve(overrides=[*SETTINGS, "train.epochs=2", *overrides])


def run_training(tiny: Tiny, output: Path, *overrides: str, dev: bool = True, **how: Any) -> Path:
    """Train on the tiny run's examples with its tokenizer; `how` goes to `train`."""
    from srucli.training.run import train

    dev_source = str(tiny.test) if dev else None
    tokenizer = tiny.run / "tokenizer.model"
    return train(quick(*overrides), str(tiny.train), dev_source, output, tokenizer=tokenizer, **how)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


RunMain = Callable[..., Ended]


@contextmanager
def lent_process() -> Iterator[None]:
    """Undo what a command that runs in a test's process sets there for good."""
    import torch

    from srucli.kernels import jit

    jit.launch_threads()
    threads, numba_threads = torch.get_num_threads(), jit.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        jit.set_num_threads(numba_threads)


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
