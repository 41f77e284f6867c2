"""The layouts that are detected, reported, or refused with flags that help.

Every row of LAYOUTS is a file with the same texts and labels, as people and programs write them.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import random
import re
import shlex
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from srucli.cli.options import parse
from srucli.config import DataConfig, resolve
from srucli.data.cells import Cells, list_items
from srucli.data.layout import ReadTask
from srucli.data.names import find_names
from srucli.data.readers import read_examples, read_inputs
from srucli.errors import DataError, UsageError
from srucli.io.lines import Lines

Rows = Sequence[tuple[str, str]]
KINDS, OPINIONS = ("film", "story", "scene", "actor"), {"pos": "superb", "neg": "boring"}
# Labels and texts, with characters that matter to formats.
ROWS: Rows = [
    (label, f'the {kind}, they said, was "{word}"; number {chr(97 + place)}')
    for place, (kind, (label, word)) in enumerate(itertools.product(KINDS, OPINIONS.items()))
]
PLAIN: Rows = [
    (label, f"the {kind} was {word}") for kind in KINDS for label, word in OPINIONS.items()
]


MANY = [
    (("pos", "neg")[n % 2], f"the {a} was {b} {c}")
    for n, (a, b, c) in enumerate(itertools.product(KINDS, OPINIONS.values(), "abc"))
]


def written(rows: Sequence[Sequence[object]], **how: Any) -> str:
    """Return rows as written by Python's csv module."""
    out = io.StringIO()
    csv.writer(out, **{"lineterminator": "\n", **how}).writerows(rows)
    return out.getvalue()


def swapped(rows: Rows) -> list[tuple[str, str]]:
    return [(text, label) for label, text in rows]


def numbered(rows: Rows) -> list[tuple[int, str, str]]:
    return [(number, *row) for number, row in enumerate(rows, 1)]


def by_r(rows: Rows, delimiter: str, quote: str = '\\"') -> str:
    """Like write.table: quotes around all but numbers, and row names without a column name."""

    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', quote) + '"'

    lines = [("label", "text"), *((str(n), *row) for n, row in enumerate(rows, 1))]
    return "".join(delimiter.join(map(quoted, line)) + "\n" for line in lines)


def objects(rows: Rows, text: str = "text", label: str = "label") -> list[dict[str, str]]:
    return [{text: said, label: name} for name, said in rows]


def lines(rows: Rows, form: str, end: str = "\n") -> str:
    return "".join(form.format(label=label, text=text) + end for label, text in rows)


