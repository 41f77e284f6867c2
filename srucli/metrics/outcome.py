"""What a model said about a set of texts and what is true: all that a metric is computed from.

No torch here: arrays are NumPy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from srucli.errors import DivergedError, SrucliError

Floats = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[Any]

THRESHOLD = 0.5


def decide(probabilities: Floats, thresholds: Floats | None, multi_label: bool) -> Array:
    """Decide on labels: probabilities (B, C) -> classes (B,), or where multi_label (B, C) bool.

    Single-label: the likeliest class. Multi-label: every class at or above its threshold in
    thresholds (C,), or 0.5 where that is None.
    """
    if not multi_label:
        return cast(Array, probabilities.argmax(axis=1))
    return probabilities >= (THRESHOLD if thresholds is None else thresholds)


def encode(
    gold: Sequence[Sequence[str]], labels: Sequence[str], multi_label: bool
) -> tuple[Array, list[str]]:
    """Gold labels of B texts -> targets and the names of the K classes.

    Targets are (B,) int64, or where multi_label (B, K) bool. The names are `labels`, then the
    labels that the model does not know, in order of appearance.
    """
    number = {label: index for index, label in enumerate(labels)}
    for names in gold:
        for name in names:
            number.setdefault(name, len(number))
    if not multi_label:
        return np.array([number[names[0]] for names in gold], dtype=np.int64), list(number)
    targets = np.zeros((len(gold), len(number)), dtype=bool)
    for row, names in enumerate(gold):
        targets[row, [number[name] for name in names]] = True
    return targets, list(number)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a model said about B texts, and what is true: all that a metric is computed from.

    probabilities (B, C); targets (B,) integers below K, or for multi-label (B, K) bool, K >= C;
    thresholds (C,) or None for 0.5 (multi-label only). Raises SrucliError where there are no texts,
    DivergedError where a probability is NaN or infinite.
    """

    probabilities: Floats
    targets: Array
    thresholds: Floats | None = None

    def __post_init__(self) -> None:
        if not len(self.targets):
            raise SrucliError("there are no texts to measure; give a file with labelled texts")
        broken = int((~np.isfinite(self.probabilities).all(axis=1)).sum())
        if broken:
            raise DivergedError(
                f"the model gave {broken} of {len(self.targets)} texts probabilities that are not "
                "numbers; its weights are damaged or its training diverged: train again, with a "
                "lower optim.lr"
            )

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def known(self) -> int:
        """C, the number of classes that the model knows."""
        return int(self.probabilities.shape[1])

    @cached_property
    def classes(self) -> int:
        """K, the number of classes with those that only the truth has."""
        seen = self.targets.shape[1] if self.multi_label else int(self.targets.max()) + 1
        return max(self.known, seen)

    @cached_property
    def predictions(self) -> Array:
        """(B,) integers below C, or for multi-label (B, K) bool."""
        decided = decide(self.probabilities, self.thresholds, self.multi_label)
        if not self.multi_label:
            return decided
        return np.pad(decided, ((0, 0), (0, self.classes - self.known)))

    @cached_property
    def truth(self) -> Array:
        """(B, C) bool: which of the model's labels are true."""
        if self.multi_label:
            return self.targets[:, : self.known]
        return cast(Array, self.targets[:, None] == np.arange(self.known))
