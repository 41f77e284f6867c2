"""What a training step of the default recipe consists of on a CPU, with one thread and with two.

Usage: python -m benchmarks.steps [--sets trec,sst2] [--threads 1,2] [--data DIR]

`srucli train` is run on the whole training file of each set for EPOCHS epochs, without the linear
model of n-grams, which is not trained in steps, and without dev examples, whose evaluation would be
profiled too. After WARM_UP steps, TIMED steps are timed as they are. As many are then run under
torch's profiler, which tells how long matrix products, the recurrences and the optimizer take.
Steps under the profiler are slower, so their own time is not used.

`rest` is all else: lookups, pooling, dropout, losses, and Python. `times products` is the time of a
step divided by that of its matrix products. The table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any, Self
from unittest.mock import patch

from benchmarks.results import comma_list, markdown
from benchmarks.sets import SHARED_DATA, Files, need_split, srucli_here

SETS = ("trec", "sst2", "banking77", "nsmc_rebuilt")
EPOCHS, WARM_UP, TIMED = 2, 30, 100
RECURRENCES = "srucli::recurrences"
OPTIMIZER = "Optimizer.step#"
PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "mkldnn::_linear_pointwise"}

Milliseconds = dict[str, float]


class Watch:
    """Times and profiles the steps of a training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.parts: Milliseconds = {}
        self._profile: Any = None

    @contextmanager
    def watching(self) -> Iterator[Self]:
        """Watch the steps of the trainings within."""
        from srucli.kernels import cpu_sru
        from srucli.training.step import Step

        whole = Step.__call__

        def watched(step: Step, batches: Sequence[Any], lr_factor: float) -> None:
            start = perf_counter()
            whole(step, batches, lr_factor)
            self._stepped(perf_counter() - start, sum(batch.tokens.numel() for batch in batches))

        with ExitStack() as patches:
            patches.enter_context(patch.object(Step, "__call__", watched))
            for name in ("forward", "backward"):
                marked = _marked(getattr(cpu_sru, name))
                patches.enter_context(patch.object(cpu_sru, name, marked))
            yield self

    def _stepped(self, seconds: float, tokens: int) -> None:
        """Note a step; start and end the profile."""
        from torch.profiler import ProfilerActivity, profile

        self.seconds.append(seconds)
        self.tokens.append(tokens)
        if len(self.seconds) == WARM_UP + TIMED:
            self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
            self._profile.start()
        if len(self.seconds) == WARM_UP + 2 * TIMED:
            self._profile.stop()
            self.parts = parts_of(self._profile.key_averages(), TIMED)

    def figures(self) -> dict[str, Any]:
        """Return the milliseconds of a step and of its parts. Raises ValueError: too few steps."""
        if not self.parts:
            needed = WARM_UP + 2 * TIMED
            raise ValueError(f"{len(self.seconds):,} steps; {needed:,} are needed")
        timed = slice(WARM_UP, WARM_UP + TIMED)
        step = 1e3 * median(self.seconds[timed])
        rest = step - sum(self.parts.values())
        return {"tokens": fmean(self.tokens[timed]), "step": step, **self.parts, "rest": rest}


def _marked(kernel: Any) -> Any:
    """Return the function, with a mark in profiles."""
    from torch.profiler import record_function

    def marked(*arguments: Any) -> Any:
        with record_function(RECURRENCES):
            return kernel(*arguments)

    return marked


def parts_of(events: Sequence[Any], steps: int) -> Milliseconds:
    """Return the milliseconds of the parts of a step, from the operators of a profile."""

    def milliseconds(total: float) -> float:
        return total / 1e3 / steps

    products = sum(event.self_cpu_time_total for event in events if event.key in PRODUCTS)
    recurrences = sum(event.cpu_time_total for event in events if event.key == RECURRENCES)
    optimizer = sum(event.cpu_time_total for event in events if event.key.startswith(OPTIMIZER))
    return {
        "products": milliseconds(products),
        "recurrences": milliseconds(recurrences),
        "optimizer": milliseconds(optimizer),
    }


def measure(files: Files, threads: int) -> dict[str, Any]:
    """Train in this process, set up as commands are; return a step's figures."""
    from srucli import tune_process

    tune_process(threads)
    with tempfile.TemporaryDirectory(prefix="srucli-steps-") as folder, Watch().watching() as watch:
        settings = ["model.ngrams=false", "train.dev_share=0", f"train.epochs={EPOCHS}"]
        srucli_here(
            "train", files.train, "-o", Path(folder, "run"), "--threads", threads, *settings
        )
    return watch.figures()


def measure_apart(files: Files, threads: int) -> dict[str, Any]:
    """Measure in a process of its own, whose threads wait as those of a command do."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, files, threads).result()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a row per set and number of threads."""
    parts = ("products", "recurrences", "optimizer", "rest")
    lines = []
    for row in rows:
        figures = [f"{row['tokens']:,.0f}", f"{row['step']:.2f}"]
        figures += [f"{row[part]:.2f} ({row[part] / row['step']:.0%})" for part in parts]
        lines.append(
            [row["set"], str(row["threads"]), *figures, f"{row['step'] / row['products']:.2f}"]
        )
    return markdown(["set", "threads", "tokens", "step, ms", *parts, "times products"], lines)


def main() -> None:
    """Measure everything, then print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=comma_list, default=list(SETS))
    parser.add_argument("--threads", type=comma_list, default=["1", "2"])
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of the sets")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        files = need_split(arguments.data / name)
        for threads in map(int, arguments.threads):
            rows.append({"set": name, "threads": threads, **measure_apart(files, threads)})
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(table(rows))
    print("\n" + json.dumps(rows))


if __name__ == "__main__":
    main()
