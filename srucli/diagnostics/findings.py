"""What the diagnostics of a run say of its optimizer, in sentences that each give their numbers.

A finding is a fault or not; either way it says what was measured and what that means. Where the
numbers do not support the sentence, it says that it cannot be told, and why. No torch and no plots
here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from srucli.diagnostics.records import MIN_RECORDS, WHOLE_EPOCH, Diagnostics, Slope, slope
from srucli.errors import DataError
from srucli.io.console import escaped
from srucli.io.files import COPY_AGAIN

# What an optimizer does in the long run cannot be told from fewer steps.
MIN_STEPS = 100
# A sum of squares that grows evenly gives -1/2, an exponential mean 0: below the first slope an
# optimizer stalls, above the second it does not.
STALLING_SLOPE, STEADY_SLOPE = -0.3, -0.2
FORGETFUL, GROWN = "rmsprop and adam forget", "it forgets, so its gradients have grown"
# Adam's corrected step moves a weight by the learning rate at most; this many times is too far.
LONG_STRIDE = 2.0
# A gradient's memory beyond this share of the run is as good as a sum.
LONG_MEMORY = 1 / 3
STARVED = 1 / 30
OFTEN = 0.5
EPS_SHARE = 0.1
FIRST_STEPS = 100
# Relative change of weights in a step, at the peak of the schedule.
USUAL_RATIOS = (1e-5, 0.3)
# A loss that rises by this factor in an epoch, and by so much of what it was after the first; one
# that did not fall below this share.
RISE, RISE_OF_FIRST, IDLE = 1.05, 0.01, 0.95
# The highest rate that was looked at is the peak from this share of it on.
NEAR = 0.9
# A look at a step beyond this one says nothing of the first steps.
EARLY = 3
# Steps of rare pieces that are longer by less than this factor are as long.
ALIKE = 1.1


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its name, whether it is a fault, and what to say."""

    name: str
    fault: bool
    text: str


def untold(name: str, what: str, why: str) -> Finding:
    """What cannot be told of a run, and why."""
    return Finding(name, False, f"{what} cannot be told: {why}")


def verdict(name: str, fault: bool, words: tuple[str, str], said: str, remedy: str) -> Finding:
    """What was seen, after the one of two words that fits, and for a fault what to do."""
    bad, good = words
    return Finding(name, fault, f"{bad}: {said}; {remedy}" if fault else f"{good}: {said}")


def stalling(run: Diagnostics) -> Iterator[Finding]:
    """Whether a unit of gradient moves weights ever less."""
    if not any(run.per_gradient(group)[0] for group in run.groups):
        return
    what, fills = f"whether {run.name} stalls", run.steps_to_forget()
    corrected = run.excess(1) is None
    found = trend(run, max(run.steps / 20, 3.0, 0.0 if corrected else fills))
    if corrected and fills > run.steps:
        keeps = f"it takes {fills:,.0f} steps to forget what it began with, more than there are"
        yield untold("stalling", what, keeps)
    elif not corrected and fills > run.steps / 2:
        fill = f"its mean of squared gradients fills up for {fills:,.0f} steps, over half of them"
        yield untold("stalling", what, fill)
    elif found is None:
        few = f"fewer than {MIN_RECORDS} looks are late enough; --diagnose with a smaller number"
        yield untold("stalling", what, few)
    elif found[0].low < STEADY_SLOPE and found[0].high > STALLING_SLOPE:
        yield untold("stalling", what, f"{found[1]}, which is neither")
    else:
        words = (f"{run.name} stalls", f"{run.name} does not stall")
        remedy = GROWN if fills else FORGETFUL
        yield verdict("stalling", found[0].high <= STALLING_SLOPE, words, found[1], remedy)


