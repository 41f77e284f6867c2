"""The targets of training: labels, probabilities of labels, or a mean of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srucli.config import TrainConfig
from srucli.data.soft import Soft


class Example(Protocol):
    """An example that may have probabilities."""

    @property
    def soft(self) -> Soft | None: ...


def soft_targets(
    examples: Sequence[Example],
    hard: NDArray[Any],
    labels: Sequence[str],
    settings: TrainConfig,
    multi_label: bool,
) -> NDArray[np.float32]:
    """Return what is learned (B, C): hard targets, (B,) or (B, C), or probabilities, or both.

    A text with both a label and probabilities gets a mean, with `settings.soft_share` of these.
    """
    number = {label: index for index, label in enumerate(labels)}
    rows = [row for row, example in enumerate(examples) if example.soft]
    given, shares = np.zeros((len(rows), len(labels)), np.float32), np.ones((len(rows), 1))
    places: dict[tuple[str, ...], list[int]] = {}
    for at, row in enumerate(rows):
        soft = examples[row].soft
        assert soft is not None
        if soft.names not in places:
            places[soft.names] = [number[name] for name in soft.names]
        given[at, places[soft.names]] = np.frombuffer(soft.values, np.float32)
        if soft.beside:
            shares[at] = settings.soft_share
    if multi_label:
        targets = hard.copy()
    else:
        targets = np.zeros((len(hard), len(labels)), np.float32)
        targets[np.arange(len(hard)), hard] = 1
    given = with_temperature(given, settings.soft_temperature, multi_label)
    targets[rows] = shares * given + (1 - shares) * targets[rows]
    return targets


def with_temperature(
    given: NDArray[np.float32], temperature: float, multi_label: bool
) -> NDArray[np.float32]:
    """Return probabilities p (B, C) as p^(1/T), normalized; multi-label: of p and 1 - p."""
    if temperature == 1:
        return given
    if multi_label:
        most = np.maximum(given, 1 - given)
        true, false = (given / most) ** (1 / temperature), ((1 - given) / most) ** (1 / temperature)
        total = true + false
    else:  # the largest becomes 1, so that the sum is above 0
        true = (given / given.max(axis=1, keepdims=True)) ** (1 / temperature)
        total = true.sum(axis=1, keepdims=True)
    return (true / total).astype(np.float32)
