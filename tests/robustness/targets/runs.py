"""The fuzzer's target `runs`: mutated run folders, used as commands use them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from srucli.data.readers import Input
from srucli.diagnostics.findings import diagnose
from srucli.diagnostics.records import Diagnostics
from srucli.errors import SrucliError
from srucli.inference.predictor import Predictor
from srucli.inference.stream import Style, records
from srucli.runs.run_dir import RunDir
from srucli.training.resume import saved_training
from tests.robustness.mutate import mutate_file, repair_manifests, replace_file
from tests.robustness.targets.seeds import TEXTS, Seeds, restore
from tests.robustness.watch import watched


def use_run(run: Path, random: Random) -> None:
    """Do with a run folder what commands do. Raises SrucliError."""
    others: list[Callable[[], object]] = [
        lambda: info(RunDir.open(run)),
        lambda: saved_training(RunDir(run)),
        lambda: diagnose(Diagnostics.read(run)),
    ]
    with suppress(SrucliError):
        random.choice(others)()
    predictor = Predictor.load(run, "cpu")
    inputs = [Input(text, 1, text) for text in TEXTS]
    style = Style(random.random() < 0.5, random.choice((None, 2)), as_json=random.random() < 0.5)
    for group in records(predictor, inputs, style):
        "\n".join(group).encode()


def info(run: RunDir) -> None:
    """Read what `srucli info RUN` reads."""
    for read in (run.facts, run.config, run.labels, run.tokenizer):
        read()
    for which in ("best", "last"):
        if (run.path / which).is_file():
            run.state(which)


def try_run(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate files of a run folder, in half of the cases repair the manifests, and use the run."""
    name = random.choice(list(seeds.runs))
    files, run = seeds.files[name], folder / name
    if not run.is_dir():
        shutil.copytree(seeds.runs[name], run)
    try:
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            path = random.choice(list(files))
            if random.random() < 0.08 and (run / path).is_file():
                replace_file(random, run / path, seeds.folder / "train.tsv")
                continue
            if not (run / path).is_file() or (run / path).is_symlink():
                continue
            other = random.choice(list(seeds.files[random.choice(list(seeds.files))].values()))
            changed = mutate_file(random, path.name, files[path], other)
            (run / path).write_bytes(changed)
        if random.random() < 0.5:
            repair_manifests(run)
        with watched(folder):
            use_run(run, random)
    finally:
        restore(run, files)


def prepare(seeds: Seeds) -> None:
    """Compile and import what using a run needs."""
    for run in seeds.runs.values():
        for number in range(20):
            use_run(run, Random(number))
