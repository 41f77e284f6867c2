"""A run folder: how its files are written, and read within limits.

    run.json          format version, versions, data and its hashes, machine, sizes
    config.yaml       the resolved configuration
    tokenizer.model   the SentencePiece model
    ngrams.safetensors  the linear model of n-grams, if `model.ngrams` is set
    base.safetensors  that of the run that is fine-tuned, with the labels of this one
    labels.json       the labels in the order of the logits
    metrics.jsonl     one line per evaluation
    diagnostics.jsonl diagnostics of the optimizer, if `train.diagnose` is set
    checkpoints, best, last: see `checkpoints.py`
    README.md         the model card
    srucli.json       the marker that srucli made the folder (see `claim.py`); written first
    lock              there while a training writes

A folder is complete once `last` exists, and then sufficient for prediction. It may come from
anybody, so files are checked when they are read, have size limits, and must not be links.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srucli import config as configuration
from srucli.config import Config
from srucli.errors import DataError, InputMissingError, OutputError, SrucliError
from srucli.io.console import excerpt, say
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
from srucli.io.json_text import json_text, json_value
from srucli.io.yaml import MAX_YAML
from srucli.ngrams.linear import NgramModel, columns
from srucli.runs import checkpoints
from srucli.runs.checkpoints import FOLDER as CHECKPOINTS
from srucli.runs.checkpoints import (
    MODEL,
    POINTERS,
    STATE,
    TRAINING_TENSORS,
    Checkpoints,
    Which,
)
from srucli.runs.claim import (
    MARKER,
    Claim,
    Layout,
    Source,
    claimed,
    clear,
    contents,
    foreign,
    is_at_home,
    is_free,
    kind_of,
    need_run,
)
from srucli.runs.facts import FORMAT_VERSION, Facts, machine, read_facts
from srucli.runs.ngrams import ngram_model, ngram_tensors
from srucli.runs.tensors import Shapes, check_fit, file_of, max_bytes, tensors_of
from srucli.tokenizer.model import MAX_MODEL_BYTES, Tokenizer

# Files to which a training appends lines.
LOGS = ("metrics.jsonl", "diagnostics.jsonl")
# What a training writes. `last` is removed first, so a kill meanwhile leaves a run without weights.
LAYOUT: Layout = {
    "last": None,
    "best": None,
    r"README\.md": None,
    CHECKPOINTS: checkpoints.LAYOUT,
    "tensorboard": {r"events\.out\.tfevents\..+": None},
    r"(metrics|diagnostics)\.jsonl": None,
    r"tokenizer\.model": None,
    r"labels\.json": None,
    r"(ngrams|base)\.safetensors": None,
    r"config\.yaml": None,
    r"run\.json": None,
}
# Size limits in bytes of the files that are read.
NGRAMS, BASE_NGRAMS, MAX_NGRAMS = "ngrams.safetensors", "base.safetensors", 64 * 2**20
# A linear model, and the one it was fine-tuned from, without which it cannot be fitted again.
OF_NGRAMS = NGRAMS, BASE_NGRAMS
MAX_LABELS_JSON, MAX_RECORDS = 16 * 2**20, 64 * 2**20
MAX_NESTED_RECORDS, MAX_LINES = 2**21, 2**20
# Beyond any probability; larger integers in JSON may not fit a float.
MAX_THRESHOLD = 1e9


# The most labels of a new training.
MAX_LABELS = 2**18


def check_labels(labels: list[str], source: str) -> None:
    """Raise DataError naming `source` for labels that no run may have, before it is trained."""
    if len(labels) > MAX_LABELS:
        problem = f"{len(labels):,} labels, and a model has at most {MAX_LABELS:,}"
        remedy = "check which column has the labels, or leave out rare ones"
        raise DataError(source, None, problem, remedy)
    if (size := len(to_json(labels))) > MAX_LABELS_JSON:
        problem = f"labels of {size:,} bytes in all, and a run stores {MAX_LABELS_JSON:,}"
        raise DataError(source, None, problem, "check which column has the labels, or shorten them")


def read_records(file: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in a file with one per line, as `RunDir.records`."""
    return RunDir(file.parent).records(file.name)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None if there is none."""
    try:
        found = json_value(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_sound(found) else None


def _is_sound(record: Mapping[str, Any]) -> bool:
    """Return whether what is used of a record of metrics.jsonl has the types that srucli writes."""
    dev = record.get("dev", {})
    return (
        all(type(record.get(key, 0)) is int for key in ("step", "epoch"))
        and isinstance(dev, dict)
        and all(value is None or type(value) in (int, float) for value in dev.values())
    )


@cache
def _warn_of_damaged_lines(source: str, count: int) -> None:
    """Warn only once, because records are read repeatedly."""
    say(f"{source}: skipped {count:,} damaged line{'s' * (count > 1)}")


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and the content of state.json."""

    weights: dict[str, Tensor]
    state: dict[str, Any]

    def thresholds(self, classes: int, source: str) -> NDArray[np.float64] | None:
        """Return the probabilities (C,) from which labels are predicted; None for single-label.

        Raises DataError naming `source` if they are not one number per class.
        """
        given = self.state.get("thresholds")
        if given is None:
            return None
        if (
            isinstance(given, list)
            and len(given) == classes
            and all(isinstance(x, float | int) and abs(x) <= MAX_THRESHOLD for x in given)
        ):
            return np.array(given, np.float64)
        problem = f"the thresholds in state.json are not {classes} numbers"
        raise DataError(source, None, problem, COPY_AGAIN)


