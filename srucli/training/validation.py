"""What follows each epoch: measuring the dev examples, and which epoch is the best so far.

The weights of the branches and the labels' thresholds are fitted to the dev examples first, so the
metrics are those of the examples that chose them. Metrics are defined in `metrics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from srucli.data.dataset import Dataset
from srucli.data.store import TokenStore
from srucli.inference.forward import blended, branch_logits
from srucli.io.console import say
from srucli.metrics import Outcome, choose_thresholds, metric_named
from srucli.model.blend import fit_weights
from srucli.model.classifier import Classifier
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.truncation import Limits, Notices, Tally
from srucli.training.objectives import Objective


class Best(BaseModel):
    """The best epoch so far. The names are those in training.json.

    best: its metric, negated where less is better. best_step: its step. stale: epochs since.
    """

    model_config = ConfigDict(strict=True)

    best: float = -math.inf
    best_step: NonNegativeInt | None = None
    stale: NonNegativeInt = 0


class Validation:
    """Measures a model on dev examples; without any (`data` is None) every epoch is the best.

    metric: the one that decides. patience: epochs without improvement that end a training, 0 for
    none. thresholds (C,): the probabilities from which labels are given; None for single labels.
    """

    def __init__(
        self,
        metric: str,
        patience: int,
        model: Classifier,
        objective: Objective,
        data: Dataset | None,
        tokenizer: Tokenizer,
        limits: Limits,
    ) -> None:
        self.metric, self.patience, self.model, self.data = metric, patience, model, data
        self.multi_label, self.weights = objective.multi_label, objective.weights
        self.store = None
        if data is not None:
            self.store = TokenStore.encode(tokenizer, data.texts, limits=limits)
        classes = self.weights.shape[-1]
        self.thresholds = [0.5] * classes if self.multi_label else None
        self.best = Best()
        # What the restored best epoch was judged by.
        self.judged_by = self.judge

    @property
    def tally(self) -> Tally | None:
        """How many dev examples are not read whole."""
        return None if self.store is None else self.store.tally

    def announce(self) -> None:
        """Say what of the dev examples is not read, and whether they define the metric."""
        if self.data is None or self.store is None:
            return
        if not self.is_defined:
            say(
                f"{self.metric} is undefined on these dev texts: no epoch is the best, nothing "
                "stops training early, and the last weights are used"
            )
        for line in Notices(self.data.source).last(self.store.tally):
            say(line)

    @property
    def is_defined(self) -> bool:
        """Whether the metric is defined on the dev examples, whatever a model predicts."""
        targets, classes = self._targets(), self.weights.shape[-1]
        clueless = np.full((len(targets), classes), 1 / classes)
        return not math.isnan(metric_named(self.metric)(Outcome(clueless, targets)))

    def _targets(self) -> Any:
        """(B,) int64, or (B, K) bool for multi-label examples."""
        assert self.data is not None
        return self.data.targets.astype(bool) if self.multi_label else self.data.targets

    def fit_and_evaluate(self) -> dict[str, float]:
        """Fit the branches' weights and the thresholds to the dev examples; return their metrics.

        The metric that decides comes first. Empty without dev examples.
        """
        if self.store is None:
            return {}
        logits = branch_logits(self.model, self.store, self.weights.device)
        thresholds, targets = None, self._targets()
        known = targets[:, : self.weights.shape[-1]] if self.multi_label else targets
        sides = self.weights.cpu().numpy() if self.multi_label else None
        blend = fit_weights(logits.double().cpu().numpy(), known, self.multi_label, sides)
        self.model.blend.copy_(torch.tensor(blend))
        probabilities = blended(logits, self.model.blend, self.multi_label)
        if self.multi_label:
            thresholds = choose_thresholds(probabilities, known)
            self.thresholds = [float(value) for value in thresholds]
        outcome = Outcome(probabilities, targets, thresholds)
        names = dict.fromkeys([self.metric, "accuracy", "macro_f1", "log_loss"])
        return {name: metric_named(name, self.multi_label)(outcome) for name in names}

    def improved(self, metrics: Mapping[str, float], step: int) -> bool:
        """Whether an epoch that ended with this step is the best so far; remember it if so.

        It always is without dev examples, and never where the metric is undefined on them.
        """
        gain = self._gain(metrics[self.metric]) if metrics else None
        if gain is not None and math.isnan(gain):
            return False
        if gain is not None and gain <= self.best.best:
            self.best.stale += 1
            return False
        self.best.best_step = step
        if gain is not None:
            self.best.best, self.best.stale = gain, 0
        return True

    def _gain(self, value: float) -> float:
        """A value of the metric, negated where less is better."""
        return value if metric_named(self.metric).larger_is_better else -value

    @property
    def is_out_of_patience(self) -> bool:
        """Whether early stopping ends the training."""
        return bool(self.patience) and self.best.stale >= self.patience

    @property
    def spent(self) -> str | None:
        """The setting that ended the training."""
        return "train.patience" if self.is_out_of_patience else None

    def verdict(self) -> str | None:
        """Return a sentence where early stopping ended the training."""
        if not self.is_out_of_patience:
            return None
        best, stale = abs(self.best.best), self.best.stale
        return f"no better {self.metric} than {best:.4f} for {stale} epochs: stopping early"

    @cached_property
    def judge(self) -> dict[str, str]:
        """What must be the same for the metrics of two epochs to be compared."""
        if self.data is None:
            return {"metric": "", "dev": ""}
        return {"metric": self.metric, "dev": sha256(self.data.identity.encode()).hexdigest()}

    def state_dict(self) -> dict[str, Any]:
        """The best epoch, what it was judged by, and the thresholds."""
        progress = self.best.model_dump()
        return {"progress": progress, "judge": self.judge, "thresholds": self.thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it. Raises LookupError, TypeError, ValueError."""
        self.best = Best.model_validate(state["progress"])
        if self.thresholds is not None:
            self.thresholds = [float(value) for value in state["thresholds"]]
        self.judged_by = dict(state.get("judge", self.judge))
        if self.data is not None and self.judged_by != self.judge:
            former = self.data.former_digest(self.data.targets.tobytes())
            if self.judged_by["dev"] == former:
                self.judged_by["dev"] = self.judge["dev"]

    def start_over(self, step: int, value: float | None) -> None:
        """Compare with a resumed step alone; `value` is the metric there, if it was measured."""
        self.best = Best(best_step=step)
        if value is not None:
            self.best.best = self._gain(value)
