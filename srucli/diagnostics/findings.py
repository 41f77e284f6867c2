"""Conclusions about a run's optimizer from its diagnostics, each a sentence with its measurements.

A finding is either a fault or not. Where the measurements support no conclusion, the sentence says
so, and why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from srucli.diagnostics.records import MIN_RECORDS, WHOLE_EPOCH, Diagnostics, Slope, slope

MIN_STEPS = 100  # fewer do not show what an optimizer does in the long run
# A sum of squares that grows evenly has slope -1/2, an exponential mean 0. Below the first slope an
# optimizer stalls, above the second it does not.
STALLING_SLOPE, STEADY_SLOPE = -0.3, -0.2
MAX_STRIDE = 2.0  # times the learning rate, which is the longest corrected step of Adam
LONG_MEMORY = 1 / 3  # of the run; a mean of squared gradients is then almost a sum
STARVED = 1 / 30  # of the others' steps, relative to the weights
MAX_CLIPPED = MAX_UNTOUCHED = 0.5
MAX_EPS_SHARE = 0.1
FIRST_STEPS = 100
MIN_RATIO, MAX_RATIO = 1e-5, 0.3  # of a step to the weights, at the peak learning rate
# A loss rises if it grows by this factor in an epoch, and by this share of the first epoch's; it is
# idle if it does not fall below this share.
RISE, RISE_OF_FIRST, IDLE = 1.05, 0.01, 0.95
NEAR_PEAK = 0.9  # of the peak learning rate
MAX_FIRST_RECORD = 3  # a later first record does not show the first steps
ALIKE = 1.1  # the largest ratio of step lengths that are called equal


# The settings of the tables' numbers of rows.
TABLES = {
    "embedding": "tokenizer.vocab_size",
    "encoder.table": "model.bag_buckets",
}


@dataclass(frozen=True)
class Finding:
    """The answer to one question: its name, whether it is a fault, and the sentence."""

    name: str
    fault: bool
    text: str


def _unknown(name: str, what: str, why: str) -> Finding:
    return Finding(name, False, f"{what} cannot be told: {why}")


def _verdict(name: str, fault: bool, bad: str, good: str, measured: str, remedy: str) -> Finding:
    text = f"{bad}: {measured}; {remedy}" if fault else f"{good}: {measured}"
    return Finding(name, fault, text)


def stalling(run: Diagnostics) -> Finding | None:
    """Does the effective learning rate only fall?"""
    if not any(run.per_gradient(group)[0] for group in run.groups):
        return None
    name, forgetting = "stalling", run.steps_to_forget()
    corrected = run.excess(1) is None
    trend = _trend(run, max(run.steps / 20, 3.0, 0.0 if corrected else forgetting))
    why = ""
    if corrected and forgetting > run.steps:
        why = f"it takes {forgetting:,.0f} steps to forget the first gradients, more than there are"
    elif not corrected and forgetting > run.steps / 2:
        why = f"its mean of squared gradients grows for {forgetting:,.0f} steps, over half of them"
    elif trend is None:
        why = f"fewer than {MIN_RECORDS} records are late enough; train with a smaller --diagnose"
    elif trend[0].low < STEADY_SLOPE and trend[0].high > STALLING_SLOPE:
        why = f"{trend[1]}, which is neither"
    if why or trend is None:
        return _unknown(name, f"whether {run.name} stalls", why)
    remedy = "rmsprop and adam forget old gradients"
    if forgetting:
        remedy = "it forgets old gradients, so the gradients have grown"
    bad, good = f"{run.name} stalls", f"{run.name} does not stall"
    return _verdict(name, trend[0].high <= STALLING_SLOPE, bad, good, trend[1], remedy)


def _trend(run: Diagnostics, start: float) -> tuple[Slope, str] | None:
    """Return the slope of the effective learning rate from step `start` on, also in words.

    None if no group has enough records.
    """
    slopes, changes, first = [], [], start
    for group in run.groups:
        steps, values = run.per_gradient(group)
        if fitted := slope(steps, values, start):
            pairs = zip(steps, values, strict=True)
            first, early = next((step, value) for step, value in pairs if step >= start)
            slopes.append(fitted)
            changes.append(values[-1] / early)
    if not slopes:
        return None
    value, low, high = (median(column) for column in zip(*slopes, strict=True))
    change = median(changes)
    times = f"{change:.3g} times higher" if change >= 1 else f"{1 / change:.3g} times lower"
    measured = (
        f"without the schedule, the effective learning rate is {times} at the end than at step "
        f"{first:,}; the slope of its log against log(step) is {value:+.2f} ({low:+.2f} to "
        f"{high:+.2f}; medians of the groups; a sum of squares that only grows gives -0.50)"
    )
    return Slope(value, low, high), measured


def memory(run: Diagnostics) -> Finding | None:
    """Are squared gradients remembered for too short or too long a time?"""
    decay = run.decay()
    if not decay or run.option("amsgrad"):  # amsgrad keeps the largest for ever
        return None
    half_life, steps, gap = math.log(0.5) / math.log(decay), run.steps, run.gap()
    measured = f"squared gradients lose half their weight in {half_life:,.0f} of {steps:,} steps"
    if gap:
        measured += f", and a token of median frequency occurs every {gap:.3g} steps"
    short, long = bool(gap and half_life < gap), half_life > steps * LONG_MEMORY
    corrected = run.excess(1) is None
    bad, good, remedy = "the memory is short", "the memory fits", f"raise the decay {decay:g}"
    if long and corrected:
        good = "the memory is long, a mean over nearly all of the run"
    elif not short:
        bad, remedy = "the memory is long, nearly a sum as in adagrad", f"lower the decay {decay:g}"
    return _verdict("memory", short or (long and not corrected), bad, good, measured, remedy)


def first_steps(run: Diagnostics) -> Finding | None:
    """Were the first steps too long, and does theory predict their length?"""
    name = "first steps"
    strides, lengths = {}, {}
    for record in run.records:
        found = [group["stride"] for group in record["groups"].values() if group.get("stride")]
        if found and record["step"] <= FIRST_STEPS:
            strides[record["step"]] = median(found)
            lengths[record["step"]] = median(found) * (record["lr"] / run.peak)
    if not strides or run.decay() is None:
        return None
    first = min(strides)
    if first > MAX_FIRST_RECORD:
        what = "whether the first steps were long"
        return _unknown(name, what, f"the first record is of step {first}")
    later = max(step for step in strides if step <= 12)
    expected, at_later = run.excess(first), run.excess(later)
    theory = "theory: about 1"
    if expected and at_later:
        theory = f"theory without bias correction: {expected:.2f}, at step {later} {at_later:.2f}"
    longest, length = max(lengths.items(), key=lambda item: item[1])
    measured = (
        f"step {first} moved a weight by {strides[first]:.2f} times the learning rate ({theory}); "
        f"the longest was step {longest}, by {length:.2f} times the peak learning rate"
    )
    bad, good = "the first steps are too long", "the first steps are not too long"
    remedy = "adam corrects for this, a longer optim.warmup hides it"
    return _verdict(name, length > MAX_STRIDE, bad, good, measured, remedy)


def learning_rate(run: Diagnostics) -> Finding | None:
    """Is the learning rate at an edge of the range that trains well?"""
    name = "learning rate"
    losses = [record["train_loss"] for record in run.metrics if record.get("train_loss")]
    rises = [
        epoch
        for epoch, (before, after) in enumerate(itertools.pairwise(losses), start=2)
        if after > RISE * before and after - before > RISE_OF_FIRST * losses[0]
    ]
    top = max(run.records, key=lambda record: record["lr"])
    # Biases and other vectors start at zero, where every step is large.
    ratios = {
        key: group["ratio"]
        for key, group in top["groups"].items()
        if group["ratio"] and key != "vectors"
    }
    if not ratios:
        return None
    group, ratio = max(ratios.items(), key=lambda item: item[1])
    at = f"the peak, {run.peak:g}" if top["lr"] > NEAR_PEAK * run.peak else f"{top['lr']:.3g}"
    measured = f"at {at}, a step changes {group} most, by {ratio:.1e} of their size"
    if losses:
        measured += f"; the training loss went from {losses[0]:.3f} to {losses[-1]:.3f}"
    if rises:
        measured += f" and rose by over {RISE - 1:.0%} in epoch {', '.join(map(str, rises[:5]))}"
    idle = len(losses) > 1 and losses[-1] > IDLE * losses[0] and not rises
    high, low = bool(rises) or ratio > MAX_RATIO, ratio < MIN_RATIO or idle
    if len(losses) < WHOLE_EPOCH and not (high or low):
        why = f"{measured}; but fewer than {WHOLE_EPOCH} epochs have a loss"
        return _unknown(name, "whether the learning rate is at an edge", why)
    edge, change = ("upper", "lower") if high or not low else ("lower", "raise")
    bad, good = f"the learning rate is at its {edge} edge", "the learning rate is at no edge"
    remedy = f"{change} optim.lr"
    if run.chosen:
        remedy = "it is still the best of the tried rates on validation data"
    return _verdict(name, high or low, bad, good, measured, remedy)


def starved(run: Diagnostics) -> Finding | None:
    """Does a group learn far more slowly than the others?"""
    ratios = {group: run.series(group, "ratio")[1] for group in run.groups}
    medians = {group: median(values) for group, values in ratios.items() if values}
    if len(medians) < 2:
        return None
    slow, *_, fast = sorted(medians, key=lambda group: medians[group])
    others = median(value for group, value in medians.items() if group != slow)
    measured = (
        f"the median step changes {slow} least, by {medians[slow]:.1e} of their size, and {fast} "
        f"most, by {medians[fast]:.1e}"
    )
    bad, good = f"{slow} are starved", "no group is starved"
    remedy = "an optimizer with a step size for every weight helps, such as adam"
    return _verdict("starved", medians[slow] < STARVED * others, bad, good, measured, remedy)


def clipping(run: Diagnostics) -> Finding | None:
    """Does the limit on the gradient's norm determine most steps?"""
    limit = run.optimizer["clip"]
    if not limit:
        return None
    bounds = itertools.pairwise([0, *(record["step"] for record in run.records)])
    clipped = sum(
        record["clipped"] * (stop - start)
        for record, (start, stop) in zip(run.records, bounds, strict=True)
    )
    share = clipped / run.records[-1]["step"]
    # On a GPU, a step with a non-finite gradient has a record, whose norm is null.
    norms = [each["grad_norm"] for each in run.records if each["grad_norm"] is not None]
    norm = median(norms) if norms else math.nan
    measured = (
        f"the gradients of {share:.0%} of the steps were longer than optim.clip={limit:g} (median "
        f"norm {norm:.2g})"
    )
    bad, good = "clipping determines most steps", "clipping does not determine most steps"
    remedy = "raise optim.clip" if run.chosen else "raise optim.clip or lower optim.lr"
    return _verdict("clipping", share > MAX_CLIPPED, bad, good, measured, remedy)


