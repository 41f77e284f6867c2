"""Failed allocations: which errors count, and what each command says to lower."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srucli.errors import OutOfMemoryError, SrucliError
from srucli.inference.predictor import Predictor
from srucli.io.files import read_bounded
from srucli.io.memory import ending, enough_memory
from srucli.runs.tensors import file_of, tensors_of
from tests.support import Tiny, child_environment

ON_GPU = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def raising(error: Exception) -> Callable[[], object]:
    def block() -> None:
        raise error

    return block


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (lambda: torch.empty(2**45), "memory (it needs another 134,217,728 MiB)"),
        (lambda: np.empty(2**45), "memory (it needs another 256 TiB)"),
        (lambda: bytearray(2**62), "memory"),
        (raising(OSError(errno.ENOMEM, "Cannot allocate memory")), "memory"),
        (raising(torch.OutOfMemoryError(ON_GPU)), "GPU memory (it needs another 20.00 GiB)"),
        (raising(RuntimeError(CUBLAS)), "GPU memory"),
        (raising(RuntimeError("std::bad_alloc")), "memory"),
    ],
    ids=["torch", "numpy", "python", "system", "GPU", "cuBLAS", "C++"],
)
def test_a_failed_allocation_is_one_sentence(block: Callable[[], object], said: str) -> None:
    with pytest.raises(OutOfMemoryError) as raised, enough_memory("it", lambda: "lower a=1"):
        block()
    assert str(raised.value) == f"it ran out of {said}; lower a=1"


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError(errno.ENOSPC, "full")])
def test_other_errors_stay(error: Exception) -> None:
    with pytest.raises(type(error), match=re.escape(str(error))), enough_memory("it", "lower a"):
        raise error
    with pytest.raises(SrucliError, match="inner"), enough_memory("it", "lower a"):
        raise SrucliError("inner: memory cannot allocate")


def test_the_end_of_a_killed_process() -> None:
    assert ending(3) == "ended with 3"
    assert ending(-9) == "was killed, probably because memory ran out"


@pytest.mark.parametrize(("size", "read"), [(0, 0), (9, 9), (10, 10), (11, 11), (50, 11)])
def test_a_file_is_read_up_to_one_byte_more_than_allowed(
    tmp_path: Path, size: int, read: int
) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    with open(tmp_path / "file", "rb") as file:
        assert len(read_bounded(file, 10)) == read
    with open(tmp_path / "file", "rb") as file:
        # Python's own `read` would fail here.
        assert len(read_bounded(file, 2**62)) == size


# Runs commands, first some in as much memory as they like, which compiles the kernels.
LIMITED = """
import json, os, re, resource, sys
from srucli.cli import main

def run(words):
    sys.argv = ["srucli", *words]
    try:
        main()
    except SystemExit as ended:
        print(f"(exit code {ended.code})", file=sys.stderr, flush=True)

warm, limited = json.loads(sys.argv[1])
for words in warm:
    run(words)
size = re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())
resource.setrlimit(resource.RLIMIT_AS, ((int(size[1]) << 10) + (400 << 20), -1))
for words in limited:
    run(words)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (20, r"model\.hidden \(now 16\)"),
        (20_000, r"train\.max_tokens \(a text has 40,000 \w+\)"),
    ],
)
def test_advice_for_a_prediction_takes_no_memory(
    tiny: Tiny, words: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lengths of the texts are known by then: nothing is encoded again."""
    predictor, encoded = Predictor.load(tiny.run), []
    encode = predictor.tokenizer.encode

    def counted(texts: Sequence[str], *rest: Any) -> Any:
        encoded.append(len(texts))
        return encode(texts, *rest)

    monkeypatch.setattr(predictor.tokenizer, "encode", counted)
    predictor.model.pooling.register_forward_pre_hook(lambda *_: torch.empty(2**45))
    with pytest.raises(OutOfMemoryError, match=rf"^prediction ran out of memory .*{said}$"):
        predictor.probabilities(["lovely", "lovely soup " * words])
    assert encoded == [2]


def test_advice_for_tokens_that_do_not_fit(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(tiny.run)
    monkeypatch.setattr(predictor.tokenizer, "encode", lambda *_: np.empty(2**45))
    advice = r"free some of it, or split long texts \(the longest has 7 characters\)"
    with pytest.raises(OutOfMemoryError, match=rf"^tokenization ran out of memory .*; {advice}$"):
        predictor.probabilities(["lovely.", "soup"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_commands_in_little_memory(tiny: Tiny, tmp_path: Path) -> None:
    """Real allocations fail: 400 MiB are left."""
    (tmp_path / "long.tsv").write_text("good\t" + "lovely soup " * 40_000 + "\n")
    (tmp_path / "many.tsv").write_text(("good\t" + "lovely soup " * 30 + "\n") * 256)
    train = ["train", str(tiny.train), "--tokenizer", str(tiny.run / "tokenizer.model")]
    small = ["--threads=1", "--epochs=1", "--hidden=8", "--layers=1", "--batch-size=600", "-osmall"]
    small += ["model.embedding_size=16", "model.ngrams=false"]
    warm = [[*train, *small], ["predict", "small", str(tiny.test)]]
    wide = [*train, *small, "-o", "wide", "--hidden", "4096"]
    limited = [
        [*train, *small, "-o", "large", "model.encoder=bag", "model.bag_buckets=33000000"],
        wide,
        [*wide, "train.batch_tokens=300", "train.steps=1"],
        ["predict", "wide", "long.tsv"],
        ["eval", "wide", "many.tsv"],
        ["predict", "small", str(tiny.test)],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, json.dumps([warm, limited])],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    parts = re.split(r"\(exit code (\d+)\)\n", done.stderr)
    codes, said = [int(code) for code in parts[1::2]], [part.strip() for part in parts[::2]]
    assert codes == [0, 0, 1, 1, 0, 1, 1, 0], done.stderr
    assert said[2].endswith(
        "srucli: making the model ran out of memory (it needs another 2,014 MiB); "
        "lower model.bag_buckets (now 33,000,000)"
    )
    step = r"step 1 had a batch of \d,\d{3} tokens: set train\.batch_tokens=\d{4}"
    assert re.search(rf"srucli: training ran out of memory \(it .* MiB\); {step}$", said[3])
    advice = "; free some of it, or train with a lower "
    for each, setting in (
        (said[5], r"train\.max_tokens \(a text has \d\d,\d{3} tokens\)"),
        (said[6], r"model\.hidden \(now 4,096\)"),
    ):
        assert re.search(rf"prediction ran out of memory \(it .* MiB\){advice}{setting}$", each)


def test_a_checkpoint_without_memory_for_it_ends_in_no_panic() -> None:
    """safetensors raises no Exception, and with RUST_BACKTRACE=1 it can wait for ever."""
    resource = pytest.importorskip("resource")
    weights = {"a": torch.zeros(2**28)}  # 1 GiB, more than what other tests freed and malloc keeps
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**30 + 2**28, hard))  # room for one copy
    try:
        with pytest.raises(MemoryError):
            file_of(weights)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert tensors_of(file_of({"a": torch.ones(2)}), "a")["a"].tolist() == [1, 1]
