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
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from srucli import optim
from srucli.children import Child, child
from srucli.config import Config, DataConfig, build, dump, with_settings
from srucli.corpus import data_hash, make_tokenizer
from srucli.data import Example, read_examples
from srucli.errors import DivergedError, OutputError, SrucliError, UsageError
from srucli.files import write_atomic

# Neighbours of the grid are half a power of ten apart.
STEP = math.sqrt(10)
LOOK_EVERY = 50


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


class Folder:
    """Where a comparison keeps its data, its cells and its page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = {part: path / "data" / f"{part}.jsonl" for part in ("train", "dev", "test")}
        self.tokenizer = path / "data" / "tokenizer.model"

    def prepare(
        self, plan: Plan, parts: Mapping[str, Sequence[Example]], source: str, force: bool
    ) -> None:
        """Write the texts and train their tokenizer, or see that those there are the same ones.

        Raises UsageError where the folder holds another comparison.
        """
        facts = {
            "settings": dump(plan.config),
            "data": {part: data_hash(examples) for part, examples in parts.items()},
        }
        file = self.path / "plan.json"
        if self.path.is_dir() and any(self.path.iterdir()):
            self._check(file, facts, force)
        try:
            (self.path / "data").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be made ({error.strerror})") from error
        write_atomic({file: json.dumps(facts, indent=1).encode()})
        several = plan.config.data.multi_label
        write_atomic({self.data[part]: _lines(rows, several) for part, rows in parts.items()})
        if not self.tokenizer.is_file():
            texts = [example.text for example in parts["train"]]
            trained = make_tokenizer(plan.config, texts, source)
            write_atomic({self.tokenizer: trained.tokenizer.model_bytes})

    def _check(self, file: Path, facts: Mapping[str, Any], force: bool) -> None:
        if force and file.is_file():
            shutil.rmtree(self.path)
            return
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError):
            raise OutputError(f"{self.path}: holds no comparison; choose another -o") from None
        different = [key for key in facts if found.get(key) != facts[key]]
        if different:
            raise UsageError(
                f"{self.path}: holds a comparison with other {' and '.join(different)}; choose "
                "another -o, or add --force to replace it"
            )

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
            found = json.loads((self.path / cell.folder / "result.json").read_bytes())
        except (OSError, ValueError):
            return None
        return Result(cell, **found)


def _lines(examples: Iterable[Example], multi_label: bool) -> bytes:
    """JSON lines that srucli's reader gives back as they were."""
    rows = (
        {"text": each.text, "label": list(each.labels) if multi_label else each.labels[0]}
        for each in examples
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def run_cell(
    path: str, config: Mapping[str, Any], cell: Sequence[Any], tokenizer: str | None
) -> int:
    """Train and measure one cell, and write what it found, in a process of its own.

    Returns the exit code.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    # Locks of tqdm and Numba then have no names in the system that a kill would leave behind.
    multiprocessing.set_start_method("fork", force=True)
    place = Path(path) / Cell(*cell).folder
    place.mkdir(parents=True, exist_ok=True)
    # What a kill may have left behind.
    shutil.rmtree(place / "run", ignore_errors=True)
    (place / "error.txt").unlink(missing_ok=True)
    _speak_to(place / "log.txt")
    try:
        settings = build(config, str(place))
        data = DataConfig(multi_label=settings.data.multi_label)
        settings = settings.model_copy(update={"data": data})
        shared = Path(tokenizer) if tokenizer else None
        found = _measure(Folder(Path(path)), settings, place / "run", shared)
    except DivergedError as error:
        found = {"dev": {}, "test": {}, "history": [], "diverged": str(error)}
    except SrucliError as error:
        write_atomic({place / "error.txt": str(error).encode()})
        return 1
    write_atomic({place / "result.json": json.dumps(found).encode()})
    return 0


def _speak_to(log: Path) -> None:
    """Let nothing be read from stdin, and all that is printed go to a file.

    The old stdout stays open: whoever reads from it sees by its end that this process is gone.
    """
    os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)


def _end_with_parent(parent: int) -> None:
    """No training goes on after the comparison was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _measure(folder: Folder, config: Config, run: Path, tokenizer: Path | None) -> dict[str, Any]:
    from srucli.evaluate import evaluate
    from srucli.predict import Predictor
    from srucli.run_dir import RunDir, read_records
    from srucli.train import train

    sources = {part: str(file) for part, file in folder.data.items()}
    train(config, sources["train"], sources["dev"], run, tokenizer=tokenizer, force=True)
    history = read_records(run / "metrics.jsonl")
    step = RunDir.open(run).state(config.train.keep)["step"]
    (used,) = [record["dev"] for record in history if record["step"] == step]
    predictor = Predictor.load(run, config.train.device, config.train.threads)
    tested = evaluate(predictor, read_examples(sources["test"], config.data))
    shutil.rmtree(run / "checkpoints")
    (run / "tokenizer.model").unlink()
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
            "config": config.model_dump(mode="json", exclude_unset=True),
            "cell": cell,
            "tokenizer": shared,
        }

    def start(self) -> Child:
        """The process that starts trainings, itself started for the first one."""
        if self.server is None:
            started = child("srucli.trial_server", own_stderr=False)
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
            raise SrucliError(_failure(self.folder.path / cell.folder, code))
        self.done(cell)


def _failure(place: Path, code: int) -> str:
    try:
        said = (place / "error.txt").read_text(encoding="utf-8")
    except OSError:
        said = f"ended with {code}"
    return f"{place}: {said}; see {place / 'log.txt'}"
