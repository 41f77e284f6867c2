"""Which folders are refused, what is removed from them, and that inputs are never replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from srucli.errors import OutputError, SrucliError
from srucli.io import locks
from srucli.io.folders import OpenFolder
from srucli.runs import claim
from srucli.runs.checkpoints import Checkpoints
from srucli.runs.claim import MARKER, Claim, claimed, contents, is_free, listing
from srucli.runs.facts import FORMAT_VERSION
from srucli.runs.run_dir import LAYOUT, RunDir
from tests.support import QUICK, OnStep, RunMain, Tiny, tree, write_tsv

FLAGS = ("--epochs", 1, *QUICK)


def train(run_main: RunMain, tiny: Tiny, output: Path, *more: object) -> Any:
    tokenizer = ("--tokenizer", tiny.run / "tokenizer.model")
    return run_main("train", tiny.train, "-o", output, *FLAGS, *tokenizer, *more)


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.run, tmp_path / "copy"))


# --- foreign folders ----------------------------------------------------------------------------

FOREIGN: dict[str, dict[str, str]] = {
    "a lock": {"lock": "mine"},
    "an empty lock": {"lock": ""},
    "a lock as srucli's, and more": {"lock": "process 1 on x\n", "checkpoints/step-1/mine": "x"},
    "config.yaml": {"config.yaml": "services: []"},
    "run.json": {"run.json": "{}", "checkpoints/a": "x"},
    "run.json of another format": {"run.json": '{"format_version": 2, "command": "mine"}'},
    "plan.json": {"plan.json": '{"settings": "", "data": {}}', "data/train.jsonl": "mine"},
    "files of a run": dict.fromkeys(("labels.json", "tokenizer.model", "last"), "mine"),
    "a marker": {"srucli.json": "{}"},
    "a marker of another format": {
        "srucli.json": json.dumps({"format": 99, "kind": "run", "id": "0" * 32})
    },
    "a marker without id": {"srucli.json": '{"format": 1, "kind": "run"}'},
    "a temporary file": {".labels.json.1.tmp": "mine"},
    "tensorboard": {"tensorboard/events.out.tfevents.1": "mine"},
    "many": {f"{number}.txt": "mine" for number in range(12)},
}
COMMANDS: dict[str, tuple[object, ...]] = {
    "train": ("--epochs", 1, *QUICK),
    "compare": ("--over", "model.layers=1,2", "--steps", 1, "--grid", 1, "--seeds", 1),
}


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_that_srucli_did_not_make_is_left_alone(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, what: str, command: str, force: bool
) -> None:
    folder = tmp_path / "folder"
    for name, text in FOREIGN[what].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = tree(tmp_path)
    flags = ("--force",) if force else ()
    ended = run_main(command, tiny.train, "-o", folder, *COMMANDS[command], *flags)
    assert (ended.code, ended.out) == (73, ""), ended.err
    kind = {"train": "run", "compare": "comparison"}[command]
    assert f"folder: exists already and contains no {kind} that srucli made, but " in ended.err
    assert sorted(FOREIGN[what])[0].partition("/")[0] in ended.err
    assert ended.err.rstrip().endswith("; choose another -o")
    assert tree(tmp_path) == before


def test_a_refusal_lists_the_first_names() -> None:
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert listing([*"abcdefg"]) == "a, b, c, d, e and 2 more"
    assert listing(["a\x1b[31m"]) == "a\\x1b[31m"


def test_the_remedy_of_a_refusal_works(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    write_tsv(tmp_path / "folder", [])
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("")
    assert train(run_main, tiny, tmp_path / "folder").code == 73
    assert train(run_main, tiny, tmp_path / "another").code == 0


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
def test_a_folder_of_another_kind_is_refused(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, force: bool
) -> None:
    flags = ("--force",) if force else ()
    for kind, command in (("run", "compare"), ("comparison", "train"), ("tuning", "train")):
        with claimed(tmp_path / kind, Claim(kind, {})):  # type: ignore[arg-type]
            pass
        before = tree(tmp_path / kind)
        arguments = (command, tiny.train, "-o", tmp_path / kind, *COMMANDS[command], *flags)
        ended = run_main(*arguments)
        wanted = {"compare": "comparison", "train": "run"}[command]
        assert ended.code == 73
        assert f"{kind}: contains a {kind} and not a {wanted}; choose another -o" in ended.err
        assert tree(tmp_path / kind) == before


def test_resuming_a_folder_that_is_no_run_changes_nothing(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    for what, files in FOREIGN.items():
        folder = tmp_path / re.sub(r"\W", "-", what)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    before = tree(tmp_path)
    for folder in tmp_path.iterdir():
        assert run_main("train", "--resume", folder).code in (65, 66, 73)
        assert run_main("train", "--resume", folder, "--force").code in (65, 66, 73)
    assert tree(tmp_path) == before


# --- folders of srucli --------------------------------------------------------------------------


def test_the_marker_is_written_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = os.open

    def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            made.append(os.path.basename(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opening)
    with RunDir.claim(tmp_path / "run") as run:
        run.clear()
    assert made[0].startswith(f".{MARKER}.")
    assert made[1:] == ["lock"]
    found = json.loads((tmp_path / "run" / MARKER).read_text())
    assert (found["format"], found["kind"]) == (1, "run")
    assert re.fullmatch("[0-9a-f]{32}", found["id"])
    with RunDir.claim(tmp_path / "other"):
        assert json.loads((tmp_path / "other" / MARKER).read_text())["id"] != found["id"]
    with RunDir.claim(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / MARKER).read_text()) == found


LEFT: dict[str, dict[str, str]] = {
    "nothing": {},
    "a part of the marker": {f".{MARKER}.12-ab.tmp": "{"},
    "a lock alone": {"lock": "process 12 on some.machine\n"},
}


@pytest.mark.parametrize("left", LEFT)
def test_files_left_by_a_kill_during_a_claim_are_ignored(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, left: str
) -> None:
    (tmp_path / "run").mkdir()
    for name, text in LEFT[left].items():
        (tmp_path / "run" / name).write_text(text)
    assert train(run_main, tiny, tmp_path / "run").code == 0
    assert not [name for name in os.listdir(tmp_path / "run") if name.endswith(("tmp", "lock"))]


def test_a_folder_without_a_marker_is_a_run_if_run_json_is_valid(
    copy: Path, tiny: Tiny, run_main: RunMain
) -> None:
    """The first versions of srucli wrote no markers."""
    (copy / MARKER).unlink()
    assert train(run_main, tiny, copy).code == 2  # other settings
    assert train(run_main, tiny, copy, "--force").code == 0
    assert (copy / MARKER).exists()
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(facts | {"format_version": 2}))
    assert train(run_main, tiny, copy, "--force").code == 0
    assert RunDir.open(copy).facts().format_version == FORMAT_VERSION


def test_a_run_with_an_invalid_marker_is_refused(copy: Path, tiny: Tiny, run_main: RunMain) -> None:
    (copy / MARKER).write_text("mine")
    before = tree(copy)
    assert train(run_main, tiny, copy, "--force").code == 73
    assert tree(copy) == before


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["README.md", "labels.json", "data/train.jsonl", "index.html"])
def test_a_copied_marker_does_not_count(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, command: str, name: str, force: bool
) -> None:
    kind = {"train": "run", "compare": "comparison"}[command]
    with claimed(tmp_path / "own", Claim(kind, {})) as (own, _):  # type: ignore[arg-type]
        own.create("some", b"")
    (tmp_path / "folder" / name).parent.mkdir(parents=True)
    (tmp_path / "folder" / name).write_text("mine")
    shutil.copy(tmp_path / "own" / MARKER, tmp_path / "folder")
    before = tree(tmp_path)
    flags = ("--force",) if force else ()
    ended = run_main(command, tiny.train, "-o", tmp_path / "folder", *COMMANDS[command], *flags)
    assert (ended.code, ended.out) == (73, ""), ended.err
    assert f"folder: exists already and contains no {kind} that srucli made, but " in ended.err
    assert tree(tmp_path) == before


def test_a_copied_or_moved_run_is_a_run(copy: Path, tiny: Tiny, run_main: RunMain) -> None:
    inode = json.loads((copy / MARKER).read_text())["inode"]
    assert inode == tiny.run.stat().st_ino != copy.stat().st_ino
    assert train(run_main, tiny, copy, "--force").code == 0
    assert json.loads((copy / MARKER).read_text())["inode"] == copy.stat().st_ino
    moved = copy.rename(copy.with_name("moved"))
    (moved / "run.json").unlink()  # a marker of its own is enough
    assert train(run_main, tiny, moved, "--force").code == 0


@pytest.mark.parametrize("stage", ["finished", "started"])
def test_force_keeps_files_of_users(copy: Path, tiny: Tiny, run_main: RunMain, stage: str) -> None:
    if stage == "started":
        with OpenFolder.at(copy) as folder:
            claim.clear(folder, {key: LAYOUT[key] for key in ("last", "best", "checkpoints")})
    own = ["notes.txt", "checkpoints/mine", "checkpoints/step-3/mine", "tensorboard/mine", "a/b/c"]
    for name in own:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(name)
    assert train(run_main, tiny, copy, "--force").code == 0
    assert [(copy / name).read_text() for name in own] == own
    assert RunDir.open(copy).state("last")["finished"]


def test_a_begun_run_with_files_of_users_needs_force(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    with RunDir.claim(tmp_path / "run"):
        pass
    (tmp_path / "run" / "mine").write_text("x")
    ended = train(run_main, tiny, tmp_path / "run")
    assert ended.code == 73
    assert "run: exists already; choose another -o, or add --force" in ended.err
    assert train(run_main, tiny, tmp_path / "run", "--force").code == 0
    assert (tmp_path / "run" / "mine").read_text() == "x"


def test_only_names_in_the_layout_are_found(copy: Path) -> None:
    strange = [
        *("run_json", "labelsXjson", "metrics.jsonl~", "LAST", "checkpoints/step-01"),
        *("checkpoints/step-1x", "checkpoints/.step-1", "tensorboard/events", ".mine.1.tmp"),
    ]
    for name in strange:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("")
    with OpenFolder.at(copy) as folder:
        found = {
            str((where.path / name).relative_to(copy)) for where, name in contents(folder, LAYOUT)
        }
    assert not found & set(strange)
    assert {"last", "checkpoints/step-135/model.safetensors", "checkpoints"} < found
    assert MARKER not in found


# --- what a command reads -----------------------------------------------------------------------

ROLES = ("train", "dev", "config", "tokenizer", "twin", "link", "recorded")
INPUTS = ("labels.json", "config.yaml", "README.md", "checkpoints/step-135/state.json")


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    "role", ["train", "dev", "config", "tokenizer", "twin", "link", "recorded"]
)
def test_a_command_never_replaces_what_it_reads(
    copy: Path, tiny: Tiny, tmp_path: Path, run_main: RunMain, name: str, role: str
) -> None:
    source = {"config": tmp_path / "c.yaml", "tokenizer": tiny.run / "tokenizer.model"}
    (tmp_path / "c.yaml").write_text("train: {seed: 1}\n")
    own = copy / name
    assert own.is_file()
    shutil.copyfile(source.get(role, tiny.train), own)
    given: dict[str, object] = {"train": tiny.train, "dev": None, "config": None}
    given[{"twin": "train", "link": "train"}.get(role, role)] = own
    if role == "twin":
        os.link(own, tmp_path / "twin")
        given["train"] = tmp_path / "twin"
    if role == "link":
        (tmp_path / "link").symlink_to(own)
        given["train"] = tmp_path / "link"
    if role == "recorded":
        facts = json.loads((copy / "run.json").read_text())
        facts["sources"] = {"train": str(own), "dev": None}
        (copy / "run.json").write_text(json.dumps(facts))
    flags: list[object] = [*FLAGS, "--force", "-o", copy]
    for flag, key in (("--dev", "dev"), ("-c", "config"), ("--tokenizer", "tokenizer")):
        flags += [flag, given[key]] if given.get(key) else []
    before = tree(copy)
    ended = run_main("train", given["train"], *flags)
    assert ended.code == 73, ended.err
    assert f"{own}: may be replaced or removed, but this command reads it" in ended.err
    assert tree(copy) == before


def test_an_input_in_the_run_folder_may_be_read(copy: Path, tiny: Tiny, run_main: RunMain) -> None:
    shutil.copy(tiny.train, copy / "train.tsv")
    ended = run_main("train", copy / "train.tsv", "-o", copy, *FLAGS, "--force")
    assert ended.code == 0, ended.err
    assert (copy / "train.tsv").read_bytes() == tiny.train.read_bytes()


def test_the_output_may_not_be_the_folder_of_the_input(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(tiny.train, tmp_path / "data" / "train.tsv")
    for output in ("data", "."):
        ended = run_main("train", tmp_path / "data" / "train.tsv", "-o", tmp_path / output, *FLAGS)
        assert ended.code == 73
    assert os.listdir(tmp_path) == ["data"]
    assert os.listdir(tmp_path / "data") == ["train.tsv"]


def test_the_output_may_not_be_the_tokenizer(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    tokenizer = Path(shutil.copy(tiny.run / "tokenizer.model", tmp_path))
    command = ("train", tiny.train, "--tokenizer", tokenizer, "-o", tokenizer, *FLAGS, "--force")
    ended = run_main(*command)
    assert ended.code == 73
    assert "tokenizer.model: is not a folder; choose another -o" in ended.err


# --- another training in its place --------------------------------------------------------------


def second_training(tiny: Tiny, run_main: RunMain, output: Path) -> None:
    assert train(run_main, tiny, output, "--seed", 7).code == 0


def lock_again(tiny: Tiny, run_main: RunMain, output: Path) -> None:
    """Write the lock of another training that has just started."""
    with OpenFolder.at(output) as folder:
        folder.create("lock", b"process 1 on x\n")


def emptied(run: Path) -> None:
    for path in run.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


HAPPENINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (shutil.rmtree, "was removed or renamed, or is another folder"),
    "renamed": (
        lambda run: run.rename(run.with_name("moved")),
        "was removed or renamed, or is another folder",
    ),
    "emptied": (
        emptied,
        "has lost its lock, so that another may write there",
    ),
}


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_a_training_whose_folder_is_replaced_ends_and_changes_nothing(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, on_step: OnStep, happening: str
) -> None:
    """Within its second epoch the folder vanishes, and another training makes a new one."""
    run = tmp_path / "run"
    happen, said = HAPPENINGS[happening]
    seen: dict[str, object] = {}

    def step(number: int) -> None:
        if number == 40:
            happen(run)
            second_training(tiny, run_main, run)
            (run / "lock").write_text("process 1 on x\n")
            seen.update(tree(run))

    on_step(step)
    ended = train(run_main, tiny, run, "--epochs", 3)
    assert ended.code == 73
    assert f"run: {said}" in ended.err
    assert "start again in a folder of its own, with -o" in ended.err
    assert seen
    assert tree(run) == seen
    assert train(run_main, tiny, tmp_path / "own", "--epochs", 3).code == 0


def test_a_claim_whose_folder_is_replaced_changes_nothing(tmp_path: Path) -> None:
    before: dict[str, bytes | str] = {}

    def claim_and_lose() -> None:
        with RunDir.claim(tmp_path / "run") as run:
            run.clear()
            shutil.rmtree(tmp_path / "run")
            with RunDir.claim(tmp_path / "run") as other:
                other.clear()
            (tmp_path / "run" / "lock").write_text("process 1 on x\n")
            before.update(tree(tmp_path))
            run.save(1, {"w": torch.zeros(1)}, {}, {"last"})

    with pytest.raises(OutputError, match="is another folder by now"):
        claim_and_lose()
    assert before
    assert tree(tmp_path) == before


# --- locks --------------------------------------------------------------------------------------


def test_a_lock_that_was_replaced_while_it_was_opened_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder removed it when it ended, and another process made a new one."""
    real, seen = locks._try, list[int]()

    def lock(descriptor: int) -> bool:
        if not seen:
            os.unlink(tmp_path / "lock")
            (tmp_path / "lock").write_bytes(b"")
        seen.append(os.fstat(descriptor).st_ino)
        return real(descriptor)

    monkeypatch.setattr(locks, "_try", lock)
    with OpenFolder.at(tmp_path) as folder, locks.locked(folder):
        assert len(seen) == 2
        assert os.stat(tmp_path / "lock").st_ino == seen[1]
        assert locks.is_locked(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_checking_for_a_lock_creates_none(tmp_path: Path) -> None:
    assert not locks.is_locked(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_lock_of_another_process_is_not_removed(tmp_path: Path) -> None:
    with OpenFolder.at(tmp_path) as folder, locks.locked(folder):
        os.unlink(tmp_path / "lock")
        (tmp_path / "lock").write_text("process 1 on x\n")
    assert (tmp_path / "lock").read_text() == "process 1 on x\n"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("process 12 on host.example\n", True),
        ("process 12 on \n", True),
        ("", False),
        ("mine", False),
        ("process 12\n", False),
        ("process 12 on x\nmore\n", False),
        ("process 12 on " + "x" * 500 + "\n", False),
    ],
)
def test_which_lock_files_are_from_srucli(tmp_path: Path, said: str, left: bool) -> None:
    (tmp_path / "lock").write_text(said)
    with OpenFolder.at(tmp_path) as folder:
        assert locks.is_left(folder) is left
        assert is_free(folder) is left


