"""Compare optimizers, encoders or values of a setting, each at its own best learning rate.

All candidates get the same data split, the same tokenizer (unless tokenizers are compared) and the
same number of steps, and for each seed the same initial weights and order of examples. Which trials
there are is in `grid.py`, how one runs in `trial_process.py`, what users read in `report.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from srucli.config import with_settings
from srucli.data.dataset import data_hash, find_labels, hold_out, read_held_out, read_texts
from srucli.data.readers import Example
from srucli.errors import SrucliError, UsageError
from srucli.experiments import grid
from srucli.experiments.scheduler import check_system, default_jobs
from srucli.experiments.trials import (
    MAX_GRID,
    MAX_SEEDS,
    Folder,
    Plan,
    Result,
    Trial,
    facts_of,
)
from srucli.io.console import say, warn
from srucli.metrics import METRICS
from srucli.runs.claim import Source
from srucli.tokenizer.truncation import Notices, Tally
from srucli.training.defaults import check_settings
from srucli.training.effects import Setup, given_settings, has_effect, no_effect

# Rates whose metric is within this share of the best count as stable.
STABLE = 0.01
# The share of the training data that is held out in place of a dev or test file.
HELD_OUT = 0.1
# The default target, as a share of the best candidate's metric on dev.
TARGET = 0.95
# Sections of settings in which candidates may not differ.
SAME = ("data.", "files.")


@dataclass(frozen=True)
class CandidateResult:
    """The results of a candidate: a row of the table.

    dev, test: mean of the metric over seeds, and standard deviation, None for one seed. reached:
    steps and seconds of each seed until an evaluation reached the target; to_target: their means,
    None if a seed never reached it. tried: the metric on dev of each rate, None if it diverged.
    stable: the share of rates whose metric is within 1% of the best. lost: the number of seeds that
    diverged at the best rate; all other fields are about the others.
    """

    name: str
    lr: float
    dev: tuple[float, float | None]
    test: tuple[float, float | None]
    reached: Sequence[tuple[float, float]]
    to_target: tuple[float, float] | None
    steps: int
    seconds: float
    tried: Mapping[float, float | None]
    stable: float
    lost: int
    results: Sequence[Result]


@dataclass(frozen=True)
class Comparison:
    """All results. Rows are sorted by the metric on dev, those with diverged seeds last.

    diverged: candidates without a row, because every rate diverged. texts: the number of texts in
    dev and test.
    """

    metric: str
    target: float
    rows: Sequence[CandidateResult]
    diverged: Sequence[str]
    texts: Mapping[str, int]


def summary(folder: Folder, plan: Plan) -> Comparison:
    """Return the results of finished trials. Raises SrucliError if all diverged."""
    tried = {each.name: grid.search(folder, plan, each)[1] for each in plan.candidates}
    seeds: dict[str, list[Result]] = {}
    for candidate in plan.candidates:
        results = (folder.result(trial) for trial in grid.seed_trials(folder, plan, candidate))
        seeds[candidate.name] = [each for each in results if each and not each.diverged]
    means = {
        name: fmean(grid.score(plan, result) for result in results)
        for name, results in seeds.items()
        if results
    }
    if not means:
        rates = "; ".join(
            f"{name} at {', '.join(f'{result.trial.lr:g}' for result in results)}"
            for name, results in tried.items()
        )
        raise SrucliError(f"every training diverged: {rates}; {_remedy(plan)}")
    target = plan.target
    if target is None:
        best = max(means.values())
        target = TARGET * best if METRICS[plan.metric].larger_is_better else -best / TARGET
    rows = [_row(plan, tried[name], seeds[name], target) for name in means]
    rows.sort(key=lambda row: (row.lost > 0, -means[row.name]))
    diverged = [name for name in seeds if name not in means]
    texts = {part: folder.texts(part) for part in ("dev", "test")}
    return Comparison(plan.metric, target, rows, diverged, texts)


def _remedy(plan: Plan) -> str:
    """Return what to change if every training diverged."""
    clip = "" if 0 < plan.config.optim.clip <= 1 else "set optim.clip=1, or "
    if any("optim.lr" in candidate.settings for candidate in plan.candidates):
        return f"{clip}compare lower rates"
    if "lr" in plan.config.optim.model_fields_set:
        return f"{clip}set a lower optim.lr"
    if plan.grid == MAX_GRID:
        return f"{clip}compare other candidates"
    more = min(plan.grid + 2 * grid.MAX_EXTENSION, MAX_GRID)
    return f"{clip}pass --grid {more}, which tries lower rates"


def _row(
    plan: Plan, tried: Sequence[Result], seeds: Sequence[Result], target: float
) -> CandidateResult:
    times = [_time_to(target, result, plan.metric) for result in seeds]
    reached = [each for each in times if each is not None]
    to_target = None
    if len(reached) == plan.seeds:
        to_target = fmean(steps for steps, _ in reached), fmean(time for _, time in reached)
    scores = [grid.score(plan, result) for result in tried]
    edge = max(scores) - abs(max(scores)) * STABLE
    last = [result.history[-1] for result in seeds]
    return CandidateResult(
        name=seeds[0].trial.candidate,
        lr=seeds[0].trial.lr,
        dev=spread(grid.measured(plan, result, "dev") for result in seeds),
        test=spread(grid.measured(plan, result, "test") for result in seeds),
        reached=reached,
        to_target=to_target,
        lost=plan.seeds - len(seeds),
        steps=last[0].step,
        seconds=fmean(record.seconds for record in last),
        tried={result.trial.lr: result.dev.get(plan.metric) for result in tried},
        stable=sum(each >= edge for each in scores) / len(scores),
        results=seeds,
    )


def _time_to(target: float, result: Result, metric: str) -> tuple[float, float] | None:
    """Return steps and seconds until an evaluation reached the target."""
    for record in result.history:
        value = record.dev.get(metric)
        if value is None:
            continue
        if value >= target if METRICS[metric].larger_is_better else value <= target:
            return record.step, record.seconds
    return None


def spread(values: Iterable[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation, which is None for one value."""
    listed = list(values)
    return fmean(listed), stdev(listed) if len(listed) > 1 else None


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    values = asdict(comparison)
    for row in values["rows"]:
        del row["results"]
    return values


