"""The fuzzer's target `terminal`: what commands print of hostile names, labels, texts and settings.

Labels, texts, file names, flags, settings and records hold control characters, overrides of
direction, very long words, and bytes that are not UTF-8. stdout and stderr are a terminal, or
pipes. On both, text for people must be safe and its lines bounded; JSON must be strict and escape
controls.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from srucli.errors import SrucliError
from tests.robustness.mutate import mutate_tree
from tests.robustness.targets.commands import Said, run_command
from tests.robustness.targets.printed import check_json, check_printed
from tests.robustness.targets.seeds import Seeds, sentences
from tests.robustness.watch import watched

WORDS = (
    *("\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\x7f", "\x08\x08", "\x85", "\u202egnp.txt"),
    *("\u2066a\u2069", "\u200f", "\u2028", "\ufeff", "`code`", "| a | b |", "<b>", "a" * 240),
    *(
        "한" * 80,
        "$x$",
        "%s {0}",
        "\udcff",
        "a\udc80b",
        "👩\u200d👧",
        "\x0b\x0c",
        "=1",
        "--x",
        "[1]",
    ),
)
LONG = ("x" * 5000, "\x1b" * 3000, "한" * 5000)
Command = list[str]


def word(random: Random, *, name: bool = False) -> str:
    """Return a hostile word; with `name`, one that can be a file's."""
    chosen = random.choice(WORDS if name or random.random() < 0.8 else LONG)
    return "".join(random.sample((chosen, random.choice(("good", "x", "1"))), 2))


def _rows(random: Random, path: Path) -> Path:
    """Write labelled texts, some of them hostile."""
    rows = random.choices(sentences(), k=12)
    for index in range(random.choice((1, 3, 12))):
        label, text = rows[index]
        rows[index] = random.choice(((word(random), text), (label, word(random))))
    lines = "\n".join(f"{label}\t{text}" for label, text in rows)
    if random.random() < 0.3:
        lines = "\n".join(json.dumps({"label": a, "text": b}) for a, b in rows)
    path.write_bytes(lines.encode("utf-8", "surrogateescape"))
    return path


