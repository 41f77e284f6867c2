"""Compare several optimizers, encoders or other settings, each at its own learning rate.

All candidates get the same data split, the same tokenizer (unless tokenizers are compared) and the
same number of steps, and for one seed the same initial weights and order of examples. Learning
rates form a logarithmic grid, which is extended while the best one is at its edge. The rate that is
best on validation data is then trained with more seeds. How a trial runs is in `trial_process.py`,
what users read in `report.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from srucli.config import with_settings
from srucli.data.dataset import data_hash, find_labels, hold_out, read_held_out, read_texts
from srucli.errors import SrucliError, UsageError
from srucli.experiments.grid import (
    MAX_EXTENSION,
    larger_is_better,
    measured,
    run_missing,
    score,
    search,
    seed_trials,
)
from srucli.experiments.trials import Folder, Plan, Result, Trial, facts_of
from srucli.io.console import say
from srucli.runs.claim import Source
from srucli.tokenizer.truncation import Notices, Tally
from srucli.training.effects import Setup, asked_for, idle, works

# Rates whose metric is within this share of the best are counted.
STABLE = 0.01
# The share of the training data that is held out in place of a dev or test file.
HELD_OUT = 0.1
# The default target, as a share of the best candidate's metric on dev.
TARGET = 0.95
# Sections of settings in which candidates must not differ.
SAME = ("data.", "files.")


@dataclass(frozen=True)
class CandidateResult:
    """What the trials of a candidate show: a row of the table.

    dev, test: mean of the metric over seeds, and standard deviation, None for one seed. tried: the
    metric on dev of each rate, None where it diverged. reached: steps and seconds of each seed
    until an evaluation reached the target; to_target: their means, None if a seed never did.
    stable: the share of rates whose metric is within 1% of the best. lost: seeds that diverged at
    the best rate; nothing else counts them.
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
    """All results: rows with the best on dev first, those that lost seeds last.

    diverged: candidates without a row, as every rate diverged. texts: number of them in dev, test.
    """

    metric: str
    target: float
    rows: Sequence[CandidateResult]
    diverged: Sequence[str]
    texts: Mapping[str, int]


def summary(folder: Folder, plan: Plan) -> Comparison:
    """The table, from finished trials."""
    seeds: dict[str, list[Result]] = {}
    for candidate in plan.candidates:
        found = (folder.result(trial) for trial in seed_trials(folder, plan, candidate))
        seeds[candidate.name] = [result for result in found if result and not result.diverged]
    learnt = {name: results for name, results in seeds.items() if results}
    if not learnt:
        rates = {each.name: search(folder, plan, each)[1] for each in plan.candidates}
        tried = "; ".join(
            f"{name} at {', '.join(f'{result.trial.lr:g}' for result in results)}"
            for name, results in rates.items()
        )
        raise SrucliError(f"every training diverged: {tried}; {_calmer(plan)}")
    means = {
        name: fmean(score(plan, result) for result in results) for name, results in learnt.items()
    }
    target = plan.target
    if target is None:
        best = max(means.values())
        target = TARGET * best if larger_is_better(plan.metric) else -best / TARGET
    rows = [
        _row(plan, search(folder, plan, candidate)[1], learnt[candidate.name], target)
        for candidate in plan.candidates
        if candidate.name in learnt
    ]
    rows.sort(key=lambda row: (row.lost > 0, -means[row.name]))
    diverged = [name for name, results in seeds.items() if not results]
    texts = {part: folder.texts(part) for part in ("dev", "test")}
    return Comparison(plan.metric, target, rows, diverged, texts)


def _calmer(plan: Plan) -> str:
    """What to change where every training diverged."""
    clip = "" if 0 < plan.config.optim.clip <= 1 else "set optim.clip=1, or "
    if any("optim.lr" in candidate.settings for candidate in plan.candidates):
        return f"{clip}compare lower rates"
    if "lr" in plan.config.optim.model_fields_set:
        return f"{clip}set a lower optim.lr"
    return f"{clip}pass --grid {plan.grid + 2 * MAX_EXTENSION}, which tries lower rates"


def _row(
    plan: Plan, tried: Sequence[Result], seeds: Sequence[Result], target: float
) -> CandidateResult:
    found = [_first(result, plan.metric, target) for result in seeds]
    reached = [each for each in found if each is not None]
    scores = [score(plan, result) for result in tried]
    edge = max(scores) - abs(max(scores)) * STABLE
    last = [result.history[-1] for result in seeds]
    return CandidateResult(
        name=seeds[0].trial.candidate,
        lr=seeds[0].trial.lr,
        dev=spread(measured(plan, result, "dev") for result in seeds),
        test=spread(measured(plan, result, "test") for result in seeds),
        reached=reached,
        to_target=(fmean(steps for steps, _ in reached), fmean(time for _, time in reached))
        if len(reached) == plan.seeds
        else None,
        lost=plan.seeds - len(seeds),
        steps=last[0]["step"],
        seconds=fmean(record["seconds"] for record in last),
        tried={result.trial.lr: result.dev.get(plan.metric) for result in tried},
        stable=sum(each >= edge for each in scores) / len(scores),
        results=seeds,
    )


def _first(result: Result, metric: str, target: float) -> tuple[float, float] | None:
    """Steps and seconds of the first evaluation that reached the target."""
    for record in result.history:
        value = record["dev"].get(metric)
        if value is None:
            continue
        if value >= target if larger_is_better(metric) else value <= target:
            return record["step"], record["seconds"]
    return None


