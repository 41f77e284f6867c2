"""Whether a folder holds a training that can go on, from which checkpoint, and whether it may."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srucli.config import Config, flat, lengths, may_change_on_resume
from srucli.errors import DataError, InputMissingError, SrucliError, UsageError
from srucli.io.locks import is_locked
from srucli.model.classifier import shapes
from srucli.runs.checkpoints import TRAINING
from srucli.runs.facts import FORMAT_VERSION, Facts
from srucli.runs.run_dir import RunDir, is_begun
from srucli.tokenizer.model import Tokenizer

# What to do about a run whose training cannot go on.
_ELSEWHERE = "train in another folder, with -o; it still predicts"


@dataclass(frozen=True)
class Former:
    """A training that a folder holds, and the checkpoint to go on from, if it got that far.

    damaged: what is wrong with newer checkpoints, which are passed over.
    """

    facts: Facts
    config: Config
    tokenizer: Tokenizer
    labels: list[str]
    checkpoint: str | None
    finished: bool
    damaged: Sequence[str]


def former(run: RunDir) -> Former:
    """What the folder holds. Raises InputMissingError and DataError where it cannot go on."""
    if not (run.path / "run.json").is_file():
        raise InputMissingError(
            f"{run.path}: holds no run to go on with; `srucli train FILE` makes one"
        )
    facts = run.facts()
    if facts.format_version < FORMAT_VERSION:
        problem = f"format version {facts.format_version} kept nothing to go on from"
        raise DataError(str(run.path), None, problem, _ELSEWHERE)
    name, damaged = _newest(run)
    finished = name is not None and bool(run.state_of(name).get("finished"))
    return Former(facts, run.config(), run.tokenizer(), run.labels(), name, finished, damaged)


def _newest(run: RunDir) -> tuple[str | None, list[str]]:
    """The newest checkpoint that is whole, and what is wrong with the newer ones."""
    damaged: list[str] = []
    for name, error in run.checkpoints.whole():
        if error is None:
            try:
                run.checkpoints.read(name, TRAINING)
            except SrucliError as missing:
                error = missing
        if error is None:
            return name, damaged
        damaged.append(str(error))
    if not is_begun(run.place):
        problem = f"no checkpoint to go on from: {damaged[0] if damaged else 'there is none'}"
        if _predicts(run):
            raise DataError(str(run.path), None, problem, _ELSEWHERE)
        train = run.facts().sources.get("train") or "FILE"
        anew = ["srucli", "train", train, "-o", str(run.path), "--force"]
        raise DataError(str(run.path), None, problem, f"to train anew: {shlex.join(anew)}")
    return None, damaged


def _predicts(run: RunDir) -> bool:
    try:
        return bool(run.checkpoint("last"))
    except SrucliError:
        return False


def recorded(path: Path) -> list[str | None]:
    """The files that the training in a folder was given, as far as it says."""
    try:
        return list(RunDir(path).facts().sources.values())
    except SrucliError:
        return []


def held(path: Path) -> Former | None:
    """The training in a folder that has a checkpoint to go on from, be it finished or not."""
    if not (path / "run.json").is_file() or is_begun(path):
        return None
    try:
        return former(RunDir(path))
    except SrucliError:
        return None


def is_of(path: Path, command: Sequence[str]) -> bool:
    """Whether nobody trains there just now, and the same command did, without coming to its end."""
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
    found = held(path)
    return is_begun(path) or (found is not None and not found.finished)


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that matter and are others now: what they were, and are.

    How the texts are read is none of them: what they are is told by their hash.
    """
    before, after = (flat(config.model_dump(mode="json")) for config in (old, new))
    return {
        key: (before.get(key), after.get(key))
        for key in before | after
        if before.get(key) != after.get(key)
        and not may_change(key, before.get(key), after.get(key))
    }


def differences(old: Config, new: Config) -> list[str]:
    """The same in words, as `optim.lr: 0.002 -> 0.01`."""
    return [f"{key}: {was} -> {now}" for key, (was, now) in changes(old, new).items()]


def may_change(key: str, before: Any, after: Any) -> bool:
    """Whether a training may go on unasked although this setting was another one."""
    rule = key == "files" or may_change_on_resume(key)
    if rule == "if larger":
        return isinstance(before, int) and isinstance(after, int) and after > before
    return bool(rule)


def check_same(
    run: Path,
    found: Former,
    config: Config,
    labels: list[str],
    hashes: Mapping[str, str],
    sources: Mapping[str, str | None],
    force: bool,
) -> None:
    """Refuse to go on with other settings or texts, unless under `force`. Raises UsageError.

    `sources` are the files whose `hashes` these are. Another network is refused in any case.
    """
    if labels != found.labels:
        raise UsageError(f"{run}: was trained with other labels; train in another folder")
    if _network(found.config, found) != _network(config, found):
        words = "; ".join(each for each in differences(found.config, config) if "model." in each)
        raise UsageError(
            f"{run}: holds another network ({words}), whose weights do not fit this one; train in "
            "another folder"
        )
    known = found.facts.data.sha256
    others = [part for part in hashes if known.get(part) != hashes[part]]
    texts = [
        f"{part} texts: SHA-256 {known.get(part, '')[:8]} -> {hashes[part][:8]}" for part in others
    ]
    changed = [*texts, *differences(found.config, config)]
    if changed and found.finished and not _is_longer(found.config, config):
        raise UsageError(
            f"{run}: is finished, so that nothing is trained with other settings or texts "
            f"({'; '.join(changed)}); train in another folder, with -o, or anew in this one, with "
            "--force and without --resume"
        )
    if changed and not force:
        files = {part: sources[part] for part in others}
        longer = {key: pair for key, pair in _lengths(found.config, config) if pair[1]}
        command = _forced(run, changes(found.config, config) | longer, files)
        raise UsageError(
            f"{run}: holds a training with other settings or texts ({'; '.join(changed)}); to go "
            f"on with these: {command}; or train in another folder"
        )


def _is_longer(old: Config, new: Config) -> bool:
    """Whether a training that came to its end is not at its end by new settings."""
    lengths = [pair for _, pair in _lengths(old, new)]
    return any(was is not None and (now is None or now > was) for was, now in lengths)


def _lengths(old: Config, new: Config) -> list[tuple[str, tuple[Any, Any]]]:
    """The settings that say how long a training takes and are others now: name, old, new."""
    before, after = (flat(config.model_dump(mode="json")) for config in (old, new))
    pairs = [(key, (before[key], after[key])) for key in lengths()]
    return [(key, pair) for key, pair in pairs if pair[0] != pair[1]]


def _network(config: Config, found: Former) -> dict[str, Any]:
    """The shapes of a network's weights over the run's pieces and labels."""
    weights = shapes(config.model, found.tokenizer.vocab_size, len(found.labels))
    return {name: tensor.shape for name, tensor in weights.items()}


def _forced(
    run: Path, settings: Mapping[str, tuple[Any, Any]], files: Mapping[str, str | None]
) -> str:
    """The command that goes on with other settings and files."""
    words = ["srucli", "train", "--resume", str(run), "--force"]
    for part, flag in (("train", ()), ("dev", ("--dev",))):
        if file := files.get(part):
            words += [*flag, file]
    words += [f"{key}={_as_yaml(now)}" for key, (_, now) in settings.items()]
    return shlex.join(words)


def _as_yaml(value: Any) -> str:
    """A value as an override has it; JSON is YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[a-z][\w:.-]*", value)
    return value if plain else json.dumps(value)