def compare(
    plan: Plan,
    sources: Mapping[str, str | None],
    path: Path,
    *,
    jobs: int,
    force: bool = False,
    reads: Sequence[Source] = (),
    show: Callable[[Folder, Comparison], None] = lambda folder, comparison: None,
) -> Comparison:
    """Run a comparison in the folder `path`, or resume it.

    sources: the files of train, dev and test; a tenth of train replaces dev or test if it is None.
    jobs: trials at once, 0 for `default_jobs`. force: whether to replace another comparison. reads:
    other files that the command reads, which are never overwritten. show: called with the result
    while the folder is locked, to write to it.

    Raises every kind of SrucliError.
    """
    check_system("comparison")
    validate(plan)
    warn(*without_effect(plan))
    train = sources["train"]
    assert train is not None
    parts = _read(plan, sources, train)
    say("data: " + ", ".join(f"{len(texts):,} {part} texts" for part, texts in parts.items()))
    with Folder.claim(path, facts_of(plan, parts), [*sources.values(), *reads], force) as folder:
        folder.prepare(plan, parts, train)
        grid.run_missing(folder, plan, jobs or default_jobs(plan.config))
        comparison = summary(folder, plan)
        show(folder, comparison)
    say(*truncated(comparison))
    warn(*skipped(comparison))
    return comparison


