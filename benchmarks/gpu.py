"""srucli on a GPU: tests, then training steps, kernels, layers, whole trainings and prediction.

Usage: python -m benchmarks.gpu [-o gpu.json] [--parts steps,kernels] [--rounds N] [--no-tests]
       [--data DIR] [--sets trec,sst2] [--encoders sru,lstm]

The parts are steps, trainings and prediction, which `gpu_runs.py` describes, and kernels, layers
and ragged, which `gpu_layers.py` describes. How times are measured is in `speed.py`.

It needs srucli installed with its dependencies, pytest and hypothesis for the tests, and Triton. On
a machine without a network that has torch and Triton, fetch the other wheels elsewhere, for its
version of Python, by `pip download`, and install them with `pip install --no-index --find-links`;
srucli's own wheel is made by `pip wheel --no-deps .`.

The GPU tests run first, and nothing is measured if they fail. A part that fails leaves the others
to run. Tables go to stdout, then one JSON line, in which a time is [lower quartile, median, upper
quartile] in milliseconds; the file given by -o holds it from the first measurement on. Exit codes:
1 if the tests or a part failed, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_layers import measure_kernels, measure_layers, measure_ragged
from benchmarks.gpu_runs import measure_prediction, measure_steps, measure_trainings
from benchmarks.sets import ROOT
from benchmarks.speed import Report, Setup

TESTS = ("tests/kernels/test_triton.py", "tests/training/test_on_gpu.py")
# Runs the others without a GPU.
DESELECTED = "tests/kernels/test_triton.py::test_in_the_interpreter"

PARTS: dict[str, Callable[[Setup, Report], None]] = {
    "steps": measure_steps,
    "kernels": measure_kernels,
    "layers": measure_layers,
    "ragged": measure_ragged,
    "trainings": measure_trainings,
    "prediction": measure_prediction,
}


def refusal() -> str | None:
    """Return the reason why nothing can be measured here, or None."""
    if not torch.cuda.is_available():
        return "there is no GPU that torch can use: nothing is measured"
    if find_spec("triton") is None:
        return "Triton is not installed, and it compiles the GPU kernels: pip install triton"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1 runs the kernels in Python: unset it"
    return None


def tests_pass() -> bool:
    """Return whether the tests of kernels and steps pass; no speed is reported otherwise."""
    command = [sys.executable, "-m", "pytest", *TESTS, f"--deselect={DESELECTED}"]
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode == 0


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


def measure(parts: Iterable[str], setup: Setup, report: Report) -> None:
    """Measure every part, even after one that failed."""
    for name in parts:
        try:
            PARTS[name](setup, report)
        except Exception:
            traceback.print_exc()
            report.add("failed", name)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    default = Setup()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    def comma_list(flag: str, names: Iterable[str], help: str) -> None:
        parser.add_argument(flag, type=lambda text: text.split(","), default=list(names), help=help)

    parser.add_argument("-o", "--output", type=Path, help="file for the JSON line too")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="how often to measure")
    parser.add_argument("--no-tests", action="store_true", help="the tests have just passed")
    parser.add_argument("--data", type=Path, default=default.data, help="folder of the sets")
    comma_list("--parts", PARTS, "comma list; default: all")
    comma_list("--sets", default.sets, "what is trained on")
    comma_list("--encoders", default.encoders, "what is trained")
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]}: there are {', '.join(PARTS)}")
    return given


def main() -> None:
    """Measure, and print tables and one JSON line."""
    given = parse()
    if (why := refusal()) is not None:
        print(why, file=sys.stderr)
        raise SystemExit(2)
    if not given.no_tests and not tests_pass():
        raise SystemExit("the GPU tests fail: nothing is measured")
    setup = Setup(
        rounds=given.rounds,
        data=given.data,
        sets=tuple(given.sets),
        encoders=tuple(given.encoders),
    )
    report = Report({"machine": machine()}, given.output)
    print(", ".join(f"{name} {value}" for name, value in report.values["machine"].items()))
    measure(given.parts, setup, report)
    print(report)
    if failed := report.values.get("failed"):
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
