"""The part of `benchmarks.gpu` that checks whether trainings repeat, and what memory they take.

graphs, first: epochs of random ragged batches in this process: the number of graphs, and the
memory that torch's allocator has reserved. The batches of the last epochs repeat, so that no shape
is new in the very last; the part fails if that one reserves more.

reruns: `srucli train` with the first set, three epochs, in float32 and in bf16: twice; stopped by
TERM in the second epoch and resumed by the same command; and with --diagnose. Each row has the
seconds of the command, those before its epochs (the start of Python, reading, the tokenizer), and
whether the weights equal those of the first run. The part fails if they do not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_runs import files_of, train, train_words
from benchmarks.sets import CommandError, Files, command, environment
from benchmarks.speed import (
    VOCABULARY,
    Report,
    Setup,
    classifier_step,
    heads,
    line,
    ragged_lengths,
)
from srucli.config import resolve
from srucli.data.batch import order, uploaded
from srucli.data.store import TokenStore

PRECISIONS = ("float32", "bf16")
RERUNS = ("first", "again", "resumed", "diagnosed")
# Epochs, and steps from one record of --diagnose to the next.
EPOCHS, DIAGNOSED = 3, 50
# Seconds from the end of the first epoch to TERM, and for the command to end after it.
PAUSE, STOPPED = 0.1, 60.0
INTERRUPTED = 75
# The order of the texts in each epoch of `graphs`. A shape is captured when it comes again.
ORDERS = (0, 1, 2, 2, 2)
TEXTS, BATCH, CLASSES = 6_000, 32, 6


def stop_training(files: Files, setup: Setup, run: Path, *flags: object) -> str:
    """Start a training and stop it in its second epoch; return what it said about that.

    Raises CommandError if it ended otherwise.
    """
    words = command(*train_words(files, setup, run, *flags))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=said, text=True
        )
        try:
            while process.poll() is None and not (run / "last").exists():
                sleep(0.005)
            sleep(PAUSE)
            process.terminate()
            process.wait(STOPPED)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{' '.join(words)}: runs {STOPPED:g} s after TERM") from None
        finally:
            process.kill()
        said.seek(0)
        text = said.read()
    if (code := process.returncode) != INTERRUPTED:
        raise CommandError(f"{' '.join(words)}: exit code {code}, not {INTERRUPTED}\n{text}")
    return text.rstrip().rpartition("\n")[2]


def rerun(kind: str, files: Files, setup: Setup, *flags: object) -> dict[str, Any]:
    """Train in one of the ways of RERUNS; return what `train` does, and the start's seconds."""
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        run = Path(scratch) / "run"
        said = stop_training(files, setup, run, *flags) if kind == "resumed" else None
        more = ("--diagnose", DIAGNOSED) if kind == "diagnosed" else ()
        found = train(files, setup, run, *flags, *more)
    if said:
        return found | {"said": said}
    return found | {"start_seconds": round(found["seconds"] - found["epochs_seconds"], 2)}


def measure_reruns(setup: Setup, report: Report) -> None:
    """Train repeatedly. Raises RuntimeError, at the end, if weights differ or memory grows."""
    wrong = []
    if grown := measure_graphs(setup, report):
        wrong.append(f"{grown:,} more bytes are reserved after an epoch without a new shape")
    files = files_of(setup.sets[0], setup)
    names = ("precision", "run", "command, s", "before the epochs, s", "weights")
    heads(f"reruns, {EPOCHS} epochs of {setup.sets[0]}", *names)
    for precision in PRECISIONS:
        flags = ("--epochs", EPOCHS, f"train.precision={precision}")
        first = None
        for kind in RERUNS:
            row: dict[str, Any] = {"precision": precision, "run": kind}
            try:
                row |= rerun(kind, files, setup, *flags)
            except CommandError as error:
                print(error, file=sys.stderr)
                wrong.append(f"{precision}, {kind}: the command failed")
                continue
            first = first or row["sha256"]
            row["equal"] = row["sha256"] == first
            report.add("reruns", row)
            verdict = "equal" if row["equal"] else "DIFFER"
            line(precision, kind, row["seconds"], row.get("start_seconds", "-"), verdict)
            if not row["equal"]:
                wrong.append(f"{precision}, {kind}: other weights than in the first run")
    if wrong:
        raise RuntimeError("; ".join(wrong))


def random_store(texts: int) -> TokenStore:
    """Return texts of log-normal lengths with random tokens and labels."""
    generator = np.random.default_rng(0)
    offsets = np.cumsum([0, *ragged_lengths(25, texts)])
    ids = generator.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    return TokenStore(ids, offsets, generator.integers(0, CLASSES, texts))


def measure_graphs(setup: Setup, report: Report) -> int:
    """Train some epochs in this process; return by how many bytes the last one reserves more."""
    heads("graphs", "epoch", "batches", "shapes", "graphs", "reserved, MiB", "loss")
    torch.manual_seed(0)
    config = resolve()
    store, device = random_store(TEXTS), torch.device(setup.device)
    step = classifier_step(config, CLASSES, setup.device)
    reserved = []
    for epoch, seed in enumerate(ORDERS, 1):
        groups = order(store.lengths, BATCH, config.train.batch_tokens, (seed,))
        step.begin_epoch()
        for batch in uploaded(map(store.batch, groups), device):
            step([batch], lr_factor=0.5)
        row: dict[str, Any] = {"epoch": epoch, "batches": len(groups), "loss": step.stats.loss}
        row["shapes"] = len(step.graphs.inputs) if step.graphs else 0
        row["graphs"] = len(step.graphs.graphs) if step.graphs else 0
        reserved.append(torch.cuda.memory_reserved() if device.type == "cuda" else 0)
        report.add("graphs", row | {"reserved": reserved[-1]})
        counts = (row[key] for key in ("epoch", "batches", "shapes", "graphs"))
        line(*counts, f"{reserved[-1] / 2**20:.1f}", f"{row['loss']:.4f}")
    return reserved[-1] - reserved[-2]
