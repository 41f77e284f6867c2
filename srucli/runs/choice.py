"""Which checkpoint of a run is used, and what is said of it: decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from srucli.config import Config
from srucli.errors import InputMissingError, SrucliError
from srucli.runs.checkpoints import Which
from srucli.runs.run_dir import RunDir


@dataclass(frozen=True)
class Choice:
    """The checkpoint that eval, predict and the model card use.

    `which` names it, and its name is `name`. `said` is a sentence where it may be taken for another
    one: where it is not the last, or a better one is there.
    """

    which: Which
    name: str
    said: str | None


def choose(run: RunDir, config: Config) -> Choice:
    """Return what `train.use_checkpoint` says; the last where there is no best.

    Raises InputMissingError, DataError.
    """
    last, wanted = run.checkpoints.pointed("last"), config.train.used_checkpoint
    best = _best(run, must=wanted == "best")
    if wanted == "best" and best is None:
        said = f"{run.path}: the last checkpoint is used, {last}: none is the best yet"
        return Choice("last", last, said)
    if best is None or best == last:
        return Choice(wanted, last, None)
    records = run.records("metrics.jsonl")
    values = dev_values(records, config.metric)
    if wanted == "last" and records and not any(record.get("dev") for record in records):
        return Choice("last", last, None)  # without dev examples none is better
    at_last, at_best = (_shown(name, config.metric, values) for name in (last, best))
    if wanted == "best":
        said = f"{run.path}: the best checkpoint is used, {at_best}, not {at_last}"
        return Choice("best", best, said)
    if best in values and values[best] == values.get(last):
        return Choice("last", last, None)
    remedy = f"'use_checkpoint: best' in {run.path}/config.yaml changes that"
    said = f"{run.path}: the last checkpoint is used, {at_last}, not the best, {at_best}; {remedy}"
    return Choice("last", last, said)


def unfinished(run: RunDir) -> str | None:
    """What is said where training has not come to its end, or None."""
    state = run.state("last")
    if state.get("finished") is not False:
        return None
    return f"{run.path}: its training has not ended: step {state.get('step')} is the last"


def _best(run: RunDir, must: bool) -> str | None:
    """The name of the best checkpoint, if there is one; errors count where it `must` be read."""
    try:
        name = run.checkpoints.pointed("best")
    except InputMissingError:
        return None
    except SrucliError:
        if must:
            raise
        return None
    return name if must or name in run.checkpoints.names() else None


def dev_values(records: Iterable[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """The metric on dev examples of each checkpoint that was evaluated, by its name."""
    found = {}
    for record in records:
        dev = record.get("dev")
        value = dev.get(metric) if isinstance(dev, dict) else None
        if isinstance(value, float | int):
            found[f"step-{record.get('step')}"] = float(value)
    return found


def _shown(name: str, metric: str, values: dict[str, float]) -> str:
    return f"{name} ({metric} {values[name]:.4f})" if name in values else name
