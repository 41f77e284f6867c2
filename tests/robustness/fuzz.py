"""A mutation fuzzer for untrusted input: run folders, tokenizers, YAML, data files, output folders.

Usage: python -m tests.robustness.fuzz [--inputs N] [--seconds S] [--seed K] [--only NUMBER]
                                      [--targets runs,yaml,...]

Each input depends only on (seed, target, number), so `--targets T --only NUMBER` repeats it. An
input passes if srucli uses it or refuses it with a SrucliError. These are findings: any other
exception; a process that ends, or needs more than 5 seconds or 1 GiB of additional memory; and any
forbidden event outside the input's folder (`watch.py`). Child processes handle the inputs, and
record the number of each input before they start with it. The script prints counts, then one JSON
line, and exits with 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

from srucli import config as configuration
from srucli.config import DataConfig, TokenizerConfig, resolve
from srucli.data.labels import clean
from srucli.data.readers import Example, Input, read_examples, read_inputs
from srucli.diagnostics.findings import diagnose
from srucli.diagnostics.records import Diagnostics
from srucli.errors import SrucliError
from srucli.inference.predictor import Predictor
from srucli.inference.stream import Style, records
from srucli.runs.run_dir import RunDir
from srucli.runtime import tune_process
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import train_tokenizer
from srucli.training.resume import saved_training
from srucli.training.run import train
from tests.robustness.folders import Bases, try_folder
from tests.robustness.mutate import (
    mutate_bytes,
    mutate_file,
    mutate_model,
    mutate_yaml,
    repair_manifests,
    replace_file,
)
from tests.robustness.watch import WATCH, Watch, watched
from tests.support import ROOT

MAX_SECONDS, MAX_GROWTH = 5.0, 2**30
# Inputs per child process; maximum number of findings that are printed.
BATCH, MAX_SHOWN = 500, 50
TEXTS = [
    "",
    "the film was lovely",
    "정말 재미있는 영화",
    "👩‍👩‍👧 ﷺ ㍿ \u0301\u200d",
    "a" * 300,
    "<s> <0x41>",
]
WORDS = {"good": ["lovely", "excellent", "좋은"], "bad": ["awful", "rude", "나쁜"]}
THINGS = ["soup", "coffee", "train", "hotel", "film", "book", "영화", "garden", "phone", "lamp"]
SMALL: dict[str, Any] = {
    "model": {
        "embedding_size": 8,
        "hidden": 8,
        "layers": 1,
        "wide_buckets": 64,
        "wide_size": 8,
        "character_buckets": 64,
        "character_size": 8,
    },
    "train": {"epochs": 2, "threads": 1, "device": "cpu", "dev_share": 0.2, "diagnose": 1},
}
KINDS: dict[str, dict[str, Any]] = {
    "unigram": {"tokenizer": {"vocab_size": 80}},
    "bpe": {
        "tokenizer": {
            "model_type": "bpe",
            "vocab_size": 320,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "user_defined_symbols": ("<url>",),
        },
        "model": SMALL["model"] | {"encoder": "cnn", "pooling": ("attention", "max")},
        "data": {"multi_label": True},
    },
}


def sentences() -> list[tuple[str, str]]:
    """Return pairs of label and text."""
    return [(k, f"the {t} was {w}") for k, words in WORDS.items() for w in words for t in THINGS]


# ---------------------------------------------------------------- targets


def check_encodable(message: str) -> None:
    message.encode()


class Seeds:
    """The valid inputs that are mutated, created once before any process is forked."""

    def __init__(self, folder: Path) -> None:
        """Train small runs and tokenizers into `folder`."""
        self.folder = folder
        labelled = folder / "train.tsv"
        labelled.write_text("".join(f"{label}\t{text}\n" for label, text in sentences()))
        self.runs = {"v1": ROOT / "tests" / "formats" / "v1"}
        for name, settings in KINDS.items():
            config = configuration.build(SMALL | settings, name)
            self.runs[name] = train(config, str(labelled), None, folder / name)
        self.files = {
            name: {
                path.relative_to(run): path.read_bytes()
                for path in sorted(run.rglob("*.*"))
                if path.is_file()
            }
            | {Path(which): (run / which).read_bytes() for which in ("best", "last")}
            for name, run in self.runs.items()
        }
        for name, settings in KINDS.items():
            # Short, because reading YAML would take most of the time.
            self.files[name][Path("config.yaml")] = json.dumps(SMALL | settings, indent=1).encode()
            restore(self.runs[name], self.files[name])
        self.models = [files[Path("tokenizer.model")] for files in self.files.values()]
        for kind in ("word", "char"):
            plain = TokenizerConfig(model_type=kind, vocab_size=30, hard_vocab_limit=False)
            lines = [text for _, text in sentences()]
            self.models.append(train_tokenizer(lines, plain).tokenizer.model_bytes)
        self.bases = Bases(folder / "bases", labelled, SMALL)
        recipes = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
        self.yaml = [*recipes, *(files[Path("config.yaml")] for files in self.files.values())]


def use_run(run: Path, random: Random) -> None:
    """Do with a run folder what commands do. Raises SrucliError."""
    others: list[Callable[[], object]] = [
        lambda: info(RunDir.open(run)),
        lambda: saved_training(RunDir(run)),
        lambda: diagnose(Diagnostics.read(run)),
    ]
    with suppress(SrucliError):
        random.choice(others)()
    predictor = Predictor.load(run, "cpu")
    inputs = [Input(text, 1, text) for text in TEXTS]
    style = Style(random.random() < 0.5, random.choice((None, 2)), as_json=random.random() < 0.5)
    for group in records(predictor, inputs, style):
        "\n".join(group).encode()


def info(run: RunDir) -> None:
    """Read what `srucli info RUN` reads."""
    for read in (run.facts, run.config, run.labels, run.tokenizer):
        read()
    for which in ("best", "last"):
        if (run.path / which).is_file():
            run.state(which)


def use_tokenizer(path: Path) -> None:
    """Do with a tokenizer what commands do."""
    tokenizer = Tokenizer.load(path)
    codes, offsets = tokenizer.spelling
    assert offsets[-1] == len(codes)
    assert len(tokenizer.vocab) >= tokenizer.vocab_size
    for dropout in (0.0, 0.1):
        ids, offsets = tokenizer.encode(TEXTS, dropout)
        assert len(offsets) == len(TEXTS) + 1
        assert offsets[-1] == len(ids)
        assert ids.min(initial=0) >= 0
        assert ids.max(initial=0) < tokenizer.vocab_size
        for form in (int, str):
            encoded = tokenizer.line_encoder(form, subword_dropout=dropout)
            for text in TEXTS:
                tokenizer.decode(encoded(text))
    if tokenizer.model_type == "unigram":
        tokenizer.line_encoder(str, nbest=3)(TEXTS[1])


def try_run(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate files of a run folder, in half of the cases repair the manifests, and use the run."""
    name = random.choice(list(seeds.runs))
    files, run = seeds.files[name], folder / name
    if not run.is_dir():
        shutil.copytree(seeds.runs[name], run)
    try:
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            path = random.choice(list(files))
            if random.random() < 0.08 and (run / path).is_file():
                replace_file(random, run / path, seeds.folder / "train.tsv")
                continue
            if not (run / path).is_file() or (run / path).is_symlink():
                continue
            other = random.choice(list(seeds.files[random.choice(list(seeds.files))].values()))
            changed = mutate_file(random, path.name, files[path], other)
            (run / path).write_bytes(changed)
        if random.random() < 0.5:
            repair_manifests(run)
        with watched(folder):
            use_run(run, random)
    finally:
        restore(run, files)