def spread(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and standard deviation."""
    found = list(values)
    return fmean(found), stdev(found) if len(found) > 1 else None


def to_json(found: Comparison) -> dict[str, Any]:
    """The comparison as data."""
    rows = [
        {key: value for key, value in asdict(row).items() if key != "results"} for row in found.rows
    ]
    return {
        "metric": found.metric,
        "target": found.target,
        "rows": rows,
        "diverged": list(found.diverged),
        "texts": found.texts,
    }


def compare(
    plan: Plan,
    sources: Mapping[str, str | None],
    path: Path,
    *,
    jobs: int,
    force: bool = False,
    reads: Sequence[Source] = (),
    show: Callable[[Folder, Comparison], None] = lambda folder, found: None,
) -> Comparison:
    """Run a whole comparison. sources: files of train, dev and test; a tenth stands for the last.

    `reads` are other files that the command reads, of which none is ever replaced. `show` is called
    with what was found while the folder is still held, to write to it.

    Raises every kind of SrucliError.
    """
    validate(plan)
    for line in without_effect(plan):
        say(line)
    jobs = jobs or default_jobs(plan)
    train = sources["train"]
    assert train is not None
    examples, names = read_texts(train, plan.config.data)
    parts = {"train": examples}
    labels = find_labels(parts["train"], train)
    for part in ("test", "dev"):
        source = sources[part]
        if source:
            parts[part] = read_held_out(source, plan.config.data, labels, names)
        else:
            parts["train"], parts[part] = hold_out(parts["train"], HELD_OUT, seed=0)
            if not parts[part]:
                raise UsageError(f"{train}: too few texts to set some aside; give --dev and --test")
    if data_hash(parts["dev"]) == data_hash(parts["test"]):
        raise UsageError(
            "--dev and --test are the same texts, so that those which choose the rates measure "
            "them too; leave out --dev, and a tenth of TRAIN stands for it"
        )
    say("data: " + ", ".join(f"{len(texts):,} {part} texts" for part, texts in parts.items()))
    with Folder.claim(path, facts_of(plan, parts), [*sources.values(), *reads], force) as folder:
        folder.prepare(plan, parts, train)
        run_missing(folder, plan, jobs)
        found = summary(folder, plan)
        show(folder, found)
    for line in (*unread(found), *skipped(found)):
        say(line)
    return found


def without_effect(plan: Plan) -> Iterator[str]:
    """Of the settings that are given or compared, those that can do nothing in any candidate."""
    for key in asked_for(plan.config):
        if all(key in candidate.settings for candidate in plan.candidates):
            yield f"{key} has no effect: its values are what is compared"
    configs = [with_settings(plan.config, candidate.settings) for candidate in plan.candidates]
    setups = [Setup(config, dev=True, held_out=False) for config in configs]
    for key in dict.fromkeys(key for config in configs for key in asked_for(config)):
        if key == "train.dev_share":
            yield f"{key} has no effect: --dev FILE or a tenth of TRAIN chooses the rates"
        elif not any(works(setup, key) for setup in setups):
            yield from idle(setups[0], [key])


def unread(found: Comparison) -> Iterator[str]:
    """Of how many texts not all was read, and by which candidates, where that differs."""
    candidates: dict[str, list[str]] = {}
    for row in found.rows:
        for part, tally in row.results[0].reading.items():
            for line in Notices(part).last(Tally.from_json(tally)):
                candidates.setdefault(line, []).append(row.name)
    for line, names in candidates.items():
        yield line if len(names) == len(found.rows) else f"{', '.join(names)}: {line}"


def skipped(found: Comparison) -> Iterator[str]:
    """Which candidates have steps that were skipped."""
    for row in found.rows:
        histories = [result.history for result in row.results]
        count = sum(record.get("skipped", 0) for history in histories for record in history)
        steps = sum(history[-1]["step"] for history in histories)
        if count:
            yield f"{row.name}: {count:,} of {steps:,} steps were skipped, without finite gradients"


def default_jobs(plan: Plan) -> int:
    """One training for each core; one in all on a GPU."""
    from srucli.runtime import cores, resolve_device

    on_cpu = resolve_device(plan.config.train.device).type == "cpu"
    return cores() if on_cpu else 1


def validate(plan: Plan) -> None:
    """Refuse, before any data is read, what cannot be compared. Raises UsageError."""
    from srucli.training.defaults import check as check_training

    for key in {key for candidate in plan.candidates for key in candidate.settings}:
        if key.startswith(SAME) or key == "train.seed":
            raise UsageError(f"{key} cannot be compared: it has to be the same for all")
    if plan.target is not None and larger_is_better(plan.metric) and plan.target > 1:
        raise UsageError(
            f"--target {plan.target:g}: {plan.metric} is a share, at most 1; pass --target "
            f"{min(plan.target / 100, 1):g}"
        )
    if plan.config.train.patience:
        raise UsageError("train.patience ends trainings at different steps; set it to 0 to compare")
    given = plan.config.optim.model_fields_set
    if "lr" in given and any("optim.name" in candidate.settings for candidate in plan.candidates):
        raise UsageError(
            "optim.lr is set, but every optimizer has rates of its own; leave it out, or compare "
            "rates by --over optim.lr=A,B"
        )
    for candidate in plan.candidates:
        check_training(plan.config_of(Trial(candidate.name, plan.rates(candidate)[0], 0)))
