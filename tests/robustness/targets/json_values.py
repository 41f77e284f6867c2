"""The fuzzer's target `json`: files of JSON objects, changed as values and as JSON is written.

The target `data` changes bytes. Here each place of an object may hold any value: deep, long, of
another type, or a number or string that JSON can write and Python or UTF-8 cannot hold. Objects are
written on one line each, in an array, over several lines, or with a key twice.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from srucli.config import DataConfig
from srucli.data.dataset import find_labels, read_texts
from srucli.data.readers import read_examples, read_inputs
from srucli.errors import SrucliError
from srucli.experiments.trials import config_of_data, json_lines
from tests.robustness.mutate import VALUES, mutate_bytes, mutate_tree
from tests.robustness.targets.seeds import Seeds, sentences
from tests.robustness.watch import watched


class Raw(str):
    """JSON that is written as it is."""


def _deep(mark: str, depth: int) -> Raw:
    return Raw(mark * depth + mark.translate({ord("["): "]", ord("{"): "}"}) * depth)


ODD: tuple[Any, ...] = (
    *map(Raw, ("1e999", "-1e999", "9" * 5000, "0." + "3" * 5000, "1e-999", "-0", "-0.0", "NaN")),
    *map(Raw, ("-Infinity", "01", "1.", "+1", "0x1", "١", "'a'", "undefined", "", "tru", '"a')),
    *map(Raw, ('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\u0007"')),
    *map(Raw, ('"\\u001b[31m"', '"\\u0085\\u2028"', '"\\x41"', '"a\tb"', '"\\r\\n"', '"\\u202e"')),
    *map(Raw, ("{}", "[]", '["a", "b"]', '["a", ["b"]]', '[null, ""]', "\"['a']\"", '"a,b"')),
    *(_deep("[", 50), _deep("[", 100_000), _deep("[", 900), Raw('{"a":' * 900 + "1" + "}" * 900)),
    *(Raw('{"a": 1, "a": 2}'), "", " ", "\u200b", "good", "bad", "a" * 70_000, "\ufeff", *VALUES),
)
TEXTS = ("text", "body", "", 2, *[("title", "body")] * 4, ("text", "label"))
KEYS = ("text", "label", "title", "body", "id", "weight", "", "Text", "labels", "a\tb", "\ud800")
Rows = list[Any]


def written(random: Random, value: Any) -> str:
    """Return a value as JSON; a key of an object may occur twice."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(written(random, each) for each in value) + "]"
    if isinstance(value, dict):
        pairs = [f"{_quoted(random, key)}: {written(random, value[key])}" for key in value]
        if pairs and random.random() < 0.05:
            key = random.choice(list(value))
            pairs.append(f"{_quoted(random, key)}: {written(random, random.choice(ODD))}")
        return "{" + random.choice((", ", ", ", ",", " , ")).join(pairs) + "}"
    if isinstance(value, str):
        return _quoted(random, value)
    return json.dumps(value)


def _quoted(random: Random, text: str) -> str:
    return json.dumps(text, ensure_ascii=random.random() < 0.3)


def _spread(random: Random, row: str) -> str:
    """Break a row's JSON into lines, as programs that indent do."""
    return row.replace(", ", random.choice((",\n", ", \n  "))).replace("{", "{\n", 1)


WAYS: tuple[Callable[[Random, list[str]], str], ...] = (
    *(lambda random, rows: "\n".join(rows),) * 8,
    lambda random, rows: "[" + ", ".join(rows) + "]",
    lambda random, rows: "[\n" + ",\n".join(rows) + "\n]",
    lambda random, rows: "[" + ",".join(_spread(random, row) for row in rows) + "]",
    lambda random, rows: "\n".join(_spread(random, row) for row in rows),
    lambda random, rows: " ".join(rows),
    lambda random, rows: "\n\n".join([*rows, "", "\t"]),
    lambda random, rows: '{"data": [' + ", ".join(rows) + "]}",
    lambda random, rows: "[" + ",\n".join([*rows, ""]) + "]",
    lambda random, rows: "[" + "\n".join(rows) + "]",
)


