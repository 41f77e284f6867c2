"""Malicious run folders and YAML are refused quickly, in one sentence, and do no harm."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load as tensors_of
from safetensors.torch import save_file

from srucli.config import resolve
from srucli.diagnostics.records import Diagnostics
from srucli.errors import DataError, SrucliError, UsageError
from srucli.inference.predictor import Predictor
from srucli.io.yaml import parse_value, parse_yaml
from srucli.runs.run_dir import RunDir
from tests.robustness.mutate import repair_manifests
from tests.support import QUICK, OnStep, RunMain, Tiny, tree

MAX_MEMORY = 2**28
FLAGS = ("--epochs", 1, *QUICK)


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.run, tmp_path / "copy"))


def peak_memory() -> int:
    """Return the largest number of bytes in memory since /proc/self/clear_refs was written."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return 1024 * int(line.split()[1])


@contextmanager
def bounded() -> Iterator[None]:
    """Limit the memory that a block may use; pytest's timeout limits its time."""
    Path("/proc/self/clear_refs").write_text("5")
    memory = peak_memory()
    yield
    assert peak_memory() - memory < MAX_MEMORY


@contextmanager
def refused(message: str, error: type[SrucliError] = DataError) -> Iterator[None]:
    """Require that a block raises an error with this message, in one line."""
    with bounded(), pytest.raises(error, match=message) as caught:
        yield
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def load(run: Path) -> None:
    Predictor.load(run, "cpu")


def weights_of(run: Path) -> Path:
    return run / "checkpoints" / (run / "last").read_text().strip() / "model.safetensors"


def safetensors(
    header: dict[str, Any] | bytes, data: bytes = b"", size: int | None = None
) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if size is None else size).to_bytes(8, "little") + encoded + data


# ---------------------------------------------------------------- weights


class Touch:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.open, (str(self.path), os.O_CREAT)


def test_pickle_instead_of_weights(copy: Path, tmp_path: Path) -> None:
    created, content = tmp_path / "created", pickle.dumps(Touch(tmp_path / "created"))
    pickle.loads(content)
    assert created.exists()
    created.unlink()
    weights_of(copy).write_bytes(content)
    repair_manifests(copy)
    with refused(r"model\.safetensors: damaged.*; copy the run again"):
        load(copy)
    assert not created.exists()


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b"{}", size=2**60),
        safetensors(b"{}", size=2**63 + 1),
        safetensors({"a": FLOATS, "b": FLOATS}, bytes(8)),
        safetensors({"a": FLOATS | {"shape": [2**62, 4]}}, bytes(8)),
        safetensors({"a": FLOATS | {"data_offsets": [0, 2**40]}}, bytes(8)),
        safetensors({"a": FLOATS | {"dtype": "\x1b[31mF32"}}, bytes(8)),
        safetensors(b'{"a":' + b"[" * 10_000),
        safetensors(
            {f"{n}": FLOATS | {"shape": [0], "data_offsets": [0, 0]} for n in range(10**5)}
        ),
    ],
    ids=["size", "size+", "overlap", "overflow", "outside", "escape", "deep", "many"],
)
def test_wrong_headers(copy: Path, content: bytes) -> None:
    weights_of(copy).write_bytes(content)
    repair_manifests(copy)
    with refused(r"model\.safetensors: (damaged|larger).*; copy the run again"):
        RunDir(copy).checkpoint("last")


def test_tensors_that_do_not_fit_config_yaml(copy: Path) -> None:
    path = weights_of(copy)
    whole = tensors_of(path.read_bytes())  # a mapped file must not be overwritten
    name = "embedding.weight"
    rest = {key: value for key, value in whole.items() if key != name}
    for changed in (
        rest,
        {**whole, "\x1b[31m": whole[name].clone()},
        {**whole, name: whole[name].double()},
        {**whole, name: whole[name].half()},
        {**whole, name: whole[name].T.contiguous()},
        {**whole, name: whole[name][:-1].clone()},
        {**whole, name: whole[name].flatten().clone()},
    ):
        save_file(changed, path)
        repair_manifests(copy)
        with refused(r"copy: the weights do not fit config\.yaml.*|.*larger.*; copy the run again"):
            load(copy)