class RunDir:
    """A run folder, made by `claim` or found by `open`; by its path or held open.

    Methods that write raise OutputError; those that read raise InputMissingError and DataError.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.path = place, path_of(place)
        self.checkpoints = Checkpoints(place)

    @staticmethod
    def check_free(path: Path, *, force: bool = False, sources: Sequence[Source] = ()) -> None:
        """Refuse, before anything slow, a folder that is not writable or not empty.

        Under `force` it may contain a run. A run without a checkpoint counts as empty. `sources`
        are files that must not be replaced. Raises OutputError.
        """
        existing = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not existing.is_dir():
            raise OutputError(f"{existing}: is not a folder; choose another -o")
        if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise OutputError(f"{existing}: no permission to write there; choose another -o")
        if existing != path:
            return
        with writing(path, "") as folder:
            Claim("run", LAYOUT, is_run, sources).check(folder)
            if not (force or is_free(folder) or is_begun(folder)):
                raise OutputError(f"{path}: exists already; choose another -o, or add --force")

    @classmethod
    @contextmanager
    def claim(
        cls, path: Path, sources: Sequence[Source] = (), below: OpenFolder | None = None
    ) -> Iterator[RunDir]:
        """Hold the folder, marked and locked, for a block; make it if need be.

        If the block raises before a checkpoint is saved in a folder that was empty, everything is
        removed. `sources` are files that must not be replaced. `below` is the folder that contains
        it, if that is held open. Raises OutputError.
        """
        with claimed(path, Claim("run", LAYOUT, is_run, sources), below) as (folder, fresh):
            try:
                yield cls(folder)
            except BaseException:
                with suppress(OSError):
                    if fresh and folder.is_in_place() and is_begun(folder):
                        clear(folder, LAYOUT)
                raise

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Return a complete run. Raises InputMissingError, DataError."""
        need_run(path)
        cls(path).facts()
        if not (path / "last").is_file():
            raise InputMissingError(f"{path}: the training has saved no weights yet")
        return cls(path)

    def clear(self) -> None:
        """Remove an earlier training, to start a new one."""
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
        *ngrams: NgramModel | None,
    ) -> None:
        """Write what is known before the first step, run.json last. ngrams: see OF_NGRAMS."""
        self.write("config.yaml", configuration.dump(config).encode())
        self.write("tokenizer.model", tokenizer.model_bytes)
        for name, model in zip(OF_NGRAMS, ngrams, strict=False):
            if model is not None:
                self.write(name, file_of(ngram_tensors(model)))
        self.write("labels.json", to_json(labels))
        self.write("run.json", to_json({"format_version": FORMAT_VERSION, **machine(), **facts}))

    def write(self, name: str, data: bytes) -> None:
        """Write a file completely or not at all."""
        write_files(self.place, {name: data})

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Append a line to a file such as metrics.jsonl."""
        append(self.place, name, json_text(record).encode() + b"\n")

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; 0 if it does not exist."""
        try:
            with opened(self.place) as folder:
                return folder.stat(name).st_size
        except OSError:
            return 0

    def check_logs(self) -> None:
        """Check, before a training, that its logs can be appended to."""
        for name in LOGS:
            with writing(self.place, name) as folder:
                if name in folder.names():
                    os.close(folder.open_to_write(name, 0))

    def cut(self, name: str, size: int) -> None:
        """Truncate a file to `size` bytes, if it is larger."""
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
        """Write a checkpoint with its files for resuming, as `Checkpoints.save`."""
        tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
        files = {
            MODEL: file_of(tensors),
            STATE: to_json({"step": step, **state}),
            **(training or {}),
        }
        self.checkpoints.save(step, files, which, keep)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of all files of the run, and of these the states of optimizers."""
        whole = states = 0
        with opened(self.place) as folder:
            for where, name in contents(folder, LAYOUT):
                size = where.stat(name).st_size if where.is_file(name) else 0
                whole, states = whole + size, states + size * (name == TRAINING_TENSORS)
        return whole, states

    def slim(self) -> None:
        """Remove the states of optimizers, which nothing but a longer training reads."""
        for name in self.checkpoints.names():
            self.checkpoints.drop(name, TRAINING_TENSORS)

    def facts(self) -> Facts:
        """Return the content of run.json."""
        return read_facts(self.place)

    def config(self) -> Config:
        """Return the resolved configuration. Also raises UsageError."""
        source = str(self.path / "config.yaml")
        return configuration.stored(read_within(self.place, "config.yaml", MAX_YAML), source)

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return the JSON objects in a file with one per line; none if it does not exist.

        Damaged lines are skipped with a warning, and an incomplete last line without one.
        """
        try:
            data = read_within(self.place, name, MAX_RECORDS)
        except InputMissingError:
            return []
        source = str(self.path / name)
        check_nested(data, source, MAX_NESTED_RECORDS)
        if data.count(b"\n") > MAX_LINES:
            raise DataError(source, None, f"more than {MAX_LINES:,} lines", COPY_AGAIN)
        found = [_record(line) for line in data.split(b"\n")]
        if damaged := found[:-1].count(None):
            _warn_of_damaged_lines(source, damaged)
        return [record for record in found if record is not None]

    def labels(self) -> list[str]:
        """Return the labels in the order of the logits."""
        labels = read_json(self.place, "labels.json", MAX_LABELS_JSON)
        source = str(self.path / "labels.json")
        if not isinstance(labels, list) or not all(map(_is_printable, labels)):
            raise DataError(source, None, "not a list of labels", COPY_AGAIN)
        if not labels:
            raise DataError(source, None, "no labels", COPY_AGAIN)
        if len(set(labels)) < len(labels):
            twice = next(label for label, count in Counter(labels).items() if count > 1)
            raise DataError(source, None, f"the label {excerpt(twice)} twice", COPY_AGAIN)
        return labels

    def tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer."""
        data = read_within(self.place, "tokenizer.model", MAX_MODEL_BYTES)
        return Tokenizer.from_bytes(data, str(self.path / "tokenizer.model"), COPY_AGAIN)

    def ngrams(self, classes: int, multi_label: bool, name: str = NGRAMS) -> NgramModel:
        """Return the run's linear model of n-grams, or that in another file of it."""
        source = str(self.path / name)
        tensors = tensors_of(read_within(self.place, name, MAX_NGRAMS), source)
        return ngram_model(tensors, columns(classes, multi_label), source)

    def state(self, name: Which | str) -> dict[str, Any]:
        """Return state.json of `best`, `last` or a checkpoint by name."""
        name = self._resolved(name)
        data, place = self.checkpoints.read(name, STATE), self._place(name, STATE)
        found = parse_json(data, place)
        if not isinstance(found, dict):
            raise DataError(place, None, "no JSON object", COPY_AGAIN)
        for key in ("step", "epoch"):
            if type(found.get(key, 0)) is not int:
                raise DataError(place, None, f"{key} is not a whole number", COPY_AGAIN)
        return found

    def checkpoint(self, name: Which | str, shapes: Shapes | None = None) -> Checkpoint:
        """Return `best`, `last` or a checkpoint by name; its weights must fit `shapes`."""
        name = self._resolved(name)
        most = None if shapes is None else max_bytes(shapes)
        weights = tensors_of(self.checkpoints.read(name, MODEL, most), self._place(name, MODEL))
        if shapes is not None:
            check_fit(weights, shapes, str(self.path))
        return Checkpoint(weights, self.state(name))

    def _resolved(self, name: Which | str) -> str:
        return self.checkpoints.pointed(name) if name in POINTERS else name

    def _place(self, name: str, file: str) -> str:
        return str(self.path / CHECKPOINTS / name / file)


def is_run(folder: OpenFolder) -> bool:
    """Return whether a folder has a valid run.json, of a format version that is read."""
    try:
        return bool(read_facts(folder))
    except SrucliError:
        return False


def is_begun(place: Place) -> bool:
    """Return whether a folder holds only what a training leaves before its first checkpoint."""
    with suppress(OSError), opened(place) as folder:
        names = folder.names()
        marked = kind_of(folder) == "run"
        own = marked and is_at_home(folder)
        own = own or ((marked or MARKER not in names) and is_run(folder))
        empty = "last" not in names and not Checkpoints(folder).names()
        return own and empty and not foreign(folder, LAYOUT)
    return False


def _is_printable(label: Any) -> bool:
    """Return whether a label fits in a line: JSON can encode line ends and lone surrogates."""
    try:
        return isinstance(label, str) and not set(label.encode()) & set(b"\t\r\n")
    except UnicodeEncodeError:
        return False