def random_rows(random: Random) -> Rows:
    """Return objects with a text and a label, of which some values, keys or rows are odd."""
    rows: Rows = []
    longer, soft = random.random() < 0.3, random.random() < 0.3
    for label, text in random.choices(sentences(), k=random.choice((0, 1, 4, 6, 8, 8, 8, 8))):
        more = {"id": len(rows), "title": text[:9], "body": f"{text} {len(rows)}", "weight": 1}
        rows.append({"label": label, "text": text} | (more if longer else {}))
        if soft and random.random() < 0.8:
            sure = random.choice((0, 0.5, 0.9, 0.98, 1))
            rows[-1]["probabilities"] = {label: sure, "bad": 1 - sure, "new ": 0}
            if random.random() < 0.5:
                del rows[-1]["label"]
    for _ in range(random.choice((0, 0, 0, 1, 1, 1, 2, 4)) if rows else 0):
        index, way = random.randrange(len(rows)), random.randrange(6)
        if way == 0:
            rows[index] = deepcopy(random.choice(ODD))  # because rows are changed in place
        elif way == 1:
            rows[index] = mutate_tree(random, rows[index])
        elif way == 2 and isinstance(rows[index], dict):
            rows[index] = {random.choice(KEYS): value for value in rows[index].values()}
        elif isinstance(rows[index], dict):
            odd, everywhere = random.choice(ODD), random.random() < 0.2
            key = random.choice((*rows[index], "text", "label"))
            for row in rows if everywhere else [rows[index]]:
                if isinstance(row, dict):
                    row[key] = deepcopy(odd)
    return rows


def try_json(_seeds: Seeds, random: Random, folder: Path) -> None:
    """Read a random file of JSON objects, and read again what srucli writes of it."""
    rows = [written(random, row) for row in random_rows(random)]
    data = random.choice(WAYS)(random, rows).encode("utf-8", "surrogatepass")
    if random.random() < 0.15:
        data = mutate_bytes(random, data, b'}{][,":\\u\r\n\xef\xbb\xbf')
    config = DataConfig(
        format=random.choice(("auto", "jsonl")),
        text=random.choice(
            (*[None] * 20, "text", "body", "", 2, *[("title", "body")] * 4, ("text", "label"))
        ),
        label=random.choice((*[None] * 20, "label", "id", "x", 1)),
        weight=random.choice((*[None] * 8, "weight", "weight", "id", 1)),
        multi_label=random.random() < 0.4,
        label_delimiter=random.choice((",", ",", " ", "a", "|")),
        merge_labels=random.random() < 0.5,
        errors=random.choice(("strict", "strict", "replace", "ignore")),
    )
    path = folder / random.choice(("x.json", "x.jsonl", "x.txt"))
    path.write_bytes(data)
    try:
        with watched(folder), contextlib.redirect_stderr(io.StringIO()):
            _use(path, config)
    finally:
        path.unlink()


def _use(path: Path, config: DataConfig) -> None:
    """Read a file as `train`, `predict` and `compare` do. Raises SrucliError."""
    with suppress(SrucliError):
        for each in read_inputs(path, config, plain=DataConfig()):
            each.text.encode()
    examples, names = read_texts(path, config)
    labels = find_labels(examples, "x")
    for label in labels:
        assert not set(label) & {"\t", "\n", "\r"}, f"a label on two lines: {label!r}"
        label.encode()
    inputs = list(read_inputs(path, config, known=labels, requested=DataConfig(), names=names))
    if all(each.labels for each in examples):
        assert [each.text for each in inputs] == [each.text for each in examples]
    path.write_bytes(json_lines(examples, config))
    again = list(read_examples(path, config_of_data(config)))
    assert [each[:2] for each in again] == [each[:2] for each in examples], "read differently"
