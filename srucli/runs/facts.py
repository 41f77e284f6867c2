"""run.json: the data, versions and machine of a training, and the version of the run's format."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import sentencepiece
import torch
from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from srucli.errors import DataError
from srucli.io.files import COPY_AGAIN, Place, path_of, read_json

FORMAT_VERSION = 4
Model = TypeVar("Model", bound=BaseModel)
MAX_FACTS = 2**20


class DataFacts(BaseModel):
    """The numbers of examples, and their hashes (see `data_hash` in `data/dataset.py`).

    without_labels: how many examples of the training file, held out or not, have no label
    (multi-label only).
    """

    texts: NonNegativeInt
    dev_texts: NonNegativeInt
    without_labels: NonNegativeInt
    sha256: dict[str, str]


class BaseFacts(BaseModel):
    """The earlier run that a run fine-tunes, or the pretrained vectors from which it starts.

    run: the folder. sha256: of tokenizer and weights. labels_kept: how many of an earlier run's
    labels are labels of the run; None of vectors.
    """

    run: str
    sha256: str
    labels_kept: NonNegativeInt | None = None


class Facts(BaseModel):
    """The content of run.json.

    sources: the files of the examples. columns: the names of the text and label columns in the
    training file, if a file named them. base: what it was trained from, if --from was given.
    """

    format_version: PositiveInt
    parameters: int
    data: DataFacts
    epochs: int
    device: str
    srucli: str
    torch: str
    cores: int
    command: list[str]
    sources: dict[str, str | None] = {}
    columns: dict[str, str | None] | None = None
    base: BaseFacts | None = None


def machine() -> dict[str, Any]:
    """Return the versions, platform, cores and command of this process."""
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


def read_facts(place: Place) -> Facts:
    """Read run.json. Raises DataError if it is invalid, or of another format."""
    read, source = read_json(place, "run.json", MAX_FACTS), str(path_of(place) / "run.json")
    found = read if isinstance(read, dict) else {}
    number = found.get("format_version")
    if type(number) is int and 0 < number < FORMAT_VERSION:
        problem = f"format version {number}, from before the first release, is no longer read"
        raise DataError(source, None, problem, "train again")
    return checked(Facts, found, FORMAT_VERSION, source)


def checked(kind: type[Model], found: dict[str, Any], latest: int, source: str) -> Model:
    """Return what was read as facts of this kind, of a format version up to `latest`.

    Raises DataError naming `source` if they are invalid or newer.
    """
    number = found.get("format_version")
    if type(number) is int and number > latest:
        problem = f"format version {number}, this srucli reads up to {latest}"
        raise DataError(source, None, problem, "upgrade srucli")
    try:
        return kind.model_validate(found, strict=True)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        problem = f"{key} is not as srucli writes it"
        raise DataError(source, None, problem, COPY_AGAIN) from None
