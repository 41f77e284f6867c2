"""A trained classifier in Python: labels, probabilities, metrics; copied and pickled."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srucli
from srucli.api.classifier import Classifier
from srucli.errors import InputMissingError, OutputError, UsageError
from tests.api.test_sources import Frame
from tests.api.test_training import SMALL
from tests.support import LABELS, RunMain, Tiny, child_environment, run_training, sentences, tree

TEXTS = ["the soup was lovely", "an awful train", "the second lamp"]


@pytest.fixture(scope="module")
def classifier(tiny: Tiny) -> Classifier:
    return srucli.load(tiny.run, device="cpu")


@pytest.fixture(scope="module")
def multi_label(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    run = tmp_path_factory.mktemp("multi") / "run"
    run_training(tiny, run, "data.multi_label=true")
    return srucli.load(str(run))


def test_labels_and_probabilities(tiny: Tiny, run_main: RunMain) -> None:
    classifier = srucli.load(str(tiny.run))
    assert classifier.labels == sorted(LABELS)
    assert not classifier.multi_label
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    said = run_main("predict", tiny.run, "-", "--json", input="\n".join(TEXTS)).out.splitlines()
    records = [json.loads(line) for line in said]
    assert classifier.predict(TEXTS) == [record["label"] for record in records]
    expected = [list(record["probabilities"].values()) for record in records]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_several_labels(multi_label: Classifier) -> None:
    assert multi_label.multi_label
    found = multi_label.predict(TEXTS)
    assert all(isinstance(each, list) and each for each in found)
    assert [each.label for each in multi_label.predict_iter(TEXTS)] == found


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array])
def test_any_sequence_of_texts(classifier: Classifier, kind: type) -> None:
    assert classifier.predict(kind(TEXTS)) == classifier.predict(TEXTS)


def test_no_text(classifier: Classifier) -> None:
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, 3)
    assert list(classifier.predict_iter([])) == []


def test_a_stream_is_predicted_as_it_arrives(classifier: Classifier) -> None:
    seen = threading.Event()

    def stream() -> Iterator[str]:
        yield TEXTS[0]
        assert seen.wait(60)  # the first prediction comes before the second text
        yield from TEXTS[1:]

    found = []
    for prediction in classifier.predict_iter(stream()):
        seen.set()
        found.append(prediction)
    assert [each.text for each in found] == TEXTS
    assert [each.label for each in found] == classifier.predict(TEXTS)
    probabilities = np.array([each.probabilities for each in found])
    np.testing.assert_allclose(probabilities, classifier.predict_proba(TEXTS), atol=1e-6)


def test_errors_of_a_stream_come_after_what_is_before_them(classifier: Classifier) -> None:
    def stream() -> Iterator[str]:
        yield TEXTS[0]
        raise OSError("the line is dead")

    predictions = classifier.predict_iter(stream())
    assert next(predictions).text == TEXTS[0]
    with pytest.raises(OSError, match="the line is dead"):
        next(predictions)


@pytest.mark.parametrize(
    "texts",
    [
        *("one text", b"one text", [1], [None], [TEXTS]),
        pytest.param(np.array([TEXTS]), id="matrix"),
        pytest.param(Frame(), id="table"),
    ],
)
def test_values_that_are_no_texts(classifier: Classifier, texts: object) -> None:
    for call in (classifier.predict, classifier.predict_proba):
        with pytest.raises(UsageError):
            call(texts)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        list(classifier.predict_iter(texts))  # type: ignore[arg-type]


def test_several_threads_predict_at_once(classifier: Classifier, tiny: Tiny) -> None:
    texts = [line.split("\t")[1] for line in tiny.train.read_text().splitlines()]
    expected = classifier.predict_proba(texts)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(classifier.predict_proba, [texts] * 16):
            assert (found == expected).all()


def test_an_unusable_text_is_named(classifier: Classifier) -> None:
    texts = ["fine", "\ud800"]
    with pytest.raises(UsageError, match=r"texts\[1\] has half of a surrogate pair"):
        classifier.predict(texts)
    with pytest.raises(UsageError, match=r"texts\[1\] has half of a surrogate pair"):
        list(classifier.predict_iter(texts))


def test_metrics(classifier: Classifier, tiny: Tiny, run_main: RunMain) -> None:
    rows = [line.split("\t") for line in tiny.test.read_text().splitlines()]
    labels, texts = [row[0] for row in rows], [row[1] for row in rows]
    expected = json.loads(run_main("eval", tiny.run, tiny.test, "--json").out)["metrics"]
    table = {"label": labels, "text": texts}
    for source in ((texts, labels), (table,), (tiny.test,), (str(tiny.test),)):
        assert classifier.evaluate(*source).metrics == pytest.approx(expected, abs=1e-6)
    other = {"l": labels, "t": texts}
    found = classifier.evaluate(other, text="t", label="l")
    assert found.metrics == pytest.approx(expected, abs=1e-6)
    assert "accuracy" in found.to_text()
    accuracy = found.metrics["accuracy"]
    assert repr(found) == f"<Evaluation of texts, {len(texts)} texts: accuracy {accuracy:.4f}>"


def test_metrics_of_several_labels(multi_label: Classifier) -> None:
    found = multi_label.evaluate(TEXTS, [["good"], ["bad", "none"], []])
    assert found.examples == 3
    assert found.outcome.targets.sum() == 3


def test_a_copy_predicts_the_same(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    classifier = srucli.load(tiny.run)
    before = tree(tiny.run)
    assert classifier.save(tmp_path / "a" / "copy") == tmp_path / "a" / "copy"
    assert tree(tiny.run) == before
    assert classifier.path == tmp_path / "a" / "copy"
    copied = srucli.load(tmp_path / "a" / "copy")
    assert (copied.predict_proba(TEXTS) == classifier.predict_proba(TEXTS)).all()
    for command in ("eval", "predict"):
        original, again = (run_main(command, run, tiny.test) for run in (tiny.run, copied.path))
        assert original.code == again.code == 0
    assert not list(copied.path.rglob("training.safetensors"))
    with pytest.raises(OutputError, match="exists already"):
        srucli.load(tiny.run).save(tmp_path / "a" / "copy")
    with pytest.raises(OutputError, match="is the run itself"):
        copied.save(copied.path)


def test_what_was_trained_again_is_neither_saved_nor_pickled(tmp_path: Path) -> None:
    how: dict[str, Any] = {"output": tmp_path / "run", "epochs": 1, **SMALL}
    labels = [label for label, _ in sentences()[:60]]
    texts = [text for _, text in sentences()[:60]]
    first = srucli.train(texts, labels, **how)
    second = srucli.train(texts, [f"other {label}" for label in labels], force=True, **how)
    assert first.labels != second.labels
    for call in (lambda: first.save(tmp_path / "copy"), lambda: pickle.dumps(first)):
        with pytest.raises(InputMissingError, match="was trained again after this classifier"):
            call()
    second.path.rename(tmp_path / "moved")
    with pytest.raises(InputMissingError):
        second.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_can_be_trained_longer(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    srucli.load(tiny.run).save(tmp_path / "copy")
    longer = run_main("train", "--resume", tmp_path / "copy", "--epochs", 9)
    assert longer.code == 0, longer.err


def test_a_pickle_is_the_path(classifier: Classifier) -> None:
    data = pickle.dumps(classifier)
    assert len(data) < 300
    for other in (pickle.loads(data), copy.deepcopy(classifier)):
        assert other.path == classifier.path
        assert other.predict(TEXTS) == classifier.predict(TEXTS)


def test_a_pickle_is_loaded_in_another_process_and_folder(
    classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "pickle").write_bytes(pickle.dumps(classifier))
    code = f"import pickle; print(pickle.load(open('pickle', 'rb')).predict({TEXTS!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{classifier.predict(TEXTS)}\n"


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        srucli.load(tmp_path / "none")
    with pytest.raises(UsageError, match="--device gpu"):
        srucli.load(tmp_path, device="gpu")


def test_repr(classifier: Classifier) -> None:
    assert repr(classifier) == f"<srucli.Classifier {classifier.path}: 3 labels>"
