"""Probabilities and weights of examples: how they are read, refused, hashed and made targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srucli.config import DataConfig, TrainConfig
from srucli.data.dataset import Dataset, data_hash, find_labels, read_held_out, read_split
from srucli.data.dataset import read_texts as read_training_file
from srucli.data.readers import Example, read_examples
from srucli.data.targets import with_temperature
from srucli.errors import DataError, SrucliError, UsageError

AB = {"a": 0.75, "b": 0.25}


def written(folder: Path, *records: dict[str, Any], name: str = "x.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def training(source: str, **settings: Any) -> list[Example]:
    return read_training_file(source, DataConfig(**settings))[0]


def data(source: str, settings: TrainConfig | None = None, **config: Any) -> Dataset:
    examples = training(source, **config)
    labels = find_labels(examples, source)
    return Dataset.make(examples, labels, config.get("multi_label", False), source, settings)


# --- probabilities -----------------------------------------------------------------------------


def test_hard_and_soft_examples_are_mixed(tmp_path: Path) -> None:
    """A label that occurs only in probabilities is a label; numbers may be whole."""
    source = written(
        tmp_path,
        {"text": "one", "probabilities": AB},
        {"text": "two", "label": "b"},
        {"text": "three", "label": "a", "probabilities": {"c": 1}},
        {"text": "four", "label": "a", "probabilities": None},
    )
    made = data(source)
    assert made.labels == ["a", "b", "c"]
    assert made.targets.tolist() == [0, 1, 0, 0]
    assert made.soft is not None
    assert made.soft.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert not made.multi_label
    mixed = data(source, TrainConfig(soft_share=0.25))
    assert mixed.soft is not None
    assert mixed.soft.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0.75, 0, 0.25], [1, 0, 0]]


@pytest.mark.parametrize("style", ["lines", "array", "objects"])
def test_all_forms_of_json(tmp_path: Path, style: str) -> None:
    records = [{"text": "one", "probabilities": AB}, {"text": "two", "label": "b"}] * 2
    indent = None if style == "array" else 1
    content = json.dumps(records, indent=indent)
    if style != "array":
        content = "\n".join(json.dumps(record, indent=indent) for record in records)
    file = tmp_path / "x.json"
    file.write_text(content)
    examples = training(str(file))
    assert [each.labels for each in examples] == [("a",), ("b",)] * 2
    assert [each.soft is not None for each in examples] == [True, False] * 2


def test_the_label_may_have_another_name(tmp_path: Path) -> None:
    """One that is requested, or well known; the first record may lack it."""
    soft = {"text": "one", "probabilities": AB}
    for key, config in (("intent", {}), ("stars", {}), ("x", {"label": "x"})):
        examples = training(written(tmp_path, soft, {"text": "two", key: "b"}), **config)
        assert [each.labels for each in examples] == [("a",), ("b",)]


def test_sums_near_1_are_normalized(tmp_path: Path) -> None:
    """Labels may be left out, as --top does, and numbers be rounded."""
    given = [{"a": 0.4, "b": 0.2}, {"a": 0.67, "b": 0.34}, AB]
    made = data(written(tmp_path, *({"text": "x", "probabilities": each} for each in given)))
    assert made.soft is not None
    assert made.soft.sum(axis=1) == pytest.approx([1, 1, 1])
    assert made.soft[0] == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("value", [["a", "b"], "high", {"a": "high"}, {}, 3, True])
def test_another_value_beside_a_label_means_something_else(tmp_path: Path, value: Any) -> None:
    rows = [{"text": "one", "label": "a", "probabilities": value}, {"text": "two", "label": "b"}]
    assert [each.soft for each in training(written(tmp_path, *rows))] == [None, None]


BAD = {
    "sum": ({"a": 0.9, "b": 0.9}, "sum 1.8, not 1; write those of all labels"),
    "too little": ({"a": 0.2, "b": 0.1}, "sum 0.3, not 1"),
    "zero": ({"a": 0, "b": 0}, "sum 0, not 1"),
    "negative": ({"a": 1.1, "b": -0.1}, "probability of 'a' is '1.1'; write a number from 0 to 1"),
    "only negative": ({"a": 0.9, "b": -0.1}, "probability of 'b' is '-0.1'"),
    "nan": ({"a": 1.0, "b": float("nan")}, "probability of 'b' is 'nan'"),
    "inf": ({"a": float("inf")}, "probability of 'a' is 'inf'"),
    "huge": ({"a": 10**400}, "probability of 'a' is '1000"),
    "a word": ({"a": 0.5, "b": "half"}, "probability of 'b' is '\"half\"'"),
    "a truth": ({"a": 0.5, "b": True}, "probability of 'b' is 'true'"),
    "words": ({"a": "high"}, 'no label, and the probabilities are \'{"a": "high"}\'; write an'),
    "empty": ({}, "no label, and the probabilities are '{}'"),
    "list": ([0.5, 0.5], "no label, and the probabilities are '[0.5, 0.5]'"),
    "empty name": ({"": 0.5, "b": 0.5}, "an empty label"),
    "tab": ({"a\tb": 0.5, "b": 0.5}, "a tab or line end in the label"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_probabilities_are_refused(tmp_path: Path, case: str) -> None:
    value, said = BAD[case]
    good = {"text": "one", "probabilities": AB}
    source = written(tmp_path, good, good, {"text": "bad", "probabilities": value})
    with pytest.raises(DataError) as raised:
        training(source)
    assert str(raised.value).startswith(f"{source}:3: ")
    assert said in str(raised.value)


def test_neither_a_label_nor_probabilities(tmp_path: Path) -> None:
    good = {"text": "one", "probabilities": AB}
    for bad in ({"text": "bad"}, {"text": "bad", "probabilities": None}):
        with pytest.raises(
            DataError, match=r"x\.jsonl:2: no label for the text 'bad'; add a label"
        ):
            training(written(tmp_path, good, bad))
    with pytest.raises(DataError, match=r"x\.jsonl:2: no key 'label'"):
        training(written(tmp_path, {"text": "one", "label": "a"}, {"text": "bad"}))


def test_multi_label_probabilities_are_independent(tmp_path: Path) -> None:
    """A label list in the record, even an empty one, is a hard label."""
    source = written(
        tmp_path,
        {"text": "one", "probabilities": {"a": 0.9, "b": 0.8, "c": 0}},
        {"text": "two", "labels": ["a"], "probabilities": {"a": 0.25, "b": 0.5, "c": 0}},
        {"text": "three", "labels": [], "probabilities": {"a": 0.25, "b": 0.75, "c": 0}},
        {"text": "four", "labels": ["c", "a"]},
    )
    examples = training(source, multi_label=True)
    assert [each.labels for each in examples] == [("a", "b"), ("a",), (), ("c", "a")]
    made = data(source, TrainConfig(soft_share=0.5), multi_label=True)
    assert made.soft is not None
    wanted = [[0.9, 0.8, 0], [0.625, 0.25, 0], [0.125, 0.375, 0], [1, 0, 1]]
    assert made.soft == pytest.approx(np.array(wanted))
    assert made.multi_label


def test_labels_that_become_one(tmp_path: Path) -> None:
    """Labels are cleaned, and merged if that is asked for, in probabilities too."""
    rows = (
        {"text": "one", "probabilities": {"Pos": 0.5, "pos ": 0.25, "neg": 0.25}},
        {"text": "two", "label": "pos"},
        {"text": "three", "label": "pos"},
    )
    source = written(tmp_path, *rows)
    made = data(source, merge_labels=True)
    assert made.labels == ["neg", "pos"]
    assert made.soft is not None
    assert made.soft[0].tolist() == [0.25, 0.75]
    several = written(tmp_path, {"text": "x", "probabilities": {"Pos": 0.5, "pos": 0.25, "n": 1}})
    (example,) = training(several, merge_labels=True, multi_label=True)
    assert example.soft is not None
    assert list(example.soft.values) == [0.5, 1]
    alike = written(tmp_path, {"text": "x", "probabilities": {"a": 0.5, "\u0430": 0.5}})
    with pytest.raises(DataError, match="looks the same"):
        training(alike)


@pytest.mark.parametrize("multi_label", [False, True])
def test_temperature(multi_label: bool) -> None:
    given = np.array([[0.8, 0.2, 0.0], [1.0, 0.0, 0.0]], np.float32)
    assert with_temperature(given, 1, multi_label) is given
    for temperature in (0.01, 0.5, 3.0, 100.0):
        powers = given.astype(float) ** (1 / temperature)
        others = (1 - given.astype(float)) ** (1 / temperature)
        total = powers + others if multi_label else powers.sum(axis=1, keepdims=True)
        found = with_temperature(given, temperature, multi_label)
        assert found.dtype == np.float32
        assert found == pytest.approx(powers / total, abs=1e-6)


# --- files that are not for training -----------------------------------------------------------


def test_other_files_use_the_label_or_the_most_likely_one(tmp_path: Path) -> None:
    """What stands beside a label there is not looked at; weights are not read."""
    source = written(
        tmp_path,
        {"text": "one", "label": "b", "probabilities": {"a": 7, "b": 1}},
        {"text": "two", "probabilities": AB},
        {"text": "three", "probabilities": {"new": 1}},
    )
    config = DataConfig(weight="w")
    for found in (
        list(read_examples(source, config, known=["a", "b"])),
        read_held_out(source, config, ["a", "b"]),
    ):
        assert [each.labels for each in found] == [("b",), ("a",), ("new",)]
        assert all(each.soft is None and each.weight == 1 for each in found)
    bad = written(tmp_path, {"text": "one", "probabilities": {"a": 0.1}})
    with pytest.raises(DataError, match=r"x\.jsonl:1: the probabilities have the sum 0.1, not 1"):
        read_held_out(bad, config, ["a", "b"])


# --- weights -----------------------------------------------------------------------------------

ROWS = [("a", "0.5", "one more"), ("b", "2", "two of"), ("a", "0", "three")] * 4


def tables(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return files with the same examples, and the settings that read them."""
    header = "kind\tw\ttext\n"
    (folder / "named.tsv").write_text(header + "".join("\t".join(row) + "\n" for row in ROWS))
    (folder / "plain.tsv").write_text("".join("\t".join(row) + "\n" for row in ROWS))
    (folder / "x.csv").write_text("".join(f'{w},"{text}",{label}\n' for label, w, text in ROWS))
    (folder / "rated.csv").write_text(
        "rating,text,label\n" + "".join(f"{w},{text},{label}\n" for label, w, text in ROWS)
    )
    rows = [{"weight": float(w), "text": text, "label": label} for label, w, text in ROWS]
    written(folder, *rows)
    strings = [{**row, "weight": str(row["weight"])} for row in rows]
    written(folder, *strings, name="strings.jsonl")
    config: dict[str, dict[str, Any]] = {
        "named.tsv": {"weight": "w"},
        "plain.tsv": {"weight": 2},
        "x.csv": {"weight": 1},
        "rated.csv": {"weight": "rating"},  # else a name of labels
        "x.jsonl": {"weight": "weight"},
        "strings.jsonl": {"weight": "weight"},
    }
    return {name: (str(folder / name), how) for name, how in config.items()}


