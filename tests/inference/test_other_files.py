"""`predict` and `eval` on files in another format than the training file.

Settings of the run are hints for other files, and flags of the command are binding. All files have
texts with known predictions. `predict` must give one record per text, and the same records as
`eval` if there are labels.
"""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from srucli.runs.run_dir import RunDir
from tests.support import QUICK, CommandResult, RunMain, Tiny

# Labels, and texts for which the run predicts them.
ROWS = [
    ("good", "what a lovely film"),
    ("bad", "the garden was awful"),
    ("none", "what a wooden phone"),
    ("good", "we found the coat bright"),
    ("bad", "what a rude hotel"),
    ("none", "the lamp was square"),
]
LABELS = [label for label, _ in ROWS]
NAMELESS: dict[str, str | None] = {"text": None, "label": None}
SAID: dict[str, str | None] = {"text": "said", "label": "rating"}

Run = Callable[..., Path]


@pytest.fixture
def trained(tiny: Tiny, tmp_path: Path) -> Run:
    """Return a function that copies the tiny run with other settings and column names."""

    def run(settings: dict[str, Any], columns: dict[str, str | None] | None = NAMELESS) -> Path:
        path = tmp_path / "run"
        shutil.copytree(tiny.run, path)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["data"] |= settings
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        facts = json.loads((path / "run.json").read_text())
        facts.pop("columns", None)
        if columns is not None:
            facts["columns"] = columns
        (path / "run.json").write_text(json.dumps(facts))
        return path

    return run


def table(form: str, header: str = "", rows: Sequence[tuple[str, str]] = ROWS) -> str:
    """Return the content of a file with these rows; {0} in `form` is the number of a row."""
    lines = [form.format(n, label=label, text=text) for n, (label, text) in enumerate(rows, 11)]
    return "\n".join([header] * bool(header) + lines) + "\n"


def labels_of(ended: CommandResult) -> list[str]:
    assert ended.code == 0, ended.err
    return [json.loads(line)["label"] for line in ended.out.splitlines()]


def records_of(run_main: RunMain, run: Path, file: Path) -> list[tuple[int, str]]:
    """Return the line numbers and labels that `eval` predicts."""
    out = file.parent / "p.jsonl"
    ended = run_main("eval", run, file, "--predictions", out)
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [(row["line"], row["predicted"]) for row in rows]


FLAGS = {"text": 1, "label": 2}  # for a training file with two columns, the text first
SWAPPED = {"text": 2, "label": 1}
HEADER = {"header": True}
# settings of the run, names of its columns, file, content
ALONE: dict[str, tuple[dict[str, Any], dict[str, str | None] | None, str, str]] = {
    "ids before the texts": (FLAGS, NAMELESS, "x.csv", table("{0},{text}", "id,said")),
    "ids, no header": (FLAGS, NAMELESS, "x.csv", table('{0},"{text}"')),
    "ids of letters": (FLAGS, NAMELESS, "x.csv", table('u{0},"{text}"')),
    "two rows": (FLAGS, NAMELESS, "x.csv", table("{0},{text}", rows=ROWS[:2])),
    "ids in JSON": (FLAGS, NAMELESS, "x.json", table('{{"id": {0}, "text": "{text}"}}')),
    "ids after the texts": (SWAPPED, NAMELESS, "x.csv", table('"{text}",{0}')),
    "ids of letters after the texts": (SWAPPED, NAMELESS, "x.csv", table('"{text}",u{0}')),
    "two rows, ids last": (SWAPPED, NAMELESS, "x.csv", table('"{text}",{0}', rows=ROWS[:2])),
    "a header names the text": (FLAGS, NAMELESS, "x.csv", table('u{0} so,"{text}"', "title,text")),
    "a run with --header": (HEADER, NAMELESS, "x.csv", table('"{text}"')),
    "a run with --header, ids": (HEADER, SAID, "x.csv", table('{0},"{text}"')),
    "a run with --header, two columns": (HEADER, SAID, "x.tsv", table("so\t{text}")),
    "a run with --no-header": ({"header": False}, NAMELESS, "x.csv", table('"{text}"', "text")),
    "a name of the run": ({}, SAID, "x.csv", table('"{text}"', "said")),
    "a name in capitals": ({}, SAID, "x.csv", table('"{text}"', "Said")),
    "a name of the run, others": ({}, SAID, "x.csv", table('so {0},"{text}"', "user,said")),
    "a name of the run, one row": ({}, SAID, "x.tsv", table("so\t{text}", "user\tsaid", ROWS[:1])),
    "both names, new labels": ({}, SAID, "x.csv", table('"{text}",4', "said,rating")),
    "both names, lines": ({}, SAID, "x.txt", table("{text}\tso", "said\trating")),
    "a name in JSON": ({}, SAID, "x.jsonl", table('{{"user": "so so so", "said": "{text}"}}')),
    "a name in JSON, no ending": ({}, SAID, "x", table('{{"user": "so", "said": "{text}"}}')),
    "a name that was given": ({"text": "said"}, SAID, "x.csv", table('so,"{text}"', "user,said")),
    "a run without names": (HEADER, None, "x.csv", table('"{text}"', "said")),
    "no quotes": ({"quotes": False}, NAMELESS, "x.csv", table('{0},"so, {text}"')),
    "quotes": ({"quotes": True}, NAMELESS, "x.tsv", table('"so" {text}')),
}


