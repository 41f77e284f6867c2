"""A training that is killed again and again, and goes on: does it come to the same weights?

Usage: python -m tests.robustness.chaos [--kills N] [--ways kill,term,calls,faults]
       [--seed K] [--train FILE]

A small training of TREC's questions runs once from beginning to end. Then it is ended N times at
random instants and started again by the same command each time; when it comes to its end before
that, another one is begun. The ways:

kill: SIGKILL. term: SIGTERM, after which it must have saved and exit with 75 (or 143 where Python
had not begun to listen). The other ways end it by the `os` of `faulty.py` alone, at
random calls that write. calls: SIGKILL. faults: the call fails; it must exit with 73.

After each ending every checkpoint that `last` or `best` names must be what its manifest says. At
each end the weights of both must be those of the undisturbed training to the bit, and the records
of metrics.jsonl the same without gap or repeat. A line for each way goes to stdout, then one JSON
line; the exit code is 1 where anything was amiss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.sets import ROOT, find
from srucli.errors import SrucliError
from srucli.runs.checkpoints import POINTERS
from srucli.runs.run_dir import RunDir
from tests.support import child_environment

WAYS = ("kill", "term", "calls", "faults")
# Those that `faulty.py` ends, by what it calls so.
STRUCK = {"calls": "kill", "faults": "fail"}
# Of the calls that write; about one checkpoint in eight then fails.
STRUCK_SHARE = 0.004
SETTINGS = (
    *("--threads", "1", "--epochs", "5", "--hidden", "16", "--layers", "1", "--save-steps", "20"),
    *("model.embedding_size=32", "model.wide_buckets=2048", "model.character_buckets=2048"),
)


@dataclass
class Result:
    """What happened to one way of ending: how often, where it was by then, and what was amiss."""

    way: str
    endings: int = 0
    finished: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    amiss: list[str] = field(default_factory=list)


class Training:
    """The command, and a folder for its runs."""

    def __init__(self, scratch: Path, arguments: Sequence[str]) -> None:
        self.scratch, self.arguments = scratch, list(arguments)
        self.environment = child_environment(OMP_NUM_THREADS="1")

    def start(self, run: str, way: str = "", seed: int = 0) -> subprocess.Popen[str]:
        """The same command each time, over a disk that strikes if the way is such a one."""
        module = ["srucli"]
        if way in STRUCK:
            module = ["tests.robustness.faulty", STRUCK[way], run, str(seed), str(STRUCK_SHARE)]
        command = [sys.executable, "-m", *module, "train", *self.arguments, "-o", run]
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.scratch,
            env=self.environment,
            text=True,
        )

    def whole(self) -> float:
        """The undisturbed training, in the folder `whole`; the seconds of another one.

        For the first one's may be those of compiling the kernels.
        """
        for run in ("whole", "again"):
            begun = time.monotonic()
            code, said = self.undisturbed(run)
            if code:
                sys.exit(said)
        return time.monotonic() - begun

    def undisturbed(self, run: str) -> tuple[int, str]:
        """Start the command and let it come to its end; its exit code and what it said."""
        process = self.start(run)
        _, said = process.communicate()
        return process.returncode, said


def stage(run: Path) -> str:
    """How far a run has come."""
    if not (run / "run.json").is_file():
        return "before training"
    return "after a checkpoint" if (run / "last").is_file() else "before a checkpoint"


def damage(run: Path) -> list[str]:
    """What is wrong with the checkpoints that `last` and `best` name."""
    found = []
    for which in POINTERS:
        if not (run / which).is_file():
            continue
        checkpoints = RunDir(run).checkpoints
        try:
            checkpoints.verify(checkpoints.pointed(which))
        except SrucliError as error:
            found.append(f"{which}: {error}")
    return found


def records(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without its seconds."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(x).items() if key != "seconds"} for x in lines]


def differences(run: Path, whole: Path) -> list[str]:
    """Where a finished run is not what the undisturbed one is."""
    found = [] if records(run) == records(whole) else ["metrics.jsonl is another"]
    for which in POINTERS:
        one, other = (RunDir.open(each).checkpoint(which).weights for each in (run, whole))
        same = one.keys() == other.keys()
        if not same or not all(torch.equal(one[name], other[name]) for name in one):
            found.append(f"the weights of {which} are others")
    return found


def ended(training: Training, way: str, longest: float, draw: random.Random) -> tuple[int, str]:
    """Start the command and end it, if it does not end before; its exit code and what it said."""
    process = training.start("run", way, draw.randrange(2**31))
    if way not in STRUCK:
        try:
            _, said = process.communicate(timeout=draw.uniform(0, longest))
            return process.returncode, said
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if way == "kill" else signal.SIGTERM)
    _, said = process.communicate()
    return process.returncode, said


def amiss(way: str, code: int, said: str, run: Path, whole: Path) -> list[str]:
    """What should not be, after an ending."""
    right = {"kill": -signal.SIGKILL, "term": 75, "calls": -signal.SIGKILL, "faults": 73}
    found = damage(run)
    if code not in (0, right[way], -signal.SIGTERM if way == "term" else 0) or "Traceback" in said:
        found.append(f"exit code {code}: {said[-2000:]}")
    return found + (differences(run, whole) if code == 0 else [])


def endure(training: Training, way: str, kills: int, longest: float, seed: int) -> Result:
    """End the training `kills` times, look each time, and let the last one come to its end."""
    result, draw = Result(way), random.Random(f"{seed} {way}")
    run = training.scratch / "run"
    shutil.rmtree(run, ignore_errors=True)
    while True:
        last = result.endings == kills
        code, said = training.undisturbed("run") if last else ended(training, way, longest, draw)
        result.codes[code] += 1
        result.amiss += amiss(way, code, said, run, training.scratch / "whole")
        if code:
            result.endings += 1
            result.stages[stage(run)] += 1
        else:
            result.finished += 1
            shutil.rmtree(run)
        if last:
            return result


def measure(arguments: argparse.Namespace, scratch: Path) -> list[Result]:
    """Every way in turn, each shown as soon as it is done."""
    train = arguments.train or find(arguments.data / "trec", "train")
    if train is None:
        sys.exit(f"{arguments.data}: holds no trec; pass --train FILE")
    training = Training(scratch, [str(Path(train).resolve()), *SETTINGS])
    seconds = training.whole()
    results = []
    for way in arguments.ways.split(","):
        result = endure(training, way, arguments.kills, seconds, arguments.seed)
        stages = ", ".join(f"{count} {name}" for name, count in result.stages.items())
        print(
            f"{way}: ended {result.endings} times ({stages}), finished {result.finished} times, "
            f"amiss: {len(result.amiss)}",
            flush=True,
        )
        for problem in result.amiss:
            print(problem, file=sys.stderr)
        results.append(result)
    return results


def main() -> None:
    """Measure and print."""
    data = Path(os.environ.get("SRUCLI_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help="labelled file instead of trec")
    parser.add_argument("--data", type=Path, default=data, help="folder of the sets")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="srucli-chaos-") as scratch:
        results = measure(given, Path(scratch))
    print(json.dumps([{**vars(result), "stages": dict(result.stages)} for result in results]))
    sys.exit(any(result.amiss for result in results))


if __name__ == "__main__":
    main()
