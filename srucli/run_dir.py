"""What a run's folder holds, and how it gets there: whole or not at all.

    run.json          format version, versions, data and its hashes, machine, sizes
    config.yaml       the resolved configuration
    tokenizer.model   SentencePiece's model
    labels.json       the labels in the order of the logits
    metrics.jsonl     one line for each evaluation
    diagnostics.jsonl what the optimizer did, where that was asked for
    checkpoints, best, last: see `checkpoints.py`
    README.md         the model card
    lock              there while a training writes

There is no pickle anywhere. A folder is complete once `last` is there, and then predicts alone. It
may come from anybody: what is read is checked, has a limit, and lies inside of it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from srucli import config as configuration
from srucli import locks
from srucli.checkpoints import MODEL, POINTERS, STATE, Checkpoints, Which
from srucli.config import Config
from srucli.errors import DataError, InputMissingError, OutputError, SrucliError
from srucli.files import (
    COPY_AGAIN,
    TEMPORARY,
    append,
    check_nested,
    parse_json,
    read_json,
    read_within,
    to_json,
    unwritable,
    write_atomic,
)
from srucli.lines import escaped
from srucli.tokenizer import MAX_MODEL_BYTES, Tokenizer

FORMAT_VERSION = 2
# What there is before the first weights are.
FILES = {
    *("run.json", "config.yaml", "tokenizer.model", "labels.json", "checkpoints", locks.NAME),
    *("metrics.jsonl", "diagnostics.jsonl", "tensorboard", "best", "last"),
}
# The largest files of a run that are read.
MOST_FACTS, MOST_LABELS, MOST_RECORDS = 2**20, 16 * 2**20, 64 * 2**20
MOST_NESTED_RECORDS = 2**21
# Beyond any probability; larger whole numbers of JSON may be no float.
MOST_THRESHOLD = 1e9
# Of a safetensors file, what is not numbers: for each tensor, and besides.
HEADER_OF_TENSOR, HEADER, MOST_HEADER = 4096, 2**16, 2**22
Shapes = Mapping[str, Tensor]


class DataFacts(BaseModel):
    """How many texts there were, and their hashes (see `corpus.data_hash`)."""

    texts: int
    dev_texts: int
    sha256: dict[str, str]


class Facts(BaseModel):
    """What run.json says. Runs of format version 1 do not say where their texts came from."""

    format_version: int
    parameters: int
    data: DataFacts
    epochs: int
    device: str
    srucli: str
    torch: str
    cores: int
    command: list[str]
    sources: dict[str, str | None] = {}


# As long as there is run.json a folder is known to be a run's, and without `last` to hold nothing.
_ORDER = {"last": 0, "best": 1, "README.md": 2, "run.json": 9}


def _empty(folder: Path) -> None:
    """Remove all that is in a folder but its lock, so that a kill leaves what can be told."""
    for item in sorted(folder.iterdir(), key=lambda item: _ORDER.get(item.name, 5)):
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        elif item.name != locks.NAME:
            item.unlink()


def machine() -> dict[str, Any]:
    """Where and with what this process runs."""
    return {
        "python": platform.python_version(),
        "srucli": version("srucli"),
        "torch": torch.__version__,
        "sentencepiece": sentencepiece.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "command": sys.argv,
    }


def read_records(file: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line; none where it is absent, no cut last line.

    Raises DataError as `read_within`.
    """
    try:
        data = read_within(file.parent, file.name, MOST_RECORDS)
    except InputMissingError:
        return []
    check_nested(data, str(file), MOST_NESTED_RECORDS)
    records = []
    for line in data.split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


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
            isinstance(x, float | int) and abs(x) <= MOST_THRESHOLD for x in given
        )
        if not numbers or len(given) != classes:
            problem = f"the thresholds in state.json are not {classes} numbers"
            raise DataError(source, None, problem, COPY_AGAIN)
        return np.array(given, np.float64)


