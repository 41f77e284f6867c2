"""The trainings of a comparison: what each is, where it leaves what it found, running them.

A training is a cell. It runs in a process of its own, forked from `trial_server.py`, and leaves
one file when it is done, so that what is finished is never run again, wherever the comparison is
killed. Which cells there are to be is decided in `compare.py`.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from srucli import optim
from srucli.config import Config, DataConfig, build, dump, with_settings
from srucli.data.dataset import data_hash
from srucli.data.readers import Example, read_examples
from srucli.errors import DivergedError, SrucliError, UsageError
from srucli.io.children import Child, child
from srucli.io.files import (
    Place,
    opened,
    path_of,
    read_json,
    to_json,
    unwritable,
    write_files,
    writing,
)
from srucli.io.folders import Identity, OpenFolder
from srucli.runs import run_dir
from srucli.runs.claim import OWN, Layout, Source, claimed, clear, kind_of
from srucli.tokenizer.training import make_tokenizer
from srucli.tokenizer.truncation import Tally

# Neighbours of the grid are half a power of ten apart.
STEP = math.sqrt(10)
LOOK_EVERY = 50
# What a comparison's folder holds (see `claim.Layout`); the runs of its cells are its own.
_LEFT: Layout = {r"error\.txt": None, "run": {**run_dir.LAYOUT, **OWN}}
_CELL: Layout = {r"result\.json": None, **_LEFT, r"log\.txt": None}
LAYOUT: Layout = {
    r"index\.html": None,
    "cells": {r"[\w.=,-]+": {r"lr-[0-9a-z.+-]+": {r"seed-[0-9]+": _CELL}}},
    "data": {r"(train|dev|test)\.jsonl": None, r"tokenizer\.model": None},
    r"plan\.json": None,
}
# Of a cell's run, what nobody needs once it is measured.
_NEEDLESS: Layout = {key: run_dir.LAYOUT[key] for key in ("checkpoints", r"tokenizer\.model")}
# The largest that are read.
_MAX_PLAN, _MAX_RESULT = 2**20, 2**26


class Arm(NamedTuple):
    """One of the things compared: its name in the table, and the settings that make it."""

    name: str
    settings: Mapping[str, Any]


class Cell(NamedTuple):
    """One training."""

    arm: str
    lr: float
    seed: int

    @property
    def folder(self) -> Path:
        """Its place below the comparison's folder."""
        arm = re.sub(r"[^\w.=,-]+", "_", self.arm)
        return Path("cells") / arm / f"lr-{self.lr:g}" / f"seed-{self.seed}"


