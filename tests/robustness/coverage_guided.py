"""Fuzz the readers of untrusted bytes with atheris, which keeps inputs that reach new code.

Usage: python -m tests.robustness.coverage_guided TARGET FOLDER [options of libFuzzer]

Needs atheris (`pip install atheris`), which srucli and its tests do not depend on. FOLDER keeps
the corpus; put valid inputs there first. A finding is any exception other than a SrucliError: the
first input for each place that raises is written to FOLDER's `findings`, and fuzzing continues. The
options -timeout and -rss_limit_mb bound an input's seconds and memory.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["srucli", "yaml", "json"]):
    from srucli.config import DataConfig
    from srucli.data.readers import read_examples, read_inputs
    from srucli.errors import SrucliError
    from srucli.io.files import parse_json
    from srucli.io.yaml import parse_yaml
    from srucli.runs.tensors import tensors_of
    from srucli.tokenizer.model import Tokenizer

FORMATS = ("auto", "tsv", "csv", "jsonl", "fasttext", "pairs")


def reader(kind: str) -> Callable[[bytes], None]:
    """Return a function that reads bytes as a data file of a format, labelled and unlabelled."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path, config = Path(tempfile.mkdtemp(dir=memory)) / "x.txt", DataConfig(format=kind)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        known = {label for each in read_examples(path, config) for label in each.labels}
        for each in read_inputs(path, config, known=known):
            each.text.encode()

    return read


TARGETS: dict[str, Callable[[bytes], object]] = {
    **{kind: reader(kind) for kind in FORMATS},
    "yaml": lambda data: parse_yaml(data, "x.yaml"),
    "json": lambda data: parse_json(data, "x.json"),
    "tokenizer": lambda data: Tokenizer.from_bytes(data, "x.model"),
    "tensors": lambda data: tensors_of(data, "x.safetensors"),
}


def main() -> None:
    """Fuzz a target until libFuzzer's options end it."""
    _, name, folder, *options = sys.argv
    findings, seen = Path(folder) / "findings", set[str]()
    findings.mkdir(parents=True, exist_ok=True)

    def attempt(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except SrucliError as error:
            str(error).encode()
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__}-{Path(at.filename).stem}-{at.lineno}"
            if where not in seen:
                seen.add(where)
                (findings / where).write_bytes(data)
                print(f"finding: {where}: {str(error)[:200]!a}", flush=True)

    atheris.Setup([name, *options, folder], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
