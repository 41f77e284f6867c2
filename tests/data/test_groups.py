"""The column of groups: by name, by number, as a JSON key; missing and impossible ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srucli.config import DataConfig
from srucli.data.dataset import data_hash, read_held_out
from srucli.data.readers import Example, read_examples
from srucli.errors import DataError, UsageError

ROWS = [("a", "ann", "one more"), ("b", "bob", "two of"), ("a", "7", "three")] * 4


def training(source: str, **config: Any) -> list[Example]:
    return list(read_examples(source, DataConfig(**config), training=True))


def tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the same examples in several formats; return the settings that read them."""
    table = "".join("\t".join(row) + "\n" for row in ROWS)
    (folder / "named.tsv").write_text("kind\twho\ttext\n" + table)
    (folder / "plain.tsv").write_text(table)
    (folder / "x.csv").write_text("".join(f'{who},"{text}",{label}\n' for label, who, text in ROWS))
    # Without the flag, these names would be those of labels.
    lines = ["class,text,label", *(f"{who},{text},{label}" for label, who, text in ROWS)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    rows: list[dict[str, Any]] = [{"text": t, "label": y, "who": who} for y, who, t in ROWS]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    numbered = [row | ({"who": 7} if row["who"] == "7" else {}) for row in rows]
    (folder / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered))
    return {
        "named.tsv": {"group": "who"},
        "plain.tsv": {"group": 2},
        "x.csv": {"group": 1},
        "classes.csv": {"group": "class"},
        "x.jsonl": {"group": "who"},
        "numbers.jsonl": {"group": "who"},
    }


def test_groups_by_name_and_number(tmp_path: Path) -> None:
    for name, config in tables(tmp_path).items():
        source = str(tmp_path / name)
        examples = training(source, **config)
        assert [each.group for each in examples] == ["ann", "bob", "7"] * 4, name
        assert [(each.labels, each.text) for each in examples] == [
            ((label,), text) for label, _, text in ROWS
        ], name
        reading = read_examples(source, DataConfig(**config), training=True)
        assert "group = " in str(reading.layout)
        assert "not read" not in str(reading.layout)


def test_groups_and_weights_together(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("w,who,text,label\n" + "2,ann,one more,a\n0.5,bob,two of,b\n" * 3)
    examples = training(str(file), weight="w", group="who")
    assert [(each.weight, each.group) for each in examples] == [(2, "ann"), (0.5, "bob")] * 3


def test_only_crossval_reads_groups(tmp_path: Path) -> None:
    tables(tmp_path)
    examples = training(str(tmp_path / "x.jsonl"))
    assert {each.group for each in examples} == {None}
    assert data_hash(examples) == data_hash(training(str(tmp_path / "x.jsonl"), group="who"))
    held = read_held_out(str(tmp_path / "named.tsv"), DataConfig(group="who"), ["a", "b"])
    assert {each.group for each in held} == {None}
    assert [each.text for each in held] == [text for _, _, text in ROWS]


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
@pytest.mark.parametrize("value", ["", "  "])
def test_missing_groups_are_refused(tmp_path: Path, form: str, value: str) -> None:
    rows = [*ROWS, ("a", value, "bad")]
    file, line = tmp_path / f"x.{form}", len(rows) + (form == "tsv")
    if form == "tsv":
        file.write_text("label\twho\ttext\n" + "".join("\t".join(row) + "\n" for row in rows))
    else:
        records = [{"label": label, "who": who, "text": text} for label, who, text in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in records))
    with pytest.raises(DataError) as raised:
        training(str(file), group="who")
    assert str(raised.value) == (
        f"{file}:{line}: the group of 'bad' is missing; name it, or remove the line"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "the group of 'bad' is missing; name it, or remove the line"),
        (float("nan"), "the group of 'bad' is missing; name it, or remove the line"),
        ([1], "the group of 'bad' is '[1]'; make it a string or a number"),
    ],
)
def test_json_values_that_are_no_groups(tmp_path: Path, value: Any, said: str) -> None:
    file = tmp_path / "x.jsonl"
    rows = [{"label": "a", "text": "one", "who": "x"}, {"label": "b", "text": "bad", "who": value}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as raised:
        training(str(file), group="who")
    assert str(raised.value) == f"{file}:2: {said}"


def test_unknown_and_impossible_columns(tmp_path: Path) -> None:
    tables(tmp_path)
    with pytest.raises(
        DataError, match=r"no column 'woh' in the header .*\(did you mean 'who'\?\)"
    ):
        training(str(tmp_path / "named.tsv"), group="woh")
    with pytest.raises(DataError, match=r"no key 'whom', only .*name the group's key with --group"):
        training(str(tmp_path / "x.jsonl"), group="whom")
    for column in ("text", 1):
        config = {"text": "text", "label": "kind", "group": column}
        with pytest.raises(UsageError, match=f"--group {column} is the column of texts or of lab"):
            training(str(tmp_path / "named.tsv"), **config)
    lines = tmp_path / "x.ft"
    lines.write_text("__label__a one\n" * 3)
    with pytest.raises(UsageError, match="--group names a column, but fasttext lines have none"):
        training(str(lines), group=2)