@dataclass(frozen=True)
class Result:
    """What a cell found: figures on dev and test, one record an evaluation, and its cost.

    diverged: what was said where the loss was no number; everything else is empty then. reading: of
    train, dev and test, where not all was read, the tally.
    """

    cell: Cell
    dev: Mapping[str, float]
    test: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]
    diverged: str | None
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is compared, and how."""

    config: Config
    arms: Sequence[Arm]
    metric: str
    grid: int
    seeds: int
    target: float | None

    @property
    def own_tokenizers(self) -> bool:
        """Whether tokenizers are what is compared, so that they cannot be shared."""
        return any(key.startswith("tokenizer.") for arm in self.arms for key in arm.settings)

    def config_of(self, cell: Cell, threads: int = 0) -> Config:
        """The settings of a cell, which is looked at where optimizers differ. Raises UsageError."""
        (arm,) = [arm for arm in self.arms if arm.name == cell.arm]
        given = {**arm.settings, "optim.lr": cell.lr, "train.seed": cell.seed}
        given.setdefault("train.threads", self.config.train.threads or threads)
        if any(key.startswith("optim.") for key in arm.settings):
            given["train.diagnose"] = self.config.train.diagnose or LOOK_EVERY
        return with_settings(self.config, given)

    def rates(self, arm: Arm) -> list[float]:
        """The grid of an arm around its own default rate; the rate that it says, where it does."""
        config = optim.resolve(with_settings(self.config, arm.settings).optim)
        assert config.lr is not None
        if "optim.lr" in arm.settings:
            return [config.lr]
        return [neighbour(config.lr, number - (self.grid - 1) // 2) for number in range(self.grid)]

    @property
    def all_seeds(self) -> range:
        """The seeds, from the one that is set."""
        return range(self.config.train.seed, self.config.train.seed + self.seeds)


def neighbour(rate: float, distance: int) -> float:
    """The rate so many places further in the grid, in three digits."""
    return float(f"{rate * STEP**distance:.3g}")


class _Record(BaseModel):
    """Of an evaluation, what a comparison needs."""

    model_config = ConfigDict(strict=True)

    step: int
    seconds: float
    dev: dict[str, float | None]
    skipped: int = 0


class _Found(BaseModel):
    """What a cell leaves in result.json; of one that diverged there are no figures."""

    model_config = ConfigDict(strict=True, extra="forbid")

    dev: dict[str, float | None]
    test: dict[str, float]
    history: list[_Record]
    diverged: str | None
    reading: dict[str, dict[str, int | dict[str, bool | int]]] = {}


def facts_of(plan: Plan, parts: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """What tells a comparison from others, as plan.json has it."""
    hashes = {part: data_hash(examples) for part, examples in parts.items()}
    return {"settings": dump(plan.config), "data": hashes}


def _planned(folder: OpenFolder) -> dict[str, Any]:
    """What plan.json says; nothing where there is none that is whole."""
    try:
        found = read_json(folder, "plan.json", _MAX_PLAN)
    except SrucliError:
        return {}
    return found if isinstance(found, dict) else {}


class Folder:
    """Where a comparison keeps its data, its cells and its page, by its path or held open."""

    def __init__(self, place: Place) -> None:
        self.place, self.path = place, path_of(place)
        path = self.path
        self.data = {part: path / "data" / f"{part}.jsonl" for part in ("train", "dev", "test")}
        self.tokenizer = path / "data" / "tokenizer.model"

    @classmethod
    @contextmanager
    def claim(
        cls, path: Path, facts: Mapping[str, Any], sources: Sequence[Source], force: bool
    ) -> Iterator[Folder]:
        """Hold the folder of the comparison that `facts` tell from others, for a block.

        `sources` are the files that the command reads. Raises OutputError where it is another's,
        UsageError where it holds another comparison, unless `force` replaces that.
        """

        def is_same(folder: OpenFolder) -> bool:
            return _planned(folder) == facts

        def is_ours(folder: OpenFolder) -> bool:
            marked = kind_of(folder) == "comparison"
            return is_same(folder) or (marked and _planned(folder).keys() == facts.keys())

        with claimed(path, "comparison", LAYOUT, is_ours, sources) as (folder, _):
            if "plan.json" in folder.names() and not is_same(folder):
                _replace(folder, facts, force)
            yield cls(folder)

    def prepare(self, plan: Plan, parts: Mapping[str, Sequence[Example]], source: str) -> None:
        """Write the plan, the texts and their tokenizer. Raises OutputError and DataError."""
        write_files(self.place, {"plan.json": to_json(facts_of(plan, parts))})
        several = plan.config.data.multi_label
        files = {self.data[part].name: _lines(rows, several) for part, rows in parts.items()}
        write_files(self.place, files, within="data")
        with opened(self.place) as folder, folder.child("data") as data:
            trained = data.is_file(self.tokenizer.name)
        if not trained:
            texts = [example.text for example in parts["train"]]
            model = make_tokenizer(plan.config.tokenizer, texts, source).tokenizer.model_bytes
            write_files(self.place, {self.tokenizer.name: model}, within="data")

    def texts(self, part: str) -> int:
        """How many texts a part has; 0 where it is not there."""
        try:
            with self.data[part].open("rb") as lines:
                return sum(1 for _ in lines)
        except OSError:
            return 0

    def result(self, cell: Cell) -> Result | None:
        """What a cell found, if it is done."""
        try:
            found = read_json(self.place, f"{cell.folder}/result.json", _MAX_RESULT)
            for tally in _Found.model_validate(found).reading.values():
                Tally.from_json(tally)
        except (SrucliError, ValidationError, TypeError, LookupError):
            return None
        return Result(cell, **found)


def _replace(folder: OpenFolder, facts: Mapping[str, Any], force: bool) -> None:
    """Make way for another comparison under `force`. Raises UsageError, OutputError."""
    found = _planned(folder)
    if not force:
        different = [key for key in facts if found.get(key) != facts[key]]
        raise UsageError(
            f"{folder.path}: holds a comparison with other {' and '.join(different)}; choose "
            "another -o, or add --force to replace it"
        )
    with writing(folder, ""):
        clear(folder, LAYOUT)


def _lines(examples: Iterable[Example], multi_label: bool) -> bytes:
    """JSON lines that srucli's reader gives back as they were."""
    rows = (
        {"text": each.text, "label": list(each.labels) if multi_label else each.labels[0]}
        for each in examples
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def run_cell(
    path: str,
    identity: Sequence[int],
    config: Mapping[str, Any],
    cell: Sequence[Any],
    tokenizer: str | None,
) -> int:
    """Train and measure one cell, and write what it found, in a process of its own.

    `identity` tells the comparison's folder from another one in its place. Returns the exit code.
    """
    from srucli.runtime import tune_process

    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    # Locks of tqdm and Numba then have no names in the system that a kill would leave behind.
    multiprocessing.set_start_method("fork", force=True)
    with _cell_folder(Path(path), (identity[0], identity[1]), Cell(*cell)) as place:
        try:
            settings = build(config, str(place.path))
            tune_process(settings.train.threads)
            several = settings.data.multi_label
            data = DataConfig(format="jsonl", text="text", label="label", multi_label=several)
            settings = settings.model_copy(update={"data": data})
            shared = Path(tokenizer) if tokenizer else None
            found = _measure(Folder(Path(path)), settings, place, shared)
        except DivergedError as error:
            found = {"dev": {}, "test": {}, "history": [], "diverged": str(error)}
        except SrucliError as error:
            write_files(place, {"error.txt": str(error).encode(errors="backslashreplace")})
            return 1
        write_files(place, {"result.json": json.dumps(found).encode()})
    return 0


@contextmanager
def _cell_folder(path: Path, meant: Identity, cell: Cell) -> Iterator[OpenFolder]:
    """A cell's folder without what a kill may have left, and all that is said into its log.

    Raises OutputError.
    """
    with ExitStack() as stack:
        try:
            top = stack.enter_context(OpenFolder.at(path, meant))
            top.check_in_place()
            place = stack.enter_context(top.below(str(cell.folder), make=True))
            clear(place, _LEFT)
            _speak_to(place, "log.txt")
        except OSError as error:
            raise unwritable(path / cell.folder, error) from error
        yield place


def _speak_to(place: OpenFolder, name: str) -> None:
    """Let nothing be read from stdin, and all that is printed go to a file. Raises OSError.

    The old stdout stays open: whoever reads from it sees by its end that this process is gone.
    """
    said = place.open_to_write(name, os.O_CREAT | os.O_APPEND)
    os.ftruncate(said, 0)
    os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)