class Place:
    """The files of an input: a run, a model, data; and a generator."""

    def __init__(self, seeds: Seeds, random: Random, folder: Path) -> None:
        self.random = random
        self.here = folder / word(random, name=True).replace("/", "_")
        self.here.mkdir()
        self.run, self.model = self.here / "run", self.here / "x.model"
        shutil.copytree(seeds.bases.folder / "finished", self.run)
        shutil.copy(seeds.bases.tokenizer, self.model)
        endings = (".tsv", ".jsonl", ".txt", "")
        name = word(random, name=True).replace("/", "_") + random.choice(endings)
        self.data = str(_rows(random, self.here / name))
        if random.random() < 0.3:
            labels = [word(random), word(random) + "2"]
            text = json.dumps(labels, ensure_ascii=random.random() < 0.5)
            (self.run / "labels.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    def flags(self, *flags: str) -> Command:
        """Return some of the flags."""
        return [flag for flag in flags if self.random.random() < 0.4]

    def hostile(self) -> str:
        """Return a hostile argument."""
        return word(self.random).replace("\0", "")


def _predict(place: Place) -> Command:
    flags = place.flags("--probability", "--with-input", "--top=2", "--json", "--threshold=0.9")
    return ["predict", str(place.run), place.data, *flags]


def _eval(place: Place) -> Command:
    return ["eval", str(place.run), place.data, *place.flags("--json", "--merge-labels")]


def _info(place: Place) -> Command:
    what = place.random.choice((place.run, place.run, place.model, place.hostile()))
    return ["info", str(what), *place.flags("--json")]


def _diagnose(place: Place) -> Command:
    path = place.run / "diagnostics.jsonl"
    first, *rest = path.read_text().splitlines()
    value: dict[str, Any] = json.loads(first)
    value["optimizer"]["name"] = place.random.choice(("adam", "adam", word(place.random)))
    renamed = place.random.random() < 0.5
    lines = [json.dumps(mutate_tree(place.random, value) if place.random.random() < 0.3 else value)]
    for line in rest:
        record = json.loads(line)
        if renamed:
            record["groups"] = {word(Random(k)): v for k, v in record["groups"].items()}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    return ["diagnose", str(place.run), *place.flags("--json")]


def _encode(place: Place) -> Command:
    flags = place.flags("--json", "--output-format=id", "--nbest=2", "--bos")
    return [place.random.choice(("encode", "decode")), str(place.model), place.data, *flags]


def _train(place: Place) -> Command:
    sizes = ["model.hidden=8", "model.layers=1", "model.embedding_size=8", "--epochs", "1"]
    tokenizer = ["--tokenizer", str(place.model), "--threads", "1"]
    out = place.here / word(place.random, name=True).replace("/", "_")
    return ["train", place.data, "-o", str(out), *tokenizer, *sizes, *place.flags("--multi-label")]


def _mistake(place: Place) -> Command:
    odd, run = place.hostile(), str(place.run)
    train = ["train", place.data, "--tokenizer", str(place.model)]
    return place.random.choice(
        (
            ["predict", odd],
            ["predict", run, odd],
            ["eval", run, place.data, "--fail-under", odd],
            ["eval", run, place.data, "--predictions", f"{odd}/x"],
            ["train", odd],
            [*train, f"model.layers=x{odd}"],
            [*train, f"{odd}=1"],
            [*train, "--optimizer", odd],
            [*train, "--format", odd],
            [*train, "--encoding", odd],
            [*train, "--text", odd],
            ["train", "--resume", odd],
            ["train", place.data, "-c", odd],
            ["compare", place.data, "--over", f"{odd}=1,2"],
            ["compare", place.data, "--optimizer", f"{odd},adam"],
            ["tune", place.data, "--minutes", f"x{odd}"],
            ["predict", run, place.data, "--threshold", "0.5", "--reject", odd],
            ["predict", run, place.data, "--top", odd],
            ["optimizers", odd],
            ["encode", odd],
            [odd],
            [f"--{odd}"],
        )
    )


def _config(place: Place) -> Command:
    path = place.here / "x.yaml"
    values = {"optim": {"name": "adam"}, "model": {"layers": 1}, word(place.random): 1}
    text = json.dumps(mutate_tree(place.random, values))
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    if place.random.random() < 0.3:
        path.write_bytes(f"a: {place.hostile()}\n".encode("utf-8", "surrogateescape"))
    return ["run", str(path)] if place.random.random() < 0.5 else ["train", "x", "-c", str(path)]


WAYS: tuple[Callable[[Place], Command], ...] = (
    *(_predict, _predict, _eval, _eval, _info, _diagnose, _encode, _train, _mistake, _mistake),
    *(_mistake, _config),
)


def try_terminal(seeds: Seeds, random: Random, folder: Path) -> None:
    """Run a command on hostile input, and check what it prints."""
    place = Place(seeds, random, folder)
    terminal = random.random() < 0.6
    try:
        words = random.choice(WAYS)(place)
        with contextlib.chdir(place.here), watched(folder):
            said = run_command(*words, terminal=terminal)
    finally:
        shutil.rmtree(place.here)
    check(said, words, terminal)
    if said.code:
        raise SrucliError(said.err.encode("utf-8", "replace").decode())


def check(said: Said, words: Command, terminal: bool) -> None:
    """Check the output of a command. Raises AssertionError."""
    # A path that was given may be longer than a message.
    given = sum(len(ascii(each)) for each in words if os.sep in each)
    check_printed(
        said.err.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), 2000 + given
    )
    out = said.out.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if "--json" in words and not said.code:
        for line in filter(None, out.split("\n")):
            check_json(line)
    elif terminal:
        check_printed(out, most=10**9)


def _decoded(text: str) -> str:
    """Return text with a sign in place of the bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