def test_a_lock_names_its_process(tmp_path: Path) -> None:
    with OpenFolder.at(tmp_path) as folder, locks.locked(folder):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
        with (
            pytest.raises(
                OutputError, match=rf"another training writes there \(process {os.getpid()}"
            ),
            OpenFolder.at(tmp_path) as again,
            locks.locked(again),
        ):
            pass
        assert (tmp_path / "lock").exists()


# --- checkpoints --------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    (tmp_path / "checkpoints").mkdir()
    return Checkpoints(tmp_path)


FILES = {"model.safetensors": b"weights", "state.json": b"{}"}


def test_a_checkpoint_is_synced_before_it_is_renamed(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its files, then its folder, then the rename and its parent; then the pointer."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        path = os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)
        calls.append("sync " + re.sub(r"\.[0-9]+-[0-9a-f]+\.tmp", "~", path))
        fsync(descriptor)

    def replaced(source: str, target: str, **folders: int) -> None:
        calls.append(f"name {target}")
        replace(source, target, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    checkpoints.save(3, FILES, {"last"}, 1)
    assert calls == [
        "sync checkpoints/.step-3~/model.safetensors",
        "sync checkpoints/.step-3~/state.json",
        "sync checkpoints/.step-3~/manifest.json",
        "sync checkpoints/.step-3~",
        "name step-3",
        "sync checkpoints",
        "sync .last~",
        "name last",
        "sync .",
    ]


def test_the_last_checkpoint_is_kept_even_if_others_have_more_steps(
    checkpoints: Checkpoints,
) -> None:
    """A damaged one with more steps was skipped when the training resumed."""
    checkpoints.save(14, FILES, {"last", "best"}, 1)
    checkpoints.save(10, FILES, {"last"}, 1)
    assert checkpoints.names() == ["step-14", "step-10"]
    assert checkpoints.pointed("last") == "step-10"
    checkpoints.verify("step-10")


@pytest.mark.parametrize(
    ("keep", "names"),
    [(1, ["step-40"]), (2, ["step-40", "step-9"]), (3, ["step-40", "step-9", "step-3"])],
)
def test_the_newest_checkpoints_are_kept(
    checkpoints: Checkpoints, keep: int, names: list[str]
) -> None:
    for step in (1, 2, 3, 9, 40):
        checkpoints.save(step, FILES, {"last"}, keep)
    assert checkpoints.names() == names  # by their numbers, not as words


def test_the_best_checkpoint_is_kept_too(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3):
        checkpoints.save(step, FILES, {"last", "best"} if step == 1 else {"last"}, 1)
    assert checkpoints.names() == ["step-3", "step-1"]


def test_a_sweep_removes_unfinished_checkpoints_and_nothing_else(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    for name in (".step-7.tmp", ".step-8.12-ab.tmp", "step-01", "good", ".mine.tmp"):
        (folder / name).mkdir()
        (folder / name / "state.json").write_text("")
    checkpoints.save(9, FILES, {"last"}, 1)
    assert sorted(os.listdir(folder)) == [".mine.tmp", "good", "step-01", "step-9"]


def test_a_file_in_the_place_of_a_checkpoint_is_reported(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints" / "step-3").mkdir()
    (tmp_path / "checkpoints" / "step-3" / "mine").write_text("")
    with pytest.raises(OutputError, match=r"step-3: .*not empty\); move away what is in its place"):
        checkpoints.save(3, FILES, {"last"}, 1)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-3"]
    (tmp_path / "checkpoints" / "step-3").rename(tmp_path / "away")
    checkpoints.save(3, FILES, {"last"}, 1)


def test_a_checkpoint_that_is_written_again_replaces_the_old_one(checkpoints: Checkpoints) -> None:
    checkpoints.save(3, FILES, {"last"}, 1)
    checkpoints.save(3, {"model.safetensors": b"other"}, {"last"}, 1)
    assert checkpoints.read("step-3", "model.safetensors") == b"other"
    checkpoints.verify("step-3")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"bytes": 7}, "damaged"),
        ({"bytes": 8, "sha256": "right"}, "damaged"),
        ({"bytes": 6, "sha256": "right"}, "larger than the 6 bytes"),
        ({"bytes": 7, "sha256": "0" * 64}, "damaged"),
        ({"bytes": "7", "sha256": "right"}, "damaged"),
        ({"bytes": 7, "sha256": "right", "more": 1}, "damaged"),
        (None, "damaged"),
    ],
)
def test_a_file_must_match_its_manifest(
    checkpoints: Checkpoints, tmp_path: Path, entry: dict[str, Any] | None, said: str
) -> None:
    checkpoints.save(1, FILES, {"last"}, 1)
    path = tmp_path / "checkpoints" / "step-1" / "manifest.json"
    manifest = json.loads(path.read_text())
    right = manifest["files"]["model.safetensors"]
    assert right["bytes"] == 7
    if entry is None:
        del manifest["files"]["model.safetensors"]
    else:
        entry = entry | ({"sha256": right["sha256"]} if entry.get("sha256") == "right" else {})
        manifest["files"]["model.safetensors"] = entry
    path.write_text(json.dumps(manifest))
    with pytest.raises(SrucliError, match=said):
        checkpoints.read("step-1", "model.safetensors")