@pytest.mark.parametrize("case", ALONE)
def test_texts_without_labels(run_main: RunMain, trained: Run, tmp_path: Path, case: str) -> None:
    settings, columns, name, content = ALONE[case]
    run, file = trained(settings, columns), tmp_path / name
    file.write_text(content)
    ended = run_main("predict", run, file, "--json")
    assert labels_of(ended) == [label for label, text in ROWS if text in content], ended.err


PIPED = {
    "ids": ("id,said\n1,what a lovely film\n2,the lamp was square\n", ["good", "none"]),
    "tabs": ("user\tsaid\nu1\twhat a lovely film\n", ["good"]),
    "dates after": ('"said","date"\n"the garden, it was awful","2024-01-01"\n', ["bad"]),
    "only a text": ("said\nwhat a lovely film\n", ["none", "good"]),
    "a text with a comma": ("he said,so\nwhat a lovely film\n", ["none", "good"]),
}


@pytest.mark.parametrize("case", PIPED)
def test_a_header_in_a_pipe(run_main: RunMain, trained: Run, case: str) -> None:
    """It names the text column of the run, and other columns without labels."""
    piped, wanted = PIPED[case]
    found = labels_of(run_main("predict", trained({}, SAID), "-", "--json", input=piped))
    assert len(found) == len(wanted)
    assert found[-1] == wanted[-1]


LABELLED: dict[str, tuple[dict[str, Any], dict[str, str | None] | None, str, str]] = {
    "texts first": (SWAPPED, NAMELESS, "x.csv", table('"{text}",{label}')),
    "texts first, tabs": (SWAPPED, NAMELESS, "x.tsv", table("{text}\t{label}")),
    "labels first": (FLAGS, NAMELESS, "x.csv", table('{label},"{text}"')),
    "a run with --header": (HEADER, SAID, "x.csv", table('"{text}",{label}')),
    "a run with --header, labels first": (HEADER, SAID, "x.tsv", table("{label}\t{text}")),
    "an old run with --header": (HEADER, None, "x.csv", table('"{text}",{label}')),
    "names of the run": ({}, SAID, "x.csv", table('{0},"{text}",{label}', "n,said,rating")),
    "names of the run, one row": (
        {},
        SAID,
        "x.tsv",
        table("{label}\t{text}", "rating\tsaid", ROWS[:1]),
    ),
    "new labels": ({}, SAID, "x.csv", table('"{text}",x{label}', "said,rating")),
    "a run with --no-header": (
        {"header": False},
        NAMELESS,
        "x.csv",
        table('"{text}",{label}', "text,label"),
    ),
    "other columns, new labels": (
        FLAGS,
        NAMELESS,
        "x.csv",
        table('x{label},"{text}"', "label,text"),
    ),
    "texts first, a txt": (SWAPPED, NAMELESS, "x.txt", table("{text}\t{label}")),
}


@pytest.mark.parametrize("case", LABELLED)
def test_predict_and_eval_read_the_same_records(
    run_main: RunMain, trained: Run, tmp_path: Path, case: str
) -> None:
    settings, columns, name, content = LABELLED[case]
    run, file = trained(settings, columns), tmp_path / name
    file.write_text(content)
    ended = run_main("predict", run, file, "--json")
    found = [json.loads(line) for line in ended.out.splitlines()]
    wanted = [label for label, text in ROWS if text in content]
    assert [record["label"] for record in found] == wanted, ended.err
    assert records_of(run_main, run, file) == [(each["line"], each["label"]) for each in found]


def test_flags_of_the_command_are_binding(run_main: RunMain, trained: Run, tmp_path: Path) -> None:
    run, file = trained(HEADER, SAID), tmp_path / "x.csv"
    file.write_text(table('"{text}"'))
    assert labels_of(run_main("predict", run, file, "--header", "--json")) == LABELS[1:]
    file.write_text(table('"{text}"', "said"))
    assert len(labels_of(run_main("predict", run, file, "--no-header", "--json"))) == 7
    file.write_text(table('"{text}",{0}', "said,id"))
    ended = run_main("predict", run, file, "--text", "id", "--json")
    assert "text = column 2 'id'" in ended.err


# --- encodings ---------------------------------------------------------------------------------

