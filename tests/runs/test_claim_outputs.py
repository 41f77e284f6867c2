"""Comparisons, tuning and single output files never replace inputs or files of users."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from srucli.config import resolve
from srucli.data.readers import Example
from srucli.errors import OutputError, SrucliError, UsageError
from srucli.experiments.plots import DRAWN_BY
from srucli.experiments.scheduler import Scheduler
from srucli.experiments.trials import Candidate, Folder, Plan, Trial, facts_of
from srucli.runs.claim import MARKER, Claim, claimed
from tests.support import QUICK, RunMain, Tiny, child_environment, tree

CANDIDATES = tuple(Candidate(name, {"optim.name": name}) for name in ("adam", "sgd"))
PARTS = {
    part: [Example(text, (label,), line) for line, (label, text) in enumerate(rows, 1)]
    for part, rows in {
        "train": [("good", "a lovely film"), ("bad", "a rude film")] * 4,
        "dev": [("good", "a lovely soup")],
        "test": [("bad", "a rude soup")],
    }.items()
}
RESULT = {
    "dev": {"accuracy": 0.5},
    "test": {"accuracy": 0.25},
    "history": [{"step": 3, "seconds": 1.5, "train_loss": 1.0, "dev": {"accuracy": 0.5}}],
    "diverged": None,
}


def plan(*overrides: str) -> Plan:
    settings = ["tokenizer.vocab_size=40", *overrides]
    return Plan(resolve(overrides=settings), CANDIDATES, "accuracy", 1, 1, None)


def prepare(path: Path, *overrides: str, force: bool = False, reads: Any = ()) -> None:
    """Prepare a folder as `srucli compare` does before it trains."""
    wanted = plan(*overrides)
    with Folder.claim(path, facts_of(wanted, PARTS), reads, force) as folder:
        folder.prepare(wanted, PARTS, "train.tsv")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comparison") / "out"
    prepare(path)
    place = path / Trial("adam", 0.002, 0).folder
    (place / "run").mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(RESULT))
    (place / "log.txt").write_text("said\n")
    (path / "index.html").write_text("<html>")
    return path


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "folder").mkdir(parents=True)
    for name in ("file", "train.jsonl", "result.json", "folder/plan.json"):
        (place / name).write_text("somebody else's\n")
    return place


# --- a comparison's folder ----------------------------------------------------------------------


def test_the_marker_of_a_comparison_is_written_first(tmp_path: Path) -> None:
    with Folder.claim(tmp_path / "out", {}, (), force=False):
        assert sorted(os.listdir(tmp_path / "out")) == ["lock", MARKER]
        assert json.loads((tmp_path / "out" / MARKER).read_text())["kind"] == "comparison"
        with (
            pytest.raises(OutputError, match="another training writes there"),
            Folder.claim(tmp_path / "out", {}, (), force=True),
        ):
            pass
    prepare(tmp_path / "out")  # as after a kill before there was a plan
    assert sorted(os.listdir(tmp_path / "out")) == ["data", "plan.json", MARKER]


def test_force_keeps_files_of_users_in_a_comparison(copy: Path) -> None:
    own = [
        "notes.txt",
        "data/mine.csv",
        "cells/adam/notes",
        "cells/adam/lr-0.002/seed-0/mine",
        "a/b",
    ]
    for name in own:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(name)
    with pytest.raises(UsageError, match="other settings; choose another -o, or add --force"):
        prepare(copy, "model.layers=3")
    assert (copy / "cells/adam/lr-0.002/seed-0/result.json").exists()
    prepare(copy, "model.layers=3", force=True)
    assert [(copy / name).read_text() for name in own] == own
    assert not (copy / "cells/adam/lr-0.002/seed-0/result.json").exists()
    assert not (copy / "index.html").exists()


def test_a_comparison_without_a_marker_resumes_if_its_plan_is_the_same(copy: Path) -> None:
    (copy / MARKER).unlink()
    with pytest.raises(OutputError, match="exists already and contains no comparison that srucli"):
        prepare(copy, "model.layers=3", force=True)
    prepare(copy)
    assert (copy / MARKER).exists()
    assert (copy / "index.html").exists()


@pytest.mark.parametrize("said", ["", "{", "[]", "3", '{"settings": 3}'])
def test_a_damaged_plan_counts_as_another_comparison(copy: Path, said: str) -> None:
    prepare(copy)  # and marks it: a copy is known by its plan
    (copy / "plan.json").write_text(said)
    with pytest.raises(UsageError, match="holds a comparison with other settings and data"):
        prepare(copy)
    prepare(copy, force=True)


@pytest.mark.parametrize("kind", ["link", "twin"])
@pytest.mark.parametrize(
    "name",
    ["lock", "plan.json", "index.html", "data", "cells", "data/train.jsonl", "data/dev.jsonl"],
)
@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
def test_a_comparison_never_writes_through_a_link(
    copy: Path, outside: Path, name: str, kind: str, force: bool
) -> None:
    is_folder = name in ("data", "cells")
    if is_folder and kind == "twin":
        pytest.skip("folders have no hard links")
    place = copy / name
    if place.exists():
        shutil.rmtree(place) if is_folder else place.unlink()
    target = outside / "folder" if is_folder else outside / "file"
    place.symlink_to(target) if kind == "link" else os.link(target, place)
    before = tree(outside)
    with suppress(OutputError, UsageError):
        prepare(copy, *(["model.layers=3"] if force else []), force=force)
    assert tree(outside) == before


@pytest.mark.parametrize("name", ["data/train.jsonl", "plan.json", "index.html", "twin"])
def test_a_comparison_never_replaces_what_it_reads(copy: Path, tmp_path: Path, name: str) -> None:
    given = copy / name
    if name == "twin":
        given = tmp_path / "twin"
        os.link(copy / "data" / "test.jsonl", given)
    before = tree(copy)
    for force in (False, True):
        with pytest.raises(OutputError, match="may be replaced or removed, but this command reads"):
            prepare(copy, force=force, reads=[None, "-", given])
    assert tree(copy) == before


@pytest.mark.parametrize("flag", ["TRAIN", "--dev", "--test", "-c"])
def test_compare_never_replaces_what_it_reads(
    copy: Path, tiny: Tiny, run_main: RunMain, flag: str
) -> None:
    own = copy / ("plan.json" if flag == "-c" else "data/train.jsonl")
    prepare(copy)  # and marks it
    own.write_text("{}" if flag == "-c" else (copy / "data/train.jsonl").read_text() * 9)
    before = tree(copy)
    given = {"TRAIN": tiny.train, flag: own}
    train = given.pop("TRAIN")
    more = [word for pair in given.items() for word in pair]
    words = ("--over", "model.layers=1,2", "--steps", 1, "--grid", 1, "--seeds", 1, "--force")
    ended = run_main("compare", train, *more, "-o", copy, *words)
    assert ended.code == 73
    assert f"{own}: may be replaced or removed" in ended.err
    assert tree(copy) == before


# --- results ------------------------------------------------------------------------------------


def test_a_result_is_read_back(copy: Path) -> None:
    found = Folder(copy).result(Trial("adam", 0.002, 0))
    assert found is not None
    assert (found.dev, found.test, found.diverged) == (RESULT["dev"], RESULT["test"], None)
    assert [record.model_dump(exclude_unset=True) for record in found.history] == RESULT["history"]
    assert Folder(copy).result(Trial("adam", 0.002, 1)) is None


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda found: [found],
    "one key less": lambda found: {key: found[key] for key in found if key != "test"},
    "one key more": lambda found: found | {"more": 1},
    "a word for a metric": lambda found: found | {"test": {"accuracy": "high"}},
    "no history": lambda found: found | {"history": {}},
    "a record without its step": lambda found: (
        found | {"history": [{"seconds": 1.0, "train_loss": 1.0, "dev": {}}]}
    ),
    "a record without its loss": lambda found: (
        found | {"history": [{"step": 3, "seconds": 1.0, "dev": {}}]}
    ),
    "a step that is not a number": lambda found: (
        found | {"history": [found["history"][0] | {"step": "3"}]}
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_result_is_ignored(copy: Path, damage: str) -> None:
    path = copy / Trial("adam", 0.002, 0).folder / "result.json"
    path.write_text(json.dumps(DAMAGED[damage](RESULT)))
    assert Folder(copy).result(Trial("adam", 0.002, 0)) is None


@pytest.mark.parametrize("part", ["cells", "cells/adam", "cells/adam/lr-0.002", "result.json"])
def test_a_result_is_not_read_through_a_link(copy: Path, part: str) -> None:
    place = copy / part if part != "result.json" else copy / "cells/adam/lr-0.002/seed-0" / part
    place.rename(copy / "moved")
    place.symlink_to(copy / "moved")
    assert Folder(copy).result(Trial("adam", 0.002, 0)) is None


# --- trials -------------------------------------------------------------------------------------


def test_a_trial_never_writes_through_a_link_or_into_another_folder(
    copy: Path, outside: Path
) -> None:
    """In each trial another part of the path is a link. The tokenizer is invalid, so all fail."""
    (copy / "data" / "tokenizer.model").write_text("none")
    places = {
        "candidate": "cells/candidate",
        "rate": "cells/rate/lr-0.1",
        "seed": "cells/seed/lr-0.1/seed-0",
        "log": "cells/log/lr-0.1/seed-0/log.txt",
        "twin": "cells/twin/lr-0.1/seed-0/log.txt",
        "said": "cells/said/lr-0.1/seed-0/error.txt",
        "run": "cells/run/lr-0.1/seed-0/run",
    }

    def set_links() -> None:
        for candidate, name in places.items():
            place = copy / name
            place.parent.mkdir(parents=True, exist_ok=True)
            target = outside / "file" if name.endswith(".txt") else outside / "folder"
            os.link(target, place) if candidate == "twin" else place.symlink_to(target)

    candidates = tuple(Candidate(name, {"optim.name": "adam"}) for name in [*places, "adam"])
    wanted = Plan(resolve(), candidates, "accuracy", 1, 1, None)
    before = tree(outside)
    with (
        Folder.claim(copy, facts_of(plan(), PARTS), (), False) as folder,
        Scheduler(folder, wanted, 1, lambda trial: None) as scheduler,
    ):
        set_links()  # after the claim, which would refuse them
        for candidate in places:
            with pytest.raises(SrucliError, match=f"cells/{candidate}/lr-0.1/seed-0: "):
                scheduler.run([Trial(candidate, 0.1, 0)])
        assert tree(outside) == before
        copy.rename(copy.with_name("moved"))
        prepare(copy)
        now = tree(copy)
        with pytest.raises(OutputError, match="copy: was removed or renamed, or is another"):
            scheduler.run([Trial("adam", 0.1, 0)])
    assert tree(copy) == now
    assert tree(outside) == before


# --- tuning -------------------------------------------------------------------------------------


def test_tuning_removes_its_temporary_folder(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srucli.experiments import tune

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kinds = []

    def run(self: tune.Search) -> tune.Best:
        kinds.append(json.loads((self.scratch / MARKER).read_text())["kind"])
        self._train(self.task.complete({"train.epochs": 1}), lambda epoch, metrics: None)
        assert (self.scratch / "run" / "last").is_file()
        if len(kinds) == 2:
            (self.scratch / "mine").write_text("")
            raise SrucliError("ended")
        return tune.Best(value=0.5, metrics={"accuracy": 0.5}, megabytes=1.0, trials=1)

    monkeypatch.setattr(tune.Search, "run", run)
    words = ("tune", tiny.train, "-o", tmp_path / "r.yaml", "model.hidden=4", "train.threads=1")
    assert run_main(*words).code == 0
    assert not list(tmp_path.glob("srucli-tune-*"))
    assert run_main(*words, "--force").code == 1
    (scratch,) = tmp_path.glob("srucli-tune-*")
    assert os.listdir(scratch) == ["mine"]
    assert kinds == ["tuning"] * 2


# --- single files -------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, tiny: Tiny) -> Path:
    """A folder with an input under every name that a command may be asked to write."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("x.model", "x.vocab", "recipe.yaml", "test.tsv"):
        shutil.copy(tiny.test, folder / name)
    os.link(folder / "test.tsv", folder / "twin.tsv")
    (folder / "link.tsv").symlink_to("test.tsv")
    return folder


