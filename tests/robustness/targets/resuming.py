"""The fuzzer's target `resume`: mutated training states, which are restored and trained on.

A stopped or finished run loses, or gets another, training state, record, pointer, configuration or
plan of its training; then it is resumed, for a few steps. A refusal must change none of its files.
A run that was resumed to its end can predict, and be resumed again.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from random import Random
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from srucli.errors import DivergedError, InterruptedRun, SrucliError
from srucli.inference.predictor import Predictor
from srucli.runs.run_dir import RunDir
from srucli.training.interrupts import Interrupt
from srucli.training.resume import saved_training
from srucli.training.run import resume, train
from tests.robustness.folders import tree
from tests.robustness.mutate import mutate_file, mutate_lines, repair_manifests
from tests.robustness.targets.seeds import TEXTS, Seeds
from tests.robustness.watch import watched

# Files of a run that a training reads to go on; each as often as it is worth.
STATE = (
    *("training.safetensors", "training.json", "training.json", "state.json", "model.safetensors"),
    *("manifest.json", "metrics.jsonl", "metrics.jsonl", "diagnostics.jsonl", "best", "last"),
    *("config.yaml", "config.yaml", "run.json", "labels.json", "srucli.json", "tokenizer.model"),
)
SETTINGS: tuple[dict[str, Any], ...] = (
    *({"train.epochs": 2}, {"train.epochs": 2}, {"train.epochs": 3}, {}, {"optim.lr": 0.1}),
    *({"optim.name": "sgd"}, {"train.patience": 1, "train.epochs": 3}, {"train.seed": 5}),
    *({"train.use_checkpoint": "last", "train.epochs": 2}, {"data.merge_labels": True}),
)
MAX_STEPS = 3


def try_resume(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate a run, resume it, and check what is left."""
    bases, run = seeds.bases, folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(bases.folder / random.choice(("stopped", "finished")), run)
    for _ in range(random.choice((1, 1, 2, 4))):
        found = [path for path in sorted(run.rglob("*")) if path.is_file()]
        wanted = random.choice(STATE)
        for path in [each for each in found if each.name == wanted][:1]:
            mutate(random, path, random.choice(found).read_bytes())
    if random.random() < 0.8:
        repair_manifests(run)
    before = tree(run)
    try:
        with watched(run), contextlib.redirect_stderr(io.StringIO()), at_most() as stop:
            if random.random() < 0.7:
                settings, force = random.choice(SETTINGS), random.random() < 0.3
                resume(run, dict(settings), force=force, stop=stop)
            else:
                train(bases.config, str(bases.texts), None, run, stop=stop)
    except (InterruptedRun, DivergedError):  # it has trained
        check_usable(run)
    except SrucliError:
        after = tree(run)
        for name in ("lock", "srucli.json"):
            before.pop(name, None), after.pop(name, None)
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        assert not changed, f"refused, but changed {changed}"
        raise
    check_usable(run)


def mutate(random: Random, path: Path, other: bytes) -> None:
    """Change, remove or replace a file."""
    way, data = random.random(), path.read_bytes()
    if way < 0.05:
        path.unlink()
    elif way < 0.1:
        path.write_bytes(other)
    elif path.suffix == ".jsonl":
        path.write_bytes(mutate_lines(random, data, other))
    else:
        path.write_bytes(mutate_file(random, path.name, data, other))


def check_usable(run: Path) -> None:
    """Check that a run that was resumed can be resumed again, and predicts.

    A state with huge numbers may have made its weights huge: prediction then says so.
    """
    try:
        saved_training(RunDir(run))
        with contextlib.suppress(DivergedError):
            Predictor.load(run, "cpu").probabilities(TEXTS[:2])
    except SrucliError as error:
        raise AssertionError(f"resumed, but then: {error}") from error


@contextlib.contextmanager
def at_most(steps: int = MAX_STEPS) -> Any:
    """Give a block an interrupt that is requested after some optimizer steps."""
    stop, taken = Interrupt(), 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1
        stop.requested = taken >= steps

    hook = register_optimizer_step_post_hook(count)
    try:
        yield stop
    finally:
        hook.remove()
