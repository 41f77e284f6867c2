"""Several optimizers, encoders or other settings side by side, each at its own learning rate.

Every one of them (an arm) sees the same texts held out, the same tokenizer (unless that is what
differs) and budget of steps, and for one seed the same initial weights and order of texts. Learning
rates are tried on a logarithmic grid, further while the best is at its edge; the best by the dev
texts is then trained with more seeds. How a training runs is in `trials.py`, what people read in
`report.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from srucli.config import with_settings
from srucli.data.dataset import data_hash, find_labels, hold_out, read_held_out, read_texts
from srucli.errors import InterruptedRun, SrucliError, UsageError
from srucli.experiments.trials import Arm, Cell, Folder, Plan, Result, Trials, facts_of, neighbour
from srucli.io.console import say
from srucli.metrics import METRICS
from srucli.runs.claim import Source
from srucli.tokenizer.truncation import Notices, Tally
from srucli.training.effects import Setup, asked_for, idle, works

WIDER = 4
STABLE = 0.01
# The share of the training texts that stands for a file of dev or test texts.
HELD_OUT = 0.1
# What an arm has to reach on dev, of the best arm's figure, where no target is given.
TARGET = 0.95
# Sections of settings in which the things compared must not differ.
SAME = ("data.", "files.")


@dataclass(frozen=True)
class Row:
    """An arm's line of the table; standard deviations are over seeds, and None for one.

    tried: the dev figure of each rate, None where it diverged. reached: steps and seconds of each
    seed until an evaluation reached the target, and to_target their means, None where a seed never
    did. lost: the seeds that
    diverged at the best rate, and count in no figure.
    """

    arm: str
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
    """Everything that was found: rows with the best on dev first, those that lost seeds after all.

    diverged: arms that have no row because every rate diverged. texts: of dev and test.
    """

    metric: str
    target: float
    rows: Sequence[Row]
    diverged: Sequence[str]
    texts: Mapping[str, int]


class Progress:
    """A bar over all cells, those included that widening the grid adds.

    Where stderr is no terminal there is a line for each cell instead.
    """

    def __init__(self, total: int, finished: int) -> None:
        from tqdm import tqdm

        self.total, self.finished = total, finished
        if finished:
            say(f"{finished:,} of {total:,} trainings or more are finished already")
        self.bar = tqdm(total=total, initial=finished, unit="run", disable=None, leave=False)

    def more(self, count: int) -> None:
        """Cells that were not planned."""
        self.total += count
        self.bar.total = self.total
        self.bar.refresh()

    def done(self, cell: Cell) -> None:
        """One cell."""
        self.finished += 1
        what = f"{cell.arm}, lr {cell.lr:g}, seed {cell.seed}"
        self.bar.set_postfix_str(what, refresh=False)
        self.bar.update()
        if self.bar.disable:
            say(f"{what}: {self.finished:,} of {self.total:,} trainings or more")


def larger_is_better(metric: str) -> bool:
    """Whether more of a metric is better."""
    return METRICS[metric].larger_is_better


def score(plan: Plan, result: Result) -> float:
    """A dev figure for comparing: larger is better, minus infinity where training diverged.

    Raises SrucliError where the figure is not defined.
    """
    if result.diverged:
        return -math.inf
    value = figure(plan, result, "dev")
    return value if larger_is_better(plan.metric) else -value


def figure(plan: Plan, result: Result, part: str) -> float:
    """The metric on dev or test. Raises SrucliError where the labels there do not define it."""
    value = (result.dev if part == "dev" else result.test).get(plan.metric)
    if value is None:
        raise SrucliError(
            f"{plan.metric} is not defined on the {part} texts, by the labels that they have; give "
            f"a --{part} file with texts of every label, or another train.metric, with another -o"
        )
    return value


def search(folder: Folder, plan: Plan, arm: Arm) -> tuple[list[Cell], list[Result]]:
    """Cells of an arm's grid that are still to run, and what the others found, by rate."""
    rates = plan.rates(arm)
    while True:
        cells = [Cell(arm.name, rate, plan.all_seeds[0]) for rate in sorted(rates)]
        found = [(cell, folder.result(cell)) for cell in cells]
        results = [result for _, result in found if result is not None]
        missing = [cell for cell, result in found if result is None]
        wider = not missing and 1 < len(rates) < plan.grid + WIDER
        further = beyond(plan, results) if wider else None
        if further is None:
            return missing, results
        rates.append(further)


