"""The fuzzer's target `data`: files of every format, as bytes that may be damaged."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random

from srucli.config import DataConfig
from srucli.data.labels import clean
from srucli.data.readers import Example, Input, read_examples, read_inputs
from srucli.errors import SrucliError
from tests.robustness.mutate import mutate_bytes
from tests.robustness.targets.seeds import Seeds, sentences
from tests.robustness.watch import watched

Rows = list[tuple[str, str]]
WRITERS: dict[str, Callable[[str, str], str]] = {
    "tsv": lambda label, text: f"{label}\t{text}",
    "csv": lambda label, text: f'"{label}","{text}"',
    "jsonl": lambda label, text: json.dumps({"label": label, "text": text}),
    "fasttext": lambda label, text: f"__label__{label} {text}",
    "pairs": lambda label, text: f"{label} {text}",
}
# Files as other programs write them: the format in which they are read, and a writer of all rows.
PROGRAMS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "array": ("jsonl", lambda rows: json.dumps([_object(row) for row in rows])),
    "indented array": ("jsonl", lambda rows: json.dumps([_object(row) for row in rows], indent=1)),
    "indented": ("jsonl", lambda rows: "\n".join(json.dumps(_object(r), indent=1) for r in rows)),
    "quoted tsv": ("tsv", lambda rows: "".join(f'"{a}"\t"{b} ""so""\n"\n' for a, b in rows)),
    "R": (
        "tsv",
        lambda rows: "label\ttext\n" + "".join(f'"1"\t"{a}"\t"{b} \\""\n' for a, b in rows),
    ),
    "Excel": (
        "csv",
        lambda rows: "sep=;\r\n" + "".join(f'{a};"{b}";;\r\n' for a, b in rows) + ";;;",
    ),
    "blanks": ("csv", lambda rows: "".join(f'{a}, "{b}"\n' for a, b in rows)),
    "lists": ("csv", lambda rows: "Text,Klasse\n" + "".join(f"{b},\"['{a}']\"\n" for a, b in rows)),
    "classic Mac": ("tsv", lambda rows: "".join(f"{a}\t{b}\r" for a, b in rows)),
    "swapped": ("tsv", lambda rows: "".join(f"{b}\t{a}\n" for a, b in rows * 4)),
    "labels last": ("fasttext", lambda rows: "".join(f" {b} __label__{a}\n" for a, b in rows)),
}
ENCODINGS = (
    *("utf-8", "utf-8", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "cp949", "utf-7", "latin-1"),
)
ODD = (
    *(b'\0"\t,{}', b"\xef\xbb\xbf", b"[" * 2000, b"\r\n\x1b[31m\xed\xa0\x80", b"\\ud83d", b'""'),
    *(
        b"\r",
        b"\r\n",
        b"sep=;\n",
        b"['a', ",
        b"[{",
        b"},\n",
        b"__label__",
        b", ",
        b'\\"',
        b"\xff\xfe",
    ),
)
PACKERS: tuple[Callable[[bytes], bytes], ...] = (bytes, bytes, gzip.compress, lzma.compress)


def _object(row: tuple[str, str]) -> dict[str, str]:
    return {"label": row[0], "text": row[1]}


def random_data(random: Random) -> tuple[bytes, str, str]:
    """Return a data file that may be invalid, its format and its encoding."""
    encoding = random.choice(ENCODINGS)
    rows = [random.choice(sentences()) for _ in range(random.randint(0, 5))]
    if random.random() < 0.5:
        kind, write = random.choice(list(PROGRAMS.values()))
        data = write(rows).encode(encoding, "replace")
    else:
        kind = random.choice(list(WRITERS))
        end = random.choice(("\n", "\n", "\r\n", "\r"))
        data = end.join(WRITERS[kind](*row) for row in rows).encode(encoding, "replace")
    if random.random() < 0.7:
        data = mutate_bytes(random, data, random.choice(ODD))
    pack = random.choice(PACKERS)
    data = pack(data)
    if pack is not bytes and random.random() < 0.5:
        data = mutate_bytes(random, data)
    return data, kind, encoding


def try_data(_seeds: Seeds, random: Random, folder: Path) -> None:
    """Read a random data file, in half of the cases with random settings."""
    data, kind, encoding = random_data(random)
    config = DataConfig(format=kind, encoding=encoding, errors=random.choice(("strict", "replace")))
    if random.random() < 0.5:
        config = DataConfig(
            format=random.choice(("auto", "auto", *WRITERS)),
            text=random.choice((None, None, 1, 2, "text", "2", "x")),
            label=random.choice((None, None, 1, 2, "label", "y")),
            weight=random.choice((*[None] * 6, 1, 2, 3, "label", "y")),
            header=random.choice((None, None, True, False)),
            delimiter=random.choice((None, None, ";", "|", " ")),
            quotes=random.choice((None, None, True, False)),
            encoding=random.choice((*ENCODINGS, "hex")),
            errors=random.choice(("strict", "replace", "ignore")),
            multi_label=random.random() < 0.3,
        )
    endings = ("x.tsv", "x.csv", "x.json", "x.jsonl", "x.ft", "x.txt", "x.gz")
    path = folder / random.choice(endings)
    path.write_bytes(data)
    try:
        with watched(folder):
            with suppress(SrucliError):
                plain = random.choice((None, config))
                use_inputs(read_inputs(path, config, plain=plain, requested=DataConfig()))
            reading = read_examples(path, config, training=random.random() < 0.5)
            examples = list(reading.reported(check_encodable))
            use_inputs(examples)
            known = {clean(label) for example in examples for label in example.labels}
            use_inputs(inputs := list(read_inputs(path, config, known=known)))
            if all(example.labels for example in examples):
                assert [i.text for i in inputs] == [e.text for e in examples]
    finally:
        path.unlink()


def use_inputs(items: Iterable[Example | Input]) -> None:
    """Read all texts, and check that they can be encoded."""
    for item in items:
        item.text.encode()


def check_encodable(message: str) -> None:
    message.encode()
