"""What a run's folder holds, and how it gets there: whole or not at all.

    run.json          format version, versions, data and its hashes, machine, sizes
    config.yaml       the resolved configuration
    tokenizer.model   SentencePiece's model
    labels.json       the labels in the order of the logits
    metrics.jsonl     one line for each evaluation
    diagnostics.jsonl what the optimizer did, where that was asked for
    checkpoints, best, last: see `checkpoints.py`
    README.md         the model card
    srucli.json       the first: that srucli made the folder (see `claim.py`)
    lock              there while a training writes

There is no pickle anywhere. A folder is complete once `last` is there, and then predicts alone. It
may come from anybody: what is read is checked, has a limit, and is reached through no link.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors
from torch import Tensor

from srucli import config as configuration
from srucli.config import Config
from srucli.errors import DataError, InputMissingError, OutputError, SrucliError
from srucli.io.console import say
from srucli.io.files import (
    COPY_AGAIN,
    Place,
    append,
    check_nested,
    opened,
    parse_json,
    path_of,
    read_json,
    read_within,
    to_json,
    write_files,
    writing,
)
from srucli.io.folders import OpenFolder
from srucli.io.yaml import MAX_YAML, parse_yaml
from srucli.runs import checkpoints
from srucli.runs.checkpoints import FOLDER as CHECKPOINTS
from srucli.runs.checkpoints import MODEL, POINTERS, STATE, Checkpoints, Which
from srucli.runs.claim import (
    MARKER,
    Layout,
    Source,
    check_claimable,
    claimed,
    clear,
    foreign,
    is_at_home,
    is_free,
    kind_of,
)
from srucli.runs.facts import FORMAT_VERSION, Facts, machine, read_facts
from srucli.runs.tensors import Shapes, check_fit, most_bytes, tensors_of
from srucli.tokenizer.model import MAX_MODEL_BYTES, Tokenizer

# Files that get a line at a time while a training goes on.
LOGS = ("metrics.jsonl", "diagnostics.jsonl")
# What a training writes, `last` first: a kill while all is removed leaves a run without weights.
LAYOUT: Layout = {
    "last": None,
    "best": None,
    r"README\.md": None,
    CHECKPOINTS: checkpoints.LAYOUT,
    "tensorboard": {r"events\.out\.tfevents\..+": None},
    r"(metrics|diagnostics)\.jsonl": None,
    r"tokenizer\.model": None,
    r"labels\.json": None,
    r"config\.yaml": None,
    r"run\.json": None,
}
# Settings of `train` that were called otherwise when runs were first written.
OLD_NAMES = {"keep": "use_checkpoint", "checkpoints": "keep_checkpoints"}
# The largest files of a run that are read.
MAX_LABELS, MAX_RECORDS = 16 * 2**20, 64 * 2**20
MAX_NESTED_RECORDS = 2**21
# Beyond any probability; larger whole numbers of JSON may be no float.
MAX_THRESHOLD = 1e9


def read_records(file: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line, as `RunDir.records`."""
    return RunDir(file.parent).records(file.name)


def _records(data: bytes, source: str) -> list[dict[str, Any]]:
    """The JSON objects in lines of bytes; no cut last line. Raises DataError naming `source`."""
    check_nested(data, source, MAX_NESTED_RECORDS)
    *lines, last = data.split(b"\n")
    whole = [record for line in lines if (record := _record(line)) is not None]
    if len(whole) < len(lines):
        _say_damaged(source, len(lines) - len(whole))
    record = _record(last)
    return whole if record is None else [*whole, record]