def trend(run: Diagnostics, start: float) -> tuple[Slope, str] | None:
    """The slope of steps for a unit of gradient from step `start` on, and what to say of it.

    None where no group has looks enough.
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
    times = f"{change:.3g} times longer" if change >= 1 else f"{1 / change:.3g} times shorter"
    said = (
        f"without the schedule, the step for a unit of gradient is {times} at the end than at step "
        f"{first:,}, slope {value:+.2f} ({low:+.2f} to {high:+.2f}) of log step against log t "
        "(medians of the groups; a sum of squares that only grows gives -0.50)"
    )
    return Slope(value, low, high), said


def memory(run: Diagnostics) -> Iterator[Finding]:
    """Whether squared gradients are remembered for too short or too long."""
    decay = run.decay()
    if not decay or run.option("amsgrad"):  # which keeps the largest for ever
        return
    half, gap = math.log(0.5) / math.log(decay), run.gap()
    said = f"squared gradients lose half their weight in {half:,.0f} steps of {run.steps:,}"
    if gap:
        said += f", and a piece of middling frequency comes every {gap:.3g} steps"
    short, long = bool(gap and half < gap), half > run.steps * LONG_MEMORY
    if short:
        words, remedy = ("the memory is short", ""), f"raise the decay {decay:g}"
    elif long and run.excess(1) is None:
        words, remedy = ("", "the memory is long, a mean over nearly all of the run"), ""
    else:
        words = ("the memory is long, nearly a sum as adagrad's", "the memory fits")
        remedy = f"lower the decay {decay:g}"
    yield verdict("memory", short or (long and run.excess(1) is not None), words, said, remedy)


def first_steps(run: Diagnostics) -> Iterator[Finding]:
    """Whether the first steps were too long, beside what the theory says of them."""
    strides: dict[int, float] = {}
    rates: dict[int, float] = {}
    for record in run.records:
        own = [group["stride"] for group in record["groups"].values() if group.get("stride")]
        if own and record["step"] <= FIRST_STEPS:
            strides[record["step"]] = median(own)
            rates[record["step"]] = record["lr"] / run.peak
    if not strides or run.decay() is None:
        return
    first = min(strides)
    if first > EARLY:
        why = f"the first look was at step {first}"
        yield untold("first steps", "whether the first steps were long", why)
        return
    later = max(step for step in strides if step <= 12)
    said = f"step {first} moved a weight by {strides[first]:.2f} times the rate of that moment"
    wanted, beyond = run.excess(first), run.excess(later)
    if wanted and beyond:
        said += (
            f" (theory without bias correction: {wanted:.2f}; that makes step {later} {beyond:.2f} "
            "times as long)"
        )
    else:
        said += " (theory: about 1)"
    worst = max(strides, key=lambda step: strides[step] * rates[step])
    length = strides[worst] * rates[worst]
    said += f"; the longest was step {worst}, by {length:.2f} times the peak rate"
    words = ("the first steps are long", "the first steps are no longer than they should be")
    remedy = "adam corrects for this, a longer optim.warmup hides it"
    yield verdict("first steps", length > LONG_STRIDE, words, said, remedy)


def learning_rate(run: Diagnostics) -> Iterator[Finding]:
    """Whether the learning rate lies at an edge of what can be learnt with."""
    losses = [record["train_loss"] for record in run.metrics if record.get("train_loss")]
    pairs = enumerate(itertools.pairwise(losses), start=2)
    rises = [
        epoch
        for epoch, (before, after) in pairs
        if after > RISE * before and after - before > RISE_OF_FIRST * losses[0]
    ]
    top = max(run.records, key=lambda record: record["lr"])
    # Biases and the like begin at zero, where every step is a large one.
    ratios = {
        name: group["ratio"]
        for name, group in top["groups"].items()
        if group["ratio"] and name != "vectors"
    }
    if not ratios:
        return
    name = max(ratios, key=lambda key: ratios[key])
    most, (least_usual, most_usual) = ratios[name], USUAL_RATIOS
    rate = f"the peak, {run.peak:g}" if top["lr"] > NEAR * run.peak else f"{top['lr']:.3g}"
    said = f"at {rate}, a step changes {name} most, by {most:.1e} of their size"
    if losses:
        said += f"; the training loss went from {losses[0]:.3f} to {losses[-1]:.3f}"
    if rises:
        said += f" and rose by over {RISE - 1:.0%} in epoch {', '.join(map(str, rises[:5]))}"
    idle = len(losses) > 1 and losses[-1] > IDLE * losses[0] and not rises
    high, low = bool(rises) or most > most_usual, most < least_usual or idle
    if len(losses) < WHOLE_EPOCH and not (high or low):
        why = f"{said}; but fewer than {WHOLE_EPOCH} epochs have a loss"
        yield untold("learning rate", "whether the learning rate is at an edge", why)
        return
    edge = "lower" if low and not high else "upper"
    words = (f"the learning rate is at its {edge} edge", "the learning rate is at no edge")
    remedy = f"{'raise' if edge == 'lower' else 'lower'} optim.lr"
    if run.chosen:
        remedy = "of the rates tried it is the best on dev texts all the same"
    yield verdict("learning rate", high or low, words, said, remedy)


def starved(run: Diagnostics) -> Iterator[Finding]:
    """Whether a group learns far slower than the others."""
    rates = {group: run.series(group, "ratio")[1] for group in run.groups}
    middle = {group: median(found) for group, found in rates.items() if found}
    if len(middle) < 2:
        return
    slow, *_, fast = sorted(middle, key=lambda group: middle[group])
    others = median(rate for group, rate in middle.items() if group != slow)
    said = (
        f"in the median step {slow} change least, by {middle[slow]:.1e} of their size, and {fast} "
        f"most, by {middle[fast]:.1e}"
    )
    words = (f"{slow} are starved", "no group is starved")
    remedy = "an optimizer with a step for every weight, as adam, feeds them"
    yield verdict("starved", middle[slow] < STARVED * others, words, said, remedy)


def clipping(run: Diagnostics) -> Iterator[Finding]:
    """Whether the limit on the gradient's norm decides most steps."""
    limit = run.optimizer["clip"]
    if not limit:
        return
    steps = [0, *(record["step"] for record in run.records)]
    shares = [record["clipped"] for record in run.records]
    clipped = sum(
        share * (stop - start) for share, start, stop in zip(shares, steps, steps[1:], strict=False)
    )
    share = clipped / steps[-1]
    norm = median(record["grad_norm"] for record in run.records)
    said = (
        f"the gradients of {share:.0%} of the steps were longer than optim.clip={limit:g} (median "
        f"norm {norm:.2g})"
    )
    words = ("clipping decides", "clipping does not decide")
    remedy = "raise optim.clip" if run.chosen else "raise optim.clip or lower optim.lr"
    yield verdict("clipping", share > OFTEN, words, said, remedy)