def beyond(plan: Plan, results: Sequence[Result]) -> float | None:
    """The rate to try next, where the best of those sorted by rate is at an edge."""
    scores = [score(plan, result) for result in results]
    place = scores.index(max(scores))
    if place == 0:  # also where all of them diverged
        return neighbour(results[0].cell.lr, -1)
    return neighbour(results[-1].cell.lr, 1) if place == len(scores) - 1 else None


def best_of(plan: Plan, results: Sequence[Result]) -> Result | None:
    """The result with the best dev figure, of equals that with the lowest rate."""
    best = max(results, key=lambda result: score(plan, result))
    return best if score(plan, best) > -math.inf else None


def find(folder: Folder, plan: Plan, jobs: int) -> None:
    """Run whatever is missing. Raises InterruptedRun, with all that is finished kept."""
    planned = sum(len(plan.rates(arm)) + plan.seeds - 1 for arm in plan.arms)
    known = len(list(folder.path.glob("cells/*/*/*/result.json")))
    progress = Progress(planned, min(known, planned))
    try:
        with Trials(folder, plan, jobs, progress.done) as trials:
            _find(folder, plan, trials, progress)
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"{folder.path}: stopped; finished trainings are kept, the same command goes on"
        ) from None
    finally:
        progress.bar.close()


def _find(folder: Folder, plan: Plan, trials: Trials, progress: Progress) -> None:
    first = {arm.name: set(plan.rates(arm)) for arm in plan.arms}
    while missing := [cell for arm in plan.arms for cell in search(folder, plan, arm)[0]]:
        progress.more(sum(cell.lr not in first[cell.arm] for cell in missing))
        trials.run(missing)
    wanted = [cell for arm in plan.arms for cell in seed_cells(folder, plan, arm)]
    trials.run([cell for cell in wanted if folder.result(cell) is None])


def seed_cells(folder: Folder, plan: Plan, arm: Arm) -> list[Cell]:
    """All seeds of an arm at its best rate; none where every rate diverged."""
    best = best_of(plan, search(folder, plan, arm)[1])
    return [best.cell._replace(seed=seed) for seed in plan.all_seeds] if best else []


def summary(folder: Folder, plan: Plan) -> Comparison:
    """The table, from finished cells."""
    seeds: dict[str, list[Result]] = {}
    for arm in plan.arms:
        found = (folder.result(cell) for cell in seed_cells(folder, plan, arm))
        seeds[arm.name] = [result for result in found if result and not result.diverged]
    learnt = {name: results for name, results in seeds.items() if results}
    if not learnt:
        tried = "; ".join(
            f"{arm.name} at {', '.join(f'{r.cell.lr:g}' for r in search(folder, plan, arm)[1])}"
            for arm in plan.arms
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
        _row(plan, search(folder, plan, arm)[1], learnt[arm.name], target)
        for arm in plan.arms
        if arm.name in learnt
    ]
    rows.sort(key=lambda row: (row.lost > 0, -means[row.arm]))
    diverged = [name for name, results in seeds.items() if not results]
    texts = {part: folder.texts(part) for part in ("dev", "test")}
    return Comparison(plan.metric, target, rows, diverged, texts)