def eps(run: Diagnostics) -> Finding | None:
    """Does eps determine the step of many weights?"""
    found = {group: run.series(group, "eps_dominates")[1] for group in run.groups}
    shares = {group: values[-1] for group, values in found.items() if values}
    if not shares:
        return None
    group, share = max(shares.items(), key=lambda item: item[1])
    measured = (
        f"at the end, the root is below eps for {share:.1%} of the weights in {group} that ever "
        "had a gradient, the most of all groups"
    )
    bad, good, remedy = "eps dominates", "eps does not dominate", "lower optim.options.eps"
    return _verdict("eps", share > MAX_EPS_SHARE, bad, good, measured, remedy)


def rare_tokens(run: Diagnostics) -> Finding | None:
    """How much longer are the steps of rare tokens than those of common ones?"""
    tenths = run.by_frequency()
    if len(tenths) < 2:
        return None
    (common, common_step), (rare, rare_step) = tenths[0], tenths[-1]
    ratio = rare_step / common_step
    how = "longer steps than" if ratio > ALIKE else "shorter steps than"
    if 1 / ALIKE <= ratio <= ALIKE:
        how = "steps as long as"
    text = (
        f"rare tokens take {how} common ones: a unit of gradient moves the rarest tenth (each "
        f"occurs {rare:.3g} times per epoch) {ratio:.3g} times as far as the most common tenth "
        f"({common:.3g} times)"
    )
    return Finding("rare tokens", False, text)