def test_weights_by_name_and_number(tmp_path: Path) -> None:
    for name, (source, config) in tables(tmp_path).items():
        examples = training(source, **config)
        assert [each.weight for each in examples] == [0.5, 2, 0] * 4, name
        assert [(each.labels, each.text) for each in examples] == [
            ((label,), text) for label, _, text in ROWS
        ], name
        weights = data(source, **config).weights
        assert weights is not None
        assert weights.dtype == np.float32


def test_a_column_of_weights_is_only_read_if_it_is_asked_for(tmp_path: Path) -> None:
    source, _ = tables(tmp_path)["x.jsonl"]
    made = data(source)
    assert made.weights is None
    assert made.soft is None


def test_a_dev_file_may_have_weights_or_not(tmp_path: Path) -> None:
    wanted = [((label,), text) for label, _, text in ROWS]
    without = tmp_path / "dev.tsv"
    without.write_text("".join(f"{label}\t{text}\n" for label, _, text in ROWS))
    for source, config in tables(tmp_path).values():
        for dev in (source, str(without)):
            held = read_held_out(dev, DataConfig(**config), ["a", "b"])
            assert [(each.labels, each.text) for each in held] == wanted


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x", "", "1e10", "0,5"])
@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_bad_weights_are_refused(tmp_path: Path, value: str, form: str) -> None:
    rows = [*ROWS, ("a", value, "bad")]
    if form == "tsv":
        file = tmp_path / "x.tsv"
        file.write_text("label\tw\ttext\n" + "".join("\t".join(row) + "\n" for row in rows))
        source, line = str(file), len(rows) + 1
    else:
        records = [{"label": label, "w": w, "text": text} for label, w, text in rows]
        source, line = written(tmp_path, *records), len(rows)
    with pytest.raises(DataError) as raised:
        training(source, weight="w")
    said = "missing" if not value else f"'{value}'"
    assert str(raised.value) == (
        f"{source}:{line}: the weight of 'bad' is {said}; write a number from 0 to 1,000,000,000"
    )


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    good = {"label": "a", "text": "one", "w": 1}
    for bad in ({"label": "b", "text": "bad"}, {"label": "b", "text": "bad", "w": None}):
        with pytest.raises(DataError, match=r"x\.jsonl:2: the weight of 'bad' is missing"):
            training(written(tmp_path, good, bad), weight="w")
    with pytest.raises(DataError, match="the weight of 'one' is 'True'"):
        training(written(tmp_path, {**good, "w": True}), weight="w")
    with pytest.raises(DataError, match=r"x\.jsonl:1: no key 'v', only 'label, text, w'"):
        training(written(tmp_path, good), weight="v")
    table = tmp_path / "x.tsv"
    table.write_text("label\ttext\tw\na\tone\t1\nb\tbad\n")
    with pytest.raises(DataError, match=r"x\.tsv:3: 2 columns only, no weight in column 3"):
        training(str(table), weight="w")
    with pytest.raises(DataError, match=r"x\.tsv:1: no column 'v' in the header"):
        training(str(table), weight="v")


