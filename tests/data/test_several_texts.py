"""A text from several columns of a table, or several keys of JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from srucli.config import DataConfig
from srucli.data.layout import ColumnNames, comma_list, listed
from srucli.data.readers import read_examples, read_inputs
from srucli.errors import DataError, SrucliError, UsageError
from srucli.runs.run_dir import RunDir
from tests.support import SETTINGS, RunMain, sentences

HEADER = ("id", "title", "body, long", "label")
ROWS = [
    (str(number), "" if number % 3 == 0 else f"On {text.split()[-1]}", text, label)
    for number, (label, text) in enumerate(sentences()[:60])
]
BOTH = [f"{title} {body}".strip() for _, title, body, _ in ROWS]


def write(path: Path, *, header: Sequence[str] | None = HEADER) -> Path:
    """Write the rows in the format that the path's ending names; in JSON "" is null."""
    if path.suffix == ".jsonl":
        objects = [
            {key: cell or None for key, cell in zip(header or (), row, strict=True)} for row in ROWS
        ]
        path.write_text("".join(json.dumps(each) + "\n" for each in objects))
        return path
    lines = io.StringIO()
    delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
    writer = csv.writer(lines, delimiter=delimiter, lineterminator="\n")
    writer.writerows([header] if header else [])
    writer.writerows(ROWS)
    path.write_text(lines.getvalue())
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    "text", ['title,"body, long"', ("title", "body, long"), 'title, "body, long"'], ids=repr
)
def test_texts_are_joined_by_a_space(tmp_path: Path, ending: str, text: Any) -> None:
    """Blank cells and null add nothing. The names may have commas."""
    path = write(tmp_path / f"x.{ending}")
    reading = read_examples(path, DataConfig(text=text))
    assert [example.text for example in reading] == BOTH
    assert reading.layout is not None
    assert reading.layout.names == ColumnNames('title,"body, long"', "label")
    what = "key" if ending == "jsonl" else "column"
    numbers = ("", "") if ending == "jsonl" else (" 2", " 3")
    told = f"text = {what}{numbers[0]} 'title' + {what}{numbers[1]} 'body, long'"
    assert told in str(reading.layout)
    inputs = read_inputs(path, DataConfig(text=text))
    assert [each.text for each in inputs] == BOTH


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("2,3", BOTH),
        ("3,2", [f"{body} {title}".strip() for _, title, body, _ in ROWS]),
        ("body, long", [body for _, _, body, _ in ROWS]),
    ],
)
def test_columns_by_number_and_names_with_commas(
    tmp_path: Path, text: str, texts: list[str]
) -> None:
    named = write(tmp_path / "x.csv")
    assert [each.text for each in read_examples(named, DataConfig(text=text))] == texts
    if text[0].isdigit():
        bare = write(tmp_path / "bare.csv", header=None)
        config = DataConfig(text=text, label=4)
        assert [each.text for each in read_examples(bare, config)] == texts


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_wrong_name_is_one_error(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"x.{ending}")
    for read in (read_examples, read_inputs):
        with pytest.raises(DataError, match=r"no (column|key) 'titel'.*\(did you mean 'title'\?\)"):
            list(read(path, DataConfig(text='titel,"body, long"')))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"text": "title,title"}, "--text title,title names a column twice; name it once"),
        ({"text": "title,label", "label": "label"}, "text and label are both column 4"),
    ],
    ids=["twice", "the label"],
)
def test_impossible_columns(tmp_path: Path, config: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        list(read_examples(write(tmp_path / "x.csv"), DataConfig(**config)))


@pytest.mark.parametrize(("known", "more"), [((), ""), (("good",), ", or label the texts with ")])
def test_a_file_without_a_column_of_labels(
    tmp_path: Path, known: tuple[str, ...], more: str
) -> None:
    """A user who evaluates a run may want to predict."""
    (tmp_path / "x.csv").write_text("title,body\n" + "a film,it was good\n" * 20)
    said = f"x.csv:1: no column of labels besides the text's: 'title, body'; add one{more}"
    with pytest.raises(DataError, match=re.escape(said) + ("" if more else "$")):
        list(read_examples(tmp_path / "x.csv", DataConfig(text="title,body"), known))


def test_comma_lists() -> None:
    for names in (["a"], ["a,b"], ["a", "b"], ["a,b", 'say "c"', " d"]):
        several = comma_list(names)
        assert listed(several, names if len(names) == 1 else ()) == names
    assert listed("a,b", ["a,b", "a", "b"]) == ["a,b"]
    assert listed('"a', ()) == ['"a']
    assert (listed(None, ()), listed(2, ())) == ([], [2])


def test_a_second_column_of_texts_is_pointed_out(tmp_path: Path) -> None:
    """And following the advice reads both."""
    path = tmp_path / "x.tsv"
    lines = [
        f"{label}\t{' '.join(text.split()[::-1])}\t{text} again" for label, text in sentences()
    ]
    path.write_text("\n".join(["label\ttitle\tbody", *lines]))
    layout = read_examples(path, DataConfig()).layout
    assert layout is not None
    assert layout.hint == "--text 2,3 reads these columns together"
    layout = read_examples(path, DataConfig(text="2,3")).layout
    assert layout is not None
    assert (layout.hint, layout.names.text) == ("", "title,body")


def test_a_run_reads_files_with_its_columns(run_main: RunMain, tmp_path: Path) -> None:
    """Whatever their format; others are refused, unless each line is a text."""
    path, run = write(tmp_path / "x.csv"), tmp_path / "run"
    done = run_main(
        *("train", path, "-o", run, "--text", 'title,"body, long"', "--epochs", 1, *SETTINGS)
    )
    assert done.code == 0, done.err
    assert RunDir.open(run).facts().columns == {"text": 'title,"body, long"', "label": "label"}
    same = [write(tmp_path / f"same.{ending}") for ending in ("csv", "tsv", "jsonl")]
    seen = set()
    for file in same:
        done = run_main("eval", run, file, "--json")
        assert done.code == 0, done.err
        assert "'title' + " in done.err
        predicted = run_main("predict", run, file, "--probability")
        assert predicted.code == 0, predicted.err
        seen.add((json.dumps(json.loads(done.out)["metrics"]), predicted.out))
    assert len(seen) == 1
    other = write(tmp_path / "other.csv", header=("id", "heading", "body, long", "label"))
    for command in ("eval", "predict"):
        done = run_main(command, run, other)
        assert (done.code, done.out) == (65, "")
        assert "no column 'title' in the header" in done.err
    lines = run_main("predict", run, "-", input="a lovely soup\nrude\n")
    assert (lines.code, len(lines.out.splitlines())) == (0, 2), lines.err
    table = run_main("predict", run, "-", input="title\tbody, long\nOn soup\ta lovely soup\n")
    assert (table.code, len(table.out.splitlines())) == (0, 1), table.err
    assert "header, text = column 1 'title' + column 2 'body, long'" in table.err


@pytest.mark.parametrize(
    ("first", "text", "is_header"),
    [
        ("title,body", "title,body", True),
        ("body,title", "title,body", True),
        ("id,title,body", "title,body", True),
        ("title,body", "body", True),
        ("plot,body", "body", False),  # nothing is known of `plot`
        ("title,body", "plot", False),
        ("body", "body", False),
        ("body,", "body", False),
        ("body, he said", "body", False),
    ],
)
def test_unlabelled_lines_with_a_header(
    tmp_path: Path, first: str, text: str, is_header: bool
) -> None:
    """The header of the training file without its label column is none of the texts."""
    path, config = tmp_path / "lines", DataConfig(text=text if "," in text else None)
    path.write_text(f"{first}\n{','.join(['some text'] * len(first.split(',')))}\n")
    names = ColumnNames(text, "category")
    reading = read_inputs(
        path, config, plain=DataConfig(), known={"good"}, requested=DataConfig(), names=names
    )
    assert len(list(reading)) == 2 - is_header


def test_a_text_needs_one_filled_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("title,body,label\na film,,good\n, ,bad\n")
    with pytest.raises(SrucliError, match="3: no text for the label 'bad'"):
        list(read_examples(tmp_path / "x.csv", DataConfig(text="title,body")))