@pytest.mark.parametrize(("most", "fits"), [(7, True), (6, False), (8, True), (0, False)])
def test_a_file_larger_than_the_limit_is_refused(
    checkpoints: Checkpoints, most: int, fits: bool
) -> None:
    checkpoints.save(1, FILES, {"last"}, 1)
    if fits:
        assert checkpoints.read("step-1", "model.safetensors", most) == b"weights"
    else:
        with pytest.raises(SrucliError, match=f"larger than the {most} bytes"):
            checkpoints.read("step-1", "model.safetensors", most)


def test_pointers_are_written_one_by_one_best_first(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """After a kill in between, training resumes from the old `last`."""
    checkpoints.save(1, FILES, {"last", "best"}, 1)
    (tmp_path / "last").unlink()
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "x").write_text("")
    with pytest.raises(OutputError, match="last: cannot be written"):
        checkpoints.point("step-2", {"last", "best"})
    assert (tmp_path / "best").read_text() == "step-2\n"


def test_temporary_files_of_srucli_are_removed_and_others_stay(tmp_path: Path) -> None:
    with RunDir.claim(tmp_path / "run"):
        pass
    own = [".run.json.1.tmp", ".last.77-0123abcd.tmp", f".{MARKER}.1-a.tmp", ".metrics.jsonl.5.tmp"]
    others = [".run.json.tmp", ".mine.json.1.tmp", "run.json.1.tmp", ".run.json.x.tmp", ".a.tmp"]
    for name in (*own, *others):
        (tmp_path / "run" / name).write_text("")
    with RunDir.claim(tmp_path / "run"):
        assert sorted(os.listdir(tmp_path / "run")) == sorted([*others, MARKER, "lock"])


def test_no_marker_stays_if_the_lock_cannot_be_taken(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "lock").write_text("process 1 on there\n")
    os.link(tmp_path / "lock", own / "lock")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="hard links"), claimed(own, Claim("run", LAYOUT)):
        pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize("wrote", [False, True], ids=["empty", "written"])
def test_a_marker_stays_if_something_was_written(tmp_path: Path, wrote: bool) -> None:
    with (
        suppress(KeyboardInterrupt),
        claimed(tmp_path / "run", Claim("run", LAYOUT)) as (folder, _),
    ):
        if wrote:
            folder.write({"metrics.jsonl": b""})
        raise KeyboardInterrupt
    assert (tmp_path / "run" / MARKER).exists() == wrote


def test_a_run_with_a_damaged_marker(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    """`choose another -o` would be no help to commands without that flag."""
    run = tmp_path / "run"
    shutil.copytree(tiny.run, run)
    (run / "srucli.json").write_text("")
    ended = run_main("slim", run)
    assert (ended.code, ended.err) == (73, f"srucli: {run}/srucli.json: is damaged; move it away\n")
    (run / "srucli.json").rename(tmp_path / "aside")
    assert run_main("slim", run).code == 0