OVER_INPUTS: dict[str, Callable[[Path, Tiny], tuple[object, ...]]] = {
    "tokenize, model": lambda own, tiny: ("tokenize", own / "x.model", "-o", own / "x", "--force"),
    "tokenize, vocab": lambda own, tiny: ("tokenize", own / "x.vocab", "-o", own / "x", "--force"),
    "tokenize, folder": lambda own, tiny: ("tokenize", own, "-o", own / "x", "--force"),
    "tune, train": lambda own, tiny: ("tune", own / "test.tsv", "-o", own / "test.tsv", "--force"),
    "tune, twin": lambda own, tiny: ("tune", own / "test.tsv", "-o", own / "twin.tsv", "--force"),
    "tune, dev": lambda own, tiny: (
        *("tune", tiny.train, "--dev", own / "test.tsv", "-o", own / "link.tsv", "--force"),
    ),
    "eval, file": lambda own, tiny: (
        *("eval", tiny.run, own / "test.tsv", "--predictions", own / "test.tsv"),
    ),
    "eval, twin": lambda own, tiny: (
        *("eval", tiny.run, own / "test.tsv", "--predictions", own / "twin.tsv"),
    ),
    "eval, link": lambda own, tiny: (
        *("eval", tiny.run, own / "test.tsv", "--predictions", own / "link.tsv"),
    ),
    "eval, run": lambda own, tiny: (
        *("eval", tiny.run, own / "test.tsv", "--predictions", tiny.run / "labels.json"),
    ),
    "eval, marker": lambda own, tiny: (
        *("eval", tiny.run, own / "test.tsv", "--predictions"),
        tiny.run / MARKER,
    ),
    "eval, weights": lambda own, tiny: (
        *("eval", tiny.run, own / "test.tsv", "--predictions"),
        next(tiny.run.glob("checkpoints/*/model.safetensors")),
    ),
}


