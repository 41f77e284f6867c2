"""The parts of `benchmarks.gpu` that time training and prediction.

steps: steps of the default classifier on a batch that lies on the GPU, ten in a row, and by
torch's profiler how many kernels and copies run in one and which take longest. On a GPU a step is
replayed from a CUDA graph, as in `srucli train`; CUDA's driver counts the nodes of the graph.

trainings: `srucli train` with each encoder, in the default recipe and alone, without the linear
model of n-grams, and `srucli eval` on the test texts: seconds of the command, without Python's
start, and of its epochs, and accuracy. They run in one process, whose first training, of one epoch,
is not counted. Whether two runs are equal is measured by `gpu_reruns.py`.

prediction: `srucli predict` on the training texts of the first set, repeated, by a model trained on
them for one epoch. Texts per second are those beyond the time that a single text takes, which is
nearly all Python's start. A shorter run before warms the caches of compiled kernels.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import cycle, islice, product
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from benchmarks.sets import (
    WAYS,
    Files,
    read_rows,
    split_files,
    srucli,
    srucli_here,
)
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
from srucli.data.batch import Batch
from srucli.training.cuda_graphs import Graphs, capture
from srucli.training.step import Step

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


# Few and many texts, in the default precision and in bfloat16. Labels hardly change the time.
STEP_CASES = [
    StepCase(texts, 2, precision) for texts in (32, 256) for precision in ("float32", "bf16")
]
# The driver's numbers of kinds of nodes.
NODES = {0: "kernel", 1: "memcpy", 2: "memset"}


def case_step(case: StepCase, device: str) -> tuple[Step, Batch]:
    """Return the training step of the default classifier, and a batch for it."""
    config = resolve(overrides=[f"train.precision={case.precision}"])
    step = classifier_step(config, case.classes, device)
    return step, text_batch(case.texts, case.classes, device)


def step_run(step: Step, batch: Batch) -> Run:
    """Return a call of a step; it returns the mean loss."""

    def run() -> object:
        step.begin_epoch()
        step([batch], lr_factor=0.5)
        return step.totals[0] / batch.texts

    return run


def graph_nodes(graphs: Graphs) -> Counter[str]:
    """Return the numbers of nodes by kind in a graph of the step, captured anew.

    torch keeps no graph beside the executable one unless it is told so before the capture.
    """
    (inputs,) = graphs.inputs.values()
    graph = capture(
        lambda: graphs.step(inputs.batch()), graphs.stream, graphs.pool, keep_graph=True
    )
    return node_kinds(ctypes.CDLL("libcuda.so.1"), graph.raw_cuda_graph())


def node_kinds(driver: Any, graph: int) -> Counter[str]:
    """Return the numbers of nodes by kind in a `cudaGraph_t`. Raises RuntimeError."""
    count = ctypes.c_size_t()

    def call(function: Any, *arguments: object) -> None:
        if code := function(*arguments):
            raise RuntimeError(f"CUDA's driver returns {code}")

    call(driver.cuGraphGetNodes, ctypes.c_void_p(graph), None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    call(driver.cuGraphGetNodes, ctypes.c_void_p(graph), nodes, ctypes.byref(count))
    kinds: Counter[str] = Counter()
    for node in nodes:
        kind = ctypes.c_int()
        call(driver.cuGraphNodeGetType, ctypes.c_void_p(node), ctypes.byref(kind))
        kinds[NODES.get(kind.value, "other")] += 1
    return kinds


def nodes_of(step: Step) -> dict[str, int] | None:
    """Return the nodes of the step's graph by kind; None without a graph or if they are unknown."""
    if step.graphs is None:
        return None
    try:
        return dict(graph_nodes(step.graphs))
    except (AttributeError, OSError, RuntimeError, TypeError) as error:
        print(f"the nodes of the graph cannot be counted: {error}", file=sys.stderr)
        return None


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
    heads("steps of the default classifier", *names, "nodes of the graph")
    slowest = {}
    for case in cases:
        torch.manual_seed(0)
        step, batch = case_step(case, setup.device)
        run = step_run(step, batch)
        for _ in range(3):  # one as it is, one that makes the graph, one that replays it
            run()
        times = in_turn({"step": row_of(run, calls_for(run, setup.device))}, setup)["step"]
        rows = gpu_kernels(run, setup.device)
        own, count = (sum(row[key] for row in rows) for key in ("milliseconds", "count"))
        facts = {"ms": times, "kernel_ms": own, "kernels": count, "captured": step.captured}
        facts |= {"nodes": (nodes := nodes_of(step)), "slowest": rows[:SLOWEST]}
        report.add("steps", described(case) | facts)
        slowest[case] = rows[:SLOWEST]
        profiled = (f"{own:.3f}", f"{count:.0f}") if rows else ("-", "-")
        kinds = ", ".join(f"{number} {kind}" for kind, number in (nodes or {}).items())
        line(*case, shown(times, 3), *profiled, kinds or "-")
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


