"""Test whether two groups of trials differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, variance

from scipy.special import stdtrit

# Where one model is right and the other wrong on fewer texts, that may be chance, even if it is
# never the other way round: 5 heads of 5 come with p = 1/16 (McNemar 1947, the exact test).
MIN_TEXTS = 6


def interval(one: Sequence[float], other: Sequence[float], level: float) -> tuple[float, float]:
    """Return the interval of the difference of two means, by Welch's t-test (Welch 1947).

    Each group needs two or more values. level: the confidence, as 0.95.
    """
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
    """Return why the means of two groups of seeds may not differ, or None if they do.

    level: the confidence. scale, unit: the reason shows `scale` times the values, in this unit.
    texts: the number of texts that the values were measured on, if any. share: the values are
    shares of texts, or means of shares, as macro-F1 is.
    """
    if min(len(one), len(other)) < 2:
        return "there is only one seed"
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
        return f"there {'is only one text' if texts == 1 else f'are only {texts} texts'}"
    if texts and share and abs(difference) * texts < MIN_TEXTS:
        return f"the difference is about {abs(difference) * texts:.1f} of {texts:,} texts"
    return None