ACCENTS = [(label, f"{text} á la carte") for label, text in ROWS]
MARKS = {
    "utf-8": (codecs.BOM_UTF8, "utf-8"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "utf-16"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "utf-16"),
    "utf-32-be": (codecs.BOM_UTF32_BE, "utf-32"),
}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp949", "utf-16-le"])
@pytest.mark.parametrize("mark", MARKS)
def test_a_byte_order_mark_overrides_the_encoding_of_the_run(
    run_main: RunMain, trained: Run, tmp_path: Path, mark: str, encoding: str
) -> None:
    run, file = trained({"encoding": encoding}), tmp_path / "x.csv"
    start, name = MARKS[mark]
    file.write_bytes(start + table('"{text}",{label}', "text,label", ACCENTS).encode(mark))
    ended = run_main("predict", run, file, "--json")
    assert labels_of(ended) == LABELS
    assert "header, text = column 1 'text'" in ended.err
    assert f", {name}" in ended.err.splitlines()[0]
    assert len(records_of(run_main, run, file)) == len(ROWS)
    if mark != encoding:
        assert "read by its byte-order mark, not as " in ended.err


def test_a_byte_order_mark_that_contradicts_a_flag_is_refused(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("\ufeff" + table('"{text}",{label}', "text,label", ACCENTS))
    ended = run_main("predict", tiny.run, file, "--encoding", "latin-1")
    assert (ended.code, ended.out) == (65, "")
    assert "a UTF-8 byte-order mark, so this is not iso8859-1; pass --encoding utf-8" in ended.err
    assert labels_of(run_main("predict", tiny.run, file, "--encoding", "utf-8", "--json")) == LABELS


# before: lines before the first one that is not ASCII
@pytest.mark.parametrize("before", [0, 700], ids=["at once", "after the first rows"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp949"])
@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
def test_utf8_overrides_the_encoding_of_the_run(
    run_main: RunMain, trained: Run, tmp_path: Path, name: str, encoding: str, before: int
) -> None:
    run, file = trained({"encoding": encoding}), tmp_path / name
    rows = [ROWS[0]] * before + ACCENTS
    file.write_text(table('"{text}"' if name == "x.csv" else "{text}", rows=rows))
    ended = run_main("predict", run, file, "--with-input")
    assert ended.out.splitlines()[before] == f"good\t{file.read_text().splitlines()[before]}"
    assert len(ended.out.splitlines()) == len(rows)
    assert ended.err.count(f"read as UTF-8, which it is, not as {encoding}, the encoding of") == 1
    assert before or ended.err.splitlines()[0].endswith("utf-8")
    ordered = run_main("predict", run, file, "--with-input", "--encoding", "latin-1")
    assert "Ã¡ la carte" in ordered.out


@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
def test_files_that_are_not_utf8_have_the_encoding_of_the_run(
    run_main: RunMain, trained: Run, tmp_path: Path, name: str
) -> None:
    run, file = trained({"encoding": "latin-1"}), tmp_path / name
    file.write_text(table("{text}", rows=ACCENTS), encoding="latin-1")
    ended = run_main("predict", run, file, "--with-input")
    assert ended.out.splitlines()[0] == "good\twhat a lovely film á la carte"
    assert "read as UTF-8" not in ended.err
    file.write_text(table("{text}"))
    assert run_main("predict", run, file).out.split() == LABELS


def test_utf16_as_the_encoding_of_the_run_is_only_a_hint(
    run_main: RunMain, trained: Run, tmp_path: Path
) -> None:
    run, file = trained({"encoding": "utf-16-le"}), tmp_path / "x.csv"
    file.write_text(table('"{text}"'))
    ended = run_main("predict", run, file, "--json")
    assert labels_of(ended) == LABELS
    assert "read as UTF-8, which it is, not as utf-16-le" in ended.err
    file.write_text(table('"{text}"', rows=ACCENTS), encoding="utf-16-le")
    assert labels_of(run_main("predict", run, file, "--json")) == LABELS


# --- column names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "header", "columns"),
    [
        ("a.csv", "{text},{label}", "said,rating", SAID),
        ("a.jsonl", '{{"text": "{text}", "rating": "{label}"}}', "", {**SAID, "text": "text"}),
        ("a.tsv", "{label}\t{text}", "", NAMELESS),
    ],
    ids=["a header", "keys", "no names"],
)
def test_a_run_records_the_names_of_its_columns(
    run_main: RunMain,
    tmp_path: Path,
    name: str,
    form: str,
    header: str,
    columns: dict[str, str | None],
) -> None:
    file, run = tmp_path / name, tmp_path / "run"
    numbers = {"good": "3", "bad": "1", "none": "2"}
    rows = [(numbers[label], text) for label, text in ROWS * 4]
    file.write_text(table(form, header, rows))
    ended = run_main("train", file, "-o", run, "--epochs", 1, *QUICK)
    assert ended.code == 0, ended.err
    assert RunDir(run).facts().columns == columns
    if columns["text"]:
        texts = tmp_path / "t.csv"
        texts.write_text(table("{0},{text}", f"user,{columns['text']}", rows))
        assert len(run_main("predict", run, texts).out.splitlines()) == len(rows)
        assert f"column 2 '{columns['text']}'" in run_main("predict", run, texts).err
