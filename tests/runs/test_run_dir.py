"""Run folders are written completely or not at all; damaged ones are reported."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from srucli.config import Config
from srucli.errors import DataError, InputMissingError, OutputError
from srucli.inference.predictor import Predictor
from srucli.io.files import write_atomic
from srucli.runs.facts import FORMAT_VERSION
from srucli.runs.run_dir import Checkpoint, RunDir, check_labels, read_records
from tests.support import RunMain, Tiny

WEIGHTS = {"w": torch.arange(6.0).view(2, 3).T}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- writing -----------------------------------------------------------------------------------


def test_an_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomic({file: b"old"})
    write_atomic({file: b"new"})
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == ["a.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_atomic({file: b"old"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"a\.json: cannot be written \(No space left on device"):
        write_atomic({file: b"new"})
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_an_interrupted_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic({tmp_path / "a.json": b"new"})
    assert names(tmp_path) == []


def test_writing_to_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("none", "file"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomic({tmp_path / folder / "x": b""})


# --- the folder --------------------------------------------------------------------------------


def test_a_folder_with_files_of_users_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunDir.check_free(run)
    run.mkdir()
    RunDir.check_free(run)
    (run / "mine").write_text("")
    (run / "run.json").write_text("{}")
    for force in (False, True):
        with pytest.raises(OutputError, match="no run that srucli made, but mine; choose another"):
            RunDir.check_free(run, force=force)
    assert names(run) == ["mine", "run.json"]


def test_a_run_is_replaced_only_with_force(tiny: Tiny, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    with pytest.raises(OutputError, match="run: exists already; choose another -o, or add --force"):
        RunDir.check_free(run)
    RunDir.check_free(run, force=True)
    (run / "srucli.json").unlink()  # the first versions wrote none
    RunDir.check_free(run, force=True)


def test_clear_removes_the_files_of_a_run_and_nothing_else(tiny: Tiny, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("")
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    (run / "link").symlink_to(outside)
    (run / "notes").mkdir()
    (run / "checkpoints" / "step-1").mkdir()
    (run / "checkpoints" / "step-1" / "mine").write_text("")
    (run / "checkpoints" / "good").mkdir()
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1.host.2").write_text("")
    alias = tmp_path / "alias"  # the path of the folder itself may contain links
    alias.symlink_to(run)
    with RunDir.claim(alias) as claimed:
        claimed.clear()
        assert names(run) == ["checkpoints", "link", "lock", "notes", "srucli.json"]
        assert names(run / "checkpoints") == ["good", "step-1"]
        assert names(run / "checkpoints" / "step-1") == ["mine"]
    assert names(outside) == ["mine"]


@pytest.mark.parametrize("path", ["file", "file/run", "file/a/run", "broken"])
def test_a_path_that_cannot_be_a_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    with pytest.raises(OutputError, match="is not a folder; choose another -o"):
        RunDir.check_free(tmp_path / path)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="no permission to write there"):
        RunDir.check_free(tmp_path / "a" / "b")


def test_a_folder_that_cannot_be_made() -> None:
    if not os.access("/proc", os.W_OK):
        pytest.skip("/proc looks unwritable, so this user never gets as far as making a folder")
    with (
        pytest.raises(OutputError, match=r"/proc/run: cannot be made"),
        RunDir.claim(Path("/proc/run")),
    ):
        pass


def test_a_failure_before_the_first_checkpoint_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with RunDir.claim(tmp_path / "a" / "b" / "run") as run:
            run.clear()
            run.write("config.yaml", b"")
            raise ZeroDivisionError

    (tmp_path / "a").mkdir()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path / "a") == []
    (tmp_path / "a" / "b" / "run").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path / "a" / "b" / "run") == []


def test_a_failure_after_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    def fail() -> None:
        with RunDir.claim(tmp_path / "run") as run:
            run.clear()
            run.save(3, WEIGHTS, {}, {"last"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    run = RunDir(tmp_path / "run")
    assert torch.equal(run.checkpoint("last").weights["w"], WEIGHTS["w"])


# --- checkpoints -------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "checkpoints").mkdir()
    return RunDir(tmp_path)


def test_checkpoints_without_a_pointer_are_removed(run: RunDir) -> None:
    kept = run.path / "checkpoints"
    run.save(1, WEIGHTS, {"epoch": 1}, {"last", "best"})
    assert names(kept) == ["step-1"]
    run.save(2, {"w": torch.ones(1)}, {"epoch": 2}, {"last"})
    assert names(kept) == ["step-1", "step-2"]
    run.save(3, {"w": torch.ones(1)}, {"epoch": 3}, {"last"})
    assert names(kept) == ["step-1", "step-3"]
    assert run.checkpoint("best").state == {"step": 1, "epoch": 1}
    assert torch.equal(run.checkpoint("best").weights["w"], WEIGHTS["w"])
    assert run.checkpoint("last").state == {"step": 3, "epoch": 3}
    run.save(4, WEIGHTS, {}, {"best", "last"})
    assert names(kept) == ["step-4"]
    assert (run.path / "last").read_bytes() == b"step-4\n"


def test_a_failed_save_keeps_the_previous_checkpoint(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(1, WEIGHTS, {"epoch": 1}, {"last"})
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:  # the weights and their folder are written; now comes state.json
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run.save(2, WEIGHTS, {"epoch": 2}, {"last"})
    assert names(run.path / "checkpoints") == ["step-1"]
    assert run.checkpoint("last").state["epoch"] == 1


@pytest.mark.parametrize("pointer", [b"", b"step-", b"../x", b"step-1/..", b"\xff\xfe", b"step--1"])
def test_a_damaged_pointer(run: RunDir, pointer: bytes) -> None:
    (run.path / "last").write_bytes(pointer)
    with pytest.raises(DataError, match=r"last: .* names no checkpoint; copy the run again"):
        run.checkpoint("last")


def test_damaged_checkpoints(run: RunDir) -> None:
    run.save(1, WEIGHTS, {}, {"last"})
    reader = RunDir(run.path)
    folder = run.path / "checkpoints" / "step-1"
    whole = (folder / "model.safetensors").read_bytes()
    unlike = "damaged: not what manifest.json says"
    weights = {
        whole[:-1]: unlike,
        whole[:4]: unlike,
        b"": unlike,
        b"\xff" * 99: "larger than the 96 bytes",
    }
    for damaged, said in weights.items():
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match=rf"model\.safetensors: {said}.*; copy the run again"):
            reader.checkpoint("last")
    (folder / "model.safetensors").write_bytes(whole)
    states = {
        b"": unlike,
        b'{"a":': unlike,
        b"\xff": unlike,
        b"[1]": unlike,
        b"[" * 10_000: "larger than the 16 bytes",
    }
    for damaged, said in states.items():
        (folder / "state.json").write_bytes(damaged)
        with pytest.raises(DataError, match=rf"state\.json: {said}.*; copy the run again"):
            reader.checkpoint("last")
    (folder / "state.json").unlink()
    with pytest.raises(InputMissingError, match=r"state\.json: cannot be read \(No such file"):
        reader.checkpoint("last")


MANIFESTS = {
    "empty": (b"", r"manifest\.json: not valid JSON"),
    "a list": (b"[]", r"manifest\.json: no list of a checkpoint's files"),
    "no files": (b"{}", r"manifest\.json: no list of a checkpoint's files"),
    "a list of files": (b'{"files": []}', r"manifest\.json: no list of a checkpoint's files"),
    "outside": (b'{"files": {"../../x": {}}}', r"manifest\.json: no list of a checkpoint's files"),
    "none of the files": (b'{"files": {}}', r"model\.safetensors: damaged: not what manifest"),
}


@pytest.mark.parametrize(("manifest", "said"), MANIFESTS.values(), ids=MANIFESTS)
def test_damaged_manifests(run: RunDir, manifest: bytes, said: str) -> None:
    run.save(1, WEIGHTS, {}, {"last"})
    (run.path / "checkpoints" / "step-1" / "manifest.json").write_bytes(manifest)
    with pytest.raises(DataError, match=said):
        run.checkpoint("last")


def test_thresholds_are_one_number_per_class() -> None:
    assert Checkpoint({}, {}).thresholds(2, "run") is None
    found = Checkpoint({}, {"thresholds": [0.25, 1]}).thresholds(2, "run")
    assert found is not None
    assert found.tolist() == [0.25, 1.0]
    for damaged in ([0.5], [0.5, "x"], "ab", {"a": 1, "b": 2}, [0.5, 10**400], [0.5, math.nan]):
        with pytest.raises(DataError, match=r"thresholds in state\.json are not 2 numbers"):
            Checkpoint({}, {"thresholds": damaged}).thresholds(2, "run")


def test_records_are_one_json_line_each(run: RunDir) -> None:
    run.add("metrics.jsonl", {"epoch": 1, "dev": {"accuracy": None}})
    run.add("metrics.jsonl", {"epoch": 2, "name": "긍정"})
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    (run.path / "metrics.jsonl").unlink()
    (run.path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written"):
        run.add("metrics.jsonl", {})


# --- a trained run -----------------------------------------------------------------------------


def test_the_files_of_a_trained_run(tiny: Tiny) -> None:
    assert names(tiny.run) == [
        "README.md",
        "best",
        "checkpoints",
        "config.yaml",
        "labels.json",
        "last",
        "metrics.jsonl",
        "ngrams.safetensors",
        "run.json",
        "srucli.json",
        "tokenizer.model",
    ]
    run = RunDir.open(tiny.run)
    assert run.labels() == list(tiny.labels)
    assert run.config().model.hidden == 16
    assert run.facts().data.texts + run.facts().data.dev_texts == tiny.texts
    assert set(names(tiny.run / "checkpoints")) == {
        (tiny.run / which).read_text().strip() for which in ("best", "last")
    }
    for folder in (tiny.run / "checkpoints").iterdir():
        assert names(folder) == [
            "manifest.json",
            "model.safetensors",
            "state.json",
            "training.json",
            "training.safetensors",
        ]


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.run, tmp_path / "copy"))


NEWER = f"format version {{}}, this srucli reads up to {FORMAT_VERSION}; upgrade srucli"
VERSIONS = {
    2: "format version 2, from before the first release, is no longer read; train again",
    FORMAT_VERSION + 1: NEWER.format(FORMAT_VERSION + 1),
    99: NEWER.format(99),
} | dict.fromkeys(
    ("1", None, 1.5, 0, -1, True), "format_version is not as srucli writes it; copy the run again"
)


@pytest.mark.parametrize(("version", "said"), VERSIONS.items())
def test_other_format_versions_are_refused(copy: Path, version: object, said: str) -> None:
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(facts | {"format_version": version}))
    with pytest.raises(DataError, match=rf"run\.json: {said}$"):
        RunDir.open(copy)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("run.json", "format_version is not as srucli writes it"),
        ("labels.json", "not a list of labels"),
    ],
)
@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff", b"3"])
def test_damaged_json(copy: Path, name: str, whole: str, damaged: bytes) -> None:
    (copy / name).write_bytes(damaged)
    said = whole if damaged == b"3" else "not valid JSON"
    with pytest.raises(DataError, match=rf"{name}: {said}; copy the run again$"):
        RunDir.open(copy).labels()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ('["a", "b", "a"]', r"labels\.json: the label 'a' twice; copy"),
        ('["a", "b", 3]', r"labels\.json: not a list of labels; copy"),
        ('["a", "b", NaN]', r"labels\.json: not a list of labels; copy"),
        ('["a", "b", "\\ud800"]', r"labels\.json: not a list of labels; copy"),
        ('{"a": 0}', r"labels\.json: not a list of labels; copy"),
        ("[]", r"labels\.json: no labels; copy"),
    ],
)
def test_damaged_labels(copy: Path, labels: str, said: str) -> None:
    (copy / "labels.json").write_text(labels)
    with pytest.raises(DataError, match=said):
        RunDir.open(copy).labels()


def test_labels_that_no_run_could_read_again_are_refused() -> None:
    """A training with 17 labels of 1 MB each wrote a run that no command could read."""
    check_labels(["a" * 2**20, "b"], "x.tsv")
    with pytest.raises(DataError, match=r"x\.tsv: labels of 17,825,897 bytes in all, and a run"):
        check_labels([chr(97 + number) * 2**20 for number in range(17)], "x.tsv")
    with pytest.raises(DataError, match=r"x\.tsv: 262,145 labels, and a model has at most 262,144"):
        check_labels([str(number) for number in range(2**18 + 1)], "x.tsv")


@pytest.mark.parametrize(
    "changes",
    [{"step": "1"}, {"epoch": [1]}, {"dev": 3}, {"dev": {"accuracy": "1"}}, {"dev": {"a": [1]}}],
)
def test_records_with_wrong_types_count_as_damaged(
    copy: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything that reads metrics.jsonl formats these values, such as the model card."""
    file = copy / "metrics.jsonl"
    whole = read_records(file)
    file.write_text(json.dumps(whole[0] | changes) + "\n" + json.dumps(whole[1]) + "\n")
    assert read_records(file) == whole[1:2]
    assert "metrics.jsonl: skipped 1 damaged line" in capsys.readouterr().err


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_weights_that_are_not_finite_or_too_large(
    copy: Path, value: float, run_main: RunMain
) -> None:
    """They would print NaN as probabilities, which is no JSON."""
    run = RunDir.open(copy)
    name = run.checkpoints.pointed("last")
    weights, state = run.checkpoint(name).weights, run.state(name)
    weights["embedding.weight"] = torch.full_like(weights["embedding.weight"], value)
    del state["step"]
    run.save(999, weights, state, {"last"})
    for arguments in (["predict", copy, "-", "--json"], ["predict", copy, "-", "-k", 2]):
        done = run_main(*arguments, input="a lovely film\n")
        assert done.out == ""
        if math.isfinite(value):
            assert done.code == 1
            assert "the probabilities of 1 of 1 examples are NaN or Inf; " in done.err
        else:
            assert done.code == 65
            assert "damaged: a weight in 'embedding.weight' is NaN or Inf; copy" in done.err


