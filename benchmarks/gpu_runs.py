"""The parts of `benchmarks.gpu` that time training and prediction.

steps: steps of the default classifier on a batch that lies on the GPU, ten in a row, and by
torch's profiler how many kernels and copies run in one and which take longest. On a GPU a step is
replayed from a CUDA graph, as in `srucli train`.

trainings: `srucli train` with the default recipe and each encoder, twice with the same seed, and
`srucli eval` on the test texts: seconds of the whole command and of the epochs alone, accuracy, and
whether both runs have the same weights.

prediction: `srucli predict` on the training texts of the first set, repeated, by a model trained on
them for one epoch. Texts per second are those beyond the time that a single text takes, which is
nearly all Python's start. A shorter run before warms the caches of compiled kernels.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from benchmarks.sets import Files, read_rows, split_files, srucli
from benchmarks.speed import (
    Report,
    Run,
    Setup,
    calls_for,
    classifier_step,
    described,
    heads,
    in_turn,
    line,
    row_of,
    shown,
    text_batch,
)
from srucli.config import resolve

SEED = 1
PROFILED, SLOWEST = 10, 10
WARM_UP = 1_000
# Parts that all names of torch's kernels have.
NOISE = re.compile(r"^void |\bat::native::|\bat_cuda_detail::|\(anonymous namespace\)::|\bat::")


class StepCase(NamedTuple):
    """A step of the classifier; `precision` is a name that `train.precision` knows."""

    texts: int
    classes: int
    precision: str


# Few and many texts and labels, in the default precision and in bfloat16.
STEP_CASES = [
    StepCase(texts, classes, precision)
    for texts in (32, 256)
    for classes in (2, 20)
    for precision in ("float32", "bf16")
]


def step_run(case: StepCase, device: str) -> Run:
    """Return a step of the default classifier; it returns the mean loss."""
    config = resolve(overrides=[f"train.precision={case.precision}"])
    step = classifier_step(config, case.classes, device)
    batch = text_batch(case.texts, case.classes, device)

    def run() -> object:
        step.begin_epoch()
        step([batch], lr_factor=0.5)
        return step.totals[0] / case.texts

    return run


def gpu_kernels(run: Run, device: str) -> list[dict[str, Any]]:
    """Return the GPU's kernels of a call: names, calls and milliseconds, longest first."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # The first profile of a process starts the profiler, and is discarded.
    for calls in (1, PROFILED):
        with torch.profiler.profile(activities=activities, acc_events=True) as profile:
            for _ in range(calls):
                run()
            if device != "cpu":
                torch.cuda.synchronize()
    return device_rows(profile.key_averages(), PROFILED)


def device_rows(events: Iterable[Any], calls: int) -> list[dict[str, Any]]:
    """Return what ran on the GPU, per call, without operators and marked regions."""
    rows = [
        {
            "kernel": event.key,
            "count": event.count / calls,
            "milliseconds": event.self_device_time_total / 1e3 / calls,
        }
        for event in events
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    ]
    return sorted(rows, key=lambda row: -row["milliseconds"])


def short_name(kernel: str) -> str:
    """Return a short name that identifies a kernel in a table."""
    return NOISE.sub("", kernel).replace("|", "/")[:90]


def measure_steps(setup: Setup, report: Report, cases: Iterable[StepCase] = STEP_CASES) -> None:
    """Measure training steps of the classifier, and list the kernels that take longest in each."""
    names = ("texts", "classes", "precision", "step, ms", "GPU kernels, ms", "kernel launches")
    heads("steps of the default classifier", *names)
    slowest = {}
    for case in cases:
        torch.manual_seed(0)
        run = step_run(case, setup.device)
        for _ in range(3):  # one as it is, one that makes the graph, one that replays it
            run()
        times = in_turn({"step": row_of(run, calls_for(run, setup.device))}, setup)["step"]
        rows = gpu_kernels(run, setup.device)
        own, count = (sum(row[key] for row in rows) for key in ("milliseconds", "count"))
        facts = {"ms": times, "kernel_ms": own, "kernels": count, "slowest": rows[:SLOWEST]}
        report.add("steps", described(case) | facts)
        slowest[case] = rows[:SLOWEST]
        line(*case, shown(times, 3), *((f"{own:.3f}", f"{count:.0f}") if rows else ("-", "-")))
    for case, rows in slowest.items():
        title = f"slowest kernels: {case.texts} texts, {case.classes} classes, {case.precision}"
        heads(title, "microseconds a step", "calls", "kernel")
        for row in rows:
            name = short_name(row["kernel"])
            line(f"{1e3 * row['milliseconds']:.1f}", f"{row['count']:.1f}", name)