def _calmer(plan: Plan) -> str:
    """What to change where every training diverged."""
    clip = "" if 0 < plan.config.optim.clip <= 1 else "set optim.clip=1, or "
    if any("optim.lr" in arm.settings for arm in plan.arms):
        return f"{clip}compare lower rates"
    if "lr" in plan.config.optim.model_fields_set:
        return f"{clip}set a lower optim.lr"
    return f"{clip}pass --grid {plan.grid + 2 * WIDER}, which tries lower rates"


def _row(plan: Plan, tried: Sequence[Result], seeds: Sequence[Result], target: float) -> Row:
    found = [_first(result, plan.metric, target) for result in seeds]
    reached = [each for each in found if each is not None]
    scores = [score(plan, result) for result in tried]
    edge = max(scores) - abs(max(scores)) * STABLE
    last = [result.history[-1] for result in seeds]
    return Row(
        arm=seeds[0].cell.arm,
        lr=seeds[0].cell.lr,
        dev=spread(figure(plan, result, "dev") for result in seeds),
        test=spread(figure(plan, result, "test") for result in seeds),
        reached=reached,
        to_target=(fmean(steps for steps, _ in reached), fmean(time for _, time in reached))
        if len(reached) == plan.seeds
        else None,
        lost=plan.seeds - len(seeds),
        steps=last[0]["step"],
        seconds=fmean(record["seconds"] for record in last),
        tried={result.cell.lr: result.dev.get(plan.metric) for result in tried},
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
    check(plan)
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
        find(folder, plan, jobs)
        found = summary(folder, plan)
        show(folder, found)
    for line in (*unread(found), *skipped(found)):
        say(line)
    return found


def without_effect(plan: Plan) -> Iterator[str]:
    """Of the settings that are given or compared, those that can do nothing in any arm."""
    for key in asked_for(plan.config):
        if all(key in arm.settings for arm in plan.arms):
            yield f"{key} has no effect: its values are what is compared"
    configs = [with_settings(plan.config, arm.settings) for arm in plan.arms]
    setups = [Setup(config, dev=True, held_out=False) for config in configs]
    for key in dict.fromkeys(key for config in configs for key in asked_for(config)):
        if key == "train.dev_share":
            yield f"{key} has no effect: --dev FILE or a tenth of TRAIN chooses the rates"
        elif not any(works(setup, key) for setup in setups):
            yield from idle(setups[0], [key])


def unread(found: Comparison) -> Iterator[str]:
    """Of how many texts not all was read, and by which arms, where that differs."""
    arms: dict[str, list[str]] = {}
    for row in found.rows:
        for part, tally in row.results[0].reading.items():
            for line in Notices(part).last(Tally.from_json(tally)):
                arms.setdefault(line, []).append(row.arm)
    for line, names in arms.items():
        yield line if len(names) == len(found.rows) else f"{', '.join(names)}: {line}"


def skipped(found: Comparison) -> Iterator[str]:
    """Which arms have steps that were skipped."""
    for row in found.rows:
        histories = [result.history for result in row.results]
        count = sum(record.get("skipped", 0) for history in histories for record in history)
        steps = sum(history[-1]["step"] for history in histories)
        if count:
            yield f"{row.arm}: {count:,} of {steps:,} steps were skipped, without finite gradients"


def default_jobs(plan: Plan) -> int:
    """One training for each core; one in all on a GPU."""
    from srucli.runtime import cores, resolve_device

    on_cpu = resolve_device(plan.config.train.device).type == "cpu"
    return cores() if on_cpu else 1


def check(plan: Plan) -> None:
    """Refuse, before any data is read, what cannot be compared. Raises UsageError."""
    from srucli.training.defaults import check as check_training

    for key in {key for arm in plan.arms for key in arm.settings}:
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
    if "lr" in given and any("optim.name" in arm.settings for arm in plan.arms):
        raise UsageError(
            "optim.lr is set, but every optimizer has rates of its own; leave it out, or compare "
            "rates by --over optim.lr=A,B"
        )
    for arm in plan.arms:
        check_training(plan.config_of(Cell(arm.name, plan.rates(arm)[0], 0)))