@pytest.mark.parametrize("encoder", ["sru", "lstm", "gru", "cnn", "bag"])
def test_network_of_terabytes(copy: Path, encoder: str) -> None:
    rows, width = 2**28, 2**16
    largest = {
        "encoder": encoder,
        "embedding_size": width,
        "hidden": width,
        "layers": 256,
        "head": "mlp",
        "head_hidden": width,
        "kernel_sizes": list(range(1, 65)),
        "bag_buckets": rows,
    }
    (copy / "config.yaml").write_text(json.dumps({"model": largest}))
    with refused(r"copy: the weights do not fit config\.yaml .*; copy the run again"):
        load(copy)
    (copy / "config.yaml").write_text(json.dumps({"model": largest | {"hidden": 2**17}}))
    with refused(
        r"config\.yaml: model\.hidden: 131072 is too large; the largest is 65,536", UsageError
    ):
        load(copy)


# ---------------------------------------------------------------- what is not a regular file


NAMES = ("run.json", "config.yaml", "labels.json", "tokenizer.model", "last", "ngrams.safetensors")


@pytest.mark.parametrize("name", [*NAMES, "weights"])
def test_links_are_not_followed(copy: Path, name: str) -> None:
    path = weights_of(copy) if name == "weights" else copy / name
    inside = copy / "moved"
    path.rename(inside)
    for target in (inside, "moved", Path("/etc/passwd"), shutil.copy(inside, copy.parent / "out")):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        with refused(rf"{path.name}: is a link, or in one; copy the folder with `cp -rL`"):
            load(copy)
    subprocess.run(["cp", "-rL", copy, copy.parent / "whole"], check=True)
    load(copy.parent / "whole")


def test_linked_folder_of_checkpoints(copy: Path) -> None:
    (copy / "checkpoints").rename(copy.parent / "elsewhere")
    (copy / "checkpoints").symlink_to("../elsewhere")
    with refused(r"manifest\.json: is a link, or in one; copy the folder with `cp -rL`"):
        load(copy)


@pytest.mark.parametrize("name", [*NAMES, "weights"])
def test_pipes_and_folders_instead_of_files(copy: Path, name: str) -> None:
    path = weights_of(copy) if name == "weights" else copy / name
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        with refused(
            r"(is not a regular file; copy the run|has no run\.json|no weights)", SrucliError
        ):
            load(copy)
        shutil.rmtree(path) if path.is_dir() else None
        path.touch()


@pytest.mark.parametrize("name", ["metrics.jsonl", "diagnostics.jsonl"])
def test_records_that_are_no_plain_files_or_too_large(
    copy: Path, tmp_path: Path, name: str
) -> None:
    (copy / "diagnostics.jsonl").write_text('{"optimizer": {}}\n{}\n')
    for make, message in (
        (os.mkfifo, "is not a regular file; copy"),
        (os.mkdir, "is not a regular file; copy"),
        (lambda path: path.symlink_to("/etc/passwd"), "is a link, or in one; copy"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**40), "larger than"),
        (lambda path: path.write_bytes(b"[{}," * 2**21), "more than .* lists and objects; copy"),
    ):
        path = copy / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        make(path)
        with refused(rf"{name}: {message}"):
            Diagnostics.read(copy)


def test_paths_outside_the_run(copy: Path) -> None:
    target = weights_of(copy).parent
    for name in ("../checkpoints/x", "step-1/../../..", "/etc", "step-1\0"):
        (copy / "last").write_text(name)
        with refused(r"last: .* names no checkpoint; copy the run again"):
            load(copy)
    (copy / "last").write_text(target.name)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["files"]["../../../outside"] = {"bytes": 1, "sha256": "0"}
    (target / "manifest.json").write_text(json.dumps(manifest))
    with refused(r"manifest\.json: no list of a checkpoint's files; copy the run again"):
        load(copy)


# ---------------------------------------------------------------- JSON and YAML


@pytest.mark.parametrize(
    "labels",
    [
        b'["good", "\\ud83d", "none"]',
        b"[" * 100_000,
        b"[" + b"[]," * 10**6 + b"1]",
        b'["' + b"a" * 2**25 + b'"]',
        b'{"good": 0}',
        b"[1e999, 2, 3]",
    ],
    ids=["surrogate", "deep", "nested", "huge", "object", "numbers"],
)
def test_invalid_labels(copy: Path, labels: bytes) -> None:
    (copy / "labels.json").write_bytes(labels)
    with refused(r"labels\.json: (not |more than |larger than ).*; copy the run again"):
        load(copy)


BOMB = "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9) if before else 'x'}]\n"
    for before, name in zip([None, *"abcdefghijkl"], "abcdefghijklm", strict=True)
)


MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{number + 1}: &a{number + 1} {{<<: [*a{number}, *a{number}]}}\n" for number in range(40)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "aliases make more than 10,000 values of it; use fewer of them"),
        ("a: &a [*a]", "aliases make more than"),
        (MERGES, "aliases make more than"),
        ("[" * 50_000, "not valid YAML: lists or sections within too many others; nest fewer"),
        ("{a: " * 50_000, "not valid YAML: lists or sections within too many others; nest fewer"),
        ("- " * 50_000, "not valid YAML: lists or sections within too many others; nest fewer"),
        ("[" + "x," * 120_000 + "]", "1: not valid YAML: more than 10,000 values"),
        ("model:\n" + "# \n" * 2**20, "more than 262,144 bytes; settings need"),
        ("model: {layers: 0x" + "f" * 10_000 + "}", "not valid YAML: a number of more than 300"),
        ("model: {layers: 1" + ":59" * 50_000 + "}", "not valid YAML: a number of more than 300"),
        ("optim: {lr: 1" + ":59" * 90 + ".5e400}", "optim.lr: "),
        ("model: {layers: !!timestamp x}", "not valid YAML"),
        ("model: !!python/object/apply:os.system ['touch made']", "could not determine a constr"),
        ("model: !!python/object/new:os.system ['touch made']", "could not determine a constr"),
        ("model: !!python/name:os.system", "could not determine a constructor"),
        ("model: !!python/module:antigravity", "could not determine a constructor"),
    ],
)
def test_malicious_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(content, encoding="utf-8")
    with refused(rf"x\.yaml:.*{message}", UsageError):
        resolve(path)
    assert os.listdir(tmp_path) == ["x.yaml"]


@pytest.mark.parametrize("value", [BOMB, MERGES, "[" * 50_000], ids=["aliases", "merges", "deep"])
def test_malicious_values_of_settings(value: str) -> None:
    """A value on the command line is YAML too: 400 bytes of it took 9^12 values."""
    with bounded(), pytest.raises(ValueError, match="is not a YAML value"):
        parse_value(value)


def test_largest_allowed_yaml() -> None:
    with bounded():
        assert len(parse_yaml(b"[" + b"x," * 9_000 + b"]", "x")) == 9_000


def test_commands_refuse_malicious_runs(copy: Path, run_main: RunMain) -> None:
    """An exit code and one line, without a traceback."""
    (copy / "labels.json").unlink()
    os.mkfifo(copy / "labels.json")
    for command in ("info", "predict"):
        ended = run_main(command, copy)
        assert (ended.code, ended.out) == (65, "")
        assert ended.err.endswith("labels.json: is not a regular file; copy the run again\n")


# ---------------------------------------------------------------- links in output folders

WRITTEN = ("lock", "metrics.jsonl", "diagnostics.jsonl", "README.md", "best", "last", "run.json")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "step-1").mkdir(parents=True)
    (place / "file").write_text("foreign\n")
    (place / "events.out.tfevents.1").write_text("foreign\n")
    return place


@pytest.mark.parametrize("how", ["resume", "force", "train"])
@pytest.mark.parametrize("kind", ["link", "dangling", "hard link"])
@pytest.mark.parametrize("name", WRITTEN)
def test_training_does_not_write_through_links(
    copy: Path, tiny: Tiny, outside: Path, run_main: RunMain, name: str, kind: str, how: str
) -> None:
    before = tree(outside)
    (copy / name).unlink(missing_ok=True)
    if kind == "hard link":
        os.link(outside / "file", copy / name)
    else:
        (copy / name).symlink_to(outside / ("file" if kind == "link" else "absent"))
    arguments = {
        "resume": ("train", "--resume", copy, "--epochs", 6),
        "force": ("train", tiny.train, "-o", copy, *FLAGS, "--force"),
        "train": ("train", tiny.train, "-o", copy, "--epochs", 6, "--lr", 0.01, *QUICK),
    }[how]
    ended = run_main(*arguments)
    assert tree(outside) == before
    if kind != "hard link" and ended.code != 0:
        assert ended.code in (65, 66, 73)
        assert re.search(r"is a link|\(a link\)|no run|exists already", ended.err), ended.err


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
@pytest.mark.parametrize("how", ["resume", "force"])
def test_training_does_not_write_into_linked_folders(
    copy: Path, tiny: Tiny, outside: Path, run_main: RunMain, name: str, how: str
) -> None:
    if (copy / name).exists():
        for path in (copy / name).iterdir():
            path.rename(outside / path.name)
        (copy / name).rmdir()
    (copy / name).symlink_to(outside)
    before = tree(outside)
    arguments = {
        "resume": ("train", "--resume", copy, "--epochs", 6),
        "force": ("train", tiny.train, "-o", copy, *FLAGS, "--force"),
    }[how]
    ended = run_main(*arguments, *(["train.tensorboard=true"] if name == "tensorboard" else []))
    assert ended.code in (2, 65, 73)
    assert tree(outside) == before


