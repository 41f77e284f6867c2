"""The readers: files round-trip, and errors name file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import queue
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from srucli.config import DataConfig, resolve
from srucli.config import given as given_settings
from srucli.config.sections import FormatName
from srucli.data.formats import FORMATS, format_by_ending
from srucli.data.guess import LONG_LABEL
from srucli.data.labels import clean
from srucli.data.readers import Example, Input, read_examples, read_inputs
from srucli.errors import DataError, InputMissingError, SrucliError, UsageError
from srucli.io.console import excerpt
from srucli.io.lines import Lines
from tests.support import child_environment

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def examples(path: Path, content: bytes, **settings: object) -> list[Example]:
    path.write_bytes(content)
    return list(read_examples(path, DataConfig.model_validate(settings)))


def inputs(path: Path, content: bytes, **settings: object) -> list[Input]:
    path.write_bytes(content)
    return list(read_inputs(path, DataConfig.model_validate(settings)))


# ---------------------------------------------------------------- what is written comes back

FORBIDDEN = "\n\0"


def words(exclude: str) -> st.SearchStrategy[str]:
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters=exclude)
    odd = st.sampled_from(
        [c for c in "\x85\u2028\u2029\x1c\x0b\x0c\r\t\"',;\\ 한글" if c not in exclude]
    )
    return st.text(alphabet | odd, min_size=1, max_size=20).filter(lambda text: text.strip())


def labels(exclude: str) -> st.SearchStrategy[str]:
    """Return short labels, since labels that are longer than the texts may be refused."""
    named = words(exclude + FORBIDDEN + "\r\t\ufeff").map(str.strip).filter(clean)
    return named.filter(lambda name: len(name) <= LONG_LABEL)


def line_end(text: str) -> str:
    """Return CRLF if a text ends in CR, which would be read as part of the line end."""
    return "\r\n" if text.endswith("\r") else "\n"


def write_tsv(rows: list[tuple[str, list[str]]]) -> str:
    return "".join(f"{','.join(names)}\t{text}{line_end(text)}" for text, names in rows)


def write_pairs(rows: list[tuple[str, list[str]]]) -> str:
    return "".join(f"{','.join(names)} \t{text}{line_end(text)}" for text, names in rows)


def write_fasttext(rows: list[tuple[str, list[str]]]) -> str:
    return "".join(
        f"{''.join(f'__label__{name} ' for name in names)}{text}{line_end(text)}"
        for text, names in rows
    )


def write_csv(rows: list[tuple[str, list[str]]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([",".join(names), text] for text, names in rows)
    return out.getvalue()


def write_jsonl(rows: list[tuple[str, list[str]]]) -> str:
    return "".join(
        json.dumps({"text": text, "label": names}, ensure_ascii=bool(i % 2)) + "\n"
        for i, (text, names) in enumerate(rows)
    )


def is_plain(text: str) -> bool:
    """Whether texts cannot be read as numbers or as followed by an empty column."""
    if text.endswith("\t"):
        return False
    return any(map(str.isalpha, text)) or not any(map(str.isdigit, text))


def begins_no_list(label: str) -> bool:
    """Whether a cell that begins with a label is no list, as pandas writes one: [27] or ['a', 'b'].

    If all label cells are lists, they are read as such, also where each text has one label: else
    "[3, 27]" would pass for a class of its own. The layout that is printed says so.
    """
    return not label.startswith(("[", "{", "(", "c(", "set(", "character("))


TEXTS, BARE = (
    words(FORBIDDEN).filter(is_plain),
    words(FORBIDDEN).map(lambda t: t.lstrip(" \t")).filter(str.strip),
)
ROUND_TRIPS = {
    "tsv": (write_tsv, TEXTS, labels(",").filter(begins_no_list)),
    "csv": (write_csv, words("\r\0").filter(is_plain), labels(",").filter(begins_no_list)),
    "jsonl": (write_jsonl, words("\0"), labels("")),
    # A text with a word that begins so has another label.
    "fasttext": (write_fasttext, BARE.filter(lambda t: "__label__" not in t), labels(" ")),
    "pairs": (write_pairs, BARE, labels(" ,")),
}


@pytest.mark.parametrize("kind", ROUND_TRIPS)
@pytest.mark.parametrize("multi", [False, True])
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_round_trip(folder: Path, kind: str, multi: bool, draw: st.DataObject) -> None:
    write, texts, names = ROUND_TRIPS[kind]
    least, most = (0, 3) if multi else (1, 1)
    row = st.tuples(texts, st.lists(names, unique=True, min_size=least, max_size=most))
    rows = draw.draw(st.lists(row, min_size=1, max_size=4))
    opens = any(cell.startswith('"') for text, own in rows for cell in (text, *own))
    closes = any(name.endswith('"') for _, own in rows for name in own)
    assume(kind != "tsv" or not (opens and closes))  # else it may be a quoted cell of two lines
    ending = draw.draw(st.sampled_from(sorted(PACK)))
    no_mark_needed = not rows[0][0].startswith("\ufeff")  # else the text's own would be dropped
    mark = draw.draw(st.sampled_from(["", "\ufeff"])) if no_mark_needed else "\ufeff"
    content = PACK[ending]((mark + write(rows)).encode())
    config = {"format": kind, "multi_label": multi, "header": False}
    got = examples(folder / f"round.any{ending}", content, **config)
    assert [(e.text, list(e.labels)) for e in got] == rows
    unlabelled = inputs(folder / f"round.any{ending}", content, **config)
    assert [(i.text, i.line) for i in unlabelled] == [(e.text, e.line) for e in got]


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0\ufeff"))
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7"]),
    crlf=st.booleans(),
)
def test_lines_round_trip_in_every_encoding(
    folder: Path, lines: list[str], encoding: str, crlf: bool
) -> None:
    whole = "".join(line + ("\r\n" if crlf else line_end(line)) for line in lines)
    marks_itself = encoding in ("utf-8-sig", "utf-16", "utf-32")
    path = folder / "lines"
    path.write_bytes((whole if marks_itself else "\ufeff" + whole).encode(encoding))
    assert list(Lines(path, encoding)) == list(enumerate(lines, 1))


def test_plain_lines_end_only_at_lf(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffa\x85b\u2028c\x0b\x0c\x1cd\re\r\n\n \nlast\r".encode())
    expected = ["a\x85b\u2028c\x0b\x0c\x1cd\re", "", " ", "last\r"]
    assert list(read_inputs(path, DataConfig(), plain=DataConfig())) == [
        Input(t, n, t) for n, t in enumerate(expected, 1)
    ]


def plain_inputs(path: Path, **settings: str) -> Iterator[Input]:
    return read_inputs(path, DataConfig(), plain=DataConfig.model_validate(settings))


def test_encoding_of_plain_inputs(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("안녕\n".encode("cp949"))
    assert [i.text for i in plain_inputs(path, encoding="cp949")] == ["안녕"]
    path.write_bytes(b"a\xffb\n")
    assert [i.text for i in plain_inputs(path, errors="ignore")] == ["ab"]
    assert [i.text for i in plain_inputs(path, errors="replace")] == ["a\ufffdb"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", "pos\tgood, film\tyes\n"),
        ("x.TXT", "pos\tgood, film\tyes\n"),
        ("noending", "pos\tgood, film\tyes\n"),
        ("x.csv", 'pos,"good, film\tyes"\n'),
        ("x.jsonl", '{"label": "pos", "text": "good, film\\tyes"}\n'),
        ("x.ndjson", '{"label": "pos", "text": "good, film\\tyes"}\n'),
        ("x.json", '{"label": "pos", "text": "good, film\\tyes"}\n'),
        ("x.ft", "__label__pos good, film\tyes\n"),
        ("x.fasttext", "__label__pos good, film\tyes\n"),
    ],
)
@pytest.mark.parametrize("packed", PACK)
def test_format_by_suffix(tmp_path: Path, name: str, content: str, packed: str) -> None:
    packed_content = PACK[packed](content.encode())
    got = examples(tmp_path / (name + packed), packed_content)
    assert got == [Example("good, film\tyes", ("pos",), 1)]


def test_compression_is_detected_by_content(tmp_path: Path) -> None:
    assert len(examples(tmp_path / "x.tsv", gzip.compress(b"a\tb\n"))) == 1
    assert len(examples(tmp_path / "y.tsv.gz", b"a\tb\n")) == 1


@pytest.mark.parametrize("kind", [".gz", ".xz", ".zst"])
def test_concatenated_compressed_members(tmp_path: Path, kind: str) -> None:
    content = PACK[kind](b"a\tone\nb\t") + PACK[kind](b"two\n")
    got = examples(tmp_path / f"x.tsv{kind}", content + b"\0" * 8 * (kind != ".zst"))
    assert [e.text for e in got] == ["one", "two"]


HEADED = b"id,review,polarity\n1,good,pos\n2,bad,neg\n"


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        (b"text,category\ngood,pos\n", {}, [("good", "pos", 2)]),
        (b"Sentence,Label\ngood,pos\n", {}, [("good", "pos", 2)]),
        (b"good,pos\n", {"text": 1, "label": 2}, [("good", "pos", 1)]),
        (b"good,pos\n", {"text": "1", "label": "2"}, [("good", "pos", 1)]),
        (
            b"text,category\ngood,pos\n",
            {"header": False},
            [("category", "text", 1), ("pos", "good", 2)],
        ),
        (HEADED, {"text": "review", "label": "polarity"}, [("good", "pos", 2), ("bad", "neg", 3)]),
        (HEADED, {"text": 2, "label": 3, "header": True}, [("good", "pos", 2), ("bad", "neg", 3)]),
        (b"x,y\nneg,bad\n", {"header": True}, [("bad", "neg", 2)]),
        (b"a;b\n", {"delimiter": ";"}, [("b", "a", 1)]),
        (b'a,"x ""y""\nz"\n\nb,c\n', {}, [('x "y"\nz', "a", 1), ("c", "b", 4)]),
        (b"\xef\xbb\xbftext,label\r\ngood,pos\r\n", {}, [("good", "pos", 2)]),
    ],
)
def test_csv_columns(
    tmp_path: Path, content: bytes, settings: dict[str, object], expected: list[tuple[object, ...]]
) -> None:
    got = examples(tmp_path / "x.csv", content, **settings)
    assert [(e.text, e.labels[0], e.line) for e in got] == expected


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        (b"pos\ta\tb\n", {}, ("a\tb", "pos")),
        (b"id\tdocument\tlabel\n7\tgood\tpos\n", {}, ("good", "pos")),
        (b"7\tpos\tgood\n8\tneg\tso\tso\n", {"label": 2, "text": 3}, ("good", "pos")),
        (b"pos|good\n", {"delimiter": "|"}, ("good", "pos")),
        (b' pos \t"good" \n', {}, ('"good" ', "pos")),
        (b"New York, NY\tgood\n", {}, ("good", "New York, NY")),
    ],
)
def test_tsv_columns(
    tmp_path: Path, content: bytes, settings: dict[str, object], expected: tuple[str, str]
) -> None:
    first = examples(tmp_path / "x.tsv", content, **settings)[0]
    assert (first.text, *first.labels) == expected


@pytest.mark.parametrize(
    ("label", "multi", "expected"),
    [
        ('"pos"', False, ("pos",)),
        ("3", False, ("3",)),
        ("2.5", False, ("2.5",)),
        ("true", False, ("true",)),
        ('["pos"]', False, ("pos",)),
        ('"a,b"', False, ("a,b",)),
        ('"a, b"', True, ("a", "b")),
        ('["a,b", 3, false, "a,b"]', True, ("a,b", "3", "false", "a,b")),
        ("[]", True, ()),
        ("null", True, ()),
        ('""', True, ()),
    ],
)
def test_json_labels(tmp_path: Path, label: str, multi: bool, expected: tuple[str, ...]) -> None:
    content = f'{{"label": {label}, "text": "t"}}\n'.encode()
    assert examples(tmp_path / "x.jsonl", content, multi_label=multi)[0].labels == expected


def test_other_json_keys(tmp_path: Path) -> None:
    content = b'{"1": "pos", "body": "good"}\n'
    got = examples(tmp_path / "x.jsonl", content, text="body", label=1)
    assert got == [Example("good", ("pos",), 1)]


def test_multi_label_delimiter(tmp_path: Path) -> None:
    content = b"a, b | c|c\tt\n\tnothing\n"
    got = examples(tmp_path / "x.tsv", content, multi_label=True, label_delimiter="|")
    assert [e.labels for e in got] == [("a, b", "c", "c"), ()]


def test_surrogates_follow_the_errors_setting(tmp_path: Path) -> None:
    content = b'{"label": "a", "text": "x\\ud800y"}\n'
    assert examples(tmp_path / "x.jsonl", content, errors="ignore")[0].text == "xy"
    assert examples(tmp_path / "x.jsonl", content, errors="replace")[0].text == "x?y"


def test_a_line_of_160_000_characters(tmp_path: Path) -> None:
    long = "가" * 160_000
    for name, line in (("x.tsv", f"a\t{long}"), ("x.csv", f"a,{long}"), ("y.csv", f'a,"{long}"')):
        assert examples(tmp_path / name, line.encode()) == [Example(long, ("a",), 1)]


# ---------------------------------------------------------------- inputs of predict


def test_inputs_need_no_labels_and_keep_the_raw_record(tmp_path: Path) -> None:
    csv_content = b'id,text\n1,"a ""b""\nc"\n\n2,\n'
    expected = [Input('a "b"\nc', 2, '1,"a ""b""\nc"'), Input("", 5, "2,")]
    assert inputs(tmp_path / "x.csv", csv_content, text="text", label="label") == expected
    json_content = b'{"text": "a"}\n\n'
    assert inputs(tmp_path / "x.jsonl", json_content) == [Input("a", 1, '{"text": "a"}')]
    assert inputs(tmp_path / "x.txt", b"a\tb\n\n", text=1) == [Input("a", 1, "a\tb")]
    assert inputs(tmp_path / "x.ft", b"plain\n\n__label__x a\n") == [
        Input("plain", 1, "plain"),
        Input("a", 3, "__label__x a"),
    ]
    assert [i.text for i in inputs(tmp_path / "p", b"ham\ta b\n\n", format="pairs")] == ["a b"]


def test_an_empty_file_has_no_inputs(tmp_path: Path) -> None:
    assert inputs(tmp_path / "x.csv", b"") == []
    assert list(read_inputs(tmp_path / "x.csv", DataConfig(), plain=DataConfig())) == []


# ---------------------------------------------------------------- what bad input gets

GOOD = b"a\tone\n"
ERRORS: dict[str, tuple[str, bytes, dict[str, Any], int | None, str, str]] = {
    "empty": ("x.tsv", b"", {}, None, "is empty", "check"),
    "mark only": ("x.tsv", b"\xef\xbb\xbf", {}, None, "is empty", "check"),
    "blank lines only": ("x.tsv", b"\n \n", {}, None, "is empty", "check"),
    "header only": ("x.csv", b"text,label\n", {}, None, "is empty", "check"),
    "no such column": ("x.csv", HEADED, {"text": "body"}, 1, "no column 'body'", "--text"),
    "no label column": ("x.csv", HEADED, {"label": "class"}, 1, "no column 'class'", "--label"),
    "no third column": (
        "x.tsv",
        GOOD,
        {"text": 3},
        1,
        "2 columns only, no text in column 3",
        "--text",
    ),
    "column gone": ("x.csv", b"a,b,c\na,b\n", {"text": 3}, 2, "no text in column 3", "--text"),
    "no key": ("x.jsonl", b'{"text": "a"}\n', {}, 1, "no key 'label', only 'text'", "--label"),
    "commas": ("x.tsv", b"pos,good film\n", {}, 1, "separated by commas", "--format csv"),
    "text, label": ("x.tsv", b"a good film,pos\n", {}, 1, "separated by commas", "--format csv"),
    "semicolons": ("x.tsv", b"pos;good film\n", {}, 1, "semicolons", "--delimiter ';'"),
    "bars": ("x.tsv", b"pos|good film\n", {}, 1, "bars", "--delimiter '|'"),
    "tabs": ("x.csv", b"pos\tgood\n", {"delimiter": ";"}, 1, "by tabs", "--format tsv"),
    "header with tabs": (
        "x.csv",
        b"body\tl\n",
        {"text": "body", "delimiter": ","},
        1,
        "by tabs",
        "--format tsv",
    ),
    "blanks": ("x.tsv", b"0 good , film\n", {}, 1, "a label, a blank", "--format pairs"),
    "fastText": ("x.tsv", b" __label__a b\n", {}, 1, "fastText", "--format fasttext"),
    "fastText, tab": ("x.csv", b"__label__a b\tc\n", {}, 1, "fastText", "--format fasttext"),
    "JSON": ("x.tsv", b'{"text": "a"}\n', {}, 1, "JSON, but read as tsv", "--format jsonl"),
    "JSON in a csv": (
        "x.csv",
        b'{"text": "a", "label": "b"}\n',
        {},
        1,
        "JSON, but read as csv",
        "--format jsonl",
    ),
    "an Excel workbook": (
        "x.csv",
        b"PK\x03\x04\x14\0\x06\0",
        {},
        1,
        "a zip archive or an Excel workbook, which is not read",
        "save it as CSV",
    ),
    "a PNG image": (
        "x.csv",
        b"\x89PNG\r\n\x1a\n\0",
        {},
        1,
        "a PNG image, which",
        "a file of texts",
    ),
    "a program": ("x.txt", b"\x7fELF\2\1\1\0", {}, 1, "a program, which is", "a file of texts"),
    "a database": ("x", b"SQLite format 3\0\1", {}, 1, "an SQLite database, which", "CSV"),
    "bzip2 data": ("x.csv", b"BZh91AY&SYxyz", {}, 1, "bzip2 data, which is", "unpack it"),
    "no pairs": (
        "x.txt",
        "".join(f"{c} film and more\n" for c in "abcdefgh").encode(),
        {},
        1,
        "no label, only one column: 'a film and more'",
        "write a label before each text, as in positive<TAB>a good film",
    ),
    "no pairs, but words that repeat": (
        "x.txt",
        "".join(f"{word} film was good\n" for word in ("the", "the", "this", "a") * 3).encode()
        + b"".join(b"%c film\n" % letter for letter in b"bcd"),
        {},
        1,
        "no label, only one column: 'the film was good'",
        "a good film, or pass --format pairs if the first word of each line is its label",
    ),
    "empty lists of labels": (
        "x.jsonl",
        b'{"text": "a b", "labels": []}\n' * 12,
        {},
        1,
        "no label for the text 'a b'",
        "add a label",
    ),
    "later line without tab": ("x.tsv", GOOD + b"two, 2\n", {}, 2, "1 column only", "add the text"),
    "tab in label": ("x.tsv", b"t\tl\nt\tl\tm\n", {"text": 1, "label": 2}, 2, "3 columns", "tab"),
    "comma in text": (
        "x.csv",
        b"a,b\na,b, c\n",
        {},
        2,
        "3 columns, but the first row has 2",
        '"..."',
    ),
    "label only": ("x.tsv", GOOD + b"a\t\n", {}, 2, "no text for the label 'a'", "add a text"),
    "white text": ("x.tsv", GOOD + b"a\t \n", {}, 2, "no text for the label 'a'", "add a text"),
    "text only": ("x.tsv", GOOD + b"\ttwo\n", {}, 2, "no label for the text 'two'", "add a label"),
    "csv text only": ("x.csv", b"a,b\n,c\n", {}, 2, "no label for the text 'c'", "add a label"),
    "ft text only": ("x.ft", b"one\n", {}, 1, "no __label__", "__label__NAME"),
    "ft label only": ("x.ft", b"__label__a\n", {}, 1, "no text for the label 'a'", "add a text"),
    "ft empty label": ("x.ft", b"__label__ b\n", {}, 1, "an empty label", "name it"),
    "pairs label only": ("x", b"a b\nham\n", {"format": "pairs"}, 2, "'ham'", "blank"),
    "pairs text only": ("x", b" one\n", {"format": "pairs"}, 1, "no label", "add a label"),
    "JSON text only": ("x.json", b'{"text":"a","label":null}', {}, 1, "no label", "add a label"),
    "JSON label only": ("x.json", b'{"text":"","label":"b"}', {}, 1, "no text", "add a text"),
    "two labels": (
        "x.ft",
        b"__label__a __label__b c\n",
        {},
        1,
        "2 labels: 'a, b'",
        "--multi-label",
    ),
    "two JSON labels": (
        "x.json",
        b'{"text":"t","label":[1,2]}',
        {},
        1,
        "2 labels",
        "--multi-label",
    ),
    "hole in labels": (
        "x.tsv",
        b"a,,b\tc\n",
        {"multi_label": True},
        1,
        "an empty label among",
        "name",
    ),
    "line end in label": ("x.csv", b'"a\nb",c\n', {}, 1, r"the label 'a\nb'", "remove it"),
    "not UTF-8": (
        "x.tsv",
        GOOD + b"b\ttr\xe8s\n",
        {},
        2,
        "byte 5 of the line (0xe8) is not utf-8",
        "--encoding",
    ),
    "not UTF-8 either": (
        "x.csv",
        b"a,b\n\xff,c\n",
        {},
        2,
        "byte 1 of the line (0xff)",
        "--errors replace",
    ),
    "not ASCII": (
        "x.tsv",
        "b\té\n".encode(),
        {"encoding": "ascii"},
        1,
        "is not ascii",
        "--encoding",
    ),
    "cut UTF-8": ("x.tsv", GOOD + b"a\t\xea\xb0", {}, 2, "byte 3 of the line (0xea)", "--encoding"),
    "UTF-16": (
        "x.tsv",
        GOOD.decode().encode("utf-16"),
        {"encoding": "latin-1"},
        1,
        "UTF-16 byte-order mark",
        "--encoding utf-16",
    ),
    "UTF-16 BE": (
        "x.tsv",
        b"\xfe\xff\0a\0\t",
        {"encoding": "ascii"},
        1,
        "UTF-16 byte-order mark",
        "--encoding utf-16",
    ),
    "UTF-32": (
        "x.tsv",
        GOOD.decode().encode("utf-32"),
        {"encoding": "cp949"},
        1,
        "UTF-32 byte-order mark",
        "--encoding utf-32",
    ),
    "UTF-16 cut": (
        "x.tsv",
        "a\tone\nb\ttwo\n".encode("utf-16")[:-1],
        {"encoding": "utf-16"},
        2,
        "byte 0x0a is not utf-16",
        "--encoding",
    ),
    "UTF-16 wrong": (
        "x.tsv",
        "a\tone\nb\t".encode("utf-16-le") + b"\0\xdc",
        {"encoding": "utf-16-le"},
        2,
        "byte 0x00 is not utf-16-le",
        "--encoding",
    ),
    "UTF-16 unmarked": ("x.tsv", b"a\0\t\0b\0\n\0", {"encoding": "utf-16"}, 1, "BOM", "utf-16-le"),
    "NUL": ("x.tsv", GOOD + b"a\tb\0c\n", {}, 2, r"a NUL character after 'a\tb'", "remove it"),
    "JSON NUL": (
        "x.json",
        b'{"text":"a\\u0000","label":1}',
        {},
        1,
        r"NUL character in 'a\x00'",
        "remove",
    ),
    "JSON cut": (
        "x.jsonl",
        b'{"text":"a","label":1}\n{"text": "ab',
        {},
        2,
        "cut short after '{",
        "whole",
    ),
    **{
        f"an array cut after {what}": (
            *("x.json", content, {}, None),
            *("the JSON array is cut short after 1 objects", "copy the file again, or end it"),
        )
        for what, content in (
            ("an object", b'[{"text": "ab", "label": "x"}'),
            ("a comma", b'[{"text": "ab", "label": "x"},\n'),
        )
    },
    "JSON cut later": ("x.jsonl", b'{"text": "ab",\n', {}, 1, "cut short", "whole object"),
    "JSON wrong": (
        "x.jsonl",
        b"{'text': 1}\n",
        {},
        1,
        "invalid JSON from character 2",
        "whole object",
    ),
    "JSON list": (
        "x.json",
        b'["a", "b"]',
        {},
        1,
        "object 1 of the array is not a JSON obj",
        "each line",
    ),
    "JSON string": ("x.json", b'"a"\n', {}, 1, "not a JSON object", "each line"),
    "JSON deep": ("x.json", b'{"a":' + b"[" * 200_000, {}, 1, "cut short", "whole object"),
    "JSON too deep": (
        "x.json",
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        {},
        1,
        "JSON that cannot be read",
        "simpler",
    ),
    "JSON number": ("x.json", b"9" * 5_000, {}, 1, "JSON that cannot be read", "simpler"),
    "JSON text of 3": ("x.json", b'{"text": 3, "label": 1}', {}, 1, "the text is '3'", "quotes"),
    "JSON label of {}": (
        "x.json",
        b'{"text": "a", "label": {}}',
        {},
        1,
        "the label is '{}'",
        "string",
    ),
    "surrogate": (
        "x.json",
        b'{"text":"\\ud800","label":1}',
        {},
        1,
        r"'\ud800'",
        "--errors replace",
    ),
    "open quote": ("x.csv", b'a,b\nc,"d\ne,f\n', {}, 2, "the quote that opens here", "close it"),
    "open quote below": (
        "x.csv",
        b'a,b\n"c\nd","e ""x"",\n"",f\n',
        {},
        3,
        "the quote that opens here never closes",
        "close it",
    ),
    "quote inside": ("x.csv", b'a,b\nc,"say "hi" now"\n', {}, 2, "after the closing quote", '("")'),
    "CR in csv": ("x.csv", b"a,b\rc,d\n", {}, 1, r"carriage return outside quotes: 'b\rc,d'", "LF"),
    "huge field": ("x.csv", b"a,b\nc," + b"x" * 10_000_001, {}, 2, "over 10,000,000", "quote"),
    "gzip cut": (
        "x.tsv.gz",
        gzip.compress(GOOD * 3)[:-4],
        {},
        4,
        "gzip data is cut short",
        "again",
    ),
    "gzip broken": (
        "x.tsv.gz",
        gzip.compress(GOOD)[:-8] + b"12345678",
        {},
        1,
        "broken gzip",
        "again",
    ),
    "gzip tail": ("x.tsv.gz", gzip.compress(GOOD) + b"more", {}, 2, "broken gzip", "again"),
    "xz cut": ("x.tsv.xz", lzma.compress(GOOD)[:-4], {}, 2, "xz data is cut short", "again"),
    "xz broken": (
        "x.tsv.xz",
        lzma.compress(GOOD)[:8] + b"nonsense" * 4,
        {},
        1,
        "broken xz",
        "again",
    ),
    "zst cut": (
        "x.tsv.zst",
        zstandard.compress(GOOD)[:-1],
        {},
        1,
        "zstandard data is cut",
        "again",
    ),
    "zst broken": (
        "x.tsv.zst",
        zstandard.compress(GOOD)[:6] + b"\xff" * 9,
        {},
        1,
        "broken zst",
        "again",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_data(tmp_path: Path, case: str) -> None:
    name, content, config, line, problem, remedy = ERRORS[case]
    path = tmp_path / name
    with pytest.raises(DataError) as caught:
        examples(path, content, **config)
    where = str(path) if line is None else f"{path}:{line}"
    message = str(caught.value)
    assert message.startswith(f"{where}: ")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert message.isprintable()
    assert len(message) - len(where) < 260


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"a\tone\nbroken\n", 2), (b"a\tone\n\xff\tb\n", 2), (b"a\tone\n\0\tb\n", 2)],
)
def test_a_broken_record_among_inputs(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    stream = read_inputs(path, DataConfig())
    assert next(stream).text == "one"
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}:{line}: "):
        next(stream)


def test_broken_gzip_yields_its_complete_lines_first(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\nthree", mtime=0)[:-3])
    stream = Lines(path)
    assert [next(stream), next(stream)] == [(1, "one"), (2, "two")]
    with pytest.raises(DataError, match=r"x\.gz:3: the gzip data is cut short"):
        next(stream)


@pytest.mark.parametrize(
    "config",
    [
        {"encoding": "nonsense"},
        {"encoding": "rot13"},
        {"encoding": "utf\0"},
        {"text": 0},
        {"text": 1},
        {"text": 2, "label": 2},
        {"text": "text", "label": "text"},
        {"delimiter": '"'},
    ],
)
def test_invalid_settings(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        examples(tmp_path / "x.csv", b"label,text\na,b\n", **config)


def test_missing_files_folders_and_permissions(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputMissingError, match=f"^{re.escape(str(path))}: {why}"):
            list(Lines(path))
    closed = tmp_path / "closed"
    closed.write_bytes(b"x\n")
    closed.chmod(0)
    was_root = os.geteuid() == 0
    if was_root:  # root may read anything, so become another user
        os.seteuid(65534)
    try:
        with pytest.raises(InputMissingError, match="no permission"):
            list(Lines(closed))
    finally:
        if was_root:
            os.seteuid(0)


def test_zstandard_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SrucliError, match=r"pip install 'srucli\[zst\]'$"):
        examples(tmp_path / "x.tsv.zst", zstandard.compress(GOOD))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=100))
def test_excerpts_are_short_and_printable(text: str) -> None:
    shown = excerpt(text)
    assert len(shown) < 60
    assert shown.isprintable()


def test_excerpts_escape_control_characters_only() -> None:
    assert excerpt("\x1b[31m한글\u202e\x9b") == r"'\x1b[31m한글\u202e\x9b'"
    assert excerpt("가" * 200) == f"'{'가' * 54}'..."
    assert excerpt(["\x1b", 1]) == r"['\x1b', 1]"
    assert excerpt([0] * 99) == "[" + "0, " * 17 + "0,..."


# ---------------------------------------------------------------- streams


def in_thread(stream: Iterator[str]) -> tuple[threading.Thread, queue.Queue[str]]:
    """Read a stream in a thread, so that the test notices a reader that waits too long."""
    got: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for item in stream:
            got.put(item)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread, got


STREAMS = {
    "plain": "{}",
    "tsv": "a\t{}",
    "csv": 'a,"{}"',
    "jsonl": '{{"label": 1, "text": "{}"}}',
    "fasttext": "__label__a {}",
    "pairs": "a {}",
}


def texts_of(source: str, kind: str) -> Iterator[str]:
    if kind == "plain":
        yield from (given.text for given in plain_inputs(Path(source)))
        return
    config = DataConfig.model_validate({"format": kind})
    yield from (given.text for given in read_inputs(source, config))


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_is_yielded_as_soon_as_it_ends(kind: str, packed: bool) -> None:
    read_end, write_end = os.pipe()
    compressor = zlib.compressobj(wbits=31)
    thread, got = in_thread(texts_of(f"/dev/fd/{read_end}", kind))
    try:
        for number in range(3):
            line = (STREAMS[kind].format(f"text {number}") + "\n").encode()
            if packed:
                line = compressor.compress(line) + compressor.flush(zlib.Z_SYNC_FLUSH)
            for piece in (line[:1], line[1:]):
                os.write(write_end, piece)
            assert got.get(timeout=10) == f"text {number}"
        os.write(write_end, compressor.flush() if packed else b"")
    finally:
        os.close(write_end)
        thread.join(timeout=10)
        os.close(read_end)


STDIN_SCRIPT = """
import sys
from srucli.config import DataConfig
from srucli.config import given as given_settings
from srucli.data.readers import read_examples
from srucli.errors import SrucliError
try:
    for example in read_examples("-", DataConfig()):
        print(example.labels, example.text, flush=True)