def restore(run: Path, files: dict[Path, bytes]) -> None:
    """Undo all changes of a run folder."""
    for name, data in files.items():
        path = run / name
        with suppress(OSError):
            if not path.is_symlink() and path.is_file() and path.read_bytes() == data:
                continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(data)


def try_tokenizer(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate a SentencePiece model, and use it."""
    model = mutate_model(random, random.choice(seeds.models), random.choice(seeds.models))
    path = folder / "x.model"
    path.write_bytes(model)
    with watched(folder):
        use_tokenizer(path)


def try_yaml(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate a recipe, and load it."""
    path = folder / "x.yaml"
    path.write_bytes(mutate_yaml(random, random.choice(seeds.yaml), random.choice(seeds.yaml)))
    with watched(folder):
        resolve(path)


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
            examples = list(read_examples(path, config).reported(check_encodable))
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


TARGETS: dict[str, Callable[[Seeds, Random, Path], None]] = {
    "runs": try_run,
    "tokenizers": try_tokenizer,
    "yaml": try_yaml,
    "data": try_data,
    "folders": try_folder,
}


# ---------------------------------------------------------------- processes


@dataclass
class Result:
    """The counts of a target's inputs, and its findings: the input's number and a message."""

    inputs: int = 0
    used: int = 0
    seconds: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)


class Journal:
    """Memory shared with the child: an input's number, its start, the count of used inputs."""

    def __init__(self) -> None:
        self.memory = mmap(-1, 24)

    def write(self, number: int, used: int) -> None:
        self.memory[:] = struct.pack("<qdq", number, monotonic(), used)

    def read(self) -> tuple[int, float, int]:
        number, start, used = struct.unpack("<qdq", self.memory[:])
        return number, start, used