TAB, COMMA = "tsv, delimiter tab", "csv, delimiter ','"
ALL = {"quoting": csv.QUOTE_ALL}
LAYOUTS: dict[str, tuple[str, str | bytes, Rows, dict[str, Any], str]] = {
    "tsv": (
        "x.tsv",
        lines(ROWS, "{label}\t{text}"),
        ROWS,
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8",
    ),
    "a header of two names": (
        "x.csv",
        written([("Sentiment", "Review"), *ROWS]),
        ROWS,
        {},
        f"{COMMA}, header, text = column 2 'Review', label = column 1 'Sentiment', quotes, utf-8",
    ),
    "a header in capitals, label last": (
        "x.csv",
        written([("TEXT", "LABEL"), *swapped(ROWS)]),
        ROWS,
        {},
        f"{COMMA}, header, text = column 1 'TEXT', label = column 2 'LABEL', quotes, utf-8",
    ),
    "a header of one known name": (
        "x.tsv",
        lines([("kind", "sentence"), *PLAIN], "{label}\t{text}"),
        PLAIN,
        {},
        f"{TAB}, header, text = column 2 'sentence', label = column 1 'kind', no quotes, utf-8",
    ),
    "a header in Korean": (
        "x.csv",
        written([("본문", "감정"), *swapped(ROWS)]),
        ROWS,
        {},
        f"{COMMA}, header, text = column 1 '본문', label = column 2 '감정', quotes, utf-8",
    ),
    "a header of unknown names above numbers": (
        "x.csv",
        written([("y", "x"), *((len(label) % 2, text) for label, text in ROWS)]),
        [("1", text) for _, text in ROWS],
        {},
        f"{COMMA}, header, text = column 2 'x', label = column 1 'y', quotes, utf-8",
    ),
    "ids and dates": (
        "x.csv",
        written(
            [
                ("id", "date", "text", "class"),
                *((n, f"2020-01-0{n}", text, label) for n, label, text in numbered(ROWS)),
            ]
        ),
        ROWS,
        {},
        f"{COMMA}, header, text = column 3 'text', label = column 4 'class', "
        "not read: columns 1 'id', 2 'date', quotes, utf-8",
    ),
    "one known name of four": (
        "x.csv",
        written(
            [
                ("nr", "when", "text", "what"),
                *((n, f"2020-01-0{n}", text, label) for n, label, text in numbered(ROWS)),
            ]
        ),
        ROWS,
        {},
        f"{COMMA}, header, text = column 3 'text', label = column 4 'what', "
        "not read: columns 1 'nr', 2 'when', quotes, utf-8",
    ),
    "three columns without a header, as AG's news": (
        "x.csv",
        written([(label, text[4:14], text) for label, text in ROWS], **ALL),
        ROWS,
        {},
        f"{COMMA}, no header, text = column 3, label = column 1, not read: column 2, quotes, utf-8",
    ),
    "ids, texts, labels without a header": (
        "x.csv",
        written([(n, text, label) for n, label, text in numbered(ROWS)]),
        ROWS,
        {},
        f"{COMMA}, no header, text = column 2, label = column 3, not read: column 1, quotes, utf-8",
    ),
    "every cell of a tsv quoted": (
        "x.tsv",
        written(ROWS, delimiter="\t", **ALL),
        ROWS,
        {},
        f"{TAB}, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "texts of a tsv quoted": (
        "x.tsv",
        written([(0, text) for _, text in ROWS], delimiter="\t", quoting=csv.QUOTE_NONNUMERIC),
        [("0", text) for _, text in ROWS],
        {},
        f"{TAB}, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "texts of a tsv that are quotes": (
        "x.tsv",
        '0\t"\n' * 4,
        [("0", '"')] * 4,
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8",
    ),
    "speech over two rows of a tsv": (
        "x.tsv",
        'said\t"I came\nsaid\tand saw"\nnews\t"he\nsaid\tso"\n',
        [("said", '"I came'), ("said", 'and saw"'), ("news", '"he'), ("said", 'so"')],
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8",
    ),
    "tabs and lines in the cells of a tsv": (
        "x.tsv",
        written([(label, f"{text}\n\tso") for label, text in ROWS], delimiter="\t"),
        [(label, f"{text}\n\tso") for label, text in ROWS],
        {},
        f"{TAB}, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "pandas' tsv": (
        "x.tsv",
        written([("text", "label"), *swapped([*ROWS, *PLAIN])], delimiter="\t"),
        [*ROWS, *PLAIN],
        {},
        f"{TAB}, header, text = column 1 'text', label = column 2 'label', quotes, utf-8",
    ),
    "pandas' index": (
        "x.csv",
        written([("", "label", "text"), *numbered(ROWS)]),
        ROWS,
        {},
        f"{COMMA}, header, text = column 3 'text', label = column 2 'label', "
        "not read: column 1, quotes, utf-8",
    ),
    "R's write.csv": (
        "x.csv",
        written([("", "label", "text"), *numbered(ROWS)], **ALL),
        ROWS,
        {},
        f"{COMMA}, header, text = column 3 'text', label = column 2 'label', "
        "not read: column 1, quotes, utf-8",
    ),
    "R's write.csv2": (
        "x.csv",
        written([("", "label", "text"), *numbered(ROWS)], delimiter=";", **ALL),
        ROWS,
        {},
        "csv, delimiter ';', header, text = column 3 'text', label = column 2 'label', "
        "not read: column 1, quotes, utf-8",
    ),
    "R's write.table with tabs": (
        "x.tsv",
        by_r(ROWS, "\t"),
        ROWS,
        {},
        f"{TAB}, header, text = column 3 'text', label = column 2 'label', "
        r"not read: column 1, quotes (\" inside of them), utf-8",
    ),
    "R's write.table with blanks": (
        "x.txt",
        by_r(ROWS, " "),
        ROWS,
        {},
        "tsv, delimiter blank, header, text = column 3 'text', label = column 2 'label', "
        r"not read: column 1, quotes (\" inside of them), utf-8",
    ),
    "R's write.table without quotes": (
        "x.tsv",
        "label\ttext\n" + "".join(f"{n}\t{label}\t{text}\n" for n, label, text in numbered(PLAIN)),
        PLAIN,
        {},
        f"{TAB}, header, text = column 3 'text', label = column 2 'label', "
        "not read: column 1, no quotes, utf-8",
    ),
    "Excel's csv where commas are decimal": (
        "x.csv",
        "\ufeff"
        + written([("Text", "Klasse"), *swapped(ROWS)], delimiter=";", lineterminator="\r\n"),
        ROWS,
        {},
        "csv, delimiter ';', header, text = column 1 'Text', label = column 2 'Klasse', "
        "quotes, utf-8",
    ),
    "Excel's line that names the delimiter": (
        "x.csv",
        "sep=|\r\n" + written(ROWS, delimiter="|", lineterminator="\r\n"),
        ROWS,
        {},
        "csv, delimiter '|', no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "Excel's line that names the delimiter, in a text file": (
        "x.txt",
        "sep=;\r\n"
        + written([("Text", "Label"), *swapped(ROWS)], delimiter=";", lineterminator="\r\n"),
        ROWS,
        {},
        "csv, delimiter ';', header, text = column 1 'Text', label = column 2 'Label', "
        "quotes, utf-8",
    ),
    "Excel's Unicode text": (
        "x.txt",
        written([("Text", "Label"), *swapped(ROWS)], delimiter="\t", lineterminator="\r\n").encode(
            "utf-16"
        ),
        ROWS,
        {},
        f"{TAB}, header, text = column 1 'Text', label = column 2 'Label', quotes, utf-16",
    ),
    "Excel's quotes around commas": (
        "x.txt",
        "".join(f'{label}\t"{text}, so"\r\n' for label, text in PLAIN[:4])
        + "".join(f"{label}\t{text}\r\n" for label, text in PLAIN[4:]),
        [*((label, f"{text}, so") for label, text in PLAIN[:4]), *PLAIN[4:]],
        {},
        f"{TAB}, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "a comma after each row but the header": (
        "x.csv",
        "text,label\n" + lines(PLAIN, "{text},{label},"),
        PLAIN,
        {},
        f"{COMMA}, header, text = column 1 'text', label = column 2 'label', quotes, utf-8",
    ),
    "Excel's empty columns and rows": (
        "x.csv",
        written([("text", "label", "", ""), *((text, label, "", "") for label, text in ROWS)])
        + ",,,\n,,,\n",
        ROWS,
        {},
        f"{COMMA}, header, text = column 1 'text', label = column 2 'label', "
        "2 empty at the end, quotes, utf-8",
    ),
    "empty columns of a tsv": (
        "x.tsv",
        lines(ROWS, "{label}\t{text}\t\t"),
        ROWS,
        {},
        f"{TAB}, no header, text = column 2, label = column 1, 2 empty at the end, "
        "no quotes, utf-8",
    ),
    "blanks after commas": (
        "x.csv",
        written(ROWS, **ALL).replace('","', '", "'),
        ROWS,
        {},
        f"{COMMA}, no header, text = column 2, label = column 1, quotes, "
        "without blanks after delimiters, utf-8",
    ),
    "blanks after commas alone": (
        "x.csv",
        "label, text\n" + lines(PLAIN, "{label}, {text}"),
        PLAIN,
        {},
        f"{COMMA}, header, text = column 2 'text', label = column 1 'label', quotes, "
        "without blanks after delimiters, utf-8",
    ),
    "quotes after backslashes in a csv": (
        "x.csv",
        "label,text\n" + "".join('{},"{}"\n'.format(a, b.replace('"', '\\"')) for a, b in ROWS),
        ROWS,
        {},
        f"{COMMA}, header, text = column 2 'text', label = column 1 'label', "
        r"quotes (\" inside of them), utf-8",
    ),
    "decimal commas, semicolons and no header": (
        "x.csv",
        lines(PLAIN, "0,5;{text};{label}"),
        PLAIN,
        {},
        "csv, delimiter ';', no header, text = column 2, label = column 3, not read: column 1, "
        "quotes, utf-8",
    ),
    "a comma in each text, semicolons and no header": (
        "x.csv",
        lines(PLAIN, "{label};well, {text}"),
        [(label, f"well, {text}") for label, text in PLAIN],
        {},
        "csv, delimiter ';', no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "a csv with known names in a text file": (
        "x.txt",
        written([("text", "label"), *swapped(ROWS)]),
        ROWS,
        {},
        "tsv, delimiter ',', header, text = column 1 'text', label = column 2 'label', "
        "quotes, utf-8",
    ),
    "pandas' numbers for names": (
        "x.csv",
        written([("0", "1"), *PLAIN]),
        PLAIN,
        {},
        f"{COMMA}, header, text = column 2 '1', label = column 1 '0', quotes, utf-8",
    ),
    "pandas' numbers for names and rows": (
        "x.csv",
        written([("", "0", "1"), *numbered(PLAIN)]),
        PLAIN,
        {},
        f"{COMMA}, header, text = column 3 '1', label = column 2 '0', not read: column 1, "
        "quotes, utf-8",
    ),
    "R's names for columns without, and a short text": (
        "x.csv",
        "V1,V2,,\n" + lines([*PLAIN, ("pos", "ok")], "{label},{text},,"),
        [*PLAIN, ("pos", "ok")],
        {},
        f"{COMMA}, header, text = column 2 'V2', label = column 1 'V1', 2 empty at the end, "
        "quotes, utf-8",
    ),
    "a missing value above numbers is no name": (
        "x.csv",
        "NA,fine\n1,good\n0,bad\n1,great\n",
        [("NA", "fine"), ("1", "good"), ("0", "bad"), ("1", "great")],
        {},
        f"{COMMA}, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "addresses longer than texts": (
        "x.csv",
        written([(f"https://example.org/films/{n}?from=a", b, a) for n, a, b in numbered(PLAIN)]),
        PLAIN,
        {},
        f"{COMMA}, no header, text = column 2, label = column 3, not read: column 1, quotes, utf-8",
    ),
    "ids longer than texts": (
        "x.csv",
        written([(f"8f14e45f-ceea-467a-9575-1234567{n:05}", b, a) for n, a, b in numbered(PLAIN)]),
        PLAIN,
        {},
        f"{COMMA}, no header, text = column 2, label = column 3, not read: column 1, quotes, utf-8",
    ),
    "dates in words longer than texts": (
        "x.csv",
        written([(a, f"Mon Apr {n:02} 22:19:{n + 9} PDT 2009", b) for n, a, b in numbered(PLAIN)]),
        PLAIN,
        {},
        f"{COMMA}, no header, text = column 3, label = column 1, not read: column 2, quotes, utf-8",
    ),
    "one sentence for all, longer than texts": (
        "x.csv",
        written([(label, "a column that always says the same", text) for label, text in PLAIN]),
        PLAIN,
        {},
        f"{COMMA}, no header, text = column 3, label = column 1, not read: column 2, quotes, utf-8",
    ),
    "semicolons in no csv": (
        "x.txt",
        lines(PLAIN, "{label};{text}"),
        PLAIN,
        {},
        "tsv, delimiter ';', no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "bars in a tsv": (
        "x.tsv",
        lines(PLAIN, "{label}|{text}"),
        PLAIN,
        {},
        "tsv, delimiter '|', no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "tabs in a csv": (
        "x.csv",
        lines(PLAIN, "{label}\t{text}"),
        PLAIN,
        {},
        "csv, delimiter tab, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "lines that end at CR": (
        "x.tsv",
        lines(ROWS, "{label}\t{text}", "\r"),
        ROWS,
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8, lines end at CR",
    ),
    "lines that end at CR in UTF-16": (
        "x.tsv",
        lines(ROWS, "{label}\t{text}", "\r").encode("utf-16"),
        ROWS,
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-16, lines end at CR",
    ),
    "a JSON array on one line": (
        "x.json",
        json.dumps(objects(ROWS)),
        ROWS,
        {},
        "JSON array, text = key 'text', label = key 'label', utf-8",
    ),
    "an indented JSON array": (
        "x.json",
        json.dumps(objects(ROWS, "Satz", "Klasse"), indent=4),
        ROWS,
        {},
        "JSON array, text = key 'Satz', label = key 'Klasse', utf-8",
    ),
    "an array with an object on each line": (
        "x",
        "[\n" + ",\n".join(map(json.dumps, objects(ROWS))) + "\n]\n",
        ROWS,
        {},
        "JSON array, text = key 'text', label = key 'label', utf-8",
    ),
    "indented JSON objects": (
        "x.json",
        "\n".join(json.dumps(each, indent=1) for each in objects(ROWS)),
        ROWS,
        {},
        "JSON objects, text = key 'text', label = key 'label', utf-8",
    ),
    "JSON lines with one known key": (
        "x.jsonl",
        "".join(json.dumps({"id": n, "text": b, "what": a}) + "\n" for n, a, b in numbered(ROWS)),
        ROWS,
        {},
        "JSON lines, text = key 'text', label = key 'what', utf-8",
    ),
    "fastText lines": (
        "x.txt",
        lines(ROWS, " \t__label__{label} {text}"),
        ROWS,
        {},
        "fasttext, utf-8",
    ),
    "fastText lines with labels at the end": (
        "x.ft",
        lines(ROWS, "{text} __label__{label}"),
        ROWS,
        {},
        "fasttext, utf-8",
    ),
    "fastText lines with labels at the end, in a text file": (
        "x.txt",
        lines(ROWS, "{text} __label__{label}"),
        ROWS,
        {},
        "fasttext, utf-8",
    ),
    "a text of a tsv that ends as a fastText line may": (
        "x.tsv",
        lines([("pos", "I like __label__x"), *PLAIN], "{label}\t{text}"),
        [("pos", "I like __label__x"), *PLAIN],
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8",
    ),
    "lists in cells": (
        "x.csv",
        written([("text", "labels"), *((text, str([label])) for label, text in ROWS)]),
        ROWS,
        {},
        f"{COMMA}, header, text = column 1 'text', label = column 2 'labels', "
        "lists in the label cells, quotes, utf-8",
    ),
    "quotes that --quotes would take off": (
        "x.tsv",
        lines([("pos", '"so ""good"" it is"'), *PLAIN], "{label}\t{text}"),
        [("pos", '"so ""good"" it is"'), *PLAIN],
        {},
        f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8; "
        "cells look quoted, and --quotes removes the quotes",
    ),
    "quotes that are asked for": (
        "x.tsv",
        lines([("pos", '"so ""good"" it is"'), *PLAIN], "{label}\t{text}"),
        [("pos", 'so "good" it is'), *PLAIN],
        {"quotes": True},
        f"{TAB}, no header, text = column 2, label = column 1, quotes, utf-8",
    ),
    "commas without quotes": (
        "x.csv",
        "label,text\n" + lines(ROWS, "{label},{text}"),
        ROWS,
        {"quotes": False},
        f"{COMMA}, header, text = column 2 'text', label = column 1 'label', no quotes, utf-8",
    ),
    "a header without known names": (
        "x.tsv",
        lines([("words", "kind"), *swapped(PLAIN)], "{label}\t{text}"),
        PLAIN,
        {"header": True},
        f"{TAB}, header, text = column 1 'words', label = column 2 'kind', no quotes, utf-8",
    ),
    "a label column that is given": (
        "x.tsv",
        lines(swapped(PLAIN), "{label}\t{text}"),
        PLAIN,
        {"label": 2},
        f"{TAB}, no header, text = column 1, label = column 2, no quotes, utf-8",
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_are_detected_and_reported(tmp_path: Path, case: str) -> None:
    name, content, rows, settings, said = LAYOUTS[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config, heard = DataConfig.model_validate(settings), list[str]()
    reading = read_examples(path, config)
    assert str(reading.layout) == said
    assert [(e.labels[0], e.text) for e in reading.reported(heard.append)] == list(rows)
    assert heard[0] == f"{path}: {said}"


@pytest.mark.parametrize("case", LAYOUTS)
def test_inputs_and_examples_of_a_labelled_file_agree(tmp_path: Path, case: str) -> None:
    """With known labels, each input has the text and line of an example."""
    name, content, rows, settings, _ = LAYOUTS[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = DataConfig.model_validate(settings)
    examples = list(read_examples(path, config))
    for plain in (None, DataConfig()):
        inputs = list(read_inputs(path, config, plain=plain, known={label for label, _ in rows}))
        assert [(i.text, i.line) for i in inputs] == [(e.text, e.line) for e in examples]


TWO = objects([("pos", "one"), ("neg", "two")])
LINES = {
    "CSV with line ends in cells": ('text,label\n"one\n1",pos\n\ntwo,neg\n', [2, 5]),
    "JSON objects over several lines": ("\n".join(json.dumps(o, indent=1) for o in TWO), [1, 5]),
    "a JSON array over several lines": (json.dumps(TWO, indent=1), [2, 6]),
}


@pytest.mark.parametrize("case", LINES)
def test_a_record_has_the_line_where_it_begins(tmp_path: Path, case: str) -> None:
    content, wanted = LINES[case]
    path = tmp_path / ("x.json" if "JSON" in case else "x.csv")
    path.write_text(content)
    assert [example.line for example in read_examples(path, DataConfig())] == wanted


def test_lists_of_labels_in_cells(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('[\'a\', "b c"]\tone\n[]\ttwo\n["d"]\tthree\n[3 12]\tfour\n')
    labels = [e.labels for e in read_examples(path, DataConfig(multi_label=True))]
    assert labels == [("a", "b c"), (), ("d",), ("3", "12")]
    path = tmp_path / "x.txt"
    path.write_text("[]\tone\n['a']\ttwo\n")  # an empty list does not begin JSON
    labels = [e.labels for e in read_examples(path, DataConfig(multi_label=True))]
    assert labels == [(), ("a",)]


def test_few_labels_among_many_texts_may_all_differ(tmp_path: Path) -> None:
    """Three numbered labels occur once each in twenty texts, most of them without labels."""
    path = tmp_path / "x.jsonl"
    rows = [{"text": f"text {n}", "labels": [f"c{n}"] * (n < 3)} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = [e.labels for e in read_examples(path, DataConfig(multi_label=True))]
    assert labels == [("c0",), ("c1",), ("c2",), *[()] * 17]


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("[]", []),
        (" [ 'a' , 'b' ] ", ["a", "b"]),
        ('["it\\"s", "b"]', ['it"s', "b"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[1, 2.5, True]", ["1", "2.5", "True"]),
        ("[['a']]", None),
        ("['a", None),
        ("a", None),
        ("[a]b", None),
        ("[very good, bad]", ["very good", "bad"]),
        ("(positive)", None),
        ("{a,b}", None),
    ],
)
def test_lists(cell: str, items: list[str] | None) -> None:
    assert list_items(cell) == items


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("{neg,long}", ["neg", "long"]),
        ('{"a b",c}', ["a b", "c"]),
        ("{}", []),
        ("{don't,x}", ["don't", "x"]),
        ("('neg', 'x')", ["neg", "x"]),
        ("('neg',)", ["neg"]),
        ("{'neg', 'x y'}", ["neg", "x y"]),
        ("set()", []),
        ('c("neg", "x")', ["neg", "x"]),
        ("character(0)", []),
        ("['a', 'b']", ["a", "b"]),
        ("{'a': 1}", None),
        ("cat(x)", None),
    ],
)
def test_lists_in_multi_label_cells(cell: str, items: list[str] | None) -> None:
    assert list_items(cell, multi_label=True) == items


LISTS: dict[str, tuple[list[str], list[tuple[str, ...]]]] = {
    "Postgres": (["{neg,long}", "{}", '{"a b",c}'], [("neg", "long"), (), ("a b", "c")]),
    "Postgres, quotes first": (['{"a b",c}', "{neg}"], [("a b", "c"), ("neg",)]),
    "Postgres, an empty one first": (["{}", "{neg,long}"], [(), ("neg", "long")]),
    "Python's tuples": (["('neg', 'x')", "('neg',)", "()"], [("neg", "x"), ("neg",), ()]),
    "Python's sets": (["{'neg', 'x'}", "set()"], [("neg", "x"), ()]),
    "R": (['c("neg", "x")', "neg", "character(0)"], [("neg", "x"), ("neg",), ()]),
    "cells that are none": (["['a', 'b']", "c", "d,e", ""], [("a", "b"), ("c",), ("d", "e"), ()]),
}


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("name", ["x.tsv", "x.jsonl"])
def test_lists_of_other_programs(tmp_path: Path, case: str, name: str) -> None:
    """Lists are in cells of tables, and in JSON strings."""
    cells, labels = LISTS[case]
    path = tmp_path / name
    rows = [{"text": f"some text {n}", "labels": cell} for n, cell in enumerate(cells * 4)]
    form = json.dumps if name == "x.jsonl" else lambda row: "{labels}\t{text}".format(**row)
    path.write_text("".join(form(row) + "\n" for row in rows))
    found = [e.labels for e in read_examples(path, DataConfig(multi_label=True))]
    assert found == labels * 4


@pytest.mark.parametrize("several", [True, False], ids=["several labels", "one"])
@pytest.mark.parametrize("cell", ["c", "['c']"])
def test_a_later_cell_without_a_list_is_a_label(tmp_path: Path, several: bool, cell: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("".join(f"['{'ab'[n % 2]}']\ttext {n}\n" for n in range(600)) + f"{cell}\tx\n")
    *_, last = read_examples(path, DataConfig(multi_label=several))
    assert last.labels == ("c",)
    path.write_text(path.read_text() + "['a', 'b\ty\n")
    with pytest.raises(
        DataError, match=r"x\.tsv:602: a list of labels that is broken: .*brackets$"
    ):
        list(read_examples(path, DataConfig(multi_label=several)))


def test_a_single_label_may_be_in_parentheses(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("(positive)\tone\n{negative}\ttwo\n" * 9)
    labels = {e.labels for e in read_examples(path, DataConfig())}
    assert labels == {("(positive)",), ("{negative}",)}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("Text,Language", (0, 1)),
        ("id,document,label", (1, 2)),
        ("reviewText,overall,category", (0, 2)),
        ("tweet_id,airline_sentiment,airline_sentiment_confidence,text", (3, 1)),
        ("comment_count,foo,label", (None, 2)),
        ("text,label_text", (0, 1)),
        ("a,b", (None, None)),
        ("text,score", (0, None)),
        ("set,topic_idx,document", (2, 1)),
        ("Class Index,Title,Description", (2, 0)),
        ("text_id,label_id,body", (2, 1)),
        ("title,label,label_text", (0, 1)),
        ("id,title,link_flair_text,created", (1, None)),
        ("headline,review_votes,sentiment", (0, 2)),
        ("summary,reviewText,overall", (1, 2)),
        ("title,type of question", (0, None)),
        ("Etiqueta,Reseña", (1, 0)),
        ("Etiqueta,Resen\u0303a", (1, 0)),
        ("SINIF,CÜMLE", (1, 0)),
        ("라벨,리뷰", (1, 0)),
        ("ラベル,テキスト", (1, 0)),
        ("标签,评论", (1, 0)),
        ("Klasse,Satz", (1, 0)),
        ("Étiquette,Phrase", (1, 0)),
        ("Rótulo,Comentário", (1, 0)),
        ("Метка,Текст", (1, 0)),
        ("ป้ายกำกับ,ข้อความ", (1, 0)),
        ("Nhãn,Văn bản", (1, 0)),
        ("भाषा,पाठ", (1, 0)),
        ("reviewerID,asin,reviewText,overall,summary", (2, 3)),
        ("Title,Review Text,Rating", (1, 2)),
        ("review_title,review_body,stars,language", (1, 2)),
        ("language,stars,review_title,summary", (3, 1)),
        ("title,content_type,class", (0, 2)),
        ("headline,is_question,class", (0, 2)),
        ("headline,comment_status", (0, None)),
        ("상품명,리뷰,별점", (1, 2)),
        ("商品,レビュー,評価", (1, 2)),
        ("Fecha,Sucursal,Opinión del cliente,Satisfacción", (2, 3)),
        ("Datum,Text,Bewertung", (1, 2)),
    ],
)
def test_names_in_several_languages(names: str, found: tuple[int | None, int | None]) -> None:
    assert find_names(names.split(",")) == found


# The cells of a column below each header; T stands for texts.
CELLS: dict[str, Sequence[str]] = {
    "ProductId": ["B01", "B02", "B03"],
    "split": ["train", "train", "test"],
    "length": ["3", "4", "5", "6"],
    "timestamp": ["monday", "tuesday"],
    "user": ["ann", "bob", "cid"],
    "asin": ["B01", "B02"],
    "gender": ["m", "f"],
    "set": ["train", "test"],
    "likes": ["0", "1", "2"],
    "Kunde": ["x", "y", "z"],
    "language": ["en", "de"],
    "lang": ["en"],
}
COLUMNS: dict[str, tuple[str, str]] = {
    "an id first": ("ProductId,review,Score", "Score"),
    "a split first": ("split,text,y", "y"),
    "a length": ("text,length,y", "y"),
    "a count": ("text,word_count,is_spam", "is_spam"),
    "another id": ("store_id,review,score", "score"),
    "a fold": ("text,fold,y", "y"),
    "users": ("timestamp,text,user,is_bot", "is_bot"),
    "stars in Korean": ("상품명,리뷰,별점", "별점"),
    "grades in Japanese": ("商品,レビュー,評価", "評価"),
    "grades in Spanish": ("Fecha,Sucursal,Opinión,Satisfacción", "Satisfacción"),
    "days that recur": ("date,user,comment,verdict", "verdict"),
    "a code of the label": ("gender,topic_idx,text", "topic_idx"),
    "parts named by use": ("status,set,text", "status"),
    "votes": ("likes,y,text", "y"),
    "Amazon's": ("asin,text,overall,summary", "overall"),
    "Amazon's in several languages": ("language,stars,review_body", "stars"),
    "languages": ("user,text,language", "language"),
    "one language": ("lang,text,y", "y"),
}


def with_columns(header: str, size: int = 40) -> str:
    """Return a CSV file with texts and with columns that repeat in different ways."""
    names, draw = header.split(","), random.Random(0)
    texts = {"review", "text", "리뷰", "レビュー", "Opinión", "comment", "review_body", "summary"}
    rows = [
        [
            f"the {n}th of these texts" if name in texts else draw.choice(CELLS.get(name, "12345"))
            for name in names
        ]
        for n in range(size)
    ]
    return written([names, *rows])


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_of_other_data_are_not_taken_as_labels(tmp_path: Path, case: str) -> None:
    header, label = COLUMNS[case]
    path = tmp_path / "x.csv"
    path.write_text(with_columns(header))
    said = f"label = column {header.split(',').index(label) + 1} {label!r}"
    assert said in str(read_examples(path, DataConfig()).layout)
    assert len(list(read_examples(path, DataConfig()))) == 40


@pytest.mark.parametrize(("width", "flags"), [(60, ""), (60, "--label 1"), (50, "")])
def test_columns_that_are_not_considered_are_said(tmp_path: Path, width: int, flags: str) -> None:
    path, lines = tmp_path / "x.csv", with_columns("gender,text").splitlines()
    more = (f",c{n}" for n in range(width - 2)), ("," + str(n) for n in range(width - 2))
    head, rest = (f"{''.join(each)}\n" for each in more)
    path.write_text(lines[0] + head + "".join(line + rest for line in lines[1:]))
    said = "; only the 50 likeliest of 60 columns were considered"
    assert (said in str(read_examples(path, flags_of(flags)).layout)) == (width == 60 and not flags)


@pytest.mark.parametrize("number", ["0", "16385", "9" * 5000, "1" + "0" * 9])
def test_numbers_of_columns_that_no_table_has(tmp_path: Path, number: str) -> None:
    """The number that is named is the one that was given, alone or in a list."""
    (tmp_path / "x.csv").write_text(with_columns("gender,text,score"))
    shown = number if len(number) < 50 else "9" * 54 + r"\.\.\."
    for flags in (f"--label {number}", f"--text 2,{number}"):
        with pytest.raises(UsageError, match=rf"column {shown}: columns are counted from 1 to 16"):
            list(read_examples(tmp_path / "x.csv", flags_of(flags)))


RIVALS: dict[str, tuple[str, list[str]]] = {
    "two unknown names": ("gender,text,score", ["gender", "score"]),
    "three": ("gender,Kunde,text,Note", ["gender", "Kunde", "Note"]),
    "nothing but others": ("user,text,split", ["user", "split"]),
    "a language beside": ("language,text,verdict", ["language", "verdict"]),
}


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
@pytest.mark.parametrize("case", RIVALS)
def test_two_likely_label_columns_are_refused(tmp_path: Path, case: str, name: str) -> None:
    """The flags for each column help, and known labels do, too."""
    header, rivals = RIVALS[case]
    names, path = header.split(","), tmp_path / name
    path.write_text(content := with_columns(header))
    rows = list(csv.DictReader(io.StringIO(content)))
    if name == "x.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        list(read_examples(path, DataConfig()))
    shown = ", ".join(map(repr, rivals))
    assert caught.value.problem == f"nothing says which column holds the labels: {shown}"
    ways = caught.value.remedy.removeprefix("pass ").split(", or ")
    for way, rival in zip(ways, rivals, strict=True):
        flags, _, said = way.partition(" for ")
        labels = [row[rival] for row in rows]
        assert said == repr(rival)
        asked = read_examples(path, flags_of(flags))
        assert [(e.text, e.labels[0]) for e in asked] == [
            (row["text"], label) for row, label in zip(rows, labels, strict=True)
        ]
        known = read_examples(path, DataConfig(), known=labels)
        if names[0] != rival:  # the first of known labels counts
            assert [e.labels[0] for e in known] == labels


def test_two_likely_label_columns_without_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("".join(f"{a},{b},{'xyz'[n % 3]}\n" for n, (a, b) in enumerate(MANY)))
    said = "column 1, column 3; pass --label 1 --text 2 for column 1, or --label 3 --text 2 for col"
    with pytest.raises(DataError, match=said):
        list(read_examples(path, DataConfig()))


@pytest.mark.parametrize("header", ["y,group,text\n", "group,text,y\n", ""])
def test_a_column_of_one_label_may_have_others_later(tmp_path: Path, header: str) -> None:
    """Rows may be sorted by label, unless the file has no more rows."""
    path = tmp_path / "x.csv"
    order = (header.strip() or "y,group,text").split(",")

    def rows(size: int) -> str:
        cells = [
            {"y": "ab"[n > 600], "group": "gh"[n % 2], "text": f"{MANY[n % 24][1]} {'x' * (n % 9)}"}
            for n in range(size)
        ]
        return header + "".join(",".join(row[name] for name in order) + "\n" for row in cells)

    path.write_text(rows(900))
    with pytest.raises(DataError, match="nothing says which column holds the labels"):
        list(read_examples(path, DataConfig()))
    path.write_text(rows(300))
    assert len(list(read_examples(path, DataConfig()))) == 300


ONE_LIKELY: dict[str, tuple[str, int]] = {
    "AG's news": ('"{four}","title {n}","the text number {n}"\n', 1),
    "Sentiment140": (
        '"{two}","14678{n}","Mon Apr 06 22:{hour}:45 PDT 2009","NO_QUERY","u{n}","the text {n}"\n',
        1,
    ),
    "Sentiment140, its first half": (
        '"0","14678{n}","Mon Apr 06 22:{hour}:45 PDT 2009","NO_QUERY","u{n}","the text {n}"\n',
        1,
    ),
    "parts of a set": ('{part},"the text {n}",{two}\n', 3),
    "numbers with a point": ('0.{four}0,"the text {n}",{two}\n', 3),
}


@pytest.mark.parametrize("case", ONE_LIKELY)
def test_one_likely_column_is_not_refused(tmp_path: Path, case: str) -> None:
    form, label = ONE_LIKELY[case]
    path = tmp_path / "x.csv"
    path.write_text(
        "".join(
            form.format(
                n=n, two=n % 2, four=n % 4, hour=10 + n % 9, part=("train", "test")[n % 3 > 1]
            )
            for n in range(700)
        )
    )
    reading = read_examples(path, DataConfig())
    assert f"label = column {label}," in f"{reading.layout},"
    assert len(list(reading)) == 700


# ---------------------------------------------------------------- what is refused


REFUSED: dict[str, tuple[str, str, str, str]] = {
    "swapped": (
        "x.tsv",
        lines(swapped(MANY), "{label}\t{text}"),
        "the labels in column 1 are nearly all different (24 among 24) and longer than the texts",
        "pass --label 2 --text 1, or --label 1 --text 2 if they are right",
    ),
    "few and swapped": (
        "x.csv",
        written(swapped(PLAIN[:3])),
        "the labels in column 1 are longer than the texts",
        "pass --label 2 --text 1, or --label 1 --text 2 if they are right",
    ),
    "short and swapped": (
        "x.tsv",
        "".join(
            f"{name}\tKorean\n{name}\tJapanese\n" for name in ("Kim", "Sato", "Lee", "Ito", "Ha")
        ),
        "the labels in column 1 are more diverse than the texts",
        "pass --label 2 --text 1, or --label 1 --text 2 if they are right",
    ),
    "ids": (
        "x.tsv",
        "".join(f"{n}\t{label}\t{text}\n" for n, label, text in numbered(MANY)),
        "the labels in column 1 are nearly all different (24 among 24)",
        "pass --label 2 --text 3, or --label 1 --text 2 if they are right",
    ),
    "ids and no labels": (
        "x.csv",
        written([("id", "text"), *((n, text) for n, _, text in numbered(MANY))]),
        "the labels in column 1 are nearly all different (24 among 24)",
        "name others (--label, --text), or --label 1 --text 2 if they are right",
    ),
    "swapped below unknown names": (
        "x.tsv",
        lines([("words", "kind"), *swapped(MANY)], "{label}\t{text}"),
        "the labels in column 1 are nearly all different (25 among 25) and longer than the texts",
        "pass --label 2 --text 1 --header, or --label 1 --text 2 if they are right",
    ),
    "unknown names": (
        "x.tsv",
        lines([("kind", "words"), *MANY], "{label}\t{text}"),
        "the first row looks like a header: its label 'kind' is on no other row",
        "pass --header, or --no-header if it is not a name",
    ),
    "four columns that nothing names": (
        "x.tsv",
        lines(MANY, "gj04\t{label}\t*\t{text}"),
        "all of the first rows have 4 columns, and nothing says what they are",
        "pass --label 2 --text 4, or --label 1 --text 2 if they are right",
    ),
    "columns after the text": (
        "x.tsv",
        lines(MANY, "{label}\t{text}\t0.25\tx"),
        "all of the first rows have 4 columns, and nothing says what they are",
        "name others (--label, --text), or --label 1 --text 2 if they are right",
    ),
    "a column of 0 and 1 for each label": (
        "x.csv",
        written(
            [("body", "toxic", "rude"), *((text, n % 2, 0) for n, (_, text) in enumerate(MANY))]
        ),
        "the columns 'toxic, rude' hold 0 and 1, as if each were a label",
        "write labels into one column, or pass --label 2 --text 1 for the first of them",
    ),
    "prices of few texts": (
        "x.csv",
        written([("review", "price"), *((MANY[n % 9][1], f"{n}.99") for n in range(60))]),
        "the labels in column 2 are nearly all different (60 among 60) "
        "and more diverse than the texts",
        "name others (--label, --text), or --label 2 --text 1 if they are right",
    ),
    "prices of few texts without a header": (
        "x.csv",
        written([(MANY[n % 9][1], f"{n}.99") for n in range(60)]),
        "the labels in column 1 are longer than the texts",
        "name others (--label, --text), or --label 1 --text 2 if they are right",
    ),
    "JSON with the wrong keys": (
        "x.jsonl",
        "".join(json.dumps({"text": n, "my label": t}) + "\n" for n, t in MANY),
        "the labels in column 2 are nearly all different (24 among 24)",
        "pass --label text --text 'my label', or --label 'my label' --text text if they are right",
    ),
}


def flags_of(advice: str) -> DataConfig:
    """Return the settings for the flags in a message."""
    given: dict[str, Any] = {}
    words = iter(shlex.split(advice))
    for word in words:
        name = word.removeprefix("--")
        switch = name.removeprefix("no-")
        given[f"data.{switch}"] = switch == name if switch == "header" else next(words)
    return resolve(flags=parse(given)).data


@pytest.mark.parametrize("case", REFUSED)
def test_improbable_layouts_are_refused_and_the_advice_helps(tmp_path: Path, case: str) -> None:
    name, content, problem, remedy = REFUSED[case]
    path, heard = tmp_path / name, list[str]()
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(read_examples(path, DataConfig()).reported(heard.append))
    assert (caught.value.problem, caught.value.remedy) == (problem, remedy)
    assert heard == []  # not the layout, which the error contradicts
    ways = (
        remedy.removeprefix("write labels into one column, or ")
        .removeprefix("pass ")
        .removesuffix(" for the first of them")
        .replace("name others (--label, --text), or ", "")
        .split(", or ")
    )
    counts = {len(list(read_examples(path, flags_of(way.partition(" if ")[0])))) for way in ways}
    assert counts <= {content.count("\n"), content.count("\n") - 1}
    if "--label" in ways[0] and len(ways) == 2:
        labels = {e.labels[0] for e in read_examples(path, flags_of(ways[0]))}
        assert len(labels) == 2


# The first row, what it is after the advice, and the form of those below.
LACKING = {
    "a column without a name": (
        "x.csv",
        "text,label\n",
        "text,label,from\n",
        "{text},{label},web\n",
    ),
    "an id without a name": ("x.tsv", "id\tlabel\n", "id\tlabel\ttext\n", "7\t{label}\t{text}\n"),
    "a title": ("x.csv", "Survey of 2024\n", "", "{label},{text}\n"),
    "a remark": ("x.tsv", "# made by hand\n", "", "{label}\t{text}\n"),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_first_row_without_all_columns_is_refused_and_the_advice_helps(
    tmp_path: Path, case: str
) -> None:
    """It differs from R's header, which has no name for the row names in the first column."""
    name, first, better, form = LACKING[case]
    path, below = tmp_path / name, lines(MANY, form, end="")
    path.write_text(first + below)
    mark = "\t" if "\t" in form else ","
    has, wanted = first.count(mark) + 1, form.count(mark) + 1
    with pytest.raises(DataError) as caught:
        list(read_examples(path, DataConfig()))
    assert caught.value.problem == f"all rows have {wanted} columns, but the first one has {has}"
    assert caught.value.remedy == "add the others, or remove the line"
    path.write_text(better + below)
    assert [(e.labels[0], e.text) for e in read_examples(path, DataConfig())] == MANY


@pytest.mark.parametrize("size", [20, 50, 120, 400])
@pytest.mark.parametrize("classes", [2, 8, 77, 113])
def test_labels_of_many_classes_are_accepted(tmp_path: Path, size: int, classes: int) -> None:
    """Also if there are so many classes that nearly all labels of few texts differ."""
    draw = random.Random(size + classes)
    names = ["".join(draw.choices("abcdefghij_", k=8)) for _ in range(classes)]
    path = tmp_path / "x.tsv"
    path.write_text(
        "".join(f"{draw.choice(names)}\tthe number {draw.random()} it is\n" for _ in range(size))
    )
    assert len(list(read_examples(path, DataConfig()))) == size


def test_known_labels_are_accepted(tmp_path: Path) -> None:
    """Known labels may be distinct, numbered, longer than the texts, and in the first row."""
    path = tmp_path / "x.tsv"
    names = [f"label number {n} of all" for n in range(30)]
    path.write_text("".join(f"{name}\tx\n" for name in names))
    with pytest.raises(DataError, match="nearly all different"):
        list(read_examples(path, DataConfig()))
    assert [e.labels[0] for e in read_examples(path, DataConfig(), known=names)] == names


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_known_labels_in_the_second_of_two_columns(tmp_path: Path, ending: str) -> None:
    """By convention the second column is the text; a flag that says so is refused."""
    path = tmp_path / f"x.{ending}"
    path.write_text(lines([("pos", "x one"), ("neg", "x two")], "{text}\t{label}"))
    if ending == "csv":
        path.write_text(path.read_text().replace("\t", ","))
    assert [e.text for e in read_examples(path, DataConfig())] == ["pos", "neg"]
    examples = list(read_examples(path, DataConfig(), known=["pos", "neg"]))
    assert [(e.labels[0], e.text) for e in examples] == [("pos", "x one"), ("neg", "x two")]
    with pytest.raises(DataError, match=r"not those of the model, .*; pass --label 2 --text 1"):
        list(read_examples(path, DataConfig(label=1), known=["pos", "neg"]))
    found = read_inputs(path, DataConfig(), known=["pos", "neg"])
    assert [i.text for i in found] == ["x one", "x two"]


# ---------------------------------------------------------------- files without labels

TEXTS_ALONE: dict[str, tuple[str, str, list[str]]] = {
    "a column": ("x.tsv", "one, two\nthree\n\n", ["one, two", "three"]),
    "a column with a header": ("x.csv", 'Text\n"one, ""two"""\nthree\n', ['one, "two"', "three"]),
    "ids": ("x.csv", "1,one\n2,two\n3,three\n", ["one", "two", "three"]),
    "ids last": ("x.tsv", "one\t1\ntwo\t2\nthree\t3\n", ["one", "two", "three"]),
    "ids by name": ("x.csv", "text,id\none,1\n", ["one"]),
    "three columns": (
        "x.csv",
        "7,x,a longer one\n8,y,two\n9,x,three\n",
        ["a longer one", "two", "three"],
    ),
    "JSON": ("x.json", '[{"review": "one"},\n{"review": "two"}]', ["one", "two"]),
    "labels that are new": ("x.tsv", "new\tone\nnewer\ttwo\n", ["one", "two"]),
}


@pytest.mark.parametrize("case", TEXTS_ALONE)
def test_texts_without_labels(tmp_path: Path, case: str) -> None:
    name, content, texts = TEXTS_ALONE[case]
    path = tmp_path / name
    path.write_text(content)
    assert [i.text for i in read_inputs(path, DataConfig(), known=["pos", "neg"])] == texts


def test_inherited_columns_that_a_file_lacks_are_guessed(tmp_path: Path) -> None:
    """A run has the columns of its training file; another file may have others."""
    path = tmp_path / "x.csv"
    path.write_text("id,text\n1,one\n")
    config = DataConfig(text="review", label="stars")
    assert [i.text for i in read_inputs(path, config, requested=DataConfig())] == ["one"]
    with pytest.raises(DataError, match="no column 'review' in the header"):
        read_inputs(path, config)
    path.write_text("one\ntwo\n")
    numbers = DataConfig(text=2, label=1)
    assert [i.text for i in read_inputs(path, numbers, requested=DataConfig())] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("__label__new one\ntwo\n", ["one", "two"]),
        ("one __label__new\n__label__a two\n", ["one", "two"]),
        ('{"text": "one"}\n\n{"text": "two"}\n', ["one", "two"]),
        ('[{"id": 1, "review": "one"}, {"id": 2, "review": "two"}]', ["one", "two"]),
        ('{"body_x": "one"}\n', ["one"]),
        ('{"level": "info"}\n{"text": "two"}\n', ['{"level": "info"}', '{"text": "two"}']),
        ('I said __label__ and {"text": "x"}\n', ['I said __label__ and {"text": "x"}']),
        ("\n__label__new one\n", ["", "__label__new one"]),
    ],
    ids=[
        *("fastText", "label last", "JSON lines", "JSON array", "the run's key"),
        *("JSON without a text", "marks in a text", "blank line first"),
    ],
)
def test_a_first_line_that_is_not_a_text_shows_the_format(
    tmp_path: Path, content: str, texts: list[str]
) -> None:
    """Also from a pipe. Without known labels, each line is a text."""
    path, config = tmp_path / "x.txt", DataConfig(text="body_x")
    path.write_text(content)
    how: dict[str, Any] = {"plain": DataConfig(), "requested": DataConfig()}
    assert [i.text for i in read_inputs(path, config, known={"pos"}, **how)] == texts
    assert [i.raw for i in read_inputs(path, config, **how)] == content.splitlines()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    assert [i.text for i in read_inputs(pipe, config, known={"pos"}, **how)] == texts
    writer.join()


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("pos\tone, or\nneg\ttwo\nnew\tthree\n", ["one, or", "two", "three"]),
        ("pos,new\tone\n", ["pos,new\tone"]),
        ("1\tone\n2\ttwo\nthree\n", ["1\tone", "2\ttwo", "three"]),
        ("label\ttext\nnew\tone\n", ["one"]),
        ("ID;Text;Label\n1;one;new\n2;two;new\n", ["one", "two"]),
        ('"text","label"\n"one\nline","pos"\n', ["one\nline"]),
        ("other\tone\npos\ttwo\n", ["other\tone", "pos\ttwo"]),
    ],
    ids=[
        *("a known label", "one known of two", "numbered lines", "a header", "Excel's header"),
        "quoted cells",
        "an unknown label",
    ],
)
def test_a_streams_first_line_shows_a_table(tmp_path: Path, content: str, texts: list[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    how: dict[str, Any] = {"plain": DataConfig(), "requested": DataConfig()}
    found = read_inputs(pipe, DataConfig(multi_label=True), known={"pos", "neg", "1"}, **how)
    assert [i.text for i in found] == texts
    writer.join()


def test_missing_columns_are_refused_in_a_stream(tmp_path: Path) -> None:
    """A file is read again if known labels are in another column; a stream cannot be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("pos\tone\nneg\ttwo\n" * 9,))
    writer.start()
    reading = read_examples(pipe, DataConfig(text=1, label=2), known={"pos", "neg"})
    said = "not those of the model, which are in another column; pass --label 1 --text 2"
    with pytest.raises(DataError, match=f"{re.escape(said)}$"):
        list(reading)
    writer.join()


OTHER_FILES: dict[str, tuple[dict[str, Any], str, str]] = {
    "columns by number, a header": (
        {"text": 1, "label": 2},
        "x.csv",
        "label,text\n" + lines(PLAIN, "{label},{text}"),
    ),
    "columns by number, the other way around": (
        {"text": 1, "label": 2},
        "x.tsv",
        lines(PLAIN, "{label}\t{text}"),
    ),
    "columns by number, ids": (
        {"text": 1, "label": 2},
        "x.csv",
        written([("id", "text", "label"), *((n, b, a) for n, a, b in numbered(PLAIN))]),
    ),
    "columns by number, JSON": (
        {"text": 1, "label": 2},
        "x.json",
        json.dumps(objects(PLAIN)),
    ),
    "columns by name, no header": (
        {"text": "body", "label": "stars"},
        "x.tsv",
        lines(PLAIN, "{label}\t{text}"),
    ),
    "columns by name, other names": (
        {"text": "body", "label": "stars"},
        "x.csv",
        written([("text", "label"), *swapped(PLAIN)]),
    ),
    "a header, none": ({"header": True}, "x.tsv", lines(PLAIN, "{label}\t{text}")),
    "semicolons, commas": (
        {"delimiter": ";"},
        "x.csv",
        written([("text", "label"), *swapped(PLAIN)]),
    ),
    "pairs, fastText": ({"format": "pairs"}, "x.txt", lines(PLAIN, "__label__{label} {text}")),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_known_labels_override_inherited_settings(tmp_path: Path, case: str) -> None:
    """The training file's settings may not fit this file; known labels show what does."""
    settings, name, content = OTHER_FILES[case]
    path, config, known = tmp_path / name, DataConfig.model_validate(settings), {"pos", "neg"}
    path.write_text(content)
    examples = read_examples(path, config, known=known, requested=DataConfig())
    assert str(examples.layout).endswith(
        "; not as the run's training file, whose settings do not fit"
    )
    assert [(e.labels[0], e.text) for e in examples] == PLAIN
    for plain in (None, DataConfig()):
        inputs = read_inputs(path, config, plain=plain, known=known, requested=DataConfig())
        assert [i.text for i in inputs] == [text for _, text in PLAIN]


def test_inherited_settings_that_fit_are_kept(tmp_path: Path) -> None:
    path, known = tmp_path / "x.csv", {"pos", "neg"}
    rows = [("text", "title", "label"), *((b, f"about {n}", a) for n, a, b in numbered(PLAIN))]
    path.write_text(written(rows))
    config = DataConfig(text="title", label=3)
    examples = read_examples(path, config, known=known, requested=DataConfig())
    inputs = read_inputs(path, config, known=known, requested=DataConfig())
    assert next(examples).text == next(inputs).text == "about 1"
    assert "not as the run's" not in f"{examples.layout} {inputs.layout}"


ALONE: dict[str, tuple[dict[str, Any], str, str]] = {
    "a number, ids": ({"text": 1}, "x.csv", written([("id", "text"), *enumerate("abcd")])),
    "a name, no header": ({"text": "body", "label": "stars"}, "x.csv", "a\nb\nc\nd\n"),
    "semicolons, commas": (
        {"delimiter": ";"},
        "x.csv",
        written([("id", "text"), *enumerate("abcd")]),
    ),
}


@pytest.mark.parametrize("case", ALONE)
def test_inherited_settings_do_not_apply_to_plain_texts(tmp_path: Path, case: str) -> None:
    settings, name, content = ALONE[case]
    path = tmp_path / name
    path.write_text(content)
    config = DataConfig.model_validate(settings)
    found = read_inputs(path, config, known={"pos"}, requested=DataConfig())
    assert [i.text for i in found] == ["a", "b", "c", "d"]


def test_lines_are_texts_unless_the_file_has_known_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("pos\tone\nneg\ttwo\nother\tthree\n")

    def texts(*known: str) -> list[str]:
        return [i.text for i in read_inputs(path, DataConfig(), plain=DataConfig(), known=known)]

    assert texts("pos", "neg") == ["one", "two", "three"]
    assert texts("good", "bad") == path.read_text().splitlines()
    assert texts("pos", "bad") == path.read_text().splitlines()


def test_commas_in_a_text_file_cause_the_error_of_train(tmp_path: Path) -> None:
    """Otherwise `predict` would read the labels as parts of the texts."""
    path, known = tmp_path / "x.txt", {"pos", "neg"}
    path.write_text(written(PLAIN))
    with pytest.raises(DataError, match="pass --format csv") as refused:
        list(read_examples(path, DataConfig(), known=known))
    for plain in (None, DataConfig()):
        with pytest.raises(DataError) as caught:
            list(read_inputs(path, DataConfig(), plain=plain, known=known))
        assert str(caught.value) == str(refused.value)
        found = read_inputs(path, DataConfig(), plain=plain, known={"good", "bad"})
        assert len(list(found)) == len(PLAIN)
    as_csv = DataConfig(format="csv")
    assert [i.text for i in read_inputs(path, as_csv, known=known)] == [text for _, text in PLAIN]


def test_three_columns_of_texts_to_label(tmp_path: Path) -> None:
    """Tabs in all rows separate columns, and the text is the longest column."""
    path = tmp_path / "x.tsv"
    rows = [*PLAIN, *PLAIN]
    path.write_text(lines(rows, "a1\tweb\t{text}"))
    assert [i.text for i in read_inputs(path, DataConfig())] == [text for _, text in rows]
    path.write_text(lines(rows, "a1\tweb\t{text}") + "a1\tone of\ttwo\tcells\n")
    assert [i.text for i in read_inputs(path, DataConfig())][-1] == "one of\ttwo\tcells"


# ---------------------------------------------------------------- blank lines


@pytest.mark.parametrize(
    ("name", "content", "blank"),
    [
        ("x.tsv", "\n \npos\tone\n\t\n\nneg\ttwo\n", 4),
        ("x.csv", "\npos,one\n,\n\nneg,two\n , \n", 4),
        ("x.csv", 'pos,"one\n\n"\nneg,two\n', 0),
        ("x.jsonl", '\n{"text": "a", "label": "b"}\n\n', 2),
        ("x.ft", "\n__label__a b\n\n", 2),
    ],
)
def test_blank_lines_are_skipped_and_counted(
    tmp_path: Path, name: str, content: str, blank: int
) -> None:
    path, heard = tmp_path / name, list[str]()
    path.write_text(content)
    examples = list(read_examples(path, DataConfig()).reported(heard.append))
    said = f"{path}: {blank} blank line{'s' * (blank > 1)} skipped"
    assert heard[1:] == [said] * bool(blank)
    assert len(list(read_inputs(path, DataConfig()))) == len(examples)


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with marks"])
def test_a_repeated_header_is_skipped_and_counted(tmp_path: Path, mark: str) -> None:
    """As in concatenated files: no text has the label 'label'."""
    path, heard = tmp_path / "x.csv", list[str]()
    path.write_text((mark + "label,text\n" + lines(PLAIN, "{label},{text}")) * 3)
    examples = list(read_examples(path, DataConfig()).reported(heard.append))
    assert [(e.labels[0], e.text) for e in examples] == [*PLAIN, *PLAIN, *PLAIN]
    assert heard[1:] == [f"{path}: 2 rows skipped: the header again"]
    assert len(list(read_inputs(path, DataConfig(), known={"pos", "neg"}))) == len(PLAIN) * 3


@pytest.mark.parametrize(
    ("cells", "hint"),
    [
        (["a;b", "b;c", "c", "a;c"], "labels look joined by ';', and --label-delimiter ';' splits"),
        (
            ["a|b", "b|c", "c|a", "b|c"],
            "labels look joined by '|', and --label-delimiter '|' splits",
        ),
        (["a,b", "b;c", "c;a", "b;c"], ""),
        (["a;b", "b", "c", "d"], ""),
    ],
    ids=["semicolons", "bars", "a comma, too", "seldom"],
)
def test_another_delimiter_of_labels_is_reported(
    tmp_path: Path, cells: list[str], hint: str
) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("".join(f"{cell}\tsome text {cell}\n" for cell in cells))
    layout = str(read_examples(path, DataConfig(multi_label=True)).layout)
    assert hint in layout
    assert ("labels look" in layout) == bool(hint)
    assert "labels look" not in str(read_examples(path, DataConfig()).layout)
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": "a b", "label": cell}) + "\n" for cell in cells))
    assert hint in str(read_examples(path, DataConfig(multi_label=True)).layout)


def test_blank_lines_of_plain_text_are_empty_texts(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("\none\n\n")
    assert [i.text for i in read_inputs(path, DataConfig(), plain=DataConfig())] == ["", "one", ""]


# ---------------------------------------------------------------- lines and JSON


def test_cr_ends_lines_only_without_lf(tmp_path: Path) -> None:
    path = tmp_path / "x"
    cases: dict[str, list[str]] = {
        "a\rb\rc": ["a", "b", "c"],
        "a\rb\n": ["a\rb"],
        "a\rb\nc\r": ["a\rb", "c\r"],
        "a\r": ["a"],
        "a\r\n": ["a"],
        f"a\r{'x' * 100_000}\nb": [f"a\r{'x' * 100_000}", "b"],
    }
    for content, expected in cases.items():
        for encoding in ("utf-8", "utf-16"):
            path.write_bytes(content.encode(encoding))
            assert [line for _, line in Lines(path)] == expected


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("x.tsv", "pos\ta b\rneg\tc d\npos\te\r\n", 1),
        ("x.tsv", "label\ttext\rpos\ta b\rneg\tc d\r\n", 2),
        ("x.ft", "__label__a b c\r__label__d e\n__label__d e\r\r\n", 1),
        ("x.csv", 'pos,"a\rb"\nneg,c\n', 0),
        ("x.json", '[{"text": "a",\r "label": "b"},\n{"text": "c", "label": "d"}]', 0),
    ],
    ids=["tsv", "header and all rows in one line", "fastText", "quoted cell", "JSON"],
)
def test_carriage_returns_within_lines_are_reported(
    tmp_path: Path, name: str, content: str, count: int
) -> None:
    """They may be meant as line ends, so that two records became one."""
    path, heard = tmp_path / name, list[str]()
    path.write_bytes(content.encode())
    with suppress(DataError):  # the second file has only a header left
        list(read_examples(path, DataConfig()).reported(heard.append))
    said = f"{path}: {count} carriage return{'s' * (count > 1)} within lines; they do not end "
    notes = [note for note in heard if "do not end" in note]
    assert notes == [f"{said}lines, since the file has line feeds"] * bool(count)
    plain, heard = DataConfig(), []
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\rb\nc\n")
    list(read_inputs(path, DataConfig(), plain=plain).reported(heard.append))
    assert len(heard) == 2


def test_a_byte_order_mark_sets_the_encoding(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        path.write_bytes("\ufeff한글\n둘\n".encode(encoding.removesuffix("-sig")))
        found = Lines(path)
        assert [line for _, line in found][-1] == "둘"
        assert found.encoding == encoding.removesuffix("-sig")


JSON_ERRORS = {
    "no comma": ('[{"text": "a", "label": "b"} {}]', 1, "no comma after object 1 of the array"),
    "two commas": ('[{"text": "a", "label": "b"},\n,{}]', 2, "object 2 of the array is not a JSON"),
    "no end": ('[{"text": "a", "label": "b"},\n', None, "the JSON array is cut short after 1 obj"),
    "an object cut": ('[{"text": "a",\n"label": "b"\n', 1, "the JSON is cut short after"),
    "more after the end": ('[{"text": "a", "label": "b"}]\nx', 2, "something after the end"),
    "a wrong object": ('[{"text": "a", "label": "b"},\n{"text" "b"}]', 2, "object 2: invalid JSON"),
    "the next object too soon": ('{\n"text": "a",\n{\n"text"', 1, "the JSON is cut short after"),
    "a string over lines": ('{\n"text": "a\nb"}', 1, "the JSON is cut short after"),
}


@pytest.mark.parametrize("case", JSON_ERRORS)
def test_invalid_json(tmp_path: Path, case: str) -> None:
    content, line, problem = JSON_ERRORS[case]
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(read_examples(path, DataConfig()))
    assert (caught.value.line, caught.value.problem[: len(problem)]) == (line, problem)


def test_arrays_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects before an error are yielded, and an object without an end is limited in size."""
    path = tmp_path / "x.json"
    path.write_text('[\n{"text": "a", "label": "b"},\n{"text": "c",\n "label": "d"}, x')
    stream = read_examples(path, DataConfig())
    assert [next(stream).line, next(stream).line] == [2, 3]
    with pytest.raises(DataError, match=r"x\.json:4: object 3 of the array is not a JSON object"):
        next(stream)
    monkeypatch.setattr("srucli.io.json_objects.MAX_LINE", 2**20)
    path.write_text('[{"text": [\n' + ('"' + "x" * 2**16 + '",\n') * 17)
    with pytest.raises(DataError, match=r"x\.json:1: an object of over 1 MB"):
        list(read_examples(path, DataConfig()))


def test_the_record_of_an_array_is_its_object(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"text": "a"}, {"text":\n  "b",\n "id": 1}]')
    raws = [i.raw for i in read_inputs(path, DataConfig())]
    assert raws == ['{"text": "a"}', '{"text": "b", "id": 1}']


# ---------------------------------------------------------------- real files


def test_real_files_are_read_as_their_readme_says(shared_data: Path) -> None:
    """They have tabs, no header and no quotes, whatever is in the texts."""
    files = sorted(shared_data.glob("*/*.tsv.gz"))
    assert len(files) > 30
    said = f"{TAB}, no header, text = column 2, label = column 1, no quotes, utf-8"
    for path in files:
        config = DataConfig(multi_label="goemotions" in str(path))
        assert str(read_examples(path, config).layout).partition(";")[0] == said


def test_small_samples_of_real_files_are_not_refused(shared_data: Path, tmp_path: Path) -> None:
    path, draw = tmp_path / "x.tsv", random.Random(0)
    for source in sorted(shared_data.glob("*/t*.tsv.gz")):
        if "goemotions" in str(source):
            continue
        with gzip.open(source, "rb") as file:
            rows = file.read().splitlines(keepends=True)
        for size in (20, 50, 100):
            path.write_bytes(b"".join(draw.sample(rows, size)))
            assert len(list(read_examples(path, DataConfig()))) == size, source


@pytest.mark.parametrize(
    ("cells", "known"),
    [(["pos", "x"], True), (["pos", "x", "y"], False), (["x"], False), ([], False)],
    ids=["half", "a third", "none", "no cells"],
)
def test_a_column_with_half_known_labels_is_known(cells: list[str], known: bool) -> None:
    task = ReadTask("x.tsv", "tsv", DataConfig(), labelled=True, known_labels=frozenset({"pos"}))
    assert Cells(cells).known(task) == known


@pytest.mark.parametrize(
    ("name", "settings", "content", "remedy"),
    [
        ("x.csv", {"quotes": False}, "text,label\na,x\nb,y\nc, d,x\ne,y\n", "remove the comma"),
        ("x.tsv", {}, "text\tlabel\na\tx\nb\ty\nc\td\tx\ne\ty\n", "remove the tab"),
        (
            "x.csv",
            {"quotes": False, "delimiter": ";"},
            "text;label\na;x\nb;y\nc;d;x\ne;y\n",
            "remove the semicolon",
        ),
        (
            "x.jsonl",
            {},
            '{"text": ["a", "b"], "label": "x"}\n',
            "join its items with blanks into one string",
        ),
        ("x.jsonl", {}, '{"text": 1, "label": "x"}\n', "put it in quotes"),
        (
            "x.csv",
            {},
            "one of two\nthree\n",
            "write a label before each text, as in positive,a good film",
        ),
    ],
    ids=["commas", "tabs", "semicolons", "tokens", "a number", "one column"],
)
def test_remedies_name_existing_columns(
    tmp_path: Path, name: str, settings: dict[str, Any], content: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(read_examples(path, DataConfig.model_validate(settings)))
    assert caught.value.remedy == remedy
