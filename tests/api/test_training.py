"""`srucli.train`: the same run as the command's, in this process or in one of its own."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import srucli
from srucli.errors import DataError, InputMissingError, OutputError, UsageError
from tests.support import (
    QUICK,
    RunMain,
    Tiny,
    child_environment,
    children,
    interrupted_when,
    is_running,
    sentences,
    unique_words,
    until,
)

ROWS = sentences()[:480]
LABELS, TEXTS = [row[0] for row in ROWS], [row[1] for row in ROWS]
# The settings of QUICK.
SMALL: dict[str, Any] = {
    "threads": 1,
    "hidden": 16,
    "layers": 1,
    "batch_size": 16,
    "embedding_size": 16,
    "model.dropout": 0.1,
    "dev_share": 0.1,
    "device": "cpu",
}


def weights(run: Path) -> bytes:
    """Return the weights of the last checkpoint."""
    last = (run / "last").read_text().strip()
    return (run / "checkpoints" / last / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory, run_main: RunMain) -> Path:
    """The run of the command."""
    folder = tmp_path_factory.mktemp("command")
    data = folder / "train.tsv"
    data.write_text("".join(f"{label}\t{text}\n" for label, text in ROWS))
    done = run_main("train", data, "-o", folder / "run", "--epochs", 2, *QUICK)
    assert done.code == 0, done.err
    return folder / "run"


@pytest.mark.parametrize("process", [False, True])
def test_the_run_is_that_of_the_command(by_command: Path, tmp_path: Path, process: bool) -> None:
    epochs: list[tuple[int, Mapping[str, float]]] = []
    classifier = srucli.train(
        TEXTS,
        LABELS,
        output=tmp_path / "run",
        epochs=2,
        process=process,
        on_epoch=lambda *epoch: epochs.append(epoch),
        **SMALL,
    )
    assert weights(classifier.path) == weights(by_command)
    assert [number for number, _ in epochs] == [1, 2]
    assert "accuracy" in epochs[0][1]


def test_the_same_call_resumes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def stop(epoch: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("the plug is pulled")

    how: dict[str, Any] = {"output": tmp_path / "run", "epochs": 2, **SMALL}
    with pytest.raises(RuntimeError, match="the plug is pulled"):
        srucli.train(TEXTS, LABELS, on_epoch=stop, **how)
    capfd.readouterr()
    resumed = srucli.train(TEXTS, LABELS, **how)
    assert "resuming from step 27, after 1 complete epochs" in capfd.readouterr().err
    straight = srucli.train(TEXTS, LABELS, **{**how, "output": tmp_path / "straight"})
    assert weights(resumed.path) == weights(straight.path)
    with pytest.raises(UsageError, match="is finished, so different settings"):
        srucli.train(TEXTS, LABELS, **{**how, "batch_size": 8})


def test_the_command_resumes_a_run_of_given_texts(tmp_path: Path, run_main: RunMain) -> None:
    srucli.train(TEXTS, LABELS, output=tmp_path / "run", epochs=1, **SMALL)
    lost = run_main("train", "--resume", tmp_path / "run", "--epochs", 2)
    assert lost.code == 2
    assert "its train examples were not in a file; give them again" in lost.err
    data = tmp_path / "train.tsv"
    data.write_text("".join(f"{label}\t{text}\n" for label, text in ROWS))
    assert run_main("train", data, "--resume", tmp_path / "run", "--epochs", 2).code == 0


def test_dev_texts_and_a_file(tmp_path: Path, tiny: Tiny) -> None:
    rows = [line.split("\t") for line in tiny.test.read_text().splitlines()]
    dev = [row[1] for row in rows], [row[0] for row in rows]
    settings = {**SMALL, "epochs": 1, "dev_share": None}
    one = srucli.train(TEXTS, LABELS, dev=dev, output=tmp_path / "one", **settings)
    two = srucli.train(str(tiny.train), dev=tiny.test, output=tmp_path / "two", **settings)
    three = srucli.train(
        {"label": LABELS, "text": TEXTS},
        dev={"label": dev[1], "text": dev[0]},
        output=tmp_path / "three",
        **settings,
    )
    assert weights(one.path) == weights(two.path) == weights(three.path)


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_run_without_a_folder_is_temporary(tmp_path: Path) -> None:
    classifier = srucli.train(TEXTS, LABELS, epochs=1, **SMALL)
    folder = classifier.path
    assert folder.is_dir()
    with pytest.raises(pickle.PicklingError, match="save it first"):
        pickle.dumps(classifier)
    before = classifier.predict(TEXTS)
    classifier.save(tmp_path / "kept")
    assert not folder.exists()
    assert pickle.loads(pickle.dumps(classifier)).predict(TEXTS) == before
    other = srucli.train(TEXTS, LABELS, epochs=1, **SMALL)
    folder = other.path
    del other
    assert not folder.exists()


def test_several_labels_weights_and_probabilities() -> None:
    several = [[label, "long"] if len(text) > 20 else [label] for label, text in ROWS]
    assert srucli.train(TEXTS, several, epochs=1, **SMALL).labels == ["bad", "good", "long", "none"]
    soft = [{label: 0.8, "none": 0.2} if label != "none" else label for label in LABELS]
    weighed = srucli.train(TEXTS, soft, weights=[0.5] * len(TEXTS), epochs=1, **SMALL)
    assert not weighed.multi_label


@pytest.mark.parametrize("as_file", [False, True])
def test_raw_texts(tmp_path: Path, as_file: bool) -> None:
    raw: Any = TEXTS
    if as_file:
        raw = tmp_path / "raw.txt"
        raw.write_text("".join(f"{text}\n" for text in TEXTS))
    how = {**SMALL, "epochs": 1, "pretrain.epochs": 1}
    srucli.train(TEXTS[:100], LABELS[:100], raw=raw, output=tmp_path / "run", **how)
    (vectors,) = tmp_path.glob("raw-*")
    again = srucli.train(TEXTS[:100], LABELS[:100], base=vectors, output=tmp_path / "two", **SMALL)
    assert again.labels == ["bad", "good", "none"]


def test_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for process in (False, True):
        capfd.readouterr()
        labels = ["odd", *LABELS[1:]]
        srucli.train(TEXTS, labels, epochs=1, quiet=True, process=process, **SMALL)
        assert capfd.readouterr() == ("", "1 label has one training example only: 'odd'\n")
    srucli.train(TEXTS, LABELS, epochs=1, **SMALL)
    assert "epoch     loss" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden": 3}, r"unknown setting 'hiden' \(did you mean 'hidden'\?\)"),
        ({"model.hiden": 3}, "unknown setting 'model.hiden'"),
        ({"hidden": 3, "model.hidden": 4}, "model.hidden is given twice"),
        ({"hidden": -3}, "model.hidden: -3 is too small"),
        ({"optimizer": "adm"}, "adm"),
        ({"files.train": "x"}, "unknown setting 'files.train'"),
        ({"dev": (1, 2, 3)}, "a pair .texts, labels. is needed, not 3 values"),
        ({"base": "x", "raw": ["a"]}, "base= and raw=: give one of them"),
        ({"on_epoch": 3}, "on_epoch: a function of an epoch's number"),
    ],
)
@pytest.mark.parametrize("process", [False, True])
def test_wrong_arguments(settings: dict[str, Any], message: str, process: bool) -> None:
    with pytest.raises(UsageError, match=message):
        srucli.train(TEXTS, LABELS, process=process, **settings)


@pytest.mark.parametrize("process", [False, True])
def test_errors_are_those_of_the_command(tmp_path: Path, process: bool) -> None:
    with pytest.raises(DataError, match="texts:2: no label"):
        srucli.train(["a", "b"], ["x", None], process=process)
    with pytest.raises(DataError, match="only the label 'x'"):
        srucli.train(["a", "b"], ["x", "x"], process=process)
    with pytest.raises(InputMissingError, match=r"none\.tsv: no such file"):
        srucli.train(tmp_path / "none.tsv", process=process)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="contains no run that srucli made"):
        srucli.train(TEXTS, LABELS, output=tmp_path, process=process)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("process", [False, True])
def test_an_interrupt_leaves_a_run_that_resumes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], process: bool
) -> None:
    how: dict[str, Any] = {"output": tmp_path / "run", "epochs": 40, **SMALL}
    saved = partial(tmp_path.glob, "run/checkpoints/step-*")
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: [*saved()]):
        srucli.train(TEXTS, LABELS, process=process, **how)
    assert "and saved; the same call resumes" in capfd.readouterr().err
    resumed = srucli.train(TEXTS, LABELS, process=process, **how)
    assert "resuming from step" in capfd.readouterr().err
    straight = srucli.train(TEXTS, LABELS, **{**how, "output": tmp_path / "straight"})
    assert weights(resumed.path) == weights(straight.path)


@pytest.mark.parametrize("process", [False, True])
def test_an_interrupt_before_the_first_step_ends_the_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], process: bool
) -> None:
    words = unique_words()
    labels = ["a", "b"] * (len(words) // 2)
    seen: list[int] = []

    def started() -> list[int]:
        seen.extend(children(os.getpid()) if (tmp_path / "run").is_dir() else [])
        return seen

    # SentencePiece's trainer
    with pytest.raises(KeyboardInterrupt), interrupted_when(started):
        srucli.train(words, labels, process=process, output=tmp_path / "run", **SMALL)
    until(lambda: not any(map(is_running, seen)))
    srucli.train(TEXTS, LABELS, output=tmp_path / "run", epochs=1, **SMALL)


def test_an_interrupt_of_a_temporary_run_says_that_nothing_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    saved = partial(tmp_path.glob, "*/run/checkpoints/step-*")
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: [*saved()]):
        srucli.train(TEXTS, LABELS, epochs=40, **SMALL)
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped; nothing is kept")
    assert not [*tmp_path.iterdir()]


INTERRUPTED_IMPORT = """
import os, signal, sys, threading, time
import srucli

