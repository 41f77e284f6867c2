"""The valid inputs that the fuzzer's targets mutate, and what a target is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from srucli import config as configuration
from srucli.config import TokenizerConfig, recipes
from srucli.tokenizer.training import train_tokenizer
from srucli.training.run import train
from tests.robustness.folders import Bases
from tests.support import ROOT

TEXTS = [
    "",
    "the film was lovely",
    "정말 재미있는 영화",
    "👩‍👩‍👧 ﷺ ㍿ \u0301\u200d",
    "a" * 300,
    "<s> <0x41>",
]
WORDS = {"good": ["lovely", "excellent", "좋은"], "bad": ["awful", "rude", "나쁜"]}
THINGS = ["soup", "coffee", "train", "hotel", "film", "book", "영화", "garden", "phone", "lamp"]
SMALL: dict[str, Any] = {
    "model": {
        "embedding_size": 8,
        "hidden": 8,
        "layers": 1,
    },
    "train": {"epochs": 2, "threads": 1, "device": "cpu", "dev_share": 0.2, "diagnose": 1},
}
KINDS: dict[str, dict[str, Any]] = {
    "unigram": {"tokenizer": {"vocab_size": 80}},
    "bpe": {
        "tokenizer": {
            "model_type": "bpe",
            "vocab_size": 320,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "user_defined_symbols": ("<url>",),
        },
        "model": SMALL["model"] | {"encoder": "cnn", "pooling": ("attention", "max")},
        "data": {"multi_label": True},
    },
}


def sentences() -> list[tuple[str, str]]:
    """Return pairs of label and text."""
    return [(k, f"the {t} was {w}") for k, words in WORDS.items() for w in words for t in THINGS]


class Seeds:
    """The valid inputs that are mutated, created once before any process is forked."""

    def __init__(self, folder: Path) -> None:
        """Train small runs and tokenizers into `folder`."""
        self.folder = folder
        self.labelled = labelled = folder / "train.tsv"
        labelled.write_text("".join(f"{label}\t{text}\n" for label, text in sentences()))
        self.runs = {"v4": ROOT / "tests" / "formats" / "v4"}
        for name, settings in KINDS.items():
            config = configuration.build(SMALL | settings, name)
            self.runs[name] = train(config, str(labelled), None, folder / name)
        self.files = {
            name: {
                path.relative_to(run): path.read_bytes()
                for path in sorted(run.rglob("*.*"))
                if path.is_file()
            }
            | {Path(which): (run / which).read_bytes() for which in ("best", "last")}
            for name, run in self.runs.items()
        }
        for name, settings in KINDS.items():
            # Short, because reading YAML would take most of the time.
            self.files[name][Path("config.yaml")] = json.dumps(SMALL | settings, indent=1).encode()
            restore(self.runs[name], self.files[name])
        self.models = [files[Path("tokenizer.model")] for files in self.files.values()]
        for kind in ("word", "char"):
            plain = TokenizerConfig(model_type=kind, vocab_size=30, hard_vocab_limit=False)
            lines = [text for _, text in sentences()]
            self.models.append(train_tokenizer(lines, plain).tokenizer.model_bytes)
        self.yaml = [
            *(path.read_bytes() for path in recipes().values()),
            *(files[Path("config.yaml")] for files in self.files.values()),
        ]

    @cached_property
    def bases(self) -> Bases:
        """The folders of trainings, comparisons and searches."""
        return Bases(self.folder / "bases", self.labelled, SMALL)


class Target(NamedTuple):
    """A kind of input: a function that tries one, and what is done once before any of them.

    attempt: called with the seeds, the generator on which alone the input depends, and a folder for
    its files. It raises SrucliError if srucli refuses the input, and AssertionError for a finding.
    """

    attempt: Callable[[Seeds, Random, Path], None]
    prepare: Callable[[Seeds], object] = lambda seeds: None


def restore(run: Path, files: dict[Path, bytes]) -> None:
    """Undo all changes of a run folder."""
    for name, data in files.items():
        path = run / name
        with suppress(OSError):
            if not path.is_symlink() and path.is_file() and path.read_bytes() == data:
                continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(data)