def attempt(target: str, seed: int, number: int, seeds: Seeds, folder: Path) -> str | None:
    """Try one input. Return None if it is used, and the error's message if it is refused.

    Raises every exception other than a SrucliError.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        TARGETS[target](seeds, Random(f"{seed}/{target}/{number}"), folder)
        refused = None
    except SrucliError as error:
        refused = str(error)
        refused.encode()
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert growth < MAX_GROWTH, f"{growth / 2**20:,.0f} MiB more memory"
    return refused


def work(target: str, seed: int, numbers: range, seeds: Seeds, journal: Journal, out: Path) -> None:
    """Try inputs in this child process, and write findings to a file."""
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    WATCH[:] = [Watch()]
    used = 0
    folder = Path(tempfile.mkdtemp(dir=out.parent))
    with out.open("a", encoding="utf-8") as findings:
        for number in numbers:
            journal.write(number, used)
            try:
                used += attempt(target, seed, number, seeds, folder) is None
            except BaseException as error:  # any exception is a finding
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"[:500]
                findings.write(json.dumps([number, text]) + "\n")
                findings.flush()
    journal.write(numbers.stop, used)
    shutil.rmtree(folder)


def run_batch(target: str, seed: int, numbers: range, seeds: Seeds, result: Result) -> int:
    """Try inputs in a child process. Return the number of the first that was not tried."""
    journal, out = Journal(), seeds.folder / "findings"
    journal.write(numbers.start, 0)
    out.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = 1
        try:
            work(target, seed, numbers, seeds, journal, out)
            code = 0
        finally:
            os._exit(code)
    hung = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        number, input_start, _ = journal.read()
        if monotonic() - input_start > MAX_SECONDS:
            hung = True
            os.kill(child, signal.SIGKILL)
        sleep(0.01)
    number, _, used = journal.read()
    if out.exists():
        result.findings += [tuple(json.loads(line)) for line in out.read_text().splitlines()]
    if status:
        log = out.with_suffix(".log").read_text(errors="replace").strip().split("\n")[-1]
        ended = f"ended with {os.waitstatus_to_exitcode(status)}: {log[:300]}"
        result.findings.append((number, f"no end after {MAX_SECONDS:g} s" if hung else ended))
        number += 1
    result.inputs, result.used = result.inputs + number - numbers.start, result.used + used
    return number


def fuzz(target: str, seed: int, inputs: int, until: float, seeds: Seeds, first: int = 0) -> Result:
    """Try `inputs` inputs of a target from number `first`, but start no batch after `until`."""
    result, start, number = Result(), monotonic(), first
    while number < first + inputs and monotonic() < until:
        stop = min(number + BATCH, first + inputs)
        number = run_batch(target, seed, range(number, stop), seeds, result)
    result.seconds = monotonic() - start
    return result


@contextmanager
def prepared() -> Iterator[Seeds]:
    """Create the seeds in a temporary folder, in /dev/shm if possible."""
    os.environ["NUMBA_THREADING_LAYER"] = "workqueue"  # GNU OpenMP does not survive a fork
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        seeds = Seeds(Path(name).resolve())
        tune_process(1)
        for run in seeds.runs.values():  # compile and import what is needed before forking
            for number in range(20):
                use_run(run, Random(number))
        for index, model in enumerate(seeds.models):
            path = seeds.folder / f"{index}.model"
            path.write_bytes(model)
            use_tokenizer(path)
        yield seeds


def report(target: str, result: Result) -> dict[str, Any]:
    """Print the counts and findings of a target, and return them for the JSON line."""
    rate = result.inputs / max(result.seconds, 1e-9)
    print(
        f"{target}: {result.inputs:,} inputs, {result.used:,} used, "
        f"{len(result.findings)} findings, {rate:.0f} a second",
        flush=True,
    )
    for number, text in result.findings[:MAX_SHOWN]:
        print(f"  {target} {number}: {text}")
    return {
        "inputs": result.inputs,
        "used": result.used,
        "seconds": round(result.seconds, 1),
        "findings": result.findings[:MAX_SHOWN],
    }


def main() -> int:
    """Parse the arguments, fuzz, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="per target")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="of all targets together"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--only", type=int, help="try only the input with this number")
    given = parser.parse_args()
    targets, summary = given.targets.split(","), {}
    with prepared() as seeds:
        if given.only is not None:
            WATCH[:] = [Watch()]
            folder = Path(tempfile.mkdtemp(dir=seeds.folder))
            print(attempt(targets[0], given.seed, given.only, seeds, folder) or "used")
            return 0
        end = monotonic() + given.seconds
        for index, target in enumerate(targets):
            until = monotonic() + (end - monotonic()) / (len(targets) - index)
            result = fuzz(target, given.seed, given.inputs, until, seeds)
            summary[target] = report(target, result)
    print(json.dumps({"seed": given.seed, **summary}))
    return int(any(found["findings"] for found in summary.values()))


if __name__ == "__main__":
    sys.exit(main())
