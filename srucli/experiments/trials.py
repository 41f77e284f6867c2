"""Trials: the folder that holds them, and those of a comparison.

A trial is one training: in a comparison a candidate with a learning rate and a seed. A finished
trial has one file with its result and is never run again, whenever the command is killed. How a
trial runs is in `trial_process.py`, which trials a comparison has in `grid.py`, the trials of a
cross-validation in `fold_trials.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from srucli import optim
from srucli.config import Config, DataConfig, dump, stored, with_settings
from srucli.data import soft
from srucli.data.dataset import data_hash
from srucli.data.readers import Example
from srucli.errors import SrucliError, UsageError
from srucli.io.files import (
    Place,
    opened,
    path_of,
    read_json,
    to_json,
    write_files,
    writing,
)
from srucli.io.folders import OpenFolder
from srucli.io.json_text import json_text
from srucli.runs import run_dir
from srucli.runs.claim import OWN, Claim, Kind, Layout, Source, claimed, clear, kind_of
from srucli.tokenizer.training import make_tokenizer
from srucli.tokenizer.truncation import Tally

# The factor between neighbouring learning rates of a grid.
RATE_FACTOR = math.sqrt(10)
# The most rates that a grid starts with (31 orders of magnitude), and seeds and candidates.
MAX_GRID, MAX_SEEDS, MAX_CANDIDATES = 64, 1_000, 100
# Steps between records of diagnostics if optimizers are compared.
DIAGNOSE_EVERY = 50
# The file of a trial's predictions, if they are kept.
PREDICTIONS = "predictions.safetensors"
# What a comparison's folder holds (see `claim.Layout`). A killed trial may leave LEFTOVERS.
LEFTOVERS: Layout = {r"error\.txt": None, "run": {**run_dir.LAYOUT, **OWN}}
_TRIAL: Layout = {r"result\.json": None, **LEFTOVERS, r"log\.txt": None}
LAYOUT: Layout = {
    r"index\.html": None,
    "cells": {r"[\w.=,-]+": {r"lr-[0-9a-z.+-]+": {r"seed-[0-9]+": _TRIAL}}},
    "data": {r"(train|dev|test)\.jsonl": None, r"tokenizer\.model": None},
    r"plan\.json": None,
}
# The largest plan.json and result.json that are read, in bytes.
_MAX_PLAN, _MAX_RESULT = 2**20, 2**26


class Candidate(NamedTuple):
    """What is compared: a name, and the settings in which it differs from other candidates."""

    name: str
    settings: Mapping[str, Any]


class HasFolder(Protocol):
    """What is needed of a trial: its folder, relative to the folder that holds all trials."""

    @property
    def folder(self) -> Path: ...


class Trial(NamedTuple):
    """One training of a comparison."""

    candidate: str
    lr: float
    seed: int

    @property
    def folder(self) -> Path:
        """The trial's folder, relative to the comparison's folder."""
        name = re.sub(r"[^\w.=,-]+", "_", self.candidate)
        return Path("cells") / name / f"lr-{self.lr:g}" / f"seed-{self.seed}"


T = TypeVar("T", bound=HasFolder)
R = TypeVar("R")
# What a trial can measure. A larger number is damage, and its variance would overflow.
Measured = Annotated[float, Field(gt=-1e100, lt=1e100)]


class Record(BaseModel):
    """The part of a record of metrics.jsonl that a comparison uses."""

    model_config = ConfigDict(strict=True)

    step: int
    seconds: Measured
    train_loss: Measured
    dev: dict[str, Measured | None]
    skipped: int = 0


STRICT = ConfigDict(strict=True, extra="forbid")


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class Measurement:
    """What a trial measured, as in result.json: metrics, and a record of each evaluation.

    diverged: the message if training diverged; everything else is empty then. reading: how much of
    train, dev and test was truncated.
    """

    dev: dict[str, Measured | None]
    test: dict[str, Measured]
    history: list[Record]
    diverged: str | None
    reading: dict[str, dict[str, int | dict[str, bool | int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise what `Tally.from_json` raises, or ValueError if there is no record."""
        for tally in self.reading.values():
            Tally.from_json(tally)
        if self.diverged is None and not self.history:
            raise ValueError("no record of an evaluation")


@pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)
class Result(Measurement):
    """What a trial of a comparison measured."""

    trial: Trial


@dataclass(frozen=True)
class Plan:
    """What is compared, and how."""

    config: Config
    candidates: Sequence[Candidate]
    metric: str
    grid: int
    seeds: int
    target: float | None

    @property
    def own_tokenizers(self) -> bool:
        """Whether tokenizers are compared, so that trials cannot share one."""
        keys = (key for each in self.candidates for key in each.settings)
        return any(key.startswith("tokenizer.") for key in keys)

    def config_of(self, trial: Trial, threads: int = 0) -> Config:
        """Return the settings of a trial, with diagnostics if optimizers are compared.

        Raises UsageError.
        """
        (candidate,) = [each for each in self.candidates if each.name == trial.candidate]
        given = {**candidate.settings, "optim.lr": trial.lr, "train.seed": trial.seed}
        given.setdefault("train.threads", self.config.train.threads or threads)
        if any(key.startswith("optim.") for key in candidate.settings):
            given["train.diagnose"] = self.config.train.diagnose or DIAGNOSE_EVERY
        return with_settings(self.config, given)

    def job(self, folder: Folder, trial: Trial, threads: int) -> dict[str, Any]:
        """Return what `run_trial` needs to know about a trial."""
        files = {part: str(path) for part, path in folder.data.items()}
        shared = None if self.own_tokenizers else str(folder.tokenizer)
        return {
            "config": self.config_of(trial, threads).model_dump(mode="json", exclude_unset=True),
            "files": {**files, "tokenizer": shared},
        }

    def rates(self, candidate: Candidate) -> list[float]:
        """Return a candidate's learning rates: a grid around its default, or the rate it sets."""
        config = optim.resolve(with_settings(self.config, candidate.settings).optim)
        assert config.lr is not None
        if "optim.lr" in candidate.settings:
            return [config.lr]
        return [grid_rate(config.lr, number - (self.grid - 1) // 2) for number in range(self.grid)]

    @property
    def all_seeds(self) -> range:
        """The seeds, from `train.seed` on."""
        return range(self.config.train.seed, self.config.train.seed + self.seeds)


def grid_rate(rate: float, distance: int) -> float:
    """Return the rate that is `distance` places higher in the grid, rounded to three digits."""
    return float(f"{rate * RATE_FACTOR**distance:.3g}")


def facts_of(plan: Plan, parts: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Return what identifies a comparison, as plan.json has it."""
    hashes = {part: data_hash(examples) for part, examples in parts.items()}
    return {"settings": dump(plan.config), "data": hashes}


def _stored_facts(folder: OpenFolder) -> dict[str, Any]:
    """Return the content of plan.json; nothing if it is missing or damaged.

    The settings are those that this version would write for the same configuration.
    """
    try:
        facts = read_json(folder, "plan.json", _MAX_PLAN)
    except SrucliError:
        return {}
    if not isinstance(facts, dict):
        return {}
    if isinstance(settings := facts.get("settings"), str):
        with suppress(SrucliError):
            facts["settings"] = dump(stored(settings.encode(errors="replace"), "plan.json"))
    return facts


class TrialFolder(Generic[T, R]):
    """A folder of trials (T) and their results (R), by path or held open."""

    kind: ClassVar[Kind]
    layout: ClassVar[Layout]

    def __init__(self, place: Place) -> None:
        self.place, self.path = place, path_of(place)
        self._results: dict[T, R] = {}

    @classmethod
    @contextmanager
    def claim(
        cls, path: Path, facts: Mapping[str, Any], sources: Sequence[Source], force: bool
    ) -> Iterator[Self]:
        """Lock the folder of the trials that `facts` identify, for a block.

        `sources` are the files that the command reads. Raises OutputError if the folder is not
        srucli's, UsageError if it holds trials of other facts, unless `force` replaces them.
        """

        def is_same_kind(folder: OpenFolder) -> bool:
            found, marked = _stored_facts(folder), kind_of(folder) == cls.kind
            return found == facts or (marked and found.keys() == facts.keys())

        with claimed(path, Claim(cls.kind, cls.layout, is_same_kind, sources)) as (folder, _):
            if "plan.json" in folder.names() and (found := _stored_facts(folder)) != facts:
                cls._replace(folder, found, facts, force)
            yield cls(folder)

    @classmethod
    def _replace(
        cls, folder: OpenFolder, found: Mapping[str, Any], facts: Mapping[str, Any], force: bool
    ) -> None:
        """Empty the folder, which holds `found`. Raises UsageError without `force`, OutputError."""
        if not force:
            different = [key for key in facts if found.get(key) != facts[key]]
            raise UsageError(
                f"{folder.path}: holds a {cls.kind} with other {' and '.join(different)}; choose "
                "another -o, or add --force to replace it"
            )
        with writing(folder, ""):
            clear(folder, cls.layout)

    def result(self, trial: T) -> R | None:
        """Return the result of a trial, if it is finished. It is read once, as it never changes."""
        if trial not in self._results:
            try:
                stored = read_json(self.place, f"{trial.folder}/result.json", _MAX_RESULT)
                self._results[trial] = self.checked(trial, stored)
            except (SrucliError, ValidationError, TypeError, LookupError, ValueError):
                return None
        return self._results[trial]

    def checked(self, trial: T, stored: Any) -> R:
        """Return the result of a trial from its file's JSON value.

        For what cannot be a result, raises SrucliError, ValidationError, TypeError, LookupError or
        ValueError.
        """
        raise NotImplementedError


class Folder(TrialFolder[Trial, Result]):
    """The folder of a comparison: its data, its trials and its page."""

    kind, layout = "comparison", LAYOUT

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        path = self.path
        self.data = {part: path / "data" / f"{part}.jsonl" for part in ("train", "dev", "test")}
        self.tokenizer = path / "data" / "tokenizer.model"

    def prepare(self, plan: Plan, parts: Mapping[str, Sequence[Example]], source: str) -> None:
        """Write the plan, the data and the tokenizer. Raises OutputError and DataError."""
        write_files(self.place, {"plan.json": to_json(facts_of(plan, parts))})
        how = plan.config.data
        files = {self.data[part].name: json_lines(rows, how) for part, rows in parts.items()}
        write_files(self.place, files, within="data")
        with opened(self.place) as folder, folder.child("data") as data:
            trained = data.is_file(self.tokenizer.name)
        if not trained:
            texts = [example.text for example in parts["train"]]
            model = make_tokenizer(plan.config.tokenizer, texts, source).tokenizer.model_bytes
            write_files(self.place, {self.tokenizer.name: model}, within="data")

    def texts(self, part: str) -> int:
        """Return the number of examples of train, dev or test; 0 if the file is missing."""
        try:
            with self.data[part].open("rb") as lines:
                return sum(1 for _ in lines)
        except OSError:
            return 0

    def checked(self, trial: Trial, stored: Any) -> Result:
        return Result(trial=trial, **stored)


def json_lines(examples: Iterable[Example], config: DataConfig) -> bytes:
    """Return the examples as JSON lines, which are read back to equal examples."""
    return "".join(json_text(_row(each, config)) + "\n" for each in examples).encode()


def _row(example: Example, config: DataConfig) -> dict[str, Any]:
    row: dict[str, Any] = {"text": example.text}
    if not example.soft or example.soft.beside:
        row["label"] = list(example.labels) if config.multi_label else example.labels[0]
    if example.soft:
        row[soft.KEY] = dict(zip(example.soft.names, example.soft.values, strict=True))
    if config.weight is not None:
        row["weight"] = example.weight
    return row


def config_of_data(config: DataConfig) -> DataConfig:
    """Return how the examples are read back."""
    weight = None if config.weight is None else "weight"
    multi_label = config.multi_label
    return DataConfig(
        format="jsonl", text="text", label="label", weight=weight, multi_label=multi_label
    )
