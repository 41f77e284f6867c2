"""A trained run, loaded: texts to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.layout import ColumnNames
from srucli.data.store import TokenStore
from srucli.inference.forward import blended, branch_logits
from srucli.model.classifier import Classifier, shapes
from srucli.runs.choice import choose, unfinished
from srucli.runs.run_dir import RunDir
from srucli.runtime import resolve_device
from srucli.tokenizer.truncation import Tally


class Predictor:
    """A run, loaded: what `eval` and `predict` use.

    `tally` counts the texts that it was given, and `said` holds sentences on the weights in use.
    """

    def __init__(self, run: RunDir, device: torch.device) -> None:
        self.config = run.config()
        self.labels = run.labels()
        self.multi_label = self.config.data.multi_label
        columns = run.facts().columns
        self.names = (
            None if columns is None else ColumnNames(columns.get("text"), columns.get("label"))
        )
        self.tokenizer = run.tokenizer()
        self.device = device
        self.choice = choose(run, self.config)
        self.said = [said for said in (self.choice.said, unfinished(run)) if said]
        classes, pieces = len(self.labels), self.tokenizer.vocab_size
        checkpoint = run.checkpoint(self.choice.name, shapes(self.config.model, pieces, classes))
        self.thresholds = checkpoint.thresholds(classes, str(run.path))
        self.model = Classifier(self.config.model, self.tokenizer.spelling, classes)
        self.model.load_state_dict(checkpoint.weights)
        self.model.to(device).eval().tabulate()
        self.tally = Tally(limits=self.model.limits(self.config.train))

    @classmethod
    def load(cls, run: Path, device: str = "auto") -> Predictor:
        """Load a run's folder. Raises UsageError, InputMissingError, DataError."""
        found = resolve_device(device)
        return cls(RunDir.open(run), found)

    def probabilities(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """B texts -> probabilities (B, C) float32; each row sums to 1 in a single-label model."""
        if not texts:
            return np.empty((0, len(self.labels)), np.float32)
        store = TokenStore.encode(self.tokenizer, texts, limits=self.tally.limits)
        self.tally += store.tally
        logits = branch_logits(self.model, store, self.device)
        return blended(logits, self.model.blend, self.multi_label)