def files_of(name: str, setup: Setup) -> Files:
    """Return the files of a set. Raises FileNotFoundError."""
    files = split_files(setup.data / name)
    if files is None:
        raise FileNotFoundError(f"{setup.data / name} has no train and test (.tsv or .tsv.gz)")
    return files


def train(files: Files, encoder: str, setup: Setup, run: Path, *flags: object) -> dict[str, Any]:
    """Run `srucli train`; return its seconds, those of its epochs, and its weights' hash."""
    dev = ["--dev", files.dev] if files.dev else []
    given = ["--device", setup.device, "--seed", SEED, f"model.encoder={encoder}", *setup.flags]
    began = perf_counter()
    srucli("train", files.train, *dev, "-o", run, *given, *flags)
    seconds = perf_counter() - began
    records = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    checkpoint = run / "checkpoints" / (run / "last").read_text(encoding="utf-8").strip()
    weights = (checkpoint / "model.safetensors").read_bytes()
    return {
        "seconds": round(seconds, 2),
        "epochs_seconds": json.loads(records[-1])["seconds"],
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def measure_trainings(setup: Setup, report: Report) -> None:
    """Train twice with every encoder on every set, and measure accuracy."""
    names = ("set", "encoder", "command, s", "epochs alone, s", "accuracy", "weights")
    heads("srucli train, twice", *names)
    for name in setup.sets:
        files = files_of(name, setup)
        for encoder in setup.encoders:
            with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
                runs = [Path(scratch) / each for each in ("first", "second")]
                found = [train(files, encoder, setup, run) for run in runs]
                tested = srucli("eval", runs[0], files.test, "--json", "--device", setup.device)
            accuracy = json.loads(tested)["metrics"]["accuracy"]
            facts = {"set": name, "encoder": encoder, "accuracy": accuracy, "runs": found}
            report.add("trainings", facts)
            cells = [
                " and ".join(f"{run[key]:.1f}" for run in found)
                for key in ("seconds", "epochs_seconds")
            ]
            equal = found[0]["sha256"] == found[1]["sha256"]
            line(name, encoder, *cells, f"{accuracy:.4f}", "equal" if equal else "differ")


def measure_prediction(setup: Setup, report: Report) -> None:
    """Measure `srucli predict` on the device and on the CPU."""
    heads("srucli predict", "device", "texts", "command, s", "one text, s", "texts/s")
    files = files_of(setup.sets[0], setup)
    texts = [text for _, text in read_rows(files.train)]
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        run, file = Path(scratch) / "run", Path(scratch) / "texts.txt"
        train(files, "sru", setup, run, "--epochs", 1)
        for device in dict.fromkeys((setup.device, "cpu")):
            seconds = {}
            for count in (min(WARM_UP, setup.lines), 1, setup.lines):
                lines = (f"{text}\n" for text in islice(cycle(texts), count))
                file.write_text("".join(lines), encoding="utf-8", newline="\n")
                began = perf_counter()
                labels = srucli("predict", run, file, "--device", device)
                seconds[count] = perf_counter() - began
                if labels.count("\n") != count:
                    raise RuntimeError(f"{labels.count(chr(10))} labels for {count} texts")
            took, start = seconds[setup.lines], seconds[1]
            rate = round((setup.lines - 1) / (took - start)) if took > start else None
            facts = {"device": device, "lines": setup.lines, "seconds": round(took, 2)}
            report.add("prediction", facts | {"one": round(start, 2), "texts_per_second": rate})
            line(device, f"{setup.lines:,}", f"{took:.1f}", f"{start:.1f}", f"{rate or 0:,}")