def train_words(files: Files, setup: Setup, run: Path, *flags: object) -> list[object]:
    """Return the words of a `srucli train` command."""
    dev = ["--dev", files.dev] if files.dev else []
    given = ["--device", setup.device, "--seed", SEED, *setup.flags, *flags]
    return ["train", files.train, *dev, "-o", run, *given]


def train(
    files: Files,
    setup: Setup,
    run: Path,
    *flags: object,
    command: Callable[..., str] | None = None,
) -> dict[str, Any]:
    """Run `srucli train`; return its seconds, those of its epochs, and its weights' hash."""
    began = perf_counter()
    (command or srucli)(*train_words(files, setup, run, *flags))
    seconds = perf_counter() - began
    records = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    checkpoint = run / "checkpoints" / (run / "last").read_text(encoding="utf-8").strip()
    weights = (checkpoint / "model.safetensors").read_bytes()
    return {
        "seconds": round(seconds, 2),
        "epochs_seconds": json.loads(records[-1])["seconds"],
        "epochs": len(records),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def measure_trainings(setup: Setup, report: Report) -> None:
    """Train every encoder on every set, and measure accuracy.

    Raises RuntimeError if a training failed, after the others.
    """
    names = ("set", "way", "encoder", "training, s", "epochs alone, s", "epochs", "accuracy")
    heads("trainings", *names)
    files = {name: files_of(name, setup) for name in setup.sets}
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        warm = Path(scratch) / "warm"
        train(files[setup.sets[0]], setup, warm, "--epochs", 1, command=srucli_here)
    failed = []
    for way, name, encoder in product(reversed(WAYS), setup.sets, setup.encoders):
        facts = {"set": name, "way": way, "encoder": encoder}
        try:
            found = tested_training(files[name], setup, f"model.encoder={encoder}", *WAYS[way])
        except Exception:
            traceback.print_exc()
            failed.append(f"{name}, {way}, {encoder}")
            continue
        report.add("trainings", facts | found)
        times = (f"{found[key]:.1f}" for key in ("seconds", "epochs_seconds"))
        line(name, way, encoder, *times, found["epochs"], f"{found['accuracy']:.4f}")
    if failed:
        raise RuntimeError(f"trainings that failed: {'; '.join(failed)}")


def tested_training(files: Files, setup: Setup, *flags: object) -> dict[str, Any]:
    """Return what `train` returns of a training in this process, and the accuracy."""
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        run = Path(scratch) / "run"
        found = train(files, setup, run, *flags, command=srucli_here)
        tested = srucli_here("eval", run, files.test, "--json", "--device", setup.device)
    gc.collect()  # graphs, which hold memory of the GPU
    return found | {"accuracy": json.loads(tested)["metrics"]["accuracy"]}


def measure_prediction(setup: Setup, report: Report) -> None:
    """Measure `srucli predict` on the device and on the CPU."""
    heads("srucli predict", "device", "texts", "command, s", "one text, s", "texts/s")
    files = files_of(setup.sets[0], setup)
    texts = [text for _, text in read_rows(files.train)]
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        run, file = Path(scratch) / "run", Path(scratch) / "texts.txt"
        train(files, setup, run, "--epochs", 1)
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