def untouched(run: Diagnostics) -> Finding | None:
    """Do tables have rows that never had a gradient?"""
    shares = run.records[-1]["untouched"]
    if not shares:
        return None
    share = max(shares.values())
    listed = ", ".join(f"{key} {value:.1%}" for key, value in shares.items())
    measured = f"rows that never had a gradient: {listed}"
    unused = [each for each in shares if shares[each] > MAX_UNTOUCHED]
    bad = f"{' and '.join(unused)} {'are' if len(unused) > 1 else 'is'} too large"
    remedy = f"lower {' and '.join(TABLES.get(each, each) for each in unused)}"
    good = "the tables are used"
    return _verdict("untouched", share > MAX_UNTOUCHED, bad, good, measured, remedy)


class Question(NamedTuple):
    """The function that answers a question, the question in words, and what an answer needs."""

    answer: Callable[[Diagnostics], Finding | None]
    about: str
    long_run: bool = True
    whole_epoch: bool = False


QUESTIONS = (
    Question(stalling, "whether {name} stalls"),
    Question(memory, "whether the memory of squared gradients fits"),
    Question(first_steps, "whether the first steps were long", long_run=False),
    Question(learning_rate, "whether the learning rate is at an edge"),
    Question(starved, "whether a group is starved"),
    Question(clipping, "whether clipping determines most steps"),
    Question(eps, "whether eps dominates"),
    Question(rare_tokens, "whether rare tokens take longer steps", whole_epoch=True),
    Question(untouched, "whether a table is too large", whole_epoch=True),
)


def _answer(run: Diagnostics, question: Question) -> Finding | None:
    """Return the answer, or that so short a run does not give one."""
    finding = question.answer(run)
    why = ""
    if question.long_run and run.steps < MIN_STEPS:
        why = f"{run.steps:,} steps are too few, at least {MIN_STEPS} are needed"
    elif question.whole_epoch and len(run.metrics) < WHOLE_EPOCH:
        why = "no epoch is known to be complete, so rare tokens may not have occurred yet"
    if finding and why:
        return _unknown(finding.name, question.about.format(name=run.name), why)
    return finding


def diagnose(run: Diagnostics) -> list[Finding]:
    """Return the answers to all questions that apply. Raises DataError for damaged records."""
    with run.reading():
        for fact in (run.name, run.steps, run.peak):
            str(fact).encode()
        return [finding for question in QUESTIONS if (finding := _answer(run, question))]