def eps(run: Diagnostics) -> Iterator[Finding]:
    """Whether eps decides the step of many weights."""
    found = {group: run.series(group, "eps_dominates")[1] for group in run.groups}
    shares = {group: values[-1] for group, values in found.items() if values}
    if not shares:
        return
    name = max(shares, key=lambda group: shares[group])
    said = (
        f"at the end the root is below eps for {shares[name]:.1%} of those weights in {name} that "
        "ever had a gradient, the most of all groups"
    )
    words, remedy = ("eps decides", "eps only guards"), "lower optim.options.eps"
    yield verdict("eps", shares[name] > EPS_SHARE, words, said, remedy)


def rare_pieces(run: Diagnostics) -> Iterator[Finding]:
    """How much longer steps rare pieces take than common ones."""
    tenths = run.by_frequency()
    if len(tenths) < 2:
        return
    (common, short), (rare, long) = tenths[0], tenths[-1]
    times = long / short
    how = "longer steps than" if times > ALIKE else "shorter steps than"
    how = "steps as long as" if 1 / ALIKE <= times <= ALIKE else how
    text = (
        f"rare pieces take {how} common ones: for a unit of gradient the rarest tenth (each comes "
        f"{rare:.3g} times an epoch) moves {times:.3g} times as far as the most common tenth "
        f"({common:.3g} times)"
    )
    yield Finding("rare pieces", False, text)


def untouched(run: Diagnostics) -> Iterator[Finding]:
    """Whether tables have rows that never got a gradient."""
    shares = run.records[-1]["untouched"]
    if not shares:
        return
    name = max(shares, key=lambda key: shares[key])
    said = f"rows that never had a gradient: {', '.join(f'{k} {v:.1%}' for k, v in shares.items())}"
    words, remedy = (f"{name} is too large", "the tables are used"), "give it fewer rows"
    yield verdict("untouched", shares[name] > OFTEN, words, said, remedy)


class Question(NamedTuple):
    """What is asked of a run, how it is answered, and what the answer needs."""

    ask: Callable[[Diagnostics], Iterator[Finding]]
    about: str
    long_run: bool = True
    whole_epoch: bool = False


QUESTIONS = (
    Question(stalling, "whether {name} stalls"),
    Question(memory, "whether the memory for squared gradients fits"),
    Question(first_steps, "whether the first steps were long", long_run=False),
    Question(learning_rate, "whether the learning rate is at an edge"),
    Question(starved, "whether a group is starved"),
    Question(clipping, "whether clipping decides"),
    Question(eps, "whether eps decides"),
    Question(rare_pieces, "whether rare pieces take longer steps", whole_epoch=True),
    Question(untouched, "whether a table is too large", whole_epoch=True),
)


def answer(run: Diagnostics, question: Question) -> list[Finding]:
    """What is found, or that it cannot be told of so short a run."""
    found = list(question.ask(run))
    why = ""
    if question.long_run and run.steps < MIN_STEPS:
        why = f"{run.steps:,} steps are too few, it takes {MIN_STEPS}"
    elif question.whole_epoch and len(run.metrics) < WHOLE_EPOCH:
        why = "no epoch is known to be whole, so rare pieces may not have come yet"
    if found and why:
        return [untold(found[0].name, question.about.format(name=run.name), why)]
    return found


def explain(run: Diagnostics) -> list[Finding]:
    """Every question that can be answered of this run. Raises DataError for damaged records."""
    try:
        for fact in (run.name, run.steps, run.peak):
            str(fact).encode()
        return [finding for question in QUESTIONS for finding in answer(run, question)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        problem = f"not as srucli writes it ({type(error).__name__}: {escaped(str(error)[:200])})"
        raise DataError(run.source, None, problem, COPY_AGAIN) from error