def test_json_of_labels_with_controls(copy: Path, run_main: RunMain) -> None:
    labels = ["\x9b2J긍정", "a\u202eb", "c\u2028\x7f"]
    (copy / "labels.json").write_text(json.dumps(labels))
    (copy / "test.tsv").write_text("긍정\ta lovely film\n")
    file = copy / "out.jsonl"
    predicted = run_main("predict", copy, "-", "--json", "-k", 3, input="a lovely film\n")
    words = ("eval", copy, copy / "test.tsv", "--json", "--predictions", file)
    evaluated, described = run_main(*words), run_main("info", copy, "--json")
    found = [json.loads(each.out) for each in (predicted, evaluated, described)]
    assert sorted(found[0]["probabilities"]) == sorted(labels)
    assert found[1]["confusion"]["labels"] == [*labels, "긍정"]
    written = "".join([predicted.out, evaluated.out, described.out, file.read_text()])
    assert "긍정" in written
    assert all(c.isprintable() or c == "\n" for c in written)


def test_folders_that_are_not_complete_runs(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no such run; give the folder"):
        RunDir.open(tmp_path / "none")
    with pytest.raises(InputMissingError, match=r"not a run folder: it has no run\.json"):
        RunDir.open(tmp_path)
    (copy / "last").unlink()
    with pytest.raises(InputMissingError, match="has saved no weights yet"):
        RunDir.open(copy)


def test_files_of_different_runs_do_not_fit(copy: Path) -> None:
    (copy / "labels.json").write_text('["a", "b", "c", "d"]')
    with pytest.raises(DataError, match=r"weights do not fit config\.yaml .*; copy the run again"):
        Predictor.load(copy)


def test_a_run_whose_tokenizer_is_none(copy: Path) -> None:
    (copy / "tokenizer.model").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"tokenizer\.model: "):
        Predictor.load(copy)


