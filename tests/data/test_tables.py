"""Limits of what a few characters may become: columns of a table, rows with quotes, JSON values."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from srucli.config import DataConfig
from srucli.data.readers import read_examples, read_inputs
from srucli.data.tables import MAX_COLUMNS
from srucli.errors import DataError
from srucli.io.json_objects import MAX_VALUES

# Rows before the large one, so that the layout is known.
CSV = "label,text\n" + "pos,a good film\nneg,a bad film\n" * 20
TSV = CSV.replace(",", "\t")
JSON = '{"label": "pos", "text": "good"}\n{"label": "neg", "text": "bad"}\n'


def refusal(path: Path, content: str) -> DataError:
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(read_examples(path, DataConfig()))
    return caught.value


@pytest.mark.parametrize("before", ["", CSV], ids=["first row", "later row"])
@pytest.mark.parametrize("cell", ["ab,", '"ab",'], ids=["plain", "quoted"])
def test_a_row_of_too_many_columns_is_refused(tmp_path: Path, before: str, cell: str) -> None:
    error = refusal(tmp_path / "x.csv", before + cell * MAX_COLUMNS + "pos\n")
    assert error.line == before.count("\n") + 1
    assert error.problem.startswith("over 16,384 columns: ")


def test_a_quoted_text_may_have_more_delimiters_than_columns(tmp_path: Path) -> None:
    path, text = tmp_path / "x.csv", "so, " * 20_000
    path.write_text(f'{CSV}pos,"{text}"\n')
    assert list(read_examples(path, DataConfig()))[-1].text == text


def test_a_last_text_without_quotes_may_have_more_tabs_than_columns(tmp_path: Path) -> None:
    """They are not split into cells first: each would take far more memory than its characters."""
    path, text = tmp_path / "x.tsv", "ab\t" * 1_000_000 + "end"
    path.write_text(f"{TSV}pos\t{text}\n")
    tracemalloc.start()
    try:
        assert list(read_examples(path, DataConfig()))[-1].text == text
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * len(text)


def test_a_row_of_many_cells_that_never_ends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell closes on the next line, where another one opens."""
    monkeypatch.setattr("srucli.data.tables._MAX_ROW", 10_000)
    error = refusal(tmp_path / "x.csv", CSV + 'pos,"a\n' + 'ab","\n' * 5_000)
    assert error.line == 42
    assert error.problem == "a row of over 10,000 characters: 'pos,\"a'"


def test_of_many_columns_the_likeliest_are_tried(tmp_path: Path) -> None:
    """Not all pairs of them, which are millions: none of these is a text and its label."""
    rows = (f"{n}\t" * 2_000 + "1\n" for n in range(12))
    error = refusal(tmp_path / "x.tsv", "".join(rows))
    assert error.problem == "the labels in column 1 are nearly all different (12 among 12)"


@pytest.mark.parametrize("value", ["[]", "{}", '"ab"', "1.5"])
@pytest.mark.parametrize("form", ["lines", "array", "indented"])
def test_an_object_of_too_many_values_is_refused(tmp_path: Path, form: str, value: str) -> None:
    large = '{"label": "pos", "text": "a", "x": [' + f"{value}," * MAX_VALUES + "1]}"
    if form == "array":
        content = "[" + JSON.replace("\n", ",") + large + "]"
    else:
        content = JSON + (large.replace("{", "{\n", 1) if form == "indented" else large)
        content = content.replace("{", "{\n", 1) if form == "indented" else content
    error = refusal(tmp_path / "x.json", content)
    assert (error.line, error.problem[:33]) == (
        {"lines": 3, "array": 1, "indented": 4}[form],
        "an object of over 262,144 values:",
    )


def test_marks_in_a_text_are_no_values(tmp_path: Path) -> None:
    path, text = tmp_path / "x.json", "[{, " * MAX_VALUES
    path.write_text("[" + JSON.replace("\n", ",") + f'{{"label": "pos", "text": "{text}"}}]')
    assert list(read_examples(path, DataConfig()))[-1].text == text


def test_an_object_over_too_many_lines_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srucli.io.json_objects.MAX_LINE", 2**20)
    error = refusal(tmp_path / "x.json", '{\n"text": "a", "x": [\n' + "1,\n" * 20_000 + "1]}\n")
    assert error.problem == "an object of over 1 MB or 16,384 lines"


def test_an_object_of_too_many_keys_is_refused(tmp_path: Path) -> None:
    keys = "".join(f'"k{n}": 0, ' for n in range(MAX_COLUMNS))
    error = refusal(tmp_path / "x.jsonl", "{" + keys + '"label": "pos", "text": "a"}\n' + JSON)
    assert (error.line, error.problem[:17]) == (1, "over 16,384 keys:")


def test_a_line_of_columns_is_a_text_in_a_file_of_texts(tmp_path: Path) -> None:
    path, text = tmp_path / "x.txt", "ab," * 100_000
    path.write_text(f"a good film\n{text}\n")
    config = DataConfig()
    assert [each.text for each in read_inputs(path, config, plain=config)][1] == text
