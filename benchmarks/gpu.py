"""srucli on a GPU: tests and checks, then steps, kernels, layers, trainings and prediction.

Usage: python -m benchmarks.gpu [-o gpu.json] [--parts steps,kernels] [--rounds N]
       [--data DIR] [--sets trec,sst2] [--encoders sru,lstm]

The parts, in this order: tests and capture, which `gpu_checks.py` describes; reruns, in
`gpu_reruns.py`; steps, in `gpu_runs.py`; kernels, layers and ragged, in `gpu_layers.py`; operators
and sweep, in `gpu_sweep.py`; trainings and prediction, in `gpu_runs.py`. How times are measured is
in `speed.py`. Each part can be started alone. It runs in a process of its own, because an illegal
access to a GPU's memory makes all later calls of its process fail. A part that fails, or is killed
after the seconds in PARTS, leaves the others to run, whether or not the tests pass.

It needs srucli installed with its dependencies, pytest and hypothesis for the tests, and Triton. On
a machine without a network that has torch and Triton, fetch the other wheels elsewhere, for its
version of Python, by `pip download`, and install them with `pip install --no-index --find-links`;
srucli's own wheel is made by `pip wheel --no-deps .`.

Tables go to stdout, at the end one of the parts, then one JSON line, in which a time is [lower
quartile, median, upper quartile] in milliseconds, and `parts` has each part's seconds and why it
failed. The file given by -o holds the JSON from the first measurement on. Exit codes: 1 if a part
failed, 2 if nothing can be measured here, for which a sentence gives the reason.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.gpu_checks import measure_capture, measure_tests
from benchmarks.gpu_layers import measure_kernels, measure_layers, measure_ragged
from benchmarks.gpu_reruns import measure_reruns
from benchmarks.gpu_runs import measure_prediction, measure_steps, measure_trainings
from benchmarks.gpu_sweep import measure_operators, measure_sweep
from benchmarks.sets import environment
from benchmarks.speed import Report, Setup, heads, line


class Part(NamedTuple):
    """A part of the benchmark, and the seconds after which it is killed."""

    measure: Callable[[Setup, Report], None]
    limit: float


PARTS = {
    "tests": Part(measure_tests, 420),
    "capture": Part(measure_capture, 120),
    "reruns": Part(measure_reruns, 360),
    "steps": Part(measure_steps, 180),
    "kernels": Part(measure_kernels, 180),
    "layers": Part(measure_layers, 240),
    "ragged": Part(measure_ragged, 240),
    "operators": Part(measure_operators, 120),
    "sweep": Part(measure_sweep, 300),
    "trainings": Part(measure_trainings, 480),
    "prediction": Part(measure_prediction, 300),
}
# Seconds for a killed process to leave the GPU's driver.
LEAVE = 10


def refusal() -> str | None:
    """Return the reason why nothing can be measured here, or None."""
    if not torch.cuda.is_available():
        return "there is no GPU that torch can use: nothing is measured"
    if find_spec("triton") is None:
        return "Triton is not installed, and it compiles the GPU kernels: pip install triton"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1 runs the kernels in Python: unset it"
    return None


def driver() -> str | None:
    """Return the version of NVIDIA's driver, if its tool is installed."""
    if not shutil.which("nvidia-smi"):
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip() or None


def machine() -> dict[str, Any]:
    """Return the machine and the versions of packages."""
    found: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        found |= {"device": gpu.name, "capability": f"{gpu.major}.{gpu.minor}"}
        found |= {"processors": gpu.multi_processor_count}
        found |= {"memory_gib": round(gpu.total_memory / 2**30, 1)}
    found |= {"driver": driver(), "cuda": torch.version.cuda}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    found |= {"cudnn": cudnn, "torch": torch.__version__}
    found["triton"] = importlib.import_module("triton").__version__ if find_spec("triton") else None
    return found | {"numpy": np.__version__, "python": platform.python_version()}


def measure(name: str, setup: Setup, report: Report) -> None:
    """Measure a part in this process; record what it raises, and its seconds."""
    began, failed = perf_counter(), None
    try:
        PARTS[name].measure(setup, report)
    except Exception as error:
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"
    report.end(name, perf_counter() - began, failed)


def measure_apart(name: str, report: Report) -> None:
    """Measure a part in a process of its own, which adds to the report's file."""
    began = perf_counter()
    options = ["--parts", name, "--in-process", "-o", str(report.output)]
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], *options]
    failed = run_apart(command, PARTS[name].limit)
    report.read()
    ended = report.values.get("parts", {}).get(name, {})
    report.end(name, perf_counter() - began, failed or ended.get("failed", "it did not end"))


def run_apart(command: Sequence[str], limit: float) -> str | None:
    """Run a command; return None, or how it failed. Kill it and its children after `limit` s."""
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"killed after {limit:g} s"
    finally:  # also when this process is stopped, and for children that are left
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LEAVE)
    if code < 0:
        return f"ended by signal {-code}"
    return f"exit code {code}" if code else None


def parse() -> argparse.Namespace:
    """Parse the command line."""
    default = Setup()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    def comma_list(flag: str, names: Iterable[str], help: str) -> None:
        parser.add_argument(flag, type=lambda text: text.split(","), default=list(names), help=help)

    parser.add_argument("-o", "--output", type=Path, help="file for the JSON line too")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="how often to measure")
    parser.add_argument("--data", type=Path, default=default.data, help="folder of the sets")
    parser.add_argument("--device", default=default.device, help="cpu, to try the script itself")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    comma_list("--parts", PARTS, "comma list; default: all")
    comma_list("--sets", default.sets, "what is trained on")
    comma_list("--encoders", default.encoders, "what is trained")
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]}: there are {', '.join(PARTS)}")
    if given.output and not given.output.absolute().parent.is_dir():
        parser.error(f"-o {given.output}: its folder does not exist")
    return given


def setup_of(given: argparse.Namespace) -> Setup:
    """Return where to measure what."""
    return Setup(
        device=given.device,
        kernel="cpu" if given.device == "cpu" else "triton",
        rounds=given.rounds,
        data=given.data,
        sets=tuple(given.sets),
        encoders=tuple(given.encoders),
    )


def summarize(report: Report) -> None:
    """Print a row for each part."""
    heads("parts", "part", "seconds", "result")
    for name, ended in report.values["parts"].items():
        line(name, ended["seconds"], f"FAILED: {ended['failed']}" if ended["failed"] else "ok")
    print()


def main() -> None:
    """Measure, and print tables and one JSON line."""
    given = parse()
    if given.device != "cpu" and (why := refusal()) is not None:
        print(why, file=sys.stderr)
        raise SystemExit(2)
    report = Report({}, given.output)
    if given.in_process:  # one part, started by the code below
        report.read()
        for name in given.parts:
            measure(name, setup_of(given), report)
        return
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        report = Report({"machine": machine()}, given.output or Path(scratch) / "gpu.json")
        report.write()
        print(", ".join(f"{name} {value}" for name, value in report.values["machine"].items()))
        sys.stdout.flush()
        for name in given.parts:
            measure_apart(name, report)
    summarize(report)
    print(report)
    failed = [name for name, ended in report.values["parts"].items() if ended["failed"]]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