def _end_with_parent(parent: int) -> None:
    """No training goes on after the comparison was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _measure(
    folder: Folder, config: Config, place: OpenFolder, tokenizer: Path | None
) -> dict[str, Any]:
    from srucli.inference.evaluation import evaluate
    from srucli.inference.predictor import Predictor
    from srucli.runs.run_dir import RunDir, read_records
    from srucli.training.run import train

    run = place.path / "run"
    sources = {part: str(file) for part, file in folder.data.items()}
    how: dict[str, Any] = {"tokenizer": tokenizer, "force": True, "below": place}
    train(config, sources["train"], sources["dev"], run, **how)
    history = read_records(run / "metrics.jsonl")
    predictor = Predictor.load(run, config.train.device)
    step = RunDir.open(run).step_of(predictor.choice.name)
    (used,) = [record["dev"] for record in history if record["step"] == step]
    tested = evaluate(predictor, read_examples(sources["test"], config.data))
    with writing(place, "run"), place.child("run") as trained:
        clear(trained, _NEEDLESS)
    test = {name: value for name, value in tested.figures.items() if math.isfinite(value)}
    reading = {**history[-1].get("reading", {}), "test": tested.tally.to_json()}
    found = {"dev": used, "test": test, "history": history, "diverged": None}
    return {**found, "reading": reading}


def threads_each(cores: int, jobs: int) -> int:
    """How many threads a training gets where `jobs` run at once."""
    return max(cores // jobs, 1)


class Trials:
    """Runs cells in processes, at most `jobs` at once; all of them end with the block.

    `done` is called with each cell that has left its result.
    """

    def __init__(self, folder: Folder, plan: Plan, jobs: int, done: Callable[[Cell], None]) -> None:
        self.folder, self.plan, self.jobs, self.done = folder, plan, jobs, done
        self.threads = threads_each(len(os.sched_getaffinity(0)), jobs)
        with opened(folder.place) as held:
            self.identity = held.identity
        self.open = ExitStack()
        self.server: Child | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *error: object) -> None:
        self.open.close()

    def run(self, cells: Sequence[Cell]) -> None:
        """Run all of them. Raises SrucliError where one fails."""
        running = 0
        for number in range(len(cells)):
            if running == self.jobs:
                self._wait(cells)
                running -= 1
            self._send(number, cells[number])
            running += 1
        for _ in range(running):
            self._wait(cells)

    def job(self, cell: Cell) -> dict[str, Any]:
        """The arguments of `run_cell`, as JSON can hold them."""
        shared = None if self.plan.own_tokenizers else str(self.folder.tokenizer)
        config = self.plan.config_of(cell, self.threads)
        return {
            "path": str(self.folder.path),
            "identity": self.identity,
            "config": config.model_dump(mode="json", exclude_unset=True),
            "cell": cell,
            "tokenizer": shared,
        }

    def start(self) -> Child:
        """The process that starts trainings, itself started for the first one."""
        if self.server is None:
            started = child("srucli.experiments.trial_server", own_stderr=False)
            self.server = self.open.enter_context(started)
        return self.server

    def _send(self, number: int, cell: Cell) -> None:
        """Have a cell started."""
        jobs = self.start().stdin
        with suppress(BrokenPipeError):  # `_wait` says why
            jobs.write(json.dumps([number, self.job(cell)]).encode() + b"\n")
            jobs.flush()

    def _wait(self, cells: Sequence[Cell]) -> None:
        """Wait until one of the cells that run has ended."""
        server = self.start()
        answer = server.stdout.readline()
        if not answer:
            code = server.process.wait()
            raise SrucliError(f"the process that starts trainings ended with {code}")
        number, code = json.loads(answer)
        cell = cells[number]
        if self.folder.result(cell) is None:
            with opened(self.folder.place) as folder:
                folder.check_in_place()
            raise SrucliError(_failure(self.folder.path / cell.folder, code))
        self.done(cell)


def _failure(place: Path, code: int) -> str:
    try:
        said = (place / "error.txt").read_text(encoding="utf-8")
    except OSError:
        said = f"ended with {code}"
    return f"{place}: {said}; see {place / 'log.txt'}"
