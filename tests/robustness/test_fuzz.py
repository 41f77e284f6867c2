"""A short run of the fuzzer, a test of what it detects, and random Unicode in texts and YAML."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srucli.errors import UsageError
from srucli.io.yaml import parse_yaml
from srucli.tokenizer.model import Tokenizer
from tests.robustness.fuzz import TARGETS
from tests.robustness.mutate import mutate_file
from tests.support import ROOT
from tests.tokenizer.test_model import LINES, trained

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a child process: the fuzzer forks, which is unsafe with other threads."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )


def fuzzed(inputs: int, targets: Iterable[str]) -> dict[str, int]:
    """Fuzz the targets, and return how many inputs of each were used. The seed is fixed."""
    done = python(
        "-m", "tests.robustness.fuzz", f"--inputs={inputs}", f"--targets={','.join(targets)}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(found[target]["inputs"] == inputs for target in targets)
    return {target: found[target]["used"] for target in targets}


def test_short_run_has_no_findings() -> None:
    """Mutations are neither too small, as if all were used, nor too destructive.

    Of some targets 4% of the inputs are used, and runs have other times and ids whenever they are
    made. So 25 inputs of which none is used may be chance, and 300 are not.
    """
    inputs = 25
    used = fuzzed(inputs, TARGETS)
    assert [target for target, count in used.items() if count == inputs] == []
    unused = [target for target, count in used.items() if not count]
    assert not unused or all(fuzzed(300, unused).values())


@pytest.mark.parametrize("name", ["x.model", "x.json", "x.yaml", "x.safetensors", "last"])
def test_mutations_accept_any_content_and_are_repeatable(name: str) -> None:
    for number in range(300):
        data = random.Random(number).randbytes(number % 60)
        first, second = (mutate_file(random.Random(number), name, data, b"{}") for _ in range(2))
        assert first == second


# What the inputs with these numbers do. The others do nothing.
FAULTS = """
import math, os, pickle, socket, subprocess, time
from pathlib import Path
from types import SimpleNamespace
from tests.robustness import fuzz
from tests.robustness.watch import watched
from srucli.errors import UsageError

class Touch:
    def __reduce__(self):
        return print, ("x",)

def refuse():
    raise UsageError("no")

def inside(folder):
    (folder / "x").write_text("x")
    (folder / "x").unlink()

def by_descriptor(folder, name, flags):
    descriptor = fuzz_open(folder, os.O_RDONLY)
    try:
        os.close(os.open(name, flags, dir_fd=descriptor))
    except OSError:
        pass
    finally:
        os.close(descriptor)

fuzz_open = os.open  # not watched, because opening the folder itself would be a finding

FAULTS = {
    1: lambda folder: {}["x"],
    3: lambda folder: os.abort(),
    4: lambda folder: time.sleep(60),
    5: lambda folder: len(b"x" * (2**30 + 2**27)),
    6: lambda folder: (folder.parent / "beside").write_text("x"),
    7: lambda folder: os.remove(folder.parent / "beside"),
    8: lambda folder: subprocess.run(["true"]),
    9: lambda folder: pickle.loads(pickle.dumps(Touch())),
    10: lambda folder: (folder / "link").read_bytes(),
    11: lambda folder: socket.socket(),
    12: lambda folder: os.mkdir(folder / ".." / "made"),
    13: lambda folder: refuse(),
    14: inside,
    15: lambda folder: by_descriptor(folder, "link", os.O_RDONLY),
    16: lambda folder: by_descriptor(folder.parent, "beside", os.O_WRONLY | os.O_CREAT),
    17: lambda folder: by_descriptor(folder, "link", os.O_RDONLY | os.O_NOFOLLOW),
    18: lambda folder: by_descriptor(folder, "x", os.O_WRONLY | os.O_CREAT),
    19: lambda folder: os.rename(folder / "x", folder.parent / "beside"),
    20: lambda folder: os.unlink(folder / "link"),
}

def attempt(seeds, random, folder):
    global number
    number += 1
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to("/etc/passwd")
    with watched(folder):
        FAULTS.get(number, lambda folder: None)(folder)

fuzz.TARGETS["faults"] = fuzz.Target(attempt)
here = Path(__import__("sys").argv[1])
first = 0
result = fuzz.Result()
while first < 22:
    number = first - 1
    # Only the input that never ends has a limit, so that a slow machine changes nothing.
    fuzz.MAX_WAIT, stop = (1.0, 5) if first == 4 else (math.inf, 4 if first < 4 else 22)
    first = fuzz.run_batch("faults", 0, range(first, stop), SimpleNamespace(folder=here), result)
for place, text in result.findings:
    print(place, text.replace(str(here), "HERE"))
print(result.inputs, result.used)
"""


def test_fuzzer_detects_faults(tmp_path: Path) -> None:
    done = python("-c", FAULTS, str(tmp_path))
    *findings, last = done.stdout.splitlines()
    expected = {
        1: "KeyError: 'x'",
        3: "ended with -6",
        4: "no end after 1 s",
        5: "AssertionError: 1,",
        6: "AssertionError: open ",
        7: "AssertionError: os.remove ('HERE/beside'",
        8: "AssertionError: subprocess.Popen",
        9: "AssertionError: pickle.find_class ('builtins', 'print')",
        10: "AssertionError: open ",
        11: "AssertionError: socket.__new__",
        12: "AssertionError: os.mkdir",
        15: "AssertionError: open 'link' None",
        16: "AssertionError: open 'beside' None",
        19: "AssertionError: os.rename",
    }
    found = {int(line.split()[0]): line.partition(" ")[2] for line in findings}
    assert found.keys() == expected.keys(), done.stdout + done.stderr
    assert all(found[number].startswith(text) for number, text in expected.items()), findings
    assert last == "22 7"  # one was refused, 14 are findings


# ---------------------------------------------------------------- random Unicode


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def lossless(request: pytest.FixtureRequest) -> Tokenizer:
    return trained(
        [*LINES, "긍정 부정"],
        model_type=request.param,
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        lower_vocab=True,
    )


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=4), dropout=st.sampled_from([0.0, 0.3]))
def test_decoding_restores_any_text(lossless: Tokenizer, texts: list[str], dropout: float) -> None:
    ids, offsets = lossless.encode(texts, dropout)
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    assert ids.min(initial=0) >= 0
    assert ids.max(initial=0) < lossless.vocab_size
    rows = np.split(ids, offsets[1:-1]) if texts else []
    for text, row in zip(texts, rows, strict=True):
        assert lossless.decode(row.tolist()) == text.replace("▁", " ")


YAML_TEXT = st.text(
    st.sampled_from("a1 \n\t:-?,[]{}&*!|>'\"%@`#.~=<_\0\x85\ufeff한") | st.characters(), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(YAML_TEXT)
def test_any_yaml_is_parsed_or_refused(text: str) -> None:
    with suppress(UsageError):
        parse_yaml(text.encode("utf-8", "surrogatepass"), "x.yaml")
