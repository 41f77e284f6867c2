"""Which trials a comparison has: a grid of learning rates for each candidate, then seeds.

The grid is logarithmic, around the candidate's default, and is extended while the best rate is at
its edge. The rate with the best metric on dev is then trained with more seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srucli.errors import InterruptedRun, SrucliError
from srucli.experiments.scheduler import Scheduler
from srucli.experiments.trials import Candidate, Folder, Plan, Result, Trial, grid_rate
from srucli.io.console import progress_bar, say
from srucli.metrics import METRICS

# The number of learning rates by which a grid may be extended.
MAX_EXTENSION = 4


class ProgressBar:
    """A progress bar over all trials, and a line for each that is finished."""

    def __init__(self, plan: Plan, total: int, finished: int) -> None:
        self.metric, self.total, self.finished = plan.metric, total, finished
        if finished:
            say(f"{finished:,} of at least {total:,} trials are finished already")
        self.bar = progress_bar(total=total, initial=finished, unit="run")

    def more(self, count: int) -> None:
        """Add trials that were not planned."""
        self.total += count
        self.bar.total = self.total
        self.bar.refresh()

    def done(self, result: Result) -> None:
        """Count one finished trial, and say how good it is on dev."""
        self.finished += 1
        self.bar.update()
        trial, value = result.trial, result.dev.get(self.metric)
        what = f"{trial.candidate}, lr {trial.lr:g}, seed {trial.seed}"
        dev = "diverged" if value is None else f"dev {self.metric} {value:.4f}"
        say(f"{what}: {dev}; {self.finished:,} of at least {self.total:,} trials")


def score(plan: Plan, result: Result) -> float:
    """Return the metric on dev, negated if smaller is better; minus infinity if training diverged.

    Raises SrucliError if the metric is not defined.
    """
    if result.diverged:
        return -math.inf
    value = measured(plan, result, "dev")
    return value if METRICS[plan.metric].larger_is_better else -value


def measured(plan: Plan, result: Result, part: str) -> float:
    """Return the metric on dev or test. Raises SrucliError if it is not defined there."""
    value = (result.dev if part == "dev" else result.test).get(plan.metric)
    if value is None:
        raise SrucliError(
            f"{plan.metric} is not defined on the {part} texts, because of their labels; give a "
            f"--{part} file with texts of every label, or another train.metric, with another -o"
        )
    return value


def search(folder: Folder, plan: Plan, candidate: Candidate) -> tuple[list[Trial], list[Result]]:
    """Return the missing trials of a candidate's grid, and the results of the others by rate."""
    rates = plan.rates(candidate)
    while True:
        trials = [Trial(candidate.name, rate, plan.all_seeds[0]) for rate in sorted(rates)]
        known = {trial: folder.result(trial) for trial in trials}
        results = [result for result in known.values() if result is not None]
        missing = [trial for trial, result in known.items() if result is None]
        wider = not missing and 1 < len(rates) < plan.grid + MAX_EXTENSION
        next_rate = beyond(plan, results) if wider else None
        if next_rate is None:
            return missing, results
        rates.append(next_rate)


def beyond(plan: Plan, results: Sequence[Result]) -> float | None:
    """Return the rate to try next, if the best of the results, sorted by rate, is at an edge."""
    scores = [score(plan, result) for result in results]
    place = scores.index(max(scores))
    if place == 0:  # also if all of them diverged
        return grid_rate(results[0].trial.lr, -1)
    return grid_rate(results[-1].trial.lr, 1) if place == len(scores) - 1 else None


def best_of(plan: Plan, results: Sequence[Result]) -> Result | None:
    """Return the result with the best metric on dev, and the lowest rate; None if all diverged."""
    best = max(results, key=lambda result: score(plan, result))
    return best if score(plan, best) > -math.inf else None


def run_missing(folder: Folder, plan: Plan, jobs: int) -> None:
    """Run all missing trials. Raises InterruptedRun; finished trials are kept."""
    planned = sum(len(plan.rates(candidate)) + plan.seeds - 1 for candidate in plan.candidates)
    known = len(list(folder.path.glob("cells/*/*/*/result.json")))
    progress = ProgressBar(plan, planned, min(known, planned))
    first = {candidate.name: set(plan.rates(candidate)) for candidate in plan.candidates}
    try:
        with progress.bar, Scheduler(folder, plan, jobs, progress.done) as scheduler:
            while missing := [t for each in plan.candidates for t in search(folder, plan, each)[0]]:
                progress.more(sum(trial.lr not in first[trial.candidate] for trial in missing))
                scheduler.run(missing)
            wanted = [t for each in plan.candidates for t in seed_trials(folder, plan, each)]
            scheduler.run([trial for trial in wanted if folder.result(trial) is None])
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"{folder.path}: stopped; finished trials are kept", "the same command resumes"
        ) from None


def seed_trials(folder: Folder, plan: Plan, candidate: Candidate) -> list[Trial]:
    """Return the trials of all seeds at a candidate's best rate; none if every rate diverged."""
    best = best_of(plan, search(folder, plan, candidate)[1])
    return [best.trial._replace(seed=seed) for seed in plan.all_seeds] if best else []
