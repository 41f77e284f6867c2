"""Labelled texts as callers have them: sequences and tables of any package."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from srucli.api.sources import is_multi_label, rows_of, source_of, texts_of
from srucli.config import DataConfig
from srucli.data.dataset import read_texts
from srucli.data.given import Given
from srucli.errors import DataError, UsageError

TEXTS, LABELS = ["one", "two", "three"], ["a", "b", "a"]
COLUMNS: dict[str, list[Any]] = {"text": TEXTS, "label": LABELS}


def read(source: Any, **settings: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Return the texts and labels of a source, as a training reads them."""
    examples, _ = read_texts(source, DataConfig(**settings))
    return [(example.text, example.labels) for example in examples]


EXPECTED = [("one", ("a",)), ("two", ("b",)), ("three", ("a",))]


class ArrowTable:
    """What a table of Arrow has."""

    column_names = ("text", "label")
    # Of another meaning than in pandas: the columns themselves.
    columns = (object(), object())

    def __getitem__(self, name: str) -> Any:
        return SimpleNamespace(to_pylist=lambda: COLUMNS[name])


class Frame:
    """What a frame of pandas or Polars has."""

    columns = ("text", "label")
    shape = (3, 2)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Any:
        return SimpleNamespace(to_list=lambda: COLUMNS[name])


class HuggingFace:
    """What a data set of Hugging Face has, with labels as numbers; -1 is a missing one."""

    column_names = ("text", "label")
    features = {"text": object(), "label": SimpleNamespace(names=["a", "b"])}  # noqa: RUF012

    def __getitem__(self, name: str) -> list[Any]:
        columns: dict[str, list[Any]] = {"text": TEXTS, "label": [0, 1, 0]}
        return columns[name]


@pytest.mark.parametrize(
    "table",
    [
        COLUMNS,
        ArrowTable(),
        Frame(),
        HuggingFace(),
        [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
    ],
    ids=lambda table: type(table).__name__,
)
def test_tables(table: Any) -> None:
    assert read(source_of(table)) == EXPECTED


def pandas_frame() -> Any:
    return pytest.importorskip("pandas").DataFrame(COLUMNS)


def polars_frame() -> Any:
    return pytest.importorskip("polars").DataFrame(COLUMNS)


def arrow_table() -> Any:
    return pytest.importorskip("pyarrow").table(COLUMNS)


def hugging_face() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(COLUMNS)


@pytest.mark.parametrize("make", [pandas_frame, polars_frame, arrow_table, hugging_face])
def test_tables_of_packages(make: Callable[[], Any]) -> None:
    table = make()
    assert read(source_of(table)) == EXPECTED
    assert read(source_of(table["text"], table["label"])) == EXPECTED


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda values: np.array(values, object)])
def test_sequences(kind: Callable[[list[str]], Any]) -> None:
    assert read(source_of(kind(TEXTS), kind(LABELS))) == EXPECTED


def test_the_columns_of_a_table_are_named_or_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    table = {"id": ["x1", "x2", "x3"], "body": TEXTS, "stars": LABELS}
    assert read(source_of(table), text="body", label="stars") == EXPECTED
    assert "texts: a table, text = key 'body', label = key 'stars'\n" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"texts:1: no key 'boby'.*did you mean 'body'"):
        read(source_of(table), text="boby", label="stars")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 2, 1], ["1", "2", "1"]),
        (np.array([1, 2, 1]), ["1", "2", "1"]),
        ([True, False, True], ["true", "false", "true"]),
        ([1.0, 2.5, 1.0], ["1.0", "2.5", "1.0"]),
        ([" a ", "b", "a"], ["a", "b", "a"]),
    ],
)
def test_labels_become_strings(labels: Any, expected: list[str]) -> None:
    assert [own for _, (own,) in read(source_of(TEXTS, labels))] == expected


def test_several_labels() -> None:
    labels = [["a", "b"], [], {"b"}]
    assert is_multi_label(labels)
    assert not is_multi_label(LABELS)
    found = read(source_of(TEXTS, labels), multi_label=True)
    assert [own for _, own in found] == [("a", "b"), (), ("b",)]


