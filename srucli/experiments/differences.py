"""Whether two groups of trainings differ by more than chance makes them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, variance

from scipy.special import stdtrit

# Fewer texts that one model has right and the other wrong may be chance, even if it is never the
# other way round: 5 of 5 heads are no rarer than 1 of 16 (McNemar 1947, the exact test).
MIN_TEXTS = 6


def interval(one: Sequence[float], other: Sequence[float], level: float) -> tuple[float, float]:
    """Of the difference of two means, each of two or more values, by Welch's t (Welch 1947)."""
    parts = [(variance(values) / len(values), len(values) - 1) for values in (one, other)]
    squared = sum(part for part, _ in parts)
    difference = fmean(one) - fmean(other)
    if not squared:
        return difference, difference
    freedom = squared**2 / sum(part**2 / free for part, free in parts)
    reach = float(stdtrit(freedom, (1 + level) / 2)) * squared**0.5
    return difference - reach, difference + reach


def doubt(
    one: Sequence[float],
    other: Sequence[float],
    *,
    level: float = 0.95,
    scale: float = 1.0,
    unit: str = "",
    texts: int | None = None,
    share: bool = False,
) -> str | None:
    """Why it cannot be told that two means of seeds differ; None where it can.

    What is said is in `scale` times the values' unit. texts: how many were measured on, if texts
    were; share: the values are shares of them, or are means of such, as macro-F1 is.
    """
    if min(len(one), len(other)) < 2:
        return "one seed does not tell what another would do"
    difference = fmean(one) - fmean(other)
    low, high = (scale * end for end in interval(one, other, level))
    if low == high == 0:
        return "they are level with every seed"
    if low <= 0 <= high:
        return (
            f"over seeds the difference of {abs(scale * difference):.3g}{unit} has the "
            f"{100 * level:.3g}% interval {low:.3g} to {high:.3g}"
        )
    if texts is not None and texts < MIN_TEXTS:
        return f"there {'is one text' if texts == 1 else f'are {texts} texts'} only"
    if texts and share and abs(difference) * texts < MIN_TEXTS:
        return f"it is a matter of about {abs(difference) * texts:.1f} of {texts:,} texts"
    return None
