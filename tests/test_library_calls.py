"""Library calls leave the process unchanged: signals, threads, denormals, memory.

Each case is a new process, in which the whole state is compared after every call.
"""

from __future__ import annotations

import asyncio
import csv
import ctypes
import hashlib
import multiprocessing
import os
import pickle
import platform
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.support import Tiny, quick, sentences
from tests.test_architecture import modules

HANDLED = sorted({*signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP})
# The number of threads of the process; trainings have others.
THREADS = len(os.sched_getaffinity(0)) + 1
# Above malloc's threshold for mapping memory.
LARGE = 64 << 20


def state() -> dict[str, Any]:
    """Return what a call might change, as seen by the calling thread and a new one."""
    import numpy as np
    import torch

    denormal = torch.from_numpy(np.full(1 << 18, 1e-40, np.float32))  # enough for all threads
    with ThreadPoolExecutor(1) as other:
        elsewhere = other.submit(torch.get_num_threads).result()
    return {
        "signal handlers": [signal.getsignal(number) for number in HANDLED],
        "threads": torch.get_num_threads(),
        "threads of a new thread": elsewhere,
        "denormals": sys.float_info.min / 2 > 0,
        "denormals in torch": int((denormal * 1).count_nonzero()),
        "large blocks are mapped": mapped_blocks(),
        "csv.field_size_limit": csv.field_size_limit(),
        "folder": os.getcwd(),
        "gradients": torch.is_grad_enabled(),
        "standard streams": [sys.stdin, sys.stdout, sys.stderr],
        "start method": multiprocessing.get_start_method(),
        "random states": (random.getstate(), str(np.random.get_state()), hash_of_torchs_state()),
        "living threads": [thread.name for thread in threading.enumerate()],
    }


def hash_of_torchs_state() -> str:
    import torch

    return hashlib.sha256(bytes(torch.get_rng_state().numpy())).hexdigest()


def mapped_blocks() -> int | None:
    """Return how many blocks glibc maps for a large allocation; None without glibc."""
    if platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return None
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallinfo2.restype = Info
    before = libc.mallinfo2().hblks
    block = libc.malloc(LARGE)
    added = int(libc.mallinfo2().hblks - before)
    libc.free(block)
    return added


class Info(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ("a", "b", "c", "hblks", *"defghi"))


Calls = Iterator[tuple[str, Callable[[], object]]]


def calls(data: Path, run: Path, folder: Path) -> Calls:
    """Yield the calls of the library in their usual order."""
    import torch

    import srucli
    from srucli.data.readers import read_examples
    from srucli.inference.evaluation import evaluate
    from srucli.inference.predictor import Predictor
    from srucli.training.run import resume, train

    def layers() -> None:
        with torch.random.fork_rng():  # initial weights are random
            output, _ = srucli.SRU(3, 4)(torch.zeros(2, 1, 3))
        output.sum().backward()

    config = quick("train.epochs=1")
    yield "SRU", layers
    yield "train", lambda: train(config, str(data), None, folder / "run")
    yield "resume", lambda: resume(folder / "run", {"train.epochs": 2})
    predictor = Predictor.load(run, "cpu")
    yield "Predictor", lambda: predictor.probabilities(["a lovely film"] * 300)
    yield "evaluate", lambda: evaluate(predictor, read_examples(str(data), config.data))
    yield from of_the_public_api(run, folder)


def of_the_public_api(run: Path, folder: Path) -> Calls:
    """Yield the calls that `srucli.__all__` and `srucli.sklearn` have."""
    import srucli
    from srucli.sklearn import SRUClassifier

    labels, texts = zip(*sentences()[:200], strict=True)
    small = {"epochs": 1, "hidden": 8, "layers": 1, "embedding_size": 16}
    for process in (False, True):
        how: dict[str, Any] = {"process": process, "output": folder / f"public-{process}", **small}
        yield f"train, process={process}", partial(srucli.train, texts, labels, **how)
    loaded = srucli.load(run)
    yield "predict_proba", lambda: loaded.predict_proba(texts)
    yield "predict_iter", lambda: list(loaded.predict_iter(texts))
    yield "save", lambda: loaded.save(folder / "saved")
    estimator = SRUClassifier(encoder="bag", epochs=1, random_state=0)
    yield "SRUClassifier", lambda: estimator.fit(texts, labels)
    yield "its copy", lambda: pickle.loads(pickle.dumps(estimator)).predict(texts)


