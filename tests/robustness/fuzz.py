"""A mutation fuzzer for untrusted input: run folders, tokenizers, YAML, data files, output folders.

Usage: python -m tests.robustness.fuzz [--inputs N] [--seconds S] [--seed K] [--only NUMBER]
                                      [--targets runs,yaml,...]

Each input depends only on (seed, target, number), so `--targets T --only NUMBER` repeats it. An
input passes if srucli uses it or refuses it with a SrucliError. These are findings: any other
exception; a process that ends, or needs more than 5 seconds of CPU time, 40 seconds in all or 1 GiB
of additional memory; any forbidden event outside the input's folder (`watch.py`); and what a target
checks besides (see its file in `targets/`). Child processes handle the inputs, and record the
number of each input before they start with it. The script prints counts, then one JSON line, and
exits with 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

from srucli.errors import SrucliError
from srucli.runtime import tune_process
from tests.robustness.folders import try_folder
from tests.robustness.targets import (
    codes,
    comparisons,
    converter,
    crossvals,
    data,
    json_values,
    linking,
    plotting,
    recipes,
    resuming,
    runs,
    terminal,
    tokenizers,
    vectors,
)
from tests.robustness.targets.seeds import Seeds, Target
from tests.robustness.watch import WATCH, Watch
from tests.support import cpu_seconds

# The limits of one input: seconds of CPU time and in all, since the machine may be busy, and bytes.
MAX_SECONDS, MAX_WAIT, MAX_GROWTH = 5.0, 40.0, 2**30
# Inputs per child process; maximum number of findings that are printed.
BATCH, MAX_SHOWN = 500, 50
TARGETS: dict[str, Target] = {
    "runs": Target(runs.try_run, runs.prepare),
    "tokenizers": Target(tokenizers.try_tokenizer, tokenizers.prepare),
    "yaml": Target(recipes.try_yaml),
    "data": Target(data.try_data),
    "folders": Target(try_folder, lambda seeds: seeds.bases),
    "json": Target(json_values.try_json),
    "resume": Target(resuming.try_resume, lambda seeds: seeds.bases),
    "links": Target(linking.try_links, linking.prepare),
    "comparisons": Target(comparisons.try_comparison, comparisons.prepare),
    "crossvals": Target(crossvals.try_crossval, crossvals.prepare),
    "plots": Target(plotting.try_plot, plotting.prepare),
    "decode": Target(codes.try_codes, tokenizers.prepare),
    "converter": Target(converter.try_converter, converter.prepare),
    "terminal": Target(terminal.try_terminal, linking.prepare),
    "vectors": Target(vectors.try_vectors, vectors.prepare),
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
        TARGETS[target].attempt(seeds, Random(f"{seed}/{target}/{number}"), folder)
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
    hung, last, before = "", -1, 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        number, input_start, _ = journal.read()
        used_seconds = cpu_seconds(child)
        if number != last:
            last, before = number, used_seconds
        if monotonic() - input_start > MAX_WAIT:
            hung = f"no end after {MAX_WAIT:g} s"
        elif used_seconds - before > MAX_SECONDS:
            hung = f"no end after {MAX_SECONDS:g} s of CPU time"
        if hung:
            os.kill(child, signal.SIGKILL)
        sleep(0.01)
    number, _, used = journal.read()
    if out.exists():
        result.findings += [tuple(json.loads(line)) for line in out.read_text().splitlines()]
    if status:
        log = out.with_suffix(".log").read_text(errors="replace").strip().split("\n")[-1]
        ended = f"ended with {os.waitstatus_to_exitcode(status)}: {log[:300]}"
        result.findings.append((number, hung or ended))
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
def prepared(targets: Iterable[str]) -> Iterator[Seeds]:
    """Create the seeds of targets in a temporary folder, in /dev/shm if possible.

    What the targets compile and import is compiled and imported here, before any process is forked.
    """
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        seeds = Seeds(Path(name).resolve())
        tune_process(1)
        for target in targets:
            TARGETS[target].prepare(seeds)
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
    with prepared(targets) as seeds:
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
