"""Whether a folder holds a training that can and may be resumed, and from which checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srucli.config import Config, flat, lengths, may_change_on_resume
from srucli.data.dataset import Split
from srucli.errors import DataError, SrucliError, UsageError
from srucli.io.console import shell_line
from srucli.io.locks import is_locked
from srucli.io.yaml import parse_yaml
from srucli.model.classifier import shapes
from srucli.runs.checkpoints import TRAINING
from srucli.runs.claim import need_run
from srucli.runs.facts import Facts
from srucli.runs.run_dir import RunDir, is_begun
from srucli.tokenizer.model import Tokenizer

# The remedy for a run that cannot be resumed.
_ELSEWHERE = "train in another folder, with -o; it can still predict"
# Settings that changed: the old and the new value by dotted key.
Changes = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class SavedTraining:
    """The training in a folder, and the checkpoint to resume from, if it has one.

    damaged: what is wrong with newer checkpoints, which are skipped.
    """

    facts: Facts
    config: Config
    tokenizer: Tokenizer
    labels: list[str]
    checkpoint: str | None
    finished: bool
    damaged: Sequence[str]


def saved_training(run: RunDir) -> SavedTraining:
    """Return the training in a folder. Raises InputMissingError and DataError if there is none."""
    need_run(run.path)
    facts = run.facts()
    name, damaged = _newest_valid(run)
    finished = name is not None and bool(run.state(name).get("finished"))
    return SavedTraining(
        facts, run.config(), run.tokenizer(), run.labels(), name, finished, damaged
    )


def _newest_valid(run: RunDir) -> tuple[str | None, list[str]]:
    """Return the newest valid checkpoint, and what is wrong with the newer ones."""
    damaged: list[str] = []
    for name in run.checkpoints.names():
        try:
            run.checkpoints.verify(name)
            run.checkpoints.read(name, TRAINING)
            return name, damaged
        except SrucliError as error:
            damaged.append(str(error))
    if is_begun(run.place):
        return None, damaged
    problem = f"no checkpoint to resume from: {damaged[0] if damaged else 'there is none'}"
    if _can_predict(run):
        raise DataError(str(run.path), None, problem, _ELSEWHERE)
    raise DataError(str(run.path), None, problem, f"to start again: {_from_the_start(run)}")


def _from_the_start(run: RunDir) -> str:
    """Return the command that trains a run again, with its files and settings."""
    sources = {part: "FILE" if name == "-" else name for part, name in run.facts().sources.items()}
    words = ["srucli", "train", sources.get("train") or "FILE"]
    words += ["--dev", dev] if (dev := sources.get("dev")) else []
    words += ["--from", base.run] if (base := run.facts().base) else []
    given = changes(Config(), run.config())
    return shell_line([*words, *_overrides(given), "-o", str(run.path), "--force"])


def _overrides(settings: Changes) -> list[str]:
    return [f"{key}={as_yaml(now)}" for key, (_, now) in settings.items() if key != "files"]


def _can_predict(run: RunDir) -> bool:
    try:
        return bool(run.checkpoint("last"))
    except SrucliError:
        return False


def recorded_sources(path: Path) -> list[str | None]:
    """Return the files that the training in a folder read, if it recorded them."""
    try:
        return list(RunDir(path).facts().sources.values())
    except SrucliError:
        return []


def find_saved_training(path: Path) -> SavedTraining | None:
    """Return the training in a folder if it has a checkpoint, finished or not, else None."""
    if not (path / "run.json").is_file() or is_begun(path):
        return None
    try:
        return saved_training(RunDir(path))
    except SrucliError:
        return None


def is_resumed_by(path: Path, command: Sequence[str]) -> bool:
    """Return whether a folder holds an interrupted training of the same command."""
    if not path.is_dir() or is_locked(path):
        return False
    if is_begun(path) and not (path / "run.json").is_file():
        return True
    try:
        facts = RunDir(path).facts()
    except SrucliError:
        return False
    if facts.command[1:] != list(command[1:]):
        return False
    found = find_saved_training(path)
    return is_begun(path) or (found is not None and not found.finished)


def changes(old: Config, new: Config) -> Changes:
    """Return all settings that differ."""
    before, after = (flat(config.model_dump(mode="json")) for config in (old, new))
    pairs = {key: (before.get(key), after.get(key)) for key in before | after}
    return {key: (was, now) for key, (was, now) in pairs.items() if was != now}


def refused_changes(old: Config, new: Config) -> Changes:
    """Return the settings that differ and may not change on resume without --force.

    How examples are read may change, because a hash tells whether they are the same.
    """
    differing = changes(old, new)
    return {key: pair for key, pair in differing.items() if not may_change(key, *pair)}


def may_change(key: str, before: Any, after: Any) -> bool:
    """Return whether a training may be resumed with another value of a setting."""
    rule = key == "files" or may_change_on_resume(key)
    if rule == "if larger":
        return isinstance(before, int) and isinstance(after, int) and after > before
    return bool(rule)


def check_same(
    run: Path,
    saved: SavedTraining,
    config: Config,
    split: Split,
    sources: Mapping[str, str | None],
    force: bool,
) -> None:
    """Check that a training may be resumed with these settings and examples. Raises UsageError.

    sources: the files of the examples. Under `force` they may differ, but not labels and network.
    """
    if split.train.labels != saved.labels:
        raise UsageError(f"{run}: was trained with different labels; train in another folder")
    refused = refused_changes(saved.config, config)
    words = [f"{key}: {was} -> {now}" for key, (was, now) in refused.items()]
    if _network(saved.config, saved) != _network(config, saved):
        network = "; ".join(each for each in words if "model." in each)
        raise UsageError(
            f"{run}: was trained with a different network ({network}), whose weights do not fit; "
            "train in another folder"
        )
    old = saved.facts.data.sha256
    parts = [part for part, new in split.hashes.items() if old.get(part) != new]
    hashes = [
        f"{part} examples: SHA-256 {old.get(part, '')[:8]} -> {split.hashes[part][:8]}"
        for part in parts
    ]
    changed = "; ".join([*hashes, *words])
    kinds = " and ".join(["examples"] * bool(hashes) + ["settings"] * bool(words))
    every = changes(saved.config, config)
    ends = {key: every[key] for key in lengths() if key in every}
    is_longer = any(was is not None and (now is None or now > was) for was, now in ends.values())
    if changed and saved.finished and not is_longer:
        raise UsageError(
            f"{run}: is finished, so different {kinds} would have no effect "
            f"({changed}); train in another folder, with -o, or start again in this one, with "
            "--force and without --resume"
        )
    if changed and not force:
        files = {part: sources[part] for part in parts}
        settings = refused | {key: pair for key, pair in ends.items() if pair[1]}
        raise UsageError(
            f"{run}: was trained with different {kinds} ({changed}); to resume with "
            f"these: {_forced(run, settings, files)}; or train in another folder"
        )


def _network(config: Config, saved: SavedTraining) -> dict[str, Any]:
    """Return the shapes of a network's weights for the run's vocabulary and labels."""
    weights = shapes(config.model, saved.tokenizer.vocab_size, len(saved.labels))
    return {name: tensor.shape for name, tensor in weights.items()}


def _forced(run: Path, settings: Changes, files: Mapping[str, str | None]) -> str:
    """Return the command that resumes a run with other settings and files."""
    words = ["srucli", "train", "--resume", str(run), "--force"]
    for part, flag in (("train", ()), ("dev", ("--dev",))):
        if file := files.get(part):
            words += [*flag, file]
    return shell_line([*words, *_overrides(settings)])


def as_yaml(value: Any) -> str:
    """Return a value as an override has it; JSON is YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[a-z][\w:.-]*", value)
    return value if plain and parse_yaml(value.encode(), "") == value else json.dumps(value)
