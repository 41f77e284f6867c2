"""A tokenizer and trainers for the small task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from srucli.config import resolve
from srucli.data.dataset import Dataset, Split
from srucli.data.layout import NO_NAMES
from srucli.runs.run_dir import RunDir
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import train_tokenizer
from srucli.training.build import build
from srucli.training.defaults import complete
from srucli.training.interrupts import Interrupt
from srucli.training.ngrams import fit_ngrams
from srucli.training.trainer import Trainer
from tests.training.small import DEV, LABELS, TRAIN, Make, examples, quick


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    config = resolve(overrides=["tokenizer.vocab_size=120"]).tokenizer
    texts = [each.text for each in examples(200, LABELS, 9, several=False)]
    return train_tokenizer(texts, config, lower_vocab=True).tokenizer


@pytest.fixture
def make(tokenizer: Tokenizer, tmp_path: Path) -> Make:
    """Return a function that makes a trainer: make("train.epochs=2", dev=False)."""

    def built(*overrides: str, dev: bool = True, name: str = "run", based: bool = False) -> Trainer:
        given = quick(*overrides)
        several = given.data.multi_label
        rows = examples(TRAIN, LABELS, 0, several)
        held = examples(DEV, LABELS[:2], 1, several)
        config = complete(given, TRAIN, len(LABELS), based=based)
        run = RunDir(tmp_path / name)
        (run.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        data = Dataset.make(rows, LABELS, several, "train.tsv")
        dev_data = Dataset.make(held, LABELS, several, "dev.tsv") if dev else None
        device = torch.device("cpu")
        split = Split(data, dev_data, NO_NAMES)
        ngrams = fit_ngrams(split, tokenizer, config.train)
        made = build(config, run, tokenizer, split, device, Interrupt(), ngrams)
        facts = {
            "parameters": made.step.parameters,
            "data": {
                "texts": TRAIN,
                "dev_texts": DEV,
                "without_labels": split.without_labels,
                "sha256": {"train": "0", "dev": "0"},
            },
            "epochs": made.loader.epochs,
            "device": "cpu",
        }
        run.begin(config, tokenizer, LABELS, facts, ngrams.model)
        return made

    return built