def experiments(data: Path, run: Path, folder: Path) -> Calls:
    """Yield calls that train several times."""
    from srucli.errors import SrucliError
    from srucli.experiments.compare import compare
    from srucli.experiments.crossval import crossval
    from srucli.experiments.fold_trials import Plan as FoldPlan
    from srucli.experiments.trials import Candidate, Plan
    from srucli.experiments.tune import tune

    def search() -> None:
        with suppress(SrucliError):  # no trial starts in time on a slow machine
            tune(config, str(data), None, minutes=0.02, max_mb=None)

    config = quick("train.epochs=1")
    candidates = [Candidate(name, {"optim.name": name}) for name in ("adam", "sgd")]
    plan = Plan(config, candidates, "accuracy", 1, 1, None)
    files = {"train": str(data), "dev": None, "test": None}
    yield "compare", lambda: compare(plan, files, folder / "compared", jobs=1)
    folds = FoldPlan(config, folds=2)
    yield "crossval", lambda: crossval(folds, str(data), folder / "validated", jobs=1)
    yield "tune", search


def changes(made: Calls) -> list[str]:
    """Make every call; return what changed."""
    import torch

    torch.set_num_threads(THREADS)
    before, found = state(), []
    for name, call in made:
        call()
        after = state()
        pairs = {key: (before[key], after[key]) for key in before}
        found += [f"{name}: {key}: {a} -> {b}"[:200] for key, (a, b) in pairs.items() if a != b]
        before = after
    return found


def in_a_worker(*paths: Path) -> list[str]:
    return changes(chain(calls(*paths), experiments(*paths)))


def in_a_thread(*paths: Path) -> list[str]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(changes, calls(*paths)).result()


def in_a_notebook(*paths: Path) -> list[str]:
    """With an event loop, signal handlers, and torch in use."""
    import torch

    async def cell() -> list[str]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
        signal.signal(signal.SIGINT, lambda number, frame: None)
        torch.set_num_threads(THREADS)
        torch.randn(500, 500) @ torch.randn(500, 500)
        return changes(calls(*paths))

    return asyncio.run(cell())


@pytest.mark.parametrize("place", [in_a_worker, in_a_thread, in_a_notebook])
def test_calls_leave_the_process_unchanged(
    tiny: Tiny, tmp_path: Path, place: Callable[..., list[str]]
) -> None:
    data = tmp_path / "train.csv"
    rows = [line.split("\t") for line in tiny.train.read_text().splitlines()[:120]]
    rows[0][1] = "lovely " * 40_000  # longer than csv's limit of a cell
    with data.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("label", "text"), *rows])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert not pool.submit(place, data, tiny.run, tmp_path).result()


def test_threads_that_train_at_once_get_the_weights_of_one_alone(
    tiny: Tiny, tmp_path: Path
) -> None:
    from srucli.training.run import train

    def weights(name: str) -> bytes:
        train(quick("train.epochs=2"), str(tiny.train), None, tmp_path / name)
        last = (tmp_path / name / "last").read_text().strip()
        return (tmp_path / name / "checkpoints" / last / "model.safetensors").read_bytes()

    alone = weights("alone")
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(weights, ("one", "two"))) == {alone}


@pytest.mark.parametrize(
    ("call", "files"),
    [
        (r"signal\.signal", "cli/process"),
        (r"set_flush_denormal|mallopt", "runtime"),
        (r"torch\.set_num_threads", "runtime"),
        (
            r"environ\.setdefault|os\.dup2|set_start_method",
            "api/child cli/process experiments/trial_process io/openmp",
        ),
        (r"sleep_soon\(", "api/child api/process cli/process io/openmp"),
        (
            r"tune_process\(",
            "api/child api/process cli/options cli/pretrain cli/run cli/train cli/tune "
            "experiments/trial_process runtime",
        ),
    ],
)
def test_which_files_change_the_process(call: str, files: str) -> None:
    found = [name for name, path in modules().items() if re.search(call, path.read_text())]
    assert found == files.split()