def interrupt():
    while "torch._C" not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
how = {"epochs": 1, "hidden": 8, "layers": 1, "quiet": True}
try:
    srucli.train(["a", "b"] * 40, ["x", "y"] * 40, **how)
except KeyboardInterrupt:
    print("stopped")
print(srucli.train(["a", "b"] * 40, ["x", "y"] * 40, **how).labels)
"""


def test_an_interrupt_leaves_torch_whole() -> None:
    """A module that is interrupted while it is imported cannot be imported again."""
    words = [sys.executable, "-c", INTERRUPTED_IMPORT]
    done = subprocess.run(words, env=child_environment(), capture_output=True, text=True)
    assert done.stdout == "stopped\n['x', 'y']\n", done.stderr


def test_without_a_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(OutputError, match="set TMPDIR"):
        srucli.train(TEXTS, LABELS, **SMALL)


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_failed_training_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DataError):
        srucli.train(["a", "b"], ["x", "x"])
    gc.collect()
    assert not [*tmp_path.iterdir()]


def test_labels_of_a_generator() -> None:
    found = srucli.train(iter(TEXTS), (label for label in LABELS), epochs=1, **SMALL)
    assert found.labels == ["bad", "good", "none"]


def test_names(tiny: Tiny) -> None:
    assert {"SRU", "load", "train", "__version__"} <= {*dir(srucli)}
    for name in srucli.__all__:
        assert getattr(srucli, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(srucli, "nothing")  # noqa: B009
    assert srucli.Tokenizer.load(tiny.run / "tokenizer.model").vocab_size > 10
