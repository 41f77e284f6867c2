"""The predictions for a set of examples and their true labels, from which metrics are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from srucli.errors import DataError, DivergedError, SrucliError

Floats = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[Any]

THRESHOLD = 0.5
# The most probabilities, or true and false labels, of a set of examples: B times C. Those of a
# multi-label model take more memory, as each of them is a decision.
MAX_CELLS, MAX_CELLS_MULTI_LABEL = 2**29, 2**27


def decide(
    probabilities: Floats,
    thresholds: Floats | None,
    multi_label: bool,
    at_least_one: bool = False,
) -> Array:
    """Predict labels: probabilities (B, C) -> classes (B,), or for multi-label (B, C) bool.

    Single-label: the most probable class. Multi-label: every class at or above its threshold in
    thresholds (C,), default 0.5; with `at_least_one`, a text without any gets the class whose log
    odds are least below those of its threshold.
    """
    if not multi_label:
        return cast(Array, probabilities.argmax(axis=1))
    limits = np.full(probabilities.shape[1], THRESHOLD) if thresholds is None else thresholds
    chosen = probabilities >= limits
    if at_least_one:
        (empty,) = np.nonzero(~chosen.any(axis=1))
        below = _log_odds(probabilities[empty]) - _log_odds(limits)
        chosen[empty, below.argmax(axis=1)] = True
    return cast(Array, chosen)


def _log_odds(probabilities: Floats) -> Floats:
    inside = np.clip(np.asarray(probabilities, np.float64), 1e-12, 1 - 1e-12)
    return cast(Floats, np.log(inside) - np.log1p(-inside))


def check_size(examples: int, classes: int, multi_label: bool, source: str) -> None:
    """Raise DataError if so many examples and classes would take too much memory."""
    most = MAX_CELLS_MULTI_LABEL if multi_label else MAX_CELLS
    if examples * classes > most:
        count = max(most // classes, 1)
        problem = f"{examples:,} or more examples with {classes:,} labels take too much memory"
        remedy = f"at most {most:,} pairs of example and label fit: use {count:,} examples"
        raise DataError(source, None, problem, f"{remedy} or fewer, or fewer labels")


def encode(
    truth: Sequence[Sequence[str]], labels: Sequence[str], multi_label: bool, source: str
) -> tuple[Array, list[str]]:
    """Return targets for the true labels of B examples, and the names of the K classes.

    Targets are (B,) int64, or for multi-label (B, K) bool. The names are `labels`, then the labels
    that the model does not know, in order of appearance. Raises DataError naming `source`.
    """
    number = {label: index for index, label in enumerate(labels)}
    for names in truth:
        for name in names:
            number.setdefault(name, len(number))
    if not multi_label:
        return np.array([number[names[0]] for names in truth], dtype=np.int64), list(number)
    check_size(len(truth), len(number), multi_label, source)
    targets = np.zeros((len(truth), len(number)), dtype=bool)
    for row, names in enumerate(truth):
        targets[row, [number[name] for name in names]] = True
    return targets, list(number)


def check_finite(probabilities: Floats) -> None:
    """Raise DivergedError if a probability (B, C) is NaN or infinite."""
    invalid = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if invalid:
        raise DivergedError(
            f"the probabilities of {invalid} of {len(probabilities)} examples are NaN or Inf; "
            "the weights are damaged or the training diverged: train again, with a lower "
            "optim.lr"
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """A model's probabilities for B examples, and their targets.

    probabilities (B, C); targets (B,) integers below K, or for multi-label (B, K) bool, K >= C;
    thresholds (C,) or None for 0.5, and at_least_one: see `decide` (multi-label only). Raises
    SrucliError if there are no examples, DivergedError if a probability is NaN or infinite.
    """

    probabilities: Floats
    targets: Array
    thresholds: Floats | None = None
    at_least_one: bool = False

    def __post_init__(self) -> None:
        if not len(self.targets):
            raise SrucliError(
                "there are no examples to evaluate on; give a file with labelled texts"
            )
        check_finite(self.probabilities)

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def known(self) -> int:
        """C, the number of classes that the model knows."""
        return int(self.probabilities.shape[1])

    @cached_property
    def classes(self) -> int:
        """K, the number of classes including those that only occur in the targets."""
        seen = self.targets.shape[1] if self.multi_label else int(self.targets.max()) + 1
        return max(self.known, seen)

    @cached_property
    def predictions(self) -> Array:
        """(B,) integers below C, or for multi-label (B, K) bool."""
        predicted = decide(self.probabilities, self.thresholds, self.multi_label, self.at_least_one)
        if not self.multi_label:
            return predicted
        return np.pad(predicted, ((0, 0), (0, self.classes - self.known)))

    @cached_property
    def truth(self) -> Array:
        """(B, C) bool: which of the known labels are true."""
        if self.multi_label:
            return self.targets[:, : self.known]
        return cast(Array, self.targets[:, None] == np.arange(self.known))
