"""Choose the checkpoint of a run that is used, and explain the choice. Nothing else decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from srucli.errors import InputMissingError, SrucliError
from srucli.runs.checkpoints import Which
from srucli.runs.run_dir import RunDir


class Choice(NamedTuple):
    """The checkpoint that eval, predict and the model card use.

    note: a sentence if it is not the last checkpoint, or if a better one exists.
    """

    which: Which
    name: str
    note: str | None


def choose(run: RunDir, wanted: Which, metric: str) -> Choice:
    """Return the `wanted` checkpoint; the last one if there is no best.

    Raises InputMissingError, DataError.
    """
    last, best = run.checkpoints.pointed("last"), _best(run, required=wanted == "best")
    if wanted == "best" and best is None:
        note = f"{run.path}: there is no best checkpoint yet; the last one is used, {last}"
        return Choice("last", last, note)
    if best is None or best == last:
        return Choice(wanted, last, None)
    records = run.records("metrics.jsonl")
    values = dev_values(records, metric)
    if wanted == "last" and records and not any(record.get("dev") for record in records):
        return Choice("last", last, None)  # without dev examples no checkpoint is better
    at_last, at_best = (
        f"{name} ({metric} {values[name]:.4f})" if name in values else name for name in (last, best)
    )
    if wanted == "best":
        note = f"{run.path}: the best checkpoint is used, {at_best}, not {at_last}"
        return Choice("best", best, note)
    if best in values and values[best] == values.get(last):
        return Choice("last", last, None)
    remedy = f"'use_checkpoint: best' in {run.path}/config.yaml changes that"
    note = f"{run.path}: the last checkpoint is used, {at_last}, not the best, {at_best}; {remedy}"
    return Choice("last", last, note)


def measured(run: RunDir, used: Choice) -> Mapping[str, Any] | None:
    """Return the line of metrics.jsonl for a checkpoint, if it was evaluated."""
    records = run.records("metrics.jsonl")
    valid = (each for each in records if "epoch" in each and isinstance(each.get("dev"), dict))
    return next((each for each in valid if f"step-{each.get('step')}" == used.name), None)


def unfinished(run: RunDir) -> str | None:
    """Return a sentence if the training is not finished. Raises InputMissingError, DataError."""
    state = run.state("last")
    if state.get("finished") is not False:
        return None
    return f"{run.path}: its training is not finished: step {state.get('step')} is the last"


def _best(run: RunDir, required: bool) -> str | None:
    """Return the name of the best checkpoint, if there is one; ignore errors unless `required`."""
    try:
        name = run.checkpoints.pointed("best")
    except InputMissingError:
        return None
    except SrucliError:
        if required:
            raise
        return None
    return name if required or name in run.checkpoints.names() else None


def dev_values(records: Iterable[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return the dev metric by checkpoint name, from the records of metrics.jsonl."""
    found = {}
    for record in records:
        dev = record.get("dev")
        value = dev.get(metric) if isinstance(dev, dict) else None
        if isinstance(value, float | int):
            found[f"step-{record.get('step')}"] = float(value)
    return found