def test_probabilities_and_weights() -> None:
    labels = [{"a": 0.75, "b": 0.25}, "b", {"b": 1.0}]
    examples, _ = read_texts(
        source_of(TEXTS, labels, weights=[1, 0.5, 2]), DataConfig(weight="weight")
    )
    assert [each.labels for each in examples] == [("a",), ("b",), ("b",)]
    assert [each.weight for each in examples] == [1, 0.5, 2]
    assert examples[0].soft is not None
    assert list(examples[0].soft.values) == [0.75, 0.25]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one text", "a"), "one text: labels are given beside texts, not beside a file"),
        ((TEXTS,), "texts: no labels; give one for each text"),
        ((TEXTS, ["a"]), "3 texts, but 1 labels"),
        ((COLUMNS, LABELS), "texts: a table has its labels in a column"),
        ((TEXTS, "abc"), "labels: a list is needed, not str"),
        ((3, LABELS), "texts: a list is needed, not int"),
        ((["one", None, "x"], LABELS), r"texts\[1\] is missing, not a string"),
        ((["one", math.nan, "x"], LABELS), r"texts\[1\] is missing, not a string"),
        ((["one", 2.5, "x"], LABELS), r"texts\[1\] is 2.5, not a string"),
        ((["one", "\ud800", "x"], LABELS), r"texts\[1\] has half of a surrogate pair"),
        (({"train": COLUMNS, "test": COLUMNS},), r"several tables \(train, test\)"),
        ((TEXTS, np.eye(3)), "labels: a matrix does not name"),
        ((TEXTS, [[1, 0, 1], [0, 1, 1], [1, 1, 1]]), "labels: a matrix does not name"),
        ((TEXTS, [(True, False)] * 2 + [(True, True)]), "labels: a matrix does not name"),
        ((np.array([TEXTS]), LABELS), r"texts: an array of the shape \(1, 3\), not one column"),
        (({"text": TEXTS, "label": ["a"]},), "columns of different lengths: text 3, label 1"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source_of(*arguments)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (TEXTS, ["a", None, "b"], "texts:2: no label for the text 'two'"),
        (TEXTS, ["a", math.nan, "b"], "texts:2: no label for the text 'two'"),
        (TEXTS, ["a", "", "b"], "texts:2: no label for the text 'two'"),
        (TEXTS, ["a", "b\tc", "b"], "texts:2: a tab or line end in the label"),
        (["one", " ", "three"], LABELS, "texts:2: no text for the label 'b'"),
        (["one", "\0", "three"], LABELS, "texts:2: a NUL character"),
        (TEXTS, [{"a": 2.0}, "a", "b"], "texts:1: the probability of 'a' is '2.0'"),
        ([], [], "texts: is empty"),
    ],
)
def test_unusable_texts_and_labels(texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(source_of(texts, labels))


def test_a_table_is_no_column() -> None:
    """pandas iterates over the names of its columns, which may be taken for texts."""
    for table in (Frame(), ArrowTable()):
        with pytest.raises(UsageError, match=r"labels: a (matrix|table)"):
            source_of(TEXTS, table)
        with pytest.raises(UsageError, match="weights: a table, not one column"):
            source_of(TEXTS, LABELS, weights=table)
        with pytest.raises(UsageError, match="raw: a table, not one column"):
            texts_of(table, "raw")
        with pytest.raises(UsageError, match="a table has its labels in a column"):
            source_of(table, LABELS)


@pytest.mark.parametrize("beside", ["weights", "groups"])
def test_a_value_for_each_text(beside: str) -> None:
    few: dict[str, Any] = {beside: [1.0]}
    with pytest.raises(UsageError, match=f"3 texts, but 1 {beside}; give one for each text"):
        source_of(TEXTS, LABELS, **few)
    with pytest.raises(UsageError, match="a table has its labels in a column"):
        source_of(COLUMNS, **few)


def test_a_file_stays_a_file(tmp_path: Path) -> None:
    assert source_of(tmp_path / "a.tsv") == str(tmp_path / "a.tsv")
    assert isinstance(source_of(TEXTS, LABELS), Given)


def test_one_string_is_no_list_of_texts() -> None:
    with pytest.raises(UsageError, match="a list of texts is needed, not one text"):
        texts_of("one")


def test_values_that_json_lacks_become_text() -> None:
    from datetime import date

    rows = rows_of({"text": TEXTS, "when": [date(2026, 1, 2)] * 3, "n": np.arange(3)})
    assert rows is not None
    assert rows[1] == {"text": "two", "when": "2026-01-02", "n": 1}