def test_a_run_directory_writes_what_it_reads(tiny: Tiny, tmp_path: Path) -> None:
    source = RunDir.open(tiny.run)
    with RunDir.claim(tmp_path / "run") as run:
        run.clear()
        facts = source.facts().model_dump()
        run.begin(Config(), source.tokenizer(), ["a", "b"], facts | {"parameters": 3})
        assert run.config() == Config()
        assert run.labels() == ["a", "b"]
        assert run.tokenizer().model_bytes == source.tokenizer().model_bytes
        assert run.facts().parameters == 3
        run.save(1, WEIGHTS, {}, {"last"})


def test_records_of_a_run_that_was_killed(tmp_path: Path) -> None:
    lines = ['{"step": 1}', '{"step": 2, "dev": {"accuracy": 0.5}}', "[1]", '{"step": 3']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_records(tmp_path / "metrics.jsonl") == [json.loads(line) for line in lines[:2]]
    assert read_records(tmp_path / "absent") == []


def test_records_of_too_many_lines_are_refused(tmp_path: Path) -> None:
    """Few bytes may be many lines, which take minutes to parse."""
    file = tmp_path / "diagnostics.jsonl"
    file.write_bytes(b"\n" * (2**20 + 1))
    with pytest.raises(DataError, match=r"diagnostics\.jsonl: more than 1,048,576 lines; copy"):
        read_records(file)


def test_damaged_lines_are_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"a": 1}\n{"a": 2\n[3]\n{"a": 4}\n{"cut')
    assert [read_records(file) for _ in range(2)] == [[{"a": 1}, {"a": 4}]] * 2
    assert capsys.readouterr().err == f"{file}: skipped 2 damaged lines\n"


def test_a_file_that_is_larger_than_in_its_manifest_is_not_read(run: RunDir) -> None:
    run.save(1, WEIGHTS, {}, {"last"})
    path = run.path / "checkpoints" / "step-1" / "model.safetensors"
    os.truncate(path, 2**32)  # sparse: takes no space on the disk
    with pytest.raises(
        DataError, match=r"model\.safetensors: larger than the 96 bytes that it can need; copy"
    ):
        run.checkpoint("last")
