"""The parts of `benchmarks.gpu` that check rather than time: tests, and what a CUDA graph holds.

tests: pytest on the kernels and the training step, in several processes if pytest-xdist is there,
as most of the time is that of a compiler. Then NVIDIA's compute-sanitizer, where it is installed,
on the kernels with an odd width and ragged texts: memcheck for accesses out of bounds, with each
tensor in memory of its own, and racecheck for shared memory. The part fails if one finds a fault.

capture: steps of the default classifier, with dropout, on one batch: one step that waits for the
GPU, so that no graph can hold it; then new steps, which graphs hold, also with class weights and
smoothing. A step that waits must warn once and go on, the others must be captured without a
warning, and all losses must be finite; else the part fails.
"""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor

from benchmarks.sets import ROOT, environment
from benchmarks.speed import (
    Report,
    Setup,
    classifier_step,
    heads,
    line,
    offsets_of,
    text_batch,
)
from srucli.config import resolve
from srucli.kernels.backends import BACKENDS
from srucli.kernels.reference import Recurrence

TESTS = ("tests/kernels/test_triton.py", "tests/training/test_on_gpu.py")
# Runs the others without a GPU.
DESELECTED = "tests/kernels/test_triton.py::test_in_the_interpreter"
# Processes that share a GPU, and seconds after which tests, and each tool, are ended.
PROCESSES, TESTS_LIMIT, TOOL_LIMIT = 8, 180, 90
STDERR = 2
BAD = ("failure", "error")  # results of tests, in pytest's file
TOOLS = ("memcheck", "racecheck")
TOOL_FOUND = 9  # an exit code that Python does not use
ODD_WIDTH, ODD_LENGTHS = 33, (5, 0, 1, 37, 2)
STEPS, TEXTS, CLASSES = 6, 32, 4


