"""Divide examples into folds for cross-validation, stratified by label, groups kept together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.errors import UsageError


def folds(
    labels: Sequence[Any], count: int, seed: int, groups: Sequence[Hashable] | None = None
) -> list[NDArray[np.int64]]:
    """Return the indices of the examples of each fold, sorted; each of B examples is in one fold.

    labels (B): of each example one label, or a tuple or list of any number of them. groups (B):
    examples with equal values are in the same fold. Of a label that excludes the others, without
    groups, no two folds differ by more than one example; otherwise each fold gets its share of each
    label as nearly as groups and label combinations allow.

    As in iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of
    multi-label data"), examples with rare labels come first, and each goes to the fold that lacks
    most of its labels. A group is one example with all its labels; large ones come first.

    Raises UsageError for fewer than two folds, or more than there are examples or groups.
    """
    members = _members(len(labels), groups)
    check_count(count)
    if count > len(members):
        what = ("example" if groups is None else "group") + "s" * (len(members) > 1)
        there = f"there {'is' if len(members) == 1 else 'are'} only {len(members):,} {what}"
        fewer = f"pass --folds {len(members)}" if len(members) > 1 else "add others"
        raise UsageError(f"--folds {count:,}: {there}, and each fold needs one; {fewer}")
    order = np.random.default_rng(seed).permutation(len(members))
    units = [members[number] for number in order]
    fold_of = np.empty(len(labels), np.int64)
    numbers = _divide([_counted(labels, unit) for unit in units], count)
    for unit, fold in zip(units, numbers, strict=True):
        fold_of[unit] = fold
    return [np.flatnonzero(fold_of == fold) for fold in range(count)]


def check_count(count: int) -> None:
    """Raise UsageError for a number of folds that is too small."""
    if count < 2:
        raise UsageError(
            f"{count} folds: 2 or more are needed, to train on one and test on another"
        )


def _members(examples: int, groups: Sequence[Hashable] | None) -> list[list[int]]:
    """Return the indices of the examples of each group, or of each example alone."""
    if groups is None:
        return [[index] for index in range(examples)]
    found: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(group, []).append(index)
    return list(found.values())


def _counted(labels: Sequence[Any], unit: Sequence[int]) -> Counter[Any]:
    """Return how many examples of a unit have each label; None counts those without any."""
    found: Counter[Any] = Counter()
    for index in unit:
        own = labels[index]
        names = dict.fromkeys(own) if isinstance(own, (tuple, list)) else {own: None}
        found.update(names.keys() or {None})
    return found


def _divide(units: Sequence[Counter[Any]], count: int) -> list[int]:
    """Return the fold of each unit, given by the number of its examples with each label."""
    total: Counter[Any] = Counter()
    for unit in units:
        total.update(unit)
    shares = [[(label, n, n / total[label]) for label, n in unit.items()] for unit in units]
    # Labels that are as rare as another are divided one after the other.
    rank = {label: number for number, label in enumerate(total)}
    first = [min(map(rank.__getitem__, unit)) for unit in units]
    size = [sum(share**2 for _, _, share in own) for own in shares]
    order = sorted(range(len(units)), key=lambda number: (-size[number], first[number]))
    fold_of, sizes, placed = [0] * len(units), [0] * count, {label: [0] * count for label in total}
    for number in order:
        own = [(placed[label], n, share) for label, n, share in shares[number]]
        # How much a fold has of these labels, and of all.
        has = [
            (sum(there[fold] * share for there, _, share in own), size)
            for fold, size in enumerate(sizes)
        ]
        fold_of[number] = fold = min(range(count), key=has.__getitem__)
        for there, n, _ in own:
            there[fold] += n
            sizes[fold] += n
    return fold_of
