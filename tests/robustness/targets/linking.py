"""The fuzzer's target `links`: links and special files in place of a run's files and folders.

Files and folders of a run, of its plots, of a comparison, and tokenizers are replaced by symbolic
links, hard links, pipes, devices, sockets, folders or files. Then a command reads the run, draws
plots into the folder, or trains. Nothing outside the folders may be read through a link, and
nothing may change there. The target `folders` damages output folders in more ways.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from srucli.errors import SrucliError
from tests.robustness.folders import tree
from tests.robustness.targets.commands import run_command
from tests.robustness.targets.printed import check_printed
from tests.robustness.targets.seeds import Seeds
from tests.robustness.watch import watched

DEVICES = ("/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "/proc/self/mem", "/dev/tty")
DRAWN = ("optimizer.png", "optimizer.svg", "learning.png", "confusion.svg", "reliability.svg")


def _symbolic(random: Random, path: Path, outside: Path) -> None:
    inside = random.choice((path, path.parent, path.parent / "run.json", path.parent / "absent"))
    targets = (outside / "file", outside / "folder", outside, outside / "run", inside)
    path.symlink_to(random.choice((*targets, *targets, *DEVICES)))


def _hard(random: Random, path: Path, outside: Path) -> None:
    os.link(outside / random.choice(("file", f"run/{path.name}")), path)


def _special(random: Random, path: Path, outside: Path) -> None:
    os.mknod(path, 0o600 | random.choice((stat.S_IFIFO, stat.S_IFSOCK)))


def _folder(random: Random, path: Path, outside: Path) -> None:
    path.mkdir()
    if random.random() < 0.5:
        (path / "mine").write_text("mine")


def _file(random: Random, path: Path, outside: Path) -> None:
    path.write_text(random.choice(("", "mine", "step-1", "{}")))


KINDS: tuple[Callable[[Random, Path, Path], None], ...] = (
    *(_symbolic, _symbolic, _symbolic, _hard, _special, _folder, _file),
)


def replace(random: Random, path: Path, outside: Path) -> None:
    """Put something else in a path's place, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # a file to link to may be absent
        random.choice(KINDS)(random, path, outside)


def try_links(seeds: Seeds, random: Random, folder: Path) -> None:
    """Replace files by links and special files, and run a command on them."""
    bases, here = seeds.bases, folder / "here"
    shutil.rmtree(here, ignore_errors=True)
    outside, run, plots = here / "outside", here / "run", here / "plots"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_text("good\tlovely\n")
    shutil.copytree(bases.folder / "finished", outside / "run")
    shutil.copytree(bases.folder / random.choice(("finished", "finished", "compared")), run)
    plots.mkdir()
    for name in random.sample(DRAWN, 2):
        (plots / name).write_text("mine")
    model = here / "x.model"
    shutil.copy(bases.tokenizer, model)
    for _ in range(random.choice((1, 1, 2, 4))):
        absent = [run / "lock", plots / random.choice(DRAWN), run / "tensorboard"]
        found = [path for path in sorted(run.rglob("*")) if not path.is_symlink()]
        replace(random, random.choice((*found, *absent)), outside)
    if random.random() < 0.2:
        replace(random, model, outside)
    words = command(random, seeds, run, plots, model)
    named = str(model) in words
    if named and (
        model.is_fifo() or not os.path.realpath(model).startswith(os.path.realpath(here))
    ):
        return  # a pipe that is named as an input is waited for, and a link followed
    before = tree(outside)
    with watched(here):
        said = run_command(*words)
    assert tree(outside) == before, f"files outside changed: {words}"
    check_printed(said.err)
    if said.code:
        raise SrucliError(said.err)


def command(random: Random, seeds: Seeds, run: Path, plots: Path, model: Path) -> list[str]:
    """Return a command that reads the run or the model, or writes to the folders."""
    texts = str(seeds.bases.texts)
    draw = ["--plots", str(plots)] if random.random() < 0.05 else []
    train = ["-o", str(run), "--tokenizer", str(model), "train.epochs=1", "--threads", "1"]
    network = ["model.hidden=8", "model.layers=1", "model.embedding_size=8"]
    return random.choice(
        (
            ["predict", str(run), texts],
            ["predict", str(run), texts],
            ["eval", str(run), texts, *draw],
            ["info", str(run)],
            ["info", str(model)],
            ["diagnose", str(run), *draw],
            ["encode", str(model), texts],
            ["train", "--resume", str(run), "--epochs", "2"],
            ["train", texts, *train, *network, *["--force"][: random.randrange(2)]],
        )
    )


def prepare(seeds: Seeds) -> None:
    """Import what the commands need, and make the folders."""
    run, texts = str(seeds.bases.folder / "finished"), str(seeds.bases.texts)
    for words in (["eval", run, texts], ["diagnose", run], ["info", run]):
        assert run_command(*words).code == 0
