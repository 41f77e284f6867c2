"""Kill or interrupt a training again and again, resume it, and compare its weights.

Usage: python -m tests.robustness.chaos [--kills N] [--ways kill,term,calls,faults]
       [--seed K] [--train FILE]

A small training on TREC first runs undisturbed. Then the same command is stopped N times at random
moments and started again each time. If it finishes before it is stopped, it begins in a new folder.
There are four ways to stop it:

- kill: SIGKILL after a random CPU time.
- term: SIGTERM after a random CPU time. The command must save and exit with 75, or with 143 if the
  signal arrives before the handler is installed.
- calls: SIGKILL at a random call that writes, by `faulty.py`.
- faults: a random call that writes fails, by `faulty.py`. The command must exit with 73.

After each stop, every checkpoint named by `last` or `best` must match its manifest. When a training
finishes, both checkpoints must be bit-equal to those of the undisturbed training, and metrics.jsonl
must have the same records, without gaps or repeats. The script prints one line for each way, then
one JSON line, and exits with 1 if it found a violation.
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
from tests.support import child_environment, cpu_seconds, until

WAYS = ("kill", "term", "calls", "faults")
# The ways of `faulty.py`, with its names for them.
FAULTY = {"calls": "kill", "faults": "fail"}
SETTINGS = (
    *("--threads", "1", "--epochs", "5", "--hidden", "16", "--layers", "1", "--save-steps", "20"),
    *("model.embedding_size=32",),
)


@dataclass
class Result:
    """How often the training was stopped, at which stages, and the violations found."""

    way: str
    stops: int = 0
    finished: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Training:
    """The training command, and the folder with its runs."""

    def __init__(
        self, scratch: Path, arguments: Sequence[str], faulty_share: float = 0.004
    ) -> None:
        """Take the arguments of `srucli train`, and the share of faulty calls that write.

        With a share of 0.004 about one checkpoint in eight fails.
        """
        self.scratch, self.arguments = scratch, list(arguments)
        self.faulty_share = str(faulty_share)
        self.environment = child_environment(OMP_NUM_THREADS="1")

    def start(self, run: str, way: str = "", seed: int = 0) -> subprocess.Popen[str]:
        """Start the command, under `faulty.py` if the way is one of its ways."""
        module = ["srucli"]
        if way in FAULTY:
            module = ["tests.robustness.faulty", FAULTY[way], run, str(seed), self.faulty_share]
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
        """Train undisturbed into the folder `whole`, and return the CPU time in seconds."""
        before = os.times().children_user
        code, stderr = self.undisturbed("whole")
        if code:
            sys.exit(stderr)
        return os.times().children_user - before

    def undisturbed(self, run: str) -> tuple[int, str]:
        """Run the command to its end, and return its exit code and stderr."""
        process = self.start(run)
        _, stderr = process.communicate()
        return process.returncode, stderr


def stage(run: Path) -> str:
    """Return which files of a run exist: how far the training came."""
    if not (run / "run.json").is_file():
        return "before training"
    return "after a checkpoint" if (run / "last").is_file() else "before a checkpoint"


def damage(run: Path) -> list[str]:
    """Return what is wrong with the checkpoints that `last` and `best` name."""
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
    """Return the records of metrics.jsonl without the seconds."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(x).items() if key != "seconds"} for x in lines]


def differences(run: Path, whole: Path) -> list[str]:
    """Return how a finished run differs from the undisturbed one."""
    found = [] if records(run) == records(whole) else ["metrics.jsonl differs"]
    for which in POINTERS:
        one, other = (RunDir.open(each).checkpoint(which).weights for each in (run, whole))
        same = one.keys() == other.keys()
        if not same or not all(torch.equal(one[name], other[name]) for name in one):
            found.append(f"the weights of {which} differ")
    return found


def stop(training: Training, way: str, longest: float, draw: random.Random) -> tuple[int, str]:
    """Start the command, stop it within `longest` CPU seconds, return its exit code and stderr."""
    process = training.start("run", way, draw.randrange(2**31))
    if way not in FAULTY:
        limit = draw.uniform(0, longest)
        until(lambda: process.poll() is not None or cpu_seconds(process.pid) > limit)
        process.send_signal(signal.SIGKILL if way == "kill" else signal.SIGTERM)
    _, stderr = process.communicate()
    return process.returncode, stderr


def violations(way: str, code: int, stderr: str, run: Path, whole: Path) -> list[str]:
    """Return what is wrong after the command has ended."""
    expected = {"kill": -signal.SIGKILL, "term": 75, "calls": -signal.SIGKILL, "faults": 73}
    allowed = {0, expected[way]} | ({-signal.SIGTERM} if way == "term" else set())
    found = damage(run)
    if code not in allowed or "Traceback" in stderr:
        found.append(f"{way}: exit code {code}: {stderr[-2000:]}")
    return found + (differences(run, whole) if code == 0 else [])


def stop_repeatedly(training: Training, ways: Sequence[str], longest: float, seed: int) -> Result:
    """Stop the training once in each of `ways`, check it each time, and let it finish then."""
    names = "+".join(dict.fromkeys(ways))
    result, draw = Result(names), random.Random(f"{seed} {names}")
    run = training.scratch / "run"
    shutil.rmtree(run, ignore_errors=True)
    while True:
        last = result.stops == len(ways)
        way = ways[-1] if last else ways[result.stops]
        code, stderr = training.undisturbed("run") if last else stop(training, way, longest, draw)
        result.codes[code] += 1
        result.violations += violations(way, code, stderr, run, training.scratch / "whole")
        if code:
            result.stops += 1
            result.stages[stage(run)] += 1
        else:
            result.finished += 1
            shutil.rmtree(run)
        if last:
            return result


def measure(arguments: argparse.Namespace, scratch: Path) -> list[Result]:
    """Run every way in turn, and print each result at once."""
    train = arguments.train or find(arguments.data / "trec", "train")
    if train is None:
        sys.exit(f"{arguments.data}: has no trec; pass --train FILE")
    training = Training(scratch, [str(Path(train).resolve()), *SETTINGS])
    training.undisturbed("warm-up")  # compiles the kernels
    seconds = training.whole()
    results = []
    for way in arguments.ways.split(","):
        result = stop_repeatedly(training, [way] * arguments.kills, seconds, arguments.seed)
        stages = ", ".join(f"{count} {name}" for name, count in result.stages.items())
        print(
            f"{way}: stopped {result.stops} times ({stages}), finished {result.finished} times, "
            f"violations: {len(result.violations)}",
            flush=True,
        )
        for violation in result.violations:
            print(violation, file=sys.stderr)
        results.append(result)
    return results


def main() -> None:
    """Parse the arguments, run the ways, and print a JSON line."""
    data = Path(os.environ.get("SRUCLI_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help="labelled file to use instead of trec")
    parser.add_argument("--data", type=Path, default=data, help="folder of the public data sets")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="srucli-chaos-") as scratch:
        results = measure(given, Path(scratch))
    print(json.dumps([{**vars(result), "stages": dict(result.stages)} for result in results]))
    sys.exit(any(result.violations for result in results))


if __name__ == "__main__":
    main()
