"""The fuzzer's target `folders`: damaged output folders of trainings, comparisons and searches.

The folder is a run (finished, stopped or just started), a comparison, a search, a foreign folder or
empty. Its files are changed, removed, or replaced by links, hard links to files outside, folders or
pipes. Foreign files are added. Markers are removed or replaced. Then srucli resumes or starts in
it, with or without force, sometimes with an input file in the folder, and sometimes while another
folder takes its place. Files outside the folder, foreign files and inputs must never change. Unless
a marker or a valid run.json says that the folder is srucli's, nothing in it may change.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from srucli.config import Config, build
from srucli.data.readers import Example
from srucli.errors import InterruptedRun, SrucliError
from srucli.experiments import trials, tune
from srucli.experiments.trials import Candidate, Folder, Plan, Trial, facts_of
from srucli.runs.claim import MARKER, Claim, claimed, clear
from srucli.runs.run_dir import RunDir
from srucli.tokenizer.model import Tokenizer
from srucli.training.interrupts import Interrupt
from srucli.training.run import resume, train
from tests.robustness.mutate import mutate_file, repair_manifests
from tests.robustness.watch import unwatched, watched

# The files that srucli may write, according to the documentation and independent of the code.
_RUN = (
    r"(srucli|run|labels)\.json|lock|config\.yaml|tokenizer\.model|(metrics|diagnostics)\.jsonl"
    r"|(ngrams|base)\.safetensors|README\.md|best|last|tensorboard/events\.out\.tfevents\..+"
    r"|checkpoints/\.?step-[0-9]+[^/]*/((model|training)\.safetensors|(state|training|manifest)\.json)"
)
_TRIAL = rf"cells/[\w.=,-]+/lr-[^/]+/seed-[0-9]+/(result\.json|error\.txt|log\.txt|run/({_RUN}))"
KNOWN = re.compile(
    rf"{_RUN}|run/({_RUN})|{_TRIAL}|plan\.json|index\.html|data/((train|dev|test)\.jsonl|tokenizer\.model)"
)
KNOWN_BESIDE = re.compile(r"(.*/)?\.([^/]+)\.[0-9]+(-[0-9a-f]+)?\.tmp")
FOREIGN = (
    *("notes.txt", "data.csv", "a/b/c.txt", "checkpoints/mine", "checkpoints/step-2/notes.txt"),
    *("tensorboard/mine", "cells/adam/notes", "data/mine.jsonl", "run/mine", "run_json", "last~"),
    *(".mine.1.tmp", "checkpoints/step-02/model.safetensors", ".git/config", "labels.json~"),
)
_FOREIGN_NAMES = ("config.yaml", "lock", "plan.json", "run.json", "index.html", "labels.json")
_LOCK = "process 1 on x\n"
TOKENIZER = {"model_type": "bpe", "normalization_rule_name": "identity", "vocab_size": 60}
RESULT: dict[str, Any] = {
    "dev": {"accuracy": 0.5},
    "test": {"accuracy": 0.5},
    "history": [{"step": 1, "seconds": 1.0, "train_loss": 1.0, "dev": {"accuracy": 0.5}}],
    "diverged": None,
}
Tree = dict[str, bytes | str]


def tree(folder: Path) -> Tree:
    """Return the content of a folder by relative path: bytes, link targets, kinds of the rest."""
    found: Tree = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[key] = f"to {os.readlink(path)}"
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[key] = file.read()
            else:
                found[key] = "a folder" if os.path.isdir(path) else "neither"
    return found


# ---------------------------------------------------------------- folders before and after damage


class Bases:
    """The valid folders, made once, by training on a file of examples."""

    def __init__(self, folder: Path, texts: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir()
        self.folder, self.texts = folder, texts
        short = {"epochs": 1, "batch_size": 64, "diagnose": 1}
        tree = {**settings, "train": {**settings["train"], **short}, "tokenizer": TOKENIZER}
        self.config = build(tree, "folders")
        self.parts = _parts(texts)
        with contextlib.redirect_stderr(io.StringIO()):
            run = train(self.config, str(texts), None, folder / "finished")
            self.tokenizer = Path(shutil.copy(run / "tokenizer.model", folder / "tokenizer.model"))
            self._stopped(folder / "stopped")
        # Short, because reading YAML would take most of the time.
        values = RunDir(run).config().model_dump(mode="json", exclude_defaults=True)
        for path in (run, folder / "stopped"):
            (path / "config.yaml").write_text(json.dumps(values))
        self._started(folder / "started", run)
        self._compared(folder / "compared", run)
        with claimed(folder / "tuned", Claim("tuning", tune.LAYOUT)):
            shutil.copytree(run, folder / "tuned" / "run")
            shutil.copy(self.tokenizer, folder / "tuned")
        (folder / "empty").mkdir()
        (folder / "foreign").mkdir()
        for name in _FOREIGN_NAMES:
            (folder / "foreign" / name).write_text('{"mine": 1}')
        self.names = (
            *("finished", "finished", "finished", "stopped", "stopped", "started", "started"),
            *("compared", "compared", "tuned", "empty", "foreign"),
        )
        self.files = [path for path in run.rglob("*") if path.is_file()]

    def _stopped(self, path: Path) -> None:
        stop = Interrupt()
        stop.requested = True
        with suppress(InterruptedRun):
            train(self.config, str(self.texts), None, path, tokenizer=self.tokenizer, stop=stop)

    def _started(self, path: Path, run: Path) -> None:
        with RunDir.claim(path):
            pass
        for name in ("config.yaml", "tokenizer.model", "labels.json", "run.json"):
            shutil.copy(run / name, path)

    def _compared(self, path: Path, run: Path) -> None:
        self.plan = _plan(self.config)
        facts = facts_of(self.plan, self.parts)
        with (
            self.no_tokenizer_trained(),
            Folder.claim(path, facts, (), force=False) as folder,
        ):
            folder.prepare(self.plan, self.parts, "texts")
        for candidate in self.plan.candidates:
            place = path / Trial(candidate.name, 0.002, 0).folder
            shutil.copytree(run, place / "run")
            (place / "result.json").write_text(json.dumps(RESULT))
            (place / "log.txt").write_text("said\n")
        (path / "index.html").write_text("<html>")

    @contextmanager
    def no_tokenizer_trained(self) -> Iterator[None]:
        """Let a comparison use the existing tokenizer: training one starts a process."""

        def load(*_arguments: Any) -> SimpleNamespace:
            return SimpleNamespace(tokenizer=Tokenizer.load(self.tokenizer))

        with patch.object(trials, "make_tokenizer", load):
            yield


def _plan(config: Config) -> Plan:
    candidates = [Candidate(name, {"optim.name": name}) for name in ("adam", "sgd")]
    return Plan(config, candidates, "accuracy", 1, 1, None)


def _parts(texts: Path) -> dict[str, list[Example]]:
    rows = [line.split("\t") for line in texts.read_text().splitlines()]
    examples = [Example(text, (label,), line) for line, (label, text) in enumerate(rows, 1)]
    return {"train": examples[2:], "dev": examples[:1], "test": examples[1:2]}


def damage(random: Random, bases: Bases, place: Path, outside: Path) -> None:
    """Make up to four changes in a folder, and add foreign files to it."""
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        paths = [path for path in place.rglob("*") if not path.is_symlink()]
        random.choice(_CHANGES)(random, bases, place, paths, outside)
    if random.random() < 0.3:
        with suppress(OSError):
            repair_manifests(place)
    for name in random.sample(FOREIGN, random.choice((0, 0, 1, 3))):
        with suppress(OSError):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("mine")


Paths = list[Path]


def _link(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    path = random.choice([*paths, *(place / name for name in _MISSING)])
    is_folder = path.is_dir() or path.name in ("tensorboard", "data", "cells", "checkpoints")
    targets = [outside / "folder", outside, place] if is_folder else [outside / "file"]
    targets += [outside / "absent", path, place / "run.json", Path("/dev/null")]
    _remove(path)
    with suppress(OSError):
        path.symlink_to(random.choice(targets))


_MISSING = ("lock", "diagnostics.jsonl", "tensorboard", "best", "index.html", "error.txt")


def _hard_link(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    files = [path for path in paths if path.is_file()]
    if random.random() < 0.5:  # files that srucli changes in place
        files = [place / name for name in ("lock", "metrics.jsonl", "diagnostics.jsonl")]
    path = random.choice([*files, place / "lock"])
    _remove(path)
    target = outside / path.name
    with suppress(OSError):
        os.link(target if target.is_file() else outside / "file", path)


def _other_kind(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    path = random.choice([*paths, place / "lock"])
    was_folder = path.is_dir()
    _remove(path)
    with suppress(OSError):
        if was_folder:
            path.write_text("mine")
        elif random.random() < 0.5:
            path.mkdir()
            (path / "mine").write_text("mine")
        else:
            os.mkfifo(path)


def _lose(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    for path in random.sample(paths, min(len(paths), random.choice((1, 1, 4)))):
        _remove(path)


def _lose_marker(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    _remove(place / MARKER)


def _swap_marker(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    marker = {
        "format": random.choice((1, 1, 1, 2, "1", None)),
        "kind": random.choice(("run", "comparison", "tuning", "other", None)),
        "id": random.choice(("0" * 32, "x", 3)),
        "inode": random.choice((1, None)),
    }
    _remove(place / MARKER)
    (place / MARKER).write_text(json.dumps(marker))


def _change(random: Random, bases: Bases, place: Path, paths: Paths, outside: Path) -> None:
    files = [path for path in paths if path.is_file()]
    if files:
        path, other = random.choice(files), random.choice(bases.files).read_bytes()
        path.write_bytes(mutate_file(random, path.name, path.read_bytes(), other))


def _change_lock(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    _remove(place / "lock")
    words = random.choice(("process 12 on some.machine\n", "", "mine", "process 1 on x\nmore"))
    (place / "lock").write_text(words)


def _add_temporary(random: Random, _: Bases, place: Path, paths: Paths, outside: Path) -> None:
    """Add temporary files and folders, as a killed process leaves them."""
    for name in (".run.json.12.tmp", f".{MARKER}.12-ab.tmp", ".last.1-0f.tmp", ".plan.json.1.tmp"):
        with suppress(OSError):  # the folder may be a link to itself by now
            if random.random() < 0.5:
                (place / name).write_text("{")
    with suppress(OSError):
        (place / "checkpoints" / ".step-9.12-ab.tmp").mkdir()
        (place / "checkpoints" / ".step-9.12-ab.tmp" / "state.json").write_text("{")


_CHANGES: tuple[Callable[[Random, Bases, Path, Paths, Path], None], ...] = (
    *(
        _link,
        _link,
        _link,
        _hard_link,
        _hard_link,
        _other_kind,
        _lose,
        _lose_marker,
        _swap_marker,
        _change,
    ),
    *(_change, _change_lock, _add_temporary),
)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- commands


def _resume(random: Random, bases: Bases, place: Path, given: Path | None) -> None:
    epochs = {"train.epochs": 2} if random.random() < 0.7 else {}
    force = random.random() < 0.4
    texts = str(given) if given else None
    resume(place, {**epochs}, texts, force=force, stop=_stop(random))


def _train(random: Random, bases: Bases, place: Path, given: Path | None) -> None:
    way, texts, dev, tokenizer = random.randrange(4), bases.texts, None, bases.tokenizer
    reads = [given] if way == 0 else []
    texts = given if given and way == 1 else texts
    dev = str(given) if given and way == 2 else None
    tokenizer = given if given and way == 3 else tokenizer
    options: dict[str, Any] = {"tokenizer": tokenizer, "reads": reads, "stop": _stop(random)}
    config = bases.config
    if random.random() < 0.15:
        options |= {"on_epoch": lambda epoch, figures: _replace(place), "stop": None}
        settings = config.train.model_copy(update={"epochs": 2})
        config = config.model_copy(update={"train": settings})
    train(config, str(texts), dev, place, force=random.random() < 0.7, **options)


def _stop(random: Random) -> Interrupt:
    """Return an interrupt that mostly stops a training before its next step."""
    stop = Interrupt()
    stop.requested = random.random() < 0.75
    return stop


def _replace(place: Path) -> None:
    """Replace a folder, while it is written to, by the folder of another training."""
    with unwatched():
        place.rename(place.with_name("moved"))
        place.mkdir()
        (place / "theirs").write_text("theirs")
        (place / "lock").write_text(_LOCK)


def _compare(random: Random, bases: Bases, place: Path, given: Path | None) -> None:
    plan = bases.plan
    if random.random() < 0.3:
        plan = _plan(bases.config.model_copy(update={"files": None, "optim": _OTHER}))
    facts = facts_of(plan, bases.parts)
    claim = Folder.claim(place, facts, [given], random.random() < 0.6)
    with bases.no_tokenizer_trained(), claim as folder:
        folder.prepare(plan, bases.parts, "texts")
        for candidate in plan.candidates:
            folder.result(Trial(candidate.name, 0.002, 0))


_OTHER = build({"optim": {"name": "sgd"}}, "other").optim


def _tune(random: Random, bases: Bases, place: Path, given: Path | None) -> None:
    with claimed(place, Claim("tuning", tune.LAYOUT, sources=[given])) as (folder, _):
        stop = Interrupt()
        stop.requested = True
        options: dict[str, Any] = {"tokenizer": bases.tokenizer, "force": True, "below": folder}
        with suppress(InterruptedRun):
            train(bases.config, str(bases.texts), None, place / "run", stop=stop, **options)
        clear(folder, tune.LAYOUT)


WAYS = {"finished": _resume, "stopped": _resume, "compared": _compare, "tuned": _tune}


def try_folder(seeds: Any, random: Random, folder: Path) -> None:
    """Damage a folder, and run a command that writes to it. Raises AssertionError."""
    bases: Bases = seeds.bases
    here = folder / "here"
    _remove(here)
    outside = here / "outside"
    (outside / "folder").mkdir(parents=True)
    for name in ("file", "folder/file", "metrics.jsonl", "diagnostics.jsonl", "train.jsonl"):
        (outside / name).write_text("good\tlovely\nbad\trude\n")
    (outside / "lock").write_text(_LOCK)
    name, place = random.choice(bases.names), here / "place"
    shutil.copytree(bases.folder / name, place)
    for file in _FOREIGN_NAMES if name == "foreign" else ():
        if random.random() < 0.5:
            (place / file).unlink()
    damage(random, bases, place, outside)
    given = _input(random, bases, place, here)
    before, outside_before = tree(place), tree(outside)
    foreign = {
        key: value
        for key, value in before.items()
        if value != "a folder" and (isinstance(value, str) or not _is_known(key))
    }
    owned = _is_owned(before, place, bases)
    act = (
        WAYS.get(name, _train)
        if random.random() < 0.8
        else random.choice((_resume, _train, _compare, _tune))
    )
    try:
        with watched(place), contextlib.redirect_stderr(io.StringIO()):
            act(random, bases, place, given)
    except InterruptedRun:
        pass  # as requested
    finally:
        moved = here / "moved"
        if moved.exists():
            theirs = {"theirs": b"theirs", "lock": _LOCK.encode()}
            assert tree(place) == theirs, "another training's folder changed"
        after = tree(moved if moved.exists() else place)
        assert tree(outside) == outside_before, "files outside changed"
        lost = [key for key, value in foreign.items() if after.get(key) != value]
        assert not lost, f"foreign: {lost} of {name} by {act.__name__}"
        if given is not None and given.is_relative_to(place):
            key = str(given.relative_to(place))
            assert after.get(key) == before[key], f"input: {key} of {name} by {act.__name__}"
        assert owned or after == before, f"foreign folder: {name} by {act.__name__}"


def _is_known(name: str) -> bool:
    beside = KNOWN_BESIDE.fullmatch(name)
    return bool(KNOWN.fullmatch(f"{beside[1] or ''}{beside[2]}" if beside else name))


def _input(random: Random, bases: Bases, place: Path, here: Path) -> Path | None:
    """Return None, or a file of the folder, or a hard link to one, as input of the command."""
    files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    if random.random() < 0.7 or not files:
        return None
    path = random.choice(files)
    if random.random() < 0.7:
        other = random.choice((bases.texts, bases.tokenizer))
        path.write_bytes(other.read_bytes())
    if random.random() < 0.3:
        os.link(path, here / "hard link")
        return here / "hard link"
    return path


def _is_owned(found: Tree, place: Path, bases: Bases) -> bool:
    """Return whether the folder's own marker, a valid run.json or the same plan says so.

    Next to a copied marker, any valid plan does.
    """
    if set(found) <= {"lock"} or all(KNOWN_BESIDE.fullmatch(name) for name in found):
        return True
    if MARKER in found:
        try:
            marker = json.loads(found[MARKER])
            kinds = ("run", "comparison", "tuning")
            whole = marker["format"] == 1 and marker["kind"] in kinds and len(marker["id"]) == 32
            if not whole or marker.get("inode") in (None, os.stat(place).st_ino):
                return bool(whole)
            if marker["kind"] == "comparison":
                return set(json.loads(found["plan.json"])) == {"settings", "data"}
        except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
            return False
    with suppress(SrucliError):
        RunDir(place).facts()
        return True
    with suppress(ValueError, TypeError, RecursionError):
        return "plan.json" in found and json.loads(found["plan.json"]) == facts_of(
            bases.plan, bases.parts
        )
    return False
