"""The fuzzer's target `vectors`: mutated folders of pretrained vectors, read and resumed."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr, suppress
from pathlib import Path
from random import Random

from srucli.config import build
from srucli.errors import InterruptedRun, SrucliError
from srucli.runs.pretrained_dir import STATE, VECTORS, PretrainedDir
from srucli.training.base import load_base
from srucli.training.interrupts import Interrupt
from srucli.training.pretrain import RawText, pretrain
from tests.robustness.mutate import mutate_file, replace_file
from tests.robustness.targets.seeds import SMALL, Seeds, restore, sentences
from tests.robustness.watch import watched

RAW = RawText([text for _, text in sentences()], ["raw.txt"])
CONFIG = build(SMALL | {"tokenizer": {"vocab_size": 80}, "pretrain": {"epochs": 2}}, "")


def use_vectors(folder: Path) -> None:
    """Do with a folder what commands do. Raises SrucliError."""
    with suppress(SrucliError):
        PretrainedDir(folder).facts()
    if (folder / STATE).exists():
        pretrain(CONFIG, RAW, folder)
    load_base(folder, "cpu")


def try_vectors(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate files of a finished folder, or of one that can be resumed, and use it."""
    kind = random.choice(("finished", "stopped"))
    source, own = made(seeds.folder / "vectors") / kind, folder / kind
    files = {path.relative_to(source): path.read_bytes() for path in sorted(source.glob("*.*"))}
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(source, own)
    try:
        for _ in range(random.choice((1, 1, 2, 4))):
            path = random.choice(list(files))
            if random.random() < 0.08 and (own / path).is_file():
                replace_file(random, own / path, seeds.labelled)
            elif (own / path).is_file() and not (own / path).is_symlink():
                other = random.choice(list(files.values()))
                (own / path).write_bytes(mutate_file(random, path.name, files[path], other))
        with watched(folder), redirect_stderr(io.StringIO()):
            use_vectors(own)
    finally:
        restore(own, files)


def made(folder: Path) -> Path:
    """Make both folders in this one, unless they are there, and return it."""
    if folder.is_dir():
        return folder
    pretrain(CONFIG, RAW, folder / "finished")
    with suppress(InterruptedRun):
        pretrain(CONFIG, RAW, folder / "stopped", stop=Interrupt(requested=True))
    assert (folder / "finished" / VECTORS).is_file()
    assert (folder / "stopped" / STATE).is_file()
    return folder


def prepare(seeds: Seeds) -> None:
    """Compile and import what is needed."""
    for number in range(20):
        with suppress(SrucliError):
            try_vectors(seeds, Random(number), seeds.folder / "prepared")