@pytest.mark.parametrize("what", OVER_INPUTS)
def test_an_output_never_replaces_an_input(
    own: Path, tiny: Tiny, run_main: RunMain, what: str
) -> None:
    before, run = tree(own), tree(tiny.run)
    ended = run_main(*OVER_INPUTS[what](own, tiny))
    assert (ended.code, ended.out) == (73, "")
    assert "would be overwritten, but this command reads it (as " in ended.err
    assert ended.err.rstrip().endswith("; choose another name")
    assert (tree(own), tree(tiny.run)) == (before, run)


def test_the_recipe_of_a_search_may_not_be_its_configuration(
    own: Path, tiny: Tiny, run_main: RunMain
) -> None:
    (own / "recipe.yaml").write_text("model: {layers: 1}\n")
    recipe = own / "recipe.yaml"
    ended = run_main("tune", tiny.train, "-c", recipe, "-o", recipe, "--force")
    assert ended.code == 73
    assert recipe.read_text() == "model: {layers: 1}\n"


def test_predictions_that_fail_leave_nothing_beside(
    own: Path, tiny: Tiny, run_main: RunMain
) -> None:
    (own / "bad.tsv").write_bytes(b"good\tx\n" * 3 + b"\xff\n")
    (own / "out.tsv").write_text("before")
    names = sorted(os.listdir(own))
    ended = run_main("eval", tiny.run, own / "bad.tsv", "--predictions", own / "out.tsv")
    assert ended.code == 65
    assert (own / "out.tsv").read_text() == "before"
    assert sorted(os.listdir(own)) == names