class RunDir:
    """A run's folder, made by `create` or found by `open`."""

    def __init__(self, path: Path, *, manifests: bool = True) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path, manifests=manifests)

    @staticmethod
    def check_free(path: Path, *, force: bool = False) -> None:
        """Refuse, before anything slow, a folder that cannot be written or holds something.

        Under `force` it may hold a former run. What a training left that was killed before it wrote
        anything worth keeping is nothing. Raises OutputError.
        """
        held = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not held.is_dir():
            raise OutputError(f"{held}: is no folder; choose another -o")
        if not os.access(held, os.W_OK | os.X_OK):
            raise OutputError(f"{held}: no permission to write there; choose another -o")
        if held != path or not any(path.iterdir()) or is_begun(path):
            return
        if not force:
            raise OutputError(f"{path}: exists already; choose another -o, or add --force")
        if not (path / "run.json").is_file():
            raise OutputError(f"{path}: holds no run, so --force does not empty it")

    @classmethod
    @contextmanager
    def claim(cls, path: Path) -> Iterator[RunDir]:
        """Hold the lock of the folder, made where there is none, for a block. Raises OutputError.

        Where the block ends in an error before any weights are saved, nothing is left of what it
        made in a folder that was empty.
        """
        made = [part for part in (path, *path.parents) if not part.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be made ({error.strerror})") from error
        with _removed_if_empty(made), locks.locked(path) as fresh:
            try:
                yield cls(path)
            except BaseException:
                with suppress(OSError):
                    if fresh and is_begun(path):
                        _empty(path)
                raise

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Find a complete run. Raises InputMissingError, or DataError for one that is unusable."""
        if not path.is_dir():
            raise InputMissingError(f"{path}: no such run folder; `srucli train -o` makes one")
        if not (path / "run.json").is_file():
            raise InputMissingError(f"{path}: not a run folder: it has no run.json")
        found = cls(path).facts()
        if not (path / "last").is_file():
            raise InputMissingError(f"{path}: the training has saved no weights yet")
        return cls(path, manifests=found.format_version > 1)

    def facts(self) -> Facts:
        """run.json. Raises DataError where it does not say what it should, or is newer."""
        found, source = read_json(self.path, "run.json", MOST_FACTS), str(self.path / "run.json")
        number = found.get("format_version") if isinstance(found, dict) else None
        if type(number) is not int or not 1 <= number <= FORMAT_VERSION:
            problem = f"format version {number!r}, this srucli reads up to {FORMAT_VERSION}"
            raise DataError(source, None, problem, "upgrade srucli")
        try:
            return Facts.model_validate(found, strict=True)
        except ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            problem = f"{key} is not as srucli writes it"
            raise DataError(source, None, problem, COPY_AGAIN) from None

    def clear(self) -> None:
        """Remove whatever the folder holds but the lock, for a new run. Raises OutputError."""
        try:
            _empty(self.path)
            os.mkdir(self.path / "checkpoints")
        except OSError as error:
            raise unwritable(self.path, error) from error

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
        """Write one file of the folder atomically."""
        write_atomic({self.path / name: data})

    def config(self) -> Config:
        """The resolved configuration of the run."""
        data = read_within(self.path, "config.yaml", configuration.MOST_YAML)
        return configuration.read(data, str(self.path / "config.yaml"))

    def labels(self) -> list[str]:
        """The labels in the order of the logits."""
        labels = read_json(self.path, "labels.json", MOST_LABELS)
        if not isinstance(labels, list) or not all(map(_is_text, labels)):
            source = str(self.path / "labels.json")
            raise DataError(source, None, "not a list of labels", COPY_AGAIN)
        return labels

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        data = read_within(self.path, "tokenizer.model", MAX_MODEL_BYTES)
        return Tokenizer.from_bytes(data, str(self.path / "tokenizer.model"), COPY_AGAIN)

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one line to a file of the folder, such as metrics.jsonl. Raises OutputError."""
        append(self.path / name, json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def size(self, name: str) -> int:
        """The bytes of a file of the folder; 0 where it is absent."""
        try:
            return os.stat(self.path / name).st_size
        except OSError:
            return 0

    def cut(self, name: str, size: int) -> None:
        """Take off what was added to a file after it had `size` bytes. Raises OutputError."""
        if self.size(name) > size:
            try:
                os.truncate(self.path / name, size)
            except (OSError, ValueError) as error:
                raise OutputError(f"{self.path / name}: cannot be cut ({error})") from error

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


@contextmanager
def _removed_if_empty(folders: list[Path]) -> Iterator[None]:
    """Remove folders, the innermost first, that an error in the block leaves without content."""
    try:
        yield
    except BaseException:
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        raise


def is_begun(path: Path) -> bool:
    """Whether a folder holds what a training left that ended before its first checkpoint.

    Such a training has left its lock or its run.json, and nothing but files of a run.
    """
    names = {item.name for item in path.iterdir()}
    if not all(name in FILES or name.endswith(TEMPORARY) for name in names) or "last" in names:
        return False
    checkpoints = Checkpoints(path)
    if checkpoints.folder.is_dir() and checkpoints.names():
        return False
    if "run.json" not in names:
        return locks.is_ours(path)
    try:
        return bool(RunDir(path).facts())
    except SrucliError:
        return False


def tidy(path: Path) -> None:
    """Remove what write_atomic left behind where it was killed. The lock must be held."""
    for item in path.glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            item.unlink()


def _is_text(label: Any) -> bool:
    """Whether a label can be printed in a line: JSON can spell line ends, and half characters."""
    try:
        return isinstance(label, str) and not set(label.encode()) & set(b"\t\r\n")
    except UnicodeEncodeError:
        return False


def most_bytes(shapes: Shapes) -> int:
    """The size of the largest safetensors file that can hold tensors like these."""
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in shapes.values())
    return HEADER + HEADER_OF_TENSOR * len(shapes) + numbers


def tensors_of(data: bytes, source: str) -> dict[str, Tensor]:
    """The tensors in a safetensors file. Raises DataError naming `source`."""
    if int.from_bytes(data[:8], "little") > MOST_HEADER:
        problem = f"damaged: its header is larger than the {MOST_HEADER:,} bytes that it can need"
        raise DataError(source, None, problem, COPY_AGAIN)
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        # What it says repeats names and types as they stand in the file.
        problem = f"damaged ({escaped(str(error)[:200])})"
        raise DataError(source, None, problem, COPY_AGAIN) from error


def check_fit(weights: Mapping[str, Tensor], shapes: Shapes, source: str) -> None:
    """Refuse weights of other names, shapes or dtypes. Raises DataError naming `source`."""
    for name in [*shapes, *weights]:
        found, wanted = weights.get(name), shapes.get(name)
        same = found is not None and wanted is not None
        if not same or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):  # type: ignore[union-attr]
            problem = f"the weights do not fit config.yaml (see {name[:99]!r})"
            raise DataError(source, None, problem, COPY_AGAIN)