def _read(plan: Plan, sources: Mapping[str, str | None], train: str) -> dict[str, list[Example]]:
    """Return the examples of train, test and dev. Raises UsageError and what reading raises."""
    examples, names = read_texts(train, plan.config.data)
    parts = {"train": examples}
    labels = find_labels(examples, train)
    for part in ("test", "dev"):
        source = sources[part]
        if source:
            parts[part] = read_held_out(source, plan.config.data, labels, names)
        else:
            parts["train"], parts[part] = hold_out(parts["train"], HELD_OUT, seed=0)
            if not parts[part]:
                raise UsageError(f"{train}: too few texts to hold some out; give --dev and --test")
    if data_hash(parts["dev"]) == data_hash(parts["test"]):
        raise UsageError(
            "--dev and --test are the same texts, so the texts that choose the rates would measure "
            "them too; leave out --dev, and a tenth of TRAIN replaces it"
        )
    return parts


def without_effect(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each setting that has no effect in any candidate."""
    for key in given_settings(plan.config):
        if all(key in candidate.settings for candidate in plan.candidates):
            yield f"{key} has no effect: its values are compared"
    configs = [with_settings(plan.config, candidate.settings) for candidate in plan.candidates]
    setups = [Setup(config, dev=True, held_out=False) for config in configs]
    for key in dict.fromkeys(key for config in configs for key in given_settings(config)):
        if key == "train.dev_share":
            yield f"{key} has no effect: --dev FILE or a tenth of TRAIN chooses the rates"
        elif not any(has_effect(setup, key) for setup in setups):
            yield from no_effect(setups[0], [key])


def truncated(comparison: Comparison) -> Iterator[str]:
    """Yield how many texts were truncated, with the candidates' names if that differs."""
    candidates: dict[str, list[str]] = {}
    for row in comparison.rows:
        for part, tally in row.results[0].reading.items():
            for line in Notices(part).last(Tally.from_json(tally)):
                candidates.setdefault(line, []).append(row.name)
    for line, names in candidates.items():
        yield line if len(names) == len(comparison.rows) else f"{', '.join(names)}: {line}"


def skipped(comparison: Comparison) -> Iterator[str]:
    """Yield how many steps each candidate skipped, if any."""
    for row in comparison.rows:
        count = sum(record.skipped for result in row.results for record in result.history)
        steps = sum(result.history[-1].step for result in row.results)
        if count:
            why = "because of non-finite gradients"
            yield f"{row.name}: {count:,} of {steps:,} steps were skipped {why}"


def validate(plan: Plan) -> None:
    """Raise UsageError, before any data is read, for a comparison that makes no sense."""
    for flag, number, most in (("grid", plan.grid, MAX_GRID), ("seeds", plan.seeds, MAX_SEEDS)):
        if number > most:
            raise UsageError(
                f"--{flag} {number:,}: more trials than anyone waits for; pass --{flag} {most} or "
                "less"
            )
    for key in {key for candidate in plan.candidates for key in candidate.settings}:
        if key.startswith(SAME) or key == "train.seed":
            raise UsageError(f"{key} cannot be compared: it must be the same for all candidates")
    if plan.target is not None and METRICS[plan.metric].larger_is_better and plan.target > 1:
        raise UsageError(
            f"--target {plan.target:g}: {plan.metric} is a share, at most 1; pass --target "
            f"{min(plan.target / 100, 1):g}"
        )
    if plan.config.train.patience:
        raise UsageError("train.patience ends trainings at different steps; set it to 0 to compare")
    given = plan.config.optim.model_fields_set
    if "lr" in given and any("optim.name" in candidate.settings for candidate in plan.candidates):
        raise UsageError(
            "optim.lr is set, but every optimizer needs rates of its own; leave it out, or compare "
            "rates by --over optim.lr=A,B"
        )
    last_seed = plan.all_seeds[-1]
    for candidate in plan.candidates:
        check_settings(plan.config_of(Trial(candidate.name, plan.rates(candidate)[0], last_seed)))