# --- pictures -----------------------------------------------------------------------------------


def test_plots_replace_only_plots_of_srucli(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "holiday.png").write_bytes(b"mine")
    command = ("eval", tiny.run, tiny.test, "--plots", folder)
    for _ in range(2):
        ended = run_main(*command)
        assert ended.code == 0, ended.err
    drawn = {path.name for path in folder.iterdir()} - {"holiday.png"}
    assert drawn == {
        f"{name}.{kind}"
        for name in ("confusion", "learning", "reliability")
        for kind in ("png", "svg")
    }
    assert (folder / "holiday.png").read_bytes() == b"mine"
    (folder / "learning.png").write_bytes(b"mine")
    (folder / "confusion.svg").unlink()
    (folder / "confusion.svg").symlink_to(folder / "reliability.svg")
    before = tree(folder)
    ended = run_main(*command)
    assert (ended.code, ended.out) == (73, "")
    said = "pictures: holds learning.png, confusion.svg, which srucli did not draw; name another"
    assert said in ended.err
    assert tree(folder) == before


def test_diagnose_replaces_only_plots_of_srucli(
    tmp_path: Path, tiny: Tiny, run_main: RunMain
) -> None:
    run, folder = tmp_path / "run", tmp_path / "pictures"
    flags = ("--epochs", 2, *QUICK, "--diagnose", 5)
    assert run_main("train", tiny.train, "-o", run, *flags).code == 0
    folder.mkdir()
    (folder / "optimizer.svg").write_bytes(b"mine")
    ended = run_main("diagnose", run, "--plots", folder)
    assert (ended.code, ended.out) == (73, "")
    assert "pictures: holds optimizer.svg, which srucli did not draw; name another" in ended.err
    assert tree(folder) == {"optimizer.svg": b"mine"}
    (folder / "optimizer.svg").rename(folder / "mine.svg")
    for _ in range(2):
        assert run_main("diagnose", run, "--plots", folder).code == 0
    assert DRAWN_BY.encode() in (folder / "optimizer.svg").read_bytes()
    assert (folder / "mine.svg").read_bytes() == b"mine"


def test_a_folder_of_the_same_kind_can_be_claimed_again(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path / "x", Claim("tuning", {})):
            pass
    assert os.listdir(tmp_path / "x") == [MARKER]


@pytest.mark.parametrize("command", ["eval", "tokenize"])
def test_an_output_never_replaces_stdin(own: Path, tiny: Tiny, command: str) -> None:
    """The shell opened the file for reading."""
    words = {
        "eval": ("eval", tiny.run, "-", "--predictions", own / "x.model"),
        "tokenize": ("tokenize", "-", "-o", own / "x", "--force"),
    }[command]
    before = tree(own)
    with (own / "x.model").open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "srucli", *map(str, words)],
            env=child_environment(),
            stdin=stdin,
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stdout) == (73, "")
    assert "would be overwritten, but this command reads it (as -)" in done.stderr
    assert tree(own) == before