def _record(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line, if it is one."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@cache
def _say_damaged(source: str, count: int) -> None:
    """Once, since records are read again and again."""
    say(f"{source}: {count:,} damaged line{'s' * (count > 1)} passed over")


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what is known of them."""

    weights: dict[str, Tensor]
    state: dict[str, Any]

    def thresholds(self, classes: int, source: str) -> NDArray[np.float64] | None:
        """Probabilities from which a label is given (C,); None for single-label models.

        Raises DataError naming `source` where they are not one number for each class.
        """
        given = self.state.get("thresholds")
        if given is None:
            return None
        numbers = isinstance(given, list) and all(
            isinstance(x, float | int) and abs(x) <= MAX_THRESHOLD for x in given
        )
        if not numbers or len(given) != classes:
            problem = f"the thresholds in state.json are not {classes} numbers"
            raise DataError(source, None, problem, COPY_AGAIN)
        return np.array(given, np.float64)


class RunDir:
    """A run's folder, made by `claim` or found by `open`, by its path or held open."""

    def __init__(self, place: Place, *, manifests: bool = True) -> None:
        self.place, self.path = place, path_of(place)
        self.checkpoints = Checkpoints(place, manifests=manifests)

    @staticmethod
    def check_free(path: Path, *, force: bool = False, sources: Sequence[Source] = ()) -> None:
        """Refuse, before anything slow, a folder that cannot be written or holds something.

        Under `force` it may hold a former run. What a training left that was killed before it wrote
        anything worth keeping is nothing. `sources` are files that must not be in what is replaced.
        Raises OutputError.
        """
        held = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not held.is_dir():
            raise OutputError(f"{held}: is no folder; choose another -o")
        if not os.access(held, os.R_OK | os.W_OK | os.X_OK):
            raise OutputError(f"{held}: no permission to write there; choose another -o")
        if held != path:
            return
        with writing(path, "") as folder:
            check_claimable(folder, "run", LAYOUT, is_run, sources)
            if not (force or is_free(folder) or is_begun(folder)):
                raise OutputError(f"{path}: exists already; choose another -o, or add --force")

    @classmethod
    @contextmanager
    def claim(
        cls, path: Path, sources: Sequence[Source] = (), below: OpenFolder | None = None
    ) -> Iterator[RunDir]:
        """Hold the folder, made where there is none, marked and locked, for a block.

        Where the block ends in an error before any weights are saved, nothing is left of what it
        made in a folder that was empty. `sources` are files that must not be in what is replaced,
        `below` is the folder that it is in, if that is held. Raises OutputError.
        """
        with claimed(path, "run", LAYOUT, is_run, sources, below) as (folder, fresh):
            try:
                yield cls(folder)
            except BaseException:
                with suppress(OSError):
                    if fresh and folder.is_in_place() and is_begun(folder):
                        clear(folder, LAYOUT)
                raise

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Find a complete run. Raises InputMissingError, or DataError for one that is unusable."""
        if not path.is_dir():
            raise InputMissingError(f"{path}: no such run folder; `srucli train FILE` makes one")
        if not (path / "run.json").is_file():
            raise InputMissingError(f"{path}: not a run folder: it has no run.json")
        found = cls(path).facts()
        if not (path / "last").is_file():
            raise InputMissingError(f"{path}: the training has saved no weights yet")
        return cls(path, manifests=found.format_version > 1)

    def facts(self) -> Facts:
        """run.json. Raises InputMissingError, DataError as `read_facts`."""
        return read_facts(self.place)

    def clear(self) -> None:
        """Remove what a former training wrote, for a new one. Raises OutputError."""
        with writing(self.place, "") as folder:
            clear(folder, LAYOUT)
            with folder.child(CHECKPOINTS, make=True):
                pass

    def begin(
        self,
        config: Config,
        tokenizer: Tokenizer,
        labels: list[str],
        facts: Mapping[str, Any],
    ) -> None:
        """Write everything that is known before the first step; run.json is the last."""
        self.write("config.yaml", configuration.dump(config).encode())
        self.write("tokenizer.model", tokenizer.model_bytes)
        self.write("labels.json", to_json(labels))
        self.write("run.json", to_json({"format_version": FORMAT_VERSION, **machine(), **facts}))

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the folder, whole or not at all. Raises OutputError."""
        write_files(self.place, {name: data})

    def config(self) -> Config:
        """The resolved configuration of the run. Raises InputMissingError, UsageError."""
        data, source = read_within(self.place, "config.yaml", MAX_YAML), self.path / "config.yaml"
        return configuration.build(_with_new_names(parse_yaml(data, str(source))), str(source))

    def records(self, name: str) -> list[dict[str, Any]]:
        """The JSON objects of a file with one a line, such as metrics.jsonl; none if it is absent.

        Raises DataError.
        """
        try:
            data = read_within(self.place, name, MAX_RECORDS)
        except InputMissingError:
            return []
        return _records(data, str(self.path / name))

    def labels(self) -> list[str]:
        """The labels in the order of the logits."""
        labels = read_json(self.place, "labels.json", MAX_LABELS)
        if not isinstance(labels, list) or not all(map(_is_text, labels)):
            source = str(self.path / "labels.json")
            raise DataError(source, None, "not a list of labels", COPY_AGAIN)
        return labels

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        data = read_within(self.place, "tokenizer.model", MAX_MODEL_BYTES)
        return Tokenizer.from_bytes(data, str(self.path / "tokenizer.model"), COPY_AGAIN)

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one line to a file of the folder, such as metrics.jsonl. Raises OutputError."""
        append(self.place, name, json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def size(self, name: str) -> int:
        """The bytes of a file of the folder; 0 where it is absent."""
        try:
            with opened(self.place) as folder:
                return folder.stat(name).st_size
        except OSError:
            return 0

    def check_logs(self) -> None:
        """Refuse logs that cannot be added to, before a training that will. Raises OutputError."""
        for name in LOGS:
            with writing(self.place, name) as folder:
                if name in folder.names():
                    os.close(folder.open_to_write(name, 0))

    def cut(self, name: str, size: int) -> None:
        """Take off what was added to a file after it had `size` bytes. Raises OutputError."""
        if self.size(name) > size:
            with writing(self.place, name) as folder:
                folder.cut(name, size)

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        which: set[Which],
        training: Mapping[str, bytes] | None = None,
        keep: int = 1,
    ) -> None:
        """Write a checkpoint, point `which` at it, and keep the `keep` newest. Raises OutputError.

        `training` are the files that going on needs.
        """
        tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
        files = {MODEL: save_tensors(tensors), STATE: to_json({"step": step, **state})}
        self.checkpoints.save(step, {**files, **(training or {})}, which, keep)

    def state(self, which: Which) -> dict[str, Any]:
        """state.json of the `best` or `last` checkpoint. Raises InputMissingError, DataError."""
        return self.state_of(self.checkpoints.pointed(which))

    def state_of(self, name: str) -> dict[str, Any]:
        """state.json of a checkpoint by name."""
        place = str(self.path / "checkpoints" / name / STATE)
        found = parse_json(self.checkpoints.read(name, STATE), place)
        if not isinstance(found, dict):
            raise DataError(place, None, "no JSON object", COPY_AGAIN)
        return found

    def step_of(self, name: str) -> int:
        """How many steps a checkpoint was trained. Raises DataError where it does not say."""
        step = self.state_of(name).get("step")
        if not isinstance(step, int):
            place = str(self.path / "checkpoints" / name / STATE)
            raise DataError(place, None, "no number of steps", COPY_AGAIN)
        return step

    def checkpoint(self, which: Which | str, shapes: Shapes | None = None) -> Checkpoint:
        """The `best` or `last` checkpoint, or one by name. Raises DataError where it is damaged.

        `shapes` are tensors, on the meta device say, like those that there must be.
        """
        name = self.checkpoints.pointed(which) if which in POINTERS else which
        most = None if shapes is None else most_bytes(shapes)
        data = self.checkpoints.read(name, MODEL, most)
        source = str(self.path / "checkpoints" / name / MODEL)
        weights = tensors_of(data, source)
        if shapes is not None:
            check_fit(weights, shapes, str(self.path))
        return Checkpoint(weights, self.state_of(name))


def _with_new_names(tree: Any) -> Any:
    """Return the settings of a run whose srucli may have had other names for some of them."""
    if not isinstance(tree, dict) or not isinstance(tree.get("train"), dict):
        return tree
    return tree | {"train": {OLD_NAMES.get(key, key): tree["train"][key] for key in tree["train"]}}


def is_run(folder: OpenFolder) -> bool:
    """Whether a folder's run.json is whole and says that this is a run, of whatever format."""
    try:
        return bool(read_facts(folder))
    except SrucliError:
        return False


def is_begun(place: Place) -> bool:
    """Whether a folder holds what a training left that ended before its first checkpoint.

    It is a run's, and there is nothing in it that a training does not write.
    """
    with suppress(OSError), opened(place) as folder:
        names = folder.names()
        marked = kind_of(folder) == "run"
        ours = marked and is_at_home(folder)
        ours = ours or ((marked or MARKER not in names) and is_run(folder))
        empty = "last" not in names and not Checkpoints(folder).names()
        return ours and empty and not foreign(folder, LAYOUT)
    return False


def _is_text(label: Any) -> bool:
    """Whether a label can be printed in a line: JSON can spell line ends, and half characters."""
    try:
        return isinstance(label, str) and not set(label.encode()) & set(b"\t\r\n")
    except UnicodeEncodeError:
        return False