except SrucliError as error:
    print(error)
print(sorted({"torch", "numpy"} & set(sys.modules)))
"""


def test_stdin_is_tsv_and_nothing_heavy_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STDIN_SCRIPT],
        input=gzip.compress("pos\t좋다\nbroken\n".encode()),
        capture_output=True,
        env=child_environment(PYTHONIOENCODING="utf-8"),
        timeout=60,
    )
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "('pos',) 좋다"
    assert lines[1].startswith("<stdin>:2: 1 column only")
    assert lines[2] == "[]"


def test_closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputMissingError, match="<stdin>: is closed"):
        list(Lines("-"))


# ---------------------------------------------------------------- real files


def test_traps(shared_data: Path) -> None:
    def load(name: str, **settings: object) -> list[Example]:
        path = shared_data / "traps" / name
        return list(read_examples(path, DataConfig.model_validate(settings)))

    with pytest.raises(DataError, match=r"rt-polarity.all.gz:32: byte 19 .*--encoding"):
        load("rt-polarity.all.gz", format="pairs")
    with pytest.raises(DataError, match=r"rt-polarity.all.gz:1: .*--format pairs"):
        load("rt-polarity.all.gz")
    polarity = load("rt-polarity.all.gz", format="pairs", encoding="latin-1")
    assert len(polarity) == 10_662
    assert {e.labels for e in polarity} == {("0",), ("1",)}
    assert "clichés" in polarity[31].text
    banking = load("banking77_train.csv.gz")
    assert len(banking) == 10_003
    assert len({e.labels for e in banking}) == 77
    assert banking[0] == Example("I am still waiting on my card?", ("card_arrival",), 2)
    news = load("agnews_test.csv.gz", text=3)
    assert len(news) == 7_600
    assert {e.labels for e in news} == {("1",), ("2",), ("3",), ("4",)}
    for kind in ("auto", "pairs"):
        spam = load("SMSSpamCollection.gz", format=kind)
        assert len(spam) == 5_574
        assert {e.labels for e in spam} == {("ham",), ("spam",)}


def test_every_data_set_has_the_rows_of_its_readme(shared_data: Path) -> None:
    table = re.findall(
        r"^\| (\w+) \| ([^|]*\d[^|]*) \| (\d+) \|", (shared_data / "README.md").read_text(), re.M
    )
    assert len(table) > 15
    for name, rows, classes in table:
        promised = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", rows)}
        config = DataConfig(multi_label=name == "goemotions")
        counts, seen = set[int](), set[str]()
        for path in sorted((shared_data / name).glob("*.tsv.gz")):
            labels_of = [e.labels for e in read_examples(path, config)]
            counts.add(len(labels_of))
            seen.update(label for labels in labels_of for label in labels)
        assert counts == promised, name
        assert len(seen) >= int(classes), name


# ---------------------------------------------------------------- what reading says


def said(path: Path, content: bytes, **settings: object) -> list[str]:
    """Return the messages about a file read with these settings, without its layout."""
    path.write_bytes(content)
    lines: list[str] = []
    config = DataConfig.model_validate(settings)
    list(read_examples(path, config).reported(lines.append, given=given_settings(config)))
    return [line.removeprefix(f"{path}: ") for line in lines[1:]]


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        pytest.param("x.jsonl", b'{"label": "a", "text": "b"}\n', {"header": True}, id="json"),
        pytest.param("x", b'{"label": "a", "text": "b"}\n', {"delimiter": ","}, id="seen json"),
        pytest.param("x", b"__label__a b\n", {"text": 2}, id="seen fasttext"),
        pytest.param("x.ft", b"__label__a b\n", {"label_delimiter": ";"}, id="fasttext"),
        pytest.param("x", b"a b\n", {"quotes": False, "format": "pairs"}, id="pairs"),
    ],
)
def test_settings_without_effect_are_reported(
    tmp_path: Path, name: str, content: bytes, settings: dict[str, object]
) -> None:
    (line,) = said(tmp_path / name, content, **settings)
    key, format = next(iter(settings)), line.rpartition(" ")[2]
    assert line == f"data.{key} has no effect on {format}"
    assert format in ("jsonl", "fasttext", "pairs")


@pytest.mark.parametrize("key", ["header", "delimiter", "quotes", "text", "label_delimiter"])
def test_every_setting_has_an_effect_on_tables(tmp_path: Path, key: str) -> None:
    value = {"delimiter": ",", "text": "text", "label_delimiter": ";"}.get(key, True)
    assert said(tmp_path / "x.csv", b"label,text\na,b\n", **{key: value}) == []


def test_settings_of_a_run_are_not_reported(tmp_path: Path) -> None:
    whole = DataConfig().model_dump()
    assert said(tmp_path / "x.jsonl", b'{"label": "a", "text": "b"}\n', **whole) == []


@pytest.mark.parametrize(
    ("content", "settings", "loss"),
    [
        pytest.param(
            b"a\tx\xffy\xfe\nb\tz\xe9\n", {}, "3 sequences of bytes that are not utf-8", id="utf-8"
        ),
        pytest.param(
            "a\tx\nb\ty".encode("utf-16-le") + b"\n",
            {"encoding": "utf-16-le"},
            "a sequence of bytes that is not utf-16-le",
            id="utf-16",
        ),
        pytest.param("a\tx\ufffd\n".encode(), {}, "", id="none"),
    ],
)
def test_replaced_and_ignored_bytes_are_counted(
    tmp_path: Path, content: bytes, settings: dict[str, object], loss: str
) -> None:
    for errors, how in {"replace": "replaced", "ignore": "left out"}.items():
        lines = said(tmp_path / "x.tsv", content, errors=errors, **settings)
        assert lines == ([f"{loss} {how}"] if loss else [])


def test_format_lines_ignores_the_suffix(tmp_path: Path) -> None:
    content = b"\nlabel,text\na\tb\n{\n\n"
    found = inputs(tmp_path / "x.csv", content, format="lines")
    assert [(i.text, i.line) for i in found] == [
        *(("", 1), ("label,text", 2), ("a\tb", 3), ("{", 4), ("", 5)),
    ]
    with pytest.raises(UsageError, match="lines are texts without labels; pass --format auto"):
        examples(tmp_path / "x.csv", content, format="lines")


def test_every_format_is_in_the_help_and_in_the_error(tmp_path: Path) -> None:
    described = DataConfig.model_fields["format"].description or ""
    with pytest.raises(UsageError, match=r"^data\.format: 'excel' is unknown") as caught:
        resolve(overrides=["data.format=excel"])
    for said in (described, str(caught.value)):
        assert {*FORMATS, "auto"} <= {*re.findall(r"\w+", said)}
    assert get_args(FormatName) == ("auto", *FORMATS)


@pytest.mark.parametrize("name", ["X.CSV", "x.Csv.GZ"])
def test_a_suffix_may_be_upper_case(name: str) -> None:
    assert format_by_ending(name) == format_by_ending("x.csv") == "csv"


def test_replaced_surrogates_are_counted(tmp_path: Path) -> None:
    content = b'{"label": "a", "text": "x\\ud800y\\ud800"}\n'
    assert said(tmp_path / "x.jsonl", content, errors="replace") == [
        "2 sequences of bytes that are not utf-8 replaced"
    ]
