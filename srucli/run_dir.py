"""What a run's folder holds, and how it gets there: whole or not at all.

    run.json          format version, versions, seeds, hashes of the data, machine, sizes
    config.yaml       the resolved configuration
    tokenizer.model   SentencePiece's model
    labels.json       the labels in the order of the logits
    metrics.jsonl     one line for each evaluation
    diagnostics.jsonl what the optimizer did, where that was asked for
    checkpoints/step-N/model.safetensors, state.json
    best, last        the name of a checkpoint
    README.md         the model card

There is no pickle anywhere. A folder is complete once `last` is there, and then predicts alone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from srucli import config as configuration
from srucli.config import Config
from srucli.errors import DataError, InputMissingError, OutputError
from srucli.files import sync_folder, write_atomic
from srucli.tokenizer import Tokenizer

FORMAT_VERSION = 1
Which = Literal["best", "last"]


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


def _json(data: Any) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode()


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
    """The JSON objects of a file with one a line; none where it is absent, no cut last line."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError:
        return []
    records = []
    for line in lines:
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
        numbers = isinstance(given, list) and all(isinstance(x, float | int) for x in given)
        if not numbers or len(given) != classes:
            problem = f"the thresholds in state.json are not {classes} numbers"
            raise DataError(source, None, problem, "copy the run again")
        return np.array(given, np.float64)


class RunDir:
    """A run's folder, made by `create` or found by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def check_free(path: Path, *, force: bool = False) -> None:
        """Refuse, before anything slow, a folder that cannot be written or holds something.

        Under `force` it may hold a former run. Raises OutputError.
        """
        held = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not held.is_dir():
            raise OutputError(f"{held}: is no folder; choose another -o")
        if not os.access(held, os.W_OK | os.X_OK):
            raise OutputError(f"{held}: no permission to write there; choose another -o")
        if held != path or not any(path.iterdir()):
            return
        if not force:
            raise OutputError(f"{path}: exists already; choose another -o, or add --force")
        if not (path / "run.json").is_file():
            raise OutputError(f"{path}: holds no run, so --force does not empty it")

    @classmethod
    @contextmanager
    def create(cls, path: Path, *, force: bool = False) -> Iterator[RunDir]:
        """Make the folder, emptied of a former run under `force`. Raises OutputError.

        It is removed where the block ends in an error before any weights are saved.
        """
        cls.check_free(path, force=force)
        try:
            if path.is_dir():
                _empty(path)
            (path / "checkpoints").mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be made ({error.strerror})") from error
        try:
            yield cls(path)
        except BaseException:
            if not (path / "last").is_file():
                shutil.rmtree(path, ignore_errors=True)
            raise

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Find a complete run. Raises InputMissingError, or DataError for one that is unusable."""
        if not path.is_dir():
            raise InputMissingError(f"{path}: no such run folder; `srucli train -o` makes one")
        if not (path / "run.json").is_file():
            raise InputMissingError(f"{path}: not a run folder: it has no run.json")
        run = cls(path)
        found = run.facts().get("format_version")
        if not isinstance(found, int) or found > FORMAT_VERSION:
            raise DataError(
                str(path / "run.json"),
                None,
                f"format version {found!r}, this srucli reads up to {FORMAT_VERSION}",
                "upgrade srucli",
            )
        if not (path / "last").is_file():
            raise InputMissingError(f"{path}: the training has saved no weights yet")
        return run

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise InputMissingError(f"{self.path / name}: {error.strerror}") from error

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads(self._read(name))
        except (ValueError, RecursionError) as error:
            source = str(self.path / name)
            raise DataError(source, None, "not valid JSON", "copy the run again") from error

    def _read_object(self, name: str) -> dict[str, Any]:
        found = self._read_json(name)
        if not isinstance(found, dict):
            raise DataError(str(self.path / name), None, "no JSON object", "copy the run again")
        return found

    def facts(self) -> dict[str, Any]:
        """run.json. Raises DataError where it is not an object."""
        return self._read_object("run.json")

    def begin(
        self,
        config: Config,
        tokenizer: Tokenizer,
        labels: list[str],
        facts: Mapping[str, Any],
    ) -> None:
        """Write everything that is known before the first step."""
        self.write("config.yaml", configuration.dump(config).encode())
        self.write("tokenizer.model", tokenizer.model_bytes)
        self.write("labels.json", _json(labels))
        self.write("run.json", _json({"format_version": FORMAT_VERSION, **facts, **machine()}))

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the folder atomically."""
        write_atomic({self.path / name: data})

    def config(self) -> Config:
        """The resolved configuration of the run."""
        return configuration.resolve(self.path / "config.yaml")

    def labels(self) -> list[str]:
        """The labels in the order of the logits."""
        labels = self._read_json("labels.json")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            source = str(self.path / "labels.json")
            raise DataError(source, None, "not a list of labels", "copy the run again")
        return labels

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return Tokenizer.load(self.path / "tokenizer.model")

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one line to a file of the folder, such as metrics.jsonl."""
        file = self.path / name
        try:
            with file.open("ab") as out:
                out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{file}: cannot be written ({error.strerror})") from error

    def save(
        self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], which: set[Which]
    ) -> None:
        """Write a checkpoint, point `which` at it, and remove those that nothing points at."""
        name = f"step-{step}"
        final = self.path / "checkpoints" / name
        beside = final.with_name(f".{name}.tmp")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
            contents = {"model.safetensors": save_tensors(tensors)}
            contents["state.json"] = _json({"step": step, **state})
            write_atomic({beside / name: data for name, data in contents.items()})
            shutil.rmtree(final, ignore_errors=True)
            beside.replace(final)
            sync_folder(final.parent)
        except OSError as error:
            raise OutputError(f"{final}: cannot be written ({error.strerror})") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        for pointer in sorted(which):
            self.write(pointer, name.encode() + b"\n")
        self._sweep()

    def _sweep(self) -> None:
        kept = {self._pointed(which) for which in ("best", "last") if (self.path / which).is_file()}
        for folder in (self.path / "checkpoints").iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _pointed(self, which: str) -> str:
        name = self._read(which).decode("utf-8", "replace").strip()
        number = name.removeprefix("step-")
        if not (name.startswith("step-") and number.isascii() and number.isdigit()):
            source = str(self.path / which)
            raise DataError(source, None, f"{name!r} names no checkpoint", "copy the run again")
        return name

    def checkpoint(self, which: Which) -> Checkpoint:
        """The `best` or `last` checkpoint. Raises DataError where it is damaged."""
        folder = f"checkpoints/{self._pointed(which)}"
        try:
            weights = load_tensors(self._read(f"{folder}/model.safetensors"))
        except SafetensorError as error:
            source = str(self.path / folder / "model.safetensors")
            raise DataError(source, None, f"damaged ({error})", "copy the run again") from error
        return Checkpoint(weights, self._read_object(f"{folder}/state.json"))
