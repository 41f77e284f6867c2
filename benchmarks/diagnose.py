"""What `--diagnose N` costs: steps of the default classifier with and without it, in turn.

Usage: python -m benchmarks.diagnose [--every N] [--rounds R]

A round takes three times N steps each way, on a batch of 32 made-up texts; the early steps of a
training, which are looked at more often, are left out. The figure is the median over rounds of the
ratio of the two times in the same round. A line goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from time import perf_counter

import numpy as np
import torch

from benchmarks.speed import VOCABULARY, classifier_step, text_batch
from srucli import optim
from srucli.config import resolve
from srucli.diagnostics.watch import Watch
from srucli.runtime import tune_process

CLASSES = 6
# Far beyond the first steps, where only multiples of N are recorded.
LATE = 3 * 5 * 7 * 10**6 + 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=13)
    given = parser.parse_args()
    tune_process()
    torch.manual_seed(0)
    step, batch = classifier_step(resolve(), CLASSES, "cpu"), text_batch(32, CLASSES, "cpu")
    counts = np.bincount(batch.tokens.numpy(), minlength=VOCABULARY)
    watch = Watch(step.model, step.optimizer, optim.second_moment("adam"), given.every, counts)
    watch.step = LATE

    def seconds(looking: bool) -> float:
        step.watch = watch if looking else None
        start = perf_counter()
        for _ in range(3 * given.every):
            step([batch], lr_factor=1.0)
        return perf_counter() - start

    seconds(looking=True)
    ratios = [seconds(looking=True) / seconds(looking=False) for _ in range(given.rounds)]
    low, high = min(ratios), max(ratios)
    print(f"--diagnose {given.every}: {median(ratios):.3f} times as long ({low:.3f} to {high:.3f})")
    print(json.dumps({"every": given.every, "ratios": ratios}))


if __name__ == "__main__":
    main()