def test_impossible_columns_of_weights(tmp_path: Path) -> None:
    table = tmp_path / "x.tsv"
    table.write_text("label\ttext\tw\n" + "a\tone\t1\nb\ttwo\t1\n" * 3)
    for column in ("text", 1):
        config = {"weight": column, "text": "text", "label": "label"}
        with pytest.raises(UsageError, match=f"--weight {column} is the column of texts or of"):
            training(str(table), **config)
    two = tmp_path / "two.tsv"
    two.write_text("a\tone\nb\ttwo\n" * 5)
    with pytest.raises(SrucliError):
        training(str(two), weight=1)


@pytest.mark.parametrize(
    ("form", "line"),
    [("fasttext", "__label__a one\n"), ("pairs", "a one\n"), ("auto", "__label__a one\n")],
)
def test_lines_have_no_column_of_weights(tmp_path: Path, form: str, line: str) -> None:
    file = tmp_path / "x.txt"
    file.write_text(line * 3)
    shown = "fasttext" if form == "auto" else form
    with pytest.raises(UsageError) as raised:
        training(str(file), format=form, weight=2)
    assert str(raised.value) == (
        f"{file}: --weight names a column, but {shown} lines have none; use tsv, csv or jsonl"
    )
    missing = tmp_path / "none.txt"
    if form != "auto":  # before the file is opened
        with pytest.raises(UsageError, match="names a column"):
            training(str(missing), format=form, weight=2)


