"""A comparison as a table and as conclusions in sentences.

Not here: the HTML page (`page.py`), conclusions on one optimizer (`diagnostics/findings.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from srucli.experiments.compare import CandidateResult, Comparison, skipped, truncated
from srucli.experiments.differences import doubt
from srucli.metrics import METRICS

HEADER = (
    *("", "rate", "dev", "test", "steps to target", "seconds to target", "steps", "seconds"),
    "rates within 1%",
)
# The columns that a table of WIDTH leaves out first; the page has them all.
LESS_NEEDED = ({5}, {6}, {8}, {7}, {4})
# The probability that equal candidates of a comparison are called different.
ALPHA = 0.05


def shown(metric: str, mean: float, deviation: float | None = None) -> str:
    """Return mean and standard deviation, as 87.1 ± 0.5: in percent, but not for a loss."""
    scale, digits = (100, 1) if METRICS[metric].larger_is_better else (1, 3)
    spread = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
    return f"{scale * mean:.{digits}f}{spread}"


def table_rows(comparison: Comparison) -> list[list[str]]:
    """Return the table without its header."""
    rows = [_row(comparison.metric, row) for row in comparison.rows]
    return rows + [
        [name, "", "diverged", *[""] * (len(HEADER) - 3)] for name in comparison.diverged
    ]


def _row(metric: str, row: CandidateResult) -> list[str]:
    diverged = f", {row.lost} diverged" if row.lost else ""
    seeds = len(row.results) + row.lost
    steps = seconds = f"by {len(row.reached)} of {seeds} seeds" if row.reached else "never"
    if row.to_target:
        steps, seconds = f"{row.to_target[0]:,.0f}", f"{row.to_target[1]:,.1f}"
    stable = round(row.stable * len(row.tried))
    return [
        *(row.name, f"{row.lr:g}", shown(metric, *row.dev) + diverged, shown(metric, *row.test)),
        *(steps, seconds, f"{row.steps:,}", f"{row.seconds:,.1f}"),
        f"{stable} of {len(row.tried)}",
    ]


def sentences(comparison: Comparison) -> Iterator[str]:
    """Yield the conclusions, with measurements, also those that the measurements do not allow."""
    yield from ranking(comparison)
    yield from _edges(comparison)
    yield from _speed(comparison)
    yield from _divergence(comparison)
    yield from (f"{line}." for line in (*truncated(comparison), *skipped(comparison)))


def ranking(comparison: Comparison) -> Iterator[str]:
    """Yield who leads on dev, on test if that is another, and whether it is more than chance."""
    best, *others = comparison.rows
    metric = comparison.metric
    level = [row for row in others if (row.dev[0], row.lost) == (best.dev[0], best.lost)]
    if level:
        names = [row.name for row in (best, *level)]
        named = f"{', '.join(names[:-1])} and {names[-1]}"
        yield f"{named} are level on dev, all of them with {shown(metric, best.dev[0])} {metric}."
    else:
        yield (
            f"{best.name} leads on dev with {shown(metric, *best.dev)} {metric} "
            f"(test {shown(metric, *best.test)}), at a learning rate of {best.lr:g}."
        )
    below = [row for row in others if row.lost <= best.lost and row not in level]
    yield from _differences(comparison, "dev", best, below, best.name if level else "it")
    sign = 1 if METRICS[metric].larger_is_better else -1
    tested = max(comparison.rows, key=lambda row: sign * row.test[0])
    if tested is not best:
        leads = f"{tested.name} leads with {shown(metric, *tested.test)}"
        yield f"On the test texts, which chose no learning rate, {leads}."
        yield from _differences(comparison, "test", tested, [best], "it")


def _differences(
    comparison: Comparison,
    part: str,
    row: CandidateResult,
    others: Sequence[CandidateResult],
    name: str,
) -> Iterator[str]:
    """Yield which others the row is better than on dev or test, and for which that is open."""
    metric, share = comparison.metric, METRICS[comparison.metric].larger_is_better

    def values(row: CandidateResult) -> list[float]:
        return [getattr(result, part)[metric] for result in row.results]

    reasons: dict[str | None, list[str]] = {}
    for other in others:
        reason = doubt(
            values(row),
            values(other),
            level=1 - ALPHA / len(others),
            scale=100 if share else 1,
            unit=" points" if share else "",
            texts=comparison.texts[part],
            share=share,
        )
        mean = shown(metric, *getattr(other, part))
        reasons.setdefault(reason, []).append(f"{other.name} ({mean})")
    for reason, names in sorted(reasons.items(), key=lambda each: each[0] is not None):
        if reason is None:
            yield f"On these texts {name} is better than {', '.join(names)}."
        else:
            yield f"Whether {name} is better than {' or '.join(names)} cannot be told: {reason}."


def _edges(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        rates = sorted(row.tried)
        if len(rates) > 1 and row.lr in (rates[0], rates[-1]):
            way = "lower" if row.lr == rates[0] else "higher"
            yield f"{row.name} may be better still at a {way} rate than {row.lr:g}, the last tried."


def _speed(comparison: Comparison) -> Iterator[str]:
    target = shown(comparison.metric, comparison.target)
    timed = [(row, *row.to_target) for row in comparison.rows if row.to_target]
    timed.sort(key=lambda each: each[1:])
    if timed:
        times = ", ".join(
            f"{row.name} after {steps:,.0f} steps and {seconds:,.1f} seconds"
            for row, steps, seconds in timed
        )
        yield (f"{target} on dev is reached by {times} (means over seeds, at the ends of epochs).")
    for (first, *_), (second, *_) in pairwise(timed[:2]):
        one, other = ([steps for steps, _ in row.reached] for row in (first, second))
        if reason := doubt(one, other, unit=" steps"):
            yield f"Whether {first.name} or {second.name} is the first cannot be told: {reason}."
    missed = [row.name for row in comparison.rows if not row.to_target]
    if missed:
        yield f"Not every seed reached {target}: {', '.join(missed)}."


def _divergence(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        if row.lost:
            yield (
                f"{row.name} diverged with {row.lost} of its seeds at its best rate, {row.lr:g}: "
                "its metrics are of the other seeds, and it is listed below the candidates that "
                "did not diverge."
            )
        rates = [f"{rate:g}" for rate, value in sorted(row.tried.items()) if value is None]
        if rates:
            yield f"{row.name} diverged at {', '.join(rates)}."
    if comparison.diverged:
        yield f"Diverged at every rate that was tried: {', '.join(comparison.diverged)}."