def test_links_in_the_way_are_named_and_the_advice_works(
    copy: Path, outside: Path, run_main: RunMain
) -> None:
    (copy / "metrics.jsonl").rename(outside / "metrics.jsonl")
    (copy / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    (copy / "lock").symlink_to(outside / "file")
    (copy / "README.md").unlink()
    (copy / "README.md").mkdir()
    ended = run_main("train", "--resume", copy, "--epochs", 6)
    assert ended.code == 73
    message = (
        "copy: in the way: README.md (not a regular file), lock (a link), metrics.jsonl (a link); "
        "copy the folder with `cp -rL`, and use the copy"
    )
    assert message in ended.err
    (copy / "lock").unlink()
    whole = copy.with_name("whole")
    assert os.system(f"cp -rL '{copy}' '{whole}'") == 0
    ended = run_main("train", "--resume", whole, "--epochs", 6)
    assert ended.err.endswith("in the way: README.md (not a regular file); move it away\n")
    (whole / "README.md").rmdir()
    assert run_main("train", "--resume", whole, "--epochs", 6).code == 0


def test_hard_linked_logs_are_refused_before_training(
    copy: Path, run_main: RunMain, on_step: OnStep
) -> None:
    """`cp -al` makes such copies; appending to a log would change the original."""
    os.link(copy / "metrics.jsonl", copy.with_name("original"))
    before = copy.with_name("original").read_bytes()
    steps: list[int] = []
    on_step(steps.append)
    ended = run_main("train", "--resume", copy, "--epochs", 6)
    assert (ended.code, steps) == (73, [])
    assert "metrics.jsonl: cannot be written (it has other names too, by hard links)" in ended.err
    assert copy.with_name("original").read_bytes() == before
    whole = copy.with_name("whole")
    assert os.system(f"cp -rL '{copy}' '{whole}'") == 0
    assert run_main("train", "--resume", whole, "--epochs", 6).code == 0
    assert steps
    assert copy.with_name("original").read_bytes() == before


@pytest.mark.parametrize("name", ["step-1", ".step-1.tmp", "step-135/state.json"])
@pytest.mark.parametrize("how", ["resume", "force"])
def test_links_below_checkpoints_are_refused(
    copy: Path, tiny: Tiny, outside: Path, run_main: RunMain, name: str, how: str
) -> None:
    place = copy / "checkpoints" / name
    if place.exists():
        place.rename(outside / "moved")
    place.symlink_to(outside / ("moved" if "/" in name else "step-1"))
    before, run = tree(outside), tree(copy)
    arguments = {
        "resume": ("train", "--resume", copy, "--epochs", 6),
        "force": ("train", tiny.train, "-o", copy, *FLAGS, "--force"),
    }[how]
    ended = run_main(*arguments)
    assert ended.code in (65, 73)
    assert "is a link, or in one" in ended.err or f"checkpoints/{name} (a link)" in ended.err
    assert (tree(outside), tree(copy)) == (before, run)


def test_tensorboard_files_are_correct_and_never_linked(
    tiny: Tiny, tmp_path: Path, outside: Path, run_main: RunMain
) -> None:
    """TensorBoard reads from them the metrics of all processes that trained."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    flags = (*QUICK, "train.tensorboard=true")
    assert run_main("train", tiny.train, "-o", run, "--epochs", 2, *flags).code == 0
    assert run_main("train", "--resume", run, "--epochs", 3).code == 0
    files = sorted((run / "tensorboard").iterdir())
    assert len(files) == 2
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    values = {
        "train/loss": [record["train_loss"] for record in records],
        "dev/accuracy": [record["dev"]["accuracy"] for record in records],
    }
    for name, measured in values.items():
        steps = [record["step"] for record in records]
        expected = list(zip(steps, map(pytest.approx, measured), strict=True))
        assert [(event.step, event.value) for event in shown.Scalars(name)] == expected
    for file in files:
        file.unlink()
    (run / "tensorboard").rmdir()
    (run / "tensorboard").symlink_to(outside)
    before = tree(outside)
    assert run_main("train", "--resume", run, "--epochs", 4).code == 73
    assert tree(outside) == before