def test_weights_that_are_all_0(tmp_path: Path) -> None:
    file = tmp_path / "x.tsv"
    file.write_text("".join(f"{label}\t0\t{text}\n" for label, _, text in ROWS))
    with pytest.raises(DataError) as raised:
        read_split(str(file), None, DataConfig(weight=2), TrainConfig())
    assert str(raised.value) == (
        f"{file}: all training examples have the weight 0; give some a larger one"
    )


# --- hashes and splits -------------------------------------------------------------------------


def test_hashes(tmp_path: Path) -> None:
    """Probabilities and weights count; examples without any have the hash that they always had."""
    plain = [Example("one", ("a",), 1), Example("two", ("b",), 2)]
    assert data_hash(plain).startswith("1c8f6370")
    soft = training(written(tmp_path, {"text": "one", "probabilities": AB}))[0]
    beside = training(written(tmp_path, {"text": "one", "label": "a", "probabilities": AB}))[0]
    other = training(written(tmp_path, {"text": "one", "probabilities": {"a": 0.7, "b": 0.3}}))[0]
    firsts = [plain[0], soft, beside, other, plain[0]._replace(weight=2.0)]
    hashes = {data_hash([first, plain[1]]) for first in firsts}
    assert len(hashes) == len(firsts)
    assert data_hash([plain[0]._replace(weight=1.0), plain[1]]) == data_hash(plain)


def test_a_split_keeps_probabilities_and_weights_with_their_texts(tmp_path: Path) -> None:
    rows = [
        {"text": f"{n}", "w": n, "probabilities": {"a": n / 40, "b": 1 - n / 40}} for n in range(40)
    ]
    split = read_split(
        written(tmp_path, *rows), None, DataConfig(weight="w"), TrainConfig(dev_share=0.25)
    )
    assert split.dev is not None
    assert len(split.dev) == 10
    for part in (split.train, split.dev):
        numbers = np.array([int(text) for text in part.texts])
        assert part.soft is not None
        assert part.weights is not None
        assert part.soft[:, 0] == pytest.approx(numbers / 40)
        assert part.weights.tolist() == numbers.tolist()
        assert part.targets.tolist() == (numbers < 20).tolist()


def test_a_label_twice_is_refused(tmp_path: Path) -> None:
    """Also if only the blanks around it differ."""
    rows = [{"text": "x", "probabilities": {"pos": 0.5, "pos ": 0.4, "neg": 0.1}}]
    with pytest.raises(DataError, match="the probabilities have the label 'pos' twice; write each"):
        data(written(tmp_path, *rows))
