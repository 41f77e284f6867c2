"""Evaluation on the dev examples after each epoch, the best epoch so far, and early stopping.

The weights of the network and of the n-grams, and the thresholds of the labels, are fitted to the
dev examples first, so the metrics are measured on the same examples. Where these have soft labels,
the weights are fitted to these, but metrics and thresholds see the most likely labels.
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
from srucli.errors import located
from srucli.inference.forward import (
    Scores,
    all_logits,
    blended,
    probabilities,
    texts_at_once,
)
from srucli.io.console import say, warn
from srucli.io.memory import enough_memory
from srucli.metrics import Outcome, check_size, choose_thresholds, metric_named
from srucli.model.blend import fit_weights
from srucli.model.classifier import Classifier
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.truncation import Limits, Notices, Tally
from srucli.training.objectives import Objective


class Best(BaseModel):
    """The best epoch so far. The names are those in training.json.

    best: its metric, negated if smaller is better. best_step: its last step. stale: epochs since.
    """

    model_config = ConfigDict(strict=True)

    best: float = -math.inf
    best_step: NonNegativeInt | None = None
    stale: NonNegativeInt = 0


class Validation:
    """Evaluates a model on dev examples. Without any (`data` is None), every epoch is the best.

    metric: decides which epoch is best. patience: the number of epochs without improvement that
    ends a training; 0 turns early stopping off. scores (B, C): those of the linear model of n-grams
    for the dev examples, if there is one. at_least_one: see `srucli.metrics.decide`.
    thresholds (C,): a label is predicted from this
    probability on; None for single-label models.
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
        scores: Scores = None,
        at_least_one: bool = False,
    ) -> None:
        self.metric, self.patience, self.model, self.data = metric, patience, model, data
        self.multi_label, self.weights = objective.multi_label, objective.weights
        self.classes, self.scores = self.weights.shape[-1], scores
        self.at_least_one = at_least_one
        self.prior = model.blend.tolist()
        self.store = None
        if data is not None:
            check_size(len(data), self.classes, self.multi_label, data.source)
            with located(data.source, data.lines.__getitem__):
                self.store = TokenStore.encode(tokenizer, data.texts, limits=limits)
        self.thresholds = [0.5] * self.classes if self.multi_label else None
        self.best = Best()
        # The basis of the restored `best`.
        self.restored_basis = self.basis

    @property
    def tally(self) -> Tally | None:
        """The counts of truncated dev examples."""
        return None if self.store is None else self.store.tally

    def announce(self) -> None:
        """Warn if the metric is undefined on the dev examples, and if examples are truncated."""
        if self.data is None or self.store is None:
            return
        if not self.is_defined:
            warn(
                f"{self.metric} is undefined on these dev examples: there is no best epoch and no "
                "early stopping, and the last weights are used"
            )
        say(*Notices(self.data.source).last(self.store.tally))

    @property
    def is_defined(self) -> bool:
        """Whether the metric is defined on the dev examples, whatever a model predicts."""
        targets = self._targets()
        uniform = np.broadcast_to(np.float32(1 / self.classes), (len(targets), self.classes))
        return not math.isnan(metric_named(self.metric)(Outcome(uniform, targets)))

    def _targets(self) -> Any:
        """Return the targets: (B,) int64, or (B, K) bool for multi-label examples."""
        assert self.data is not None
        return self.data.targets.astype(bool) if self.multi_label else self.data.targets

    def fit_and_evaluate(self) -> dict[str, float]:
        """Fit the weights and the thresholds to the dev examples; return their metrics.

        The metric that decides comes first. Without dev examples the result is empty.
        """
        if self.store is None:
            return {}
        fewer = f"use fewer dev examples (now {len(self.store.lengths):,})"
        with enough_memory("validation", fewer):
            return self._fit_and_evaluate(self.store)

    def _fit_and_evaluate(self, store: TokenStore) -> dict[str, float]:
        device, thresholds, targets = self.weights.device, None, self._targets()
        known = targets[:, : self.classes] if self.multi_label else targets
        learned = known if self.data is None or self.data.soft is None else self.data.soft
        weights = self.weights.cpu().numpy() if self.multi_label else None
        texts, size = np.arange(len(targets)), texts_at_once(self.model, self.classes)
        if fits := len(texts) <= size:
            fitted = texts
        else:  # so many are enough for three weights
            fitted = np.sort(np.random.default_rng(0).choice(texts, size, replace=False))
        logits = all_logits(self.model, store, device, fitted, self.scores)
        given = logits.double().cpu().numpy()
        blend = fit_weights(given, learned[fitted], self.multi_label, weights, self.prior)
        self.model.blend.copy_(torch.tensor(blend))
        if fits:
            found = blended(logits, self.model.blend, self.multi_label)
        else:
            known_as = self.classes, self.multi_label, self.scores
            found = probabilities(self.model, store, device, *known_as)
        if self.multi_label:
            thresholds = choose_thresholds(found, known)
            self.thresholds = [float(value) for value in thresholds]
        outcome = Outcome(found, targets, thresholds, self.at_least_one)
        names = dict.fromkeys([self.metric, "accuracy", "macro_f1", "log_loss"])
        return {name: metric_named(name, self.multi_label)(outcome) for name in names}

    def improved(self, metrics: Mapping[str, float], step: int) -> bool:
        """Return whether the epoch that ended with this step is the best so far, and record it.

        Without dev examples it always is; if the metric is undefined on them, it never is.
        """
        if metrics:
            score = self._score(metrics[self.metric])
            if math.isnan(score):
                return False
            if score <= self.best.best:
                self.best.stale += 1
                return False
            self.best.best, self.best.stale = score, 0
        self.best.best_step = step
        return True

    def _score(self, value: float) -> float:
        """Return a value of the metric, negated if smaller is better."""
        return value if metric_named(self.metric).larger_is_better else -value

    @property
    def spent(self) -> str | None:
        """The setting that ended the training, if early stopping did."""
        return "train.patience" if self.best.stale >= self.patience > 0 else None

    def early_stop_message(self) -> str | None:
        """Return a sentence if early stopping ended the training."""
        if not self.spent:
            return None
        best, stale = abs(self.best.best), self.best.stale
        epochs = "1 epoch" if stale == 1 else f"{stale} epochs"
        return f"no better {self.metric} than {best:.4f} for {epochs}: stopping early"

    @cached_property
    def basis(self) -> dict[str, str]:
        """The metric and a hash of the dev examples. Results are comparable if it is the same."""
        if self.data is None:
            return {"metric": "", "dev": ""}
        return {"metric": self.metric, "dev": sha256(self.data.identity.encode()).hexdigest()}

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch, its basis, and the thresholds."""
        progress = self.best.model_dump()
        return {"progress": progress, "judge": self.basis, "thresholds": self.thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state. Raises LookupError, TypeError, ValueError."""
        self.best = Best.model_validate(state["progress"])
        if self.thresholds is not None:
            self.thresholds = [float(value) for value in state["thresholds"]]
        self.restored_basis = dict(state.get("judge", self.basis))

    def reset_best(self, step: int, value: float | None) -> None:
        """Make `step` the best so far; `value` is the metric there, if it is known."""
        self.best = Best(best_step=step)
        if value is not None:
            self.best.best = self._score(value)