def run_tests(tests: Sequence[str]) -> dict[str, Any]:
    """Run pytest; return the numbers of tests by result, and the names of those that failed."""
    several = ["-n", str(min(PROCESSES, os.cpu_count() or 1))] if find_spec("xdist") else []
    with tempfile.TemporaryDirectory(prefix="srucli-gpu-") as scratch:
        xml = Path(scratch) / "tests.xml"
        command = [sys.executable, "-m", "pytest", *tests, f"--deselect={DESELECTED}", *several]
        # A test that hangs shows where.
        command += [f"--junitxml={xml}", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=60"]
        try:
            subprocess.run(command, cwd=ROOT, stdout=STDERR, timeout=TESTS_LIMIT)
        except subprocess.TimeoutExpired:
            return {"passed": 0, "failures": [f"not finished in {TESTS_LIMIT} s"]}
        if not xml.exists():
            return {"passed": 0, "failures": ["pytest stopped without results"]}
        return test_results(xml)


def test_results(xml: Path) -> dict[str, Any]:
    """Return what `run_tests` does, from the file that pytest wrote."""
    cases = list(ElementTree.parse(xml).iter("testcase"))
    bad = [case for case in cases if any(case.find(tag) is not None for tag in BAD)]
    skipped = sum(case.find("skipped") is not None for case in cases)
    failures = [f"{case.get('classname')}::{case.get('name')}" for case in bad]
    counts = {"passed": len(cases) - len(bad) - skipped, "failed": len(bad), "skipped": skipped}
    return counts | {"failures": failures if cases else ["no test was found"]}


def odd_kernels(device: str, kernel: str) -> None:
    """Run each kernel on few ragged texts. Raises RuntimeError if a result is not finite."""
    backend = BACKENDS[kernel]
    module, pooling = (importlib.import_module(name) for name in (backend.sru, backend.pool))
    offsets, texts = offsets_of(ODD_LENGTHS).to(device), len(ODD_LENGTHS)
    dtypes = backend.dtypes or (torch.float32, torch.bfloat16)
    for dtype, directions, planes in itertools.product(dtypes, (1, 2), (3, 4)):
        rows, width = sum(ODD_LENGTHS), ODD_WIDTH * directions

        def draw(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
            return torch.randn(*shape, device=device).to(kind)

        u = draw(rows, planes, width, kind=dtype)
        x = draw(rows, width, kind=dtype) if planes == 3 else None
        vectors = draw(2, width), draw(2, width), draw(texts, width), draw(texts, width)
        given = Recurrence(*vectors, offsets, directions, True, 1.3)
        plain, _, _ = module.forward(u.clone(), x, given, False)
        h, c, last = module.forward(u, x, given, True)
        grads = module.backward(torch.ones_like(h), torch.ones_like(last), u, x, c, given)
        largest, mean, argument = pooling.pool(h, offsets)
        grad_h = pooling.pool_backward(
            torch.ones_like(largest), torch.ones_like(mean), argument, offsets, rows
        )
        results = (plain, h, last, *grads, largest, mean, grad_h)
        if not all(bool(each.isfinite().all()) for each in results):
            raise RuntimeError(f"not finite: {dtype}, {directions} directions, k = {planes}")


def sanitizer() -> str | None:
    """Return NVIDIA's compute-sanitizer, if it is installed."""
    name = "compute-sanitizer"
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def sanitized(tool: str, setup: Setup) -> dict[str, Any]:
    """Run the kernels under a tool of compute-sanitizer; return its summary and what it found."""
    if (program := sanitizer()) is None:
        return {"summary": "not measured: compute-sanitizer is not installed", "failures": []}
    where = f"{setup.device!r}, {setup.kernel!r}"
    code = f"from benchmarks.gpu_checks import odd_kernels; odd_kernels({where})"
    command = [program, "--tool", tool, "--error-exitcode", str(TOOL_FOUND)]
    command += ["--target-processes", "application-only"]  # not Triton's compiler
    # Without torch's own allocator each tensor has memory of its own, with bounds.
    variables = environment(PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    try:
        done = subprocess.run(
            [*command, sys.executable, "-c", code],
            env=variables,
            timeout=TOOL_LIMIT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        return {"summary": f"not measured: not finished in {TOOL_LIMIT} s", "failures": []}
    said = done.stdout.splitlines() or ["no output"]
    summary = [each.strip("= ") for each in said if "SUMMARY" in each]
    if done.returncode == 0 and summary:
        return {"summary": summary[-1], "failures": []}
    print(done.stdout[-4000:], file=sys.stderr)
    if done.returncode == TOOL_FOUND:
        return {"summary": summary[-1] if summary else said[-1], "failures": said[:20]}
    return {"summary": f"not measured: {said[-1]} (exit code {done.returncode})", "failures": []}


def measure_tests(setup: Setup, report: Report, tests: Sequence[str] = TESTS) -> None:
    """Run the tests and the sanitizer. Raises RuntimeError if one finds a fault."""
    heads("tests", "what", "result", "seconds")
    began = perf_counter()
    found = run_tests(tests)
    failed = found["failures"]
    seconds = round(perf_counter() - began, 1)
    report.add("tests", {"what": "pytest", **found, "seconds": seconds})
    counts = (f"{found[key]} {key}" for key in ("passed", "failed", "skipped") if key in found)
    line("pytest", ", ".join(counts), seconds)
    for tool in TOOLS:
        began = perf_counter()
        found = sanitized(tool, setup)
        seconds = round(perf_counter() - began, 1)
        report.add("tests", {"what": tool, **found, "seconds": seconds})
        line(tool, found["summary"], seconds)
        failed = failed + found["failures"][:1]
    if failed:
        raise RuntimeError(f"{len(failed)} failed: {'; '.join(failed[:5])}")


class CaptureCase(NamedTuple):
    """A step with these settings, and whether it waits for the GPU."""

    name: str
    waits: bool = False
    settings: tuple[str, ...] = ()


WEIGHTED = ("train.class_weights=balanced", "train.label_smoothing=0.1")
CAPTURE_CASES = [
    CaptureCase("waits for the GPU", waits=True),
    CaptureCase("a new step after it"),
    CaptureCase("class weights, smoothing", settings=WEIGHTED),
    CaptureCase("the same, multi-label", settings=(*WEIGHTED, "data.multi_label=true")),
    CaptureCase("the same, bf16", settings=(*WEIGHTED, "train.precision=bf16")),
]


def wait(_module: object, given: tuple[Tensor, ...]) -> None:
    """Wait for the GPU, before a module's forward pass."""
    given[0].sum().item()


def take_steps(case: CaptureCase, device: str) -> dict[str, Any]:
    """Take some steps; return the numbers of steps, graphs and warnings, and the losses."""
    torch.manual_seed(0)
    config = resolve(overrides=case.settings)
    batch = text_batch(TEXTS, CLASSES, device)
    if config.data.multi_label:
        targets = (torch.rand(TEXTS, CLASSES) < 0.3).float().to(device)
        batch = replace(batch, targets=targets)
    assert batch.targets is not None
    step = classifier_step(config, CLASSES, device, batch.targets.cpu().numpy())
    if case.waits:
        step.model.encoder.register_forward_pre_hook(wait)
    losses, skipped = [], 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(STEPS):
            step.begin_epoch()
            step([batch], lr_factor=0.5)
            losses.append(step.stats.loss)
            skipped += step.stats.skipped
    said = [str(each.message) for each in warned if "launched one by one" in str(each.message)]
    graphs = len(step.graphs.graphs) if step.graphs else 0
    facts = {"steps": len(losses), "skipped": skipped, "captured": step.captured, "graphs": graphs}
    return facts | {"warnings": said, "loss": losses[-1], "losses": losses}


def is_expected(row: Mapping[str, Any], waits: bool, on_gpu: bool) -> bool:
    """Return whether a row of `take_steps` is as it should be."""
    return (
        row["captured"] == (on_gpu and not waits)
        and row["graphs"] == row["captured"]
        and len(row["warnings"]) == (on_gpu and waits)
        and min(row["losses"]) > 0  # a loss that is not finite counts as 0
        and not row["skipped"]
    )


def measure_capture(
    setup: Setup, report: Report, cases: Iterable[CaptureCase] = CAPTURE_CASES
) -> None:
    """Take steps of each case. Raises RuntimeError if one does not go as it should."""
    heads("capture", "step", "steps", "captured", "warnings", "loss", "as expected")
    wrong = []
    for case in cases:
        try:
            row = take_steps(case, setup.device)
        except RuntimeError:
            traceback.print_exc()
            wrong.append(f"{case.name} (it raised)")
            continue
        row["as_expected"] = is_expected(row, case.waits, setup.device != "cpu")
        report.add("capture", {"case": case.name, **row})
        expected = "yes" if row["as_expected"] else "NO"
        cells = row["steps"], row["captured"], len(row["warnings"]), f"{row['loss']:.4f}"
        line(case.name, *cells, expected)
        wrong += [] if row["as_expected"] else [case.name]
    if wrong:
        raise RuntimeError(f"not as expected: {', '.join(wrong)}")
