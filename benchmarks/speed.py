"""Shared parts of the speed benchmarks: artificial batches, training steps, timers, tables.

On a GPU, `triton.testing.do_bench` measures. Before each call it fills 256 MiB with zeros, which
removes the inputs from the L2 cache. Some of the zeros are written back to memory during the call,
so only compare what is timed in the same way. It queues all calls and waits for the GPU once, at
the end. On a CPU, which the tests use, a clock measures a few calls.
"""

from __future__ import annotations

import json
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from benchmarks.sets import SHARED_DATA
from srucli.config import Config
from srucli.data.batch import Batch, upload
from srucli.model.classifier import Classifier
from srucli.training.objectives import loss_function
from srucli.training.step import Step

VOCABULARY = 8_000
SIGMA, MAX_LENGTH = 0.6, 1024
# Calls per timing, and the milliseconds above which a call is timed alone.
CALLS, LONG_CALL = 10, 20.0
CPU_ROWS = 3

Run = Callable[[], object]
Quartiles = list[float]


@dataclass(frozen=True)
class Setup:
    """Where to measure, with which of srucli's back ends, and how often.

    data, sets, encoders, flags: what `srucli train` is run on, and how; lines: how many
    `srucli predict` reads.
    """

    device: str = "cuda"
    kernel: str = "triton"
    rounds: int = 3
    data: Path = SHARED_DATA
    sets: tuple[str, ...] = ("trec", "sst2")
    encoders: tuple[str, ...] = ("sru", "lstm", "gru", "cnn")
    flags: tuple[object, ...] = ()
    lines: int = 100_000


class Report:
    """The JSON object of a run. It is written to `output`, if given, after each change."""

    def __init__(self, values: Mapping[str, Any], output: Path | None = None) -> None:
        self.values, self.output = dict(values), output

    def add(self, part: str, row: Any) -> None:
        """Append to the list of a part. Raises ValueError, and changes nothing, for NaN."""
        json.dumps(row, allow_nan=False)
        self.values.setdefault(part, []).append(row)
        self.write()

    def end(self, part: str, seconds: float, failed: str | None) -> None:
        """Record how long a part took, and why it failed, if it did."""
        ended = {"seconds": round(seconds, 1), "failed": failed}
        self.values.setdefault("parts", {})[part] = ended
        self.write()

    def write(self) -> None:
        """Replace the file at once, so that a process that is killed leaves a whole one."""
        if self.output is not None:
            beside = self.output.with_name(f"{self.output.name}.new")
            beside.write_text(f"{self}\n", encoding="utf-8")
            beside.replace(self.output)

    def read(self) -> None:
        """Take the values that another process has written to the file."""
        assert self.output is not None
        self.values = json.loads(self.output.read_text(encoding="utf-8"))

    def __str__(self) -> str:
        return json.dumps(self.values, allow_nan=False)


def ragged_lengths(middle: int, texts: int) -> list[int]:
    """Return log-normal lengths around a median; the same in every run."""
    draws = np.random.default_rng(0).lognormal(np.log(middle), SIGMA, texts)
    lengths: list[int] = draws.round().clip(1, MAX_LENGTH).astype(int).tolist()
    return lengths


def offsets_of(lengths: Iterable[int]) -> Tensor:
    """Return offsets (B + 1,) int64."""
    return torch.tensor([0, *lengths]).cumsum(0)


def text_batch(texts: int, classes: int, device: str) -> Batch:
    """Return texts of 25 tokens (median) by Zipf's law with random labels, on the device."""
    generator = torch.Generator().manual_seed(0)
    offsets = offsets_of(ragged_lengths(25, texts))
    draws = torch.rand(int(offsets[-1]), generator=generator, dtype=torch.float64)
    tokens = (VOCABULARY**draws).long() - 1
    labels = torch.randint(classes, (texts,), generator=generator)
    (batch,) = upload([Batch(tokens, offsets, labels)], torch.device(device))
    return batch


def classifier_step(
    config: Config, classes: int, device: str, targets: NDArray[Any] | None = None
) -> Step:
    """Return the training step of a classifier, as in `srucli train`.

    targets (B,) or, with several labels, (B, C): what class weights are computed from.
    """
    model = Classifier(config.model, VOCABULARY, classes).to(device).train()
    given = np.zeros(0) if targets is None else targets
    loss = loss_function(config.train, given, classes, multi_label=given.ndim == 2)
    return Step(config.train, config.optim, model, loss)


def layer_step(module: nn.Module, inputs: Callable[[], Any], x: Tensor) -> Run:
    """Return forward and backward pass of a layer, with gradients of all weights and of x.

    The loss is the sum of the outputs, weighted by random numbers that are drawn once.
    """
    wanted = [x.requires_grad_(), *module.parameters()]
    weights: list[Tensor] = []

    def run() -> object:
        output = module(*inputs())[0]
        output = output.data if isinstance(output, PackedSequence) else output
        if not weights:
            weights.append(torch.randn_like(output))
        return torch.autograd.grad(output, wanted, weights[0])

    return run


def quartiles(values: Iterable[float]) -> Quartiles:
    """Return lower quartile, median and upper quartile, to four digits."""
    return [float(f"{x:.4g}") for x in np.percentile(list(values), (25, 50, 75))]


class Row(NamedTuple):
    """A run that makes this many calls, timed as one."""

    run: Run
    calls: int


def row_of(run: Run, calls: int = CALLS) -> Row:
    """Return this many calls in a row."""

    def repeat() -> None:
        for _ in range(calls):
            run()

    return Row(repeat, calls)


def calls_for(run: Run, device: str) -> int:
    """Return how many calls to time as one: 1 if they are long."""
    return 1 if quartiles(times_of(Row(run, 1), device))[1] > LONG_CALL else CALLS


def times_of(row: Row, device: str) -> list[float]:
    """Return milliseconds of a call, measured several times after an unmeasured row."""
    if device == "cpu":
        row.run()
        times = [1e3 * seconds for seconds in timeit.repeat(row.run, number=1, repeat=CPU_ROWS)]
    else:
        from triton.testing import do_bench

        times = do_bench(row.run, return_mode="all")
    return [time / row.calls for time in times]


def in_turn(rows: Mapping[str, Row], setup: Setup) -> dict[str, Quartiles]:
    """Return milliseconds of a call of each system; all take turns in a round."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(setup.rounds):
        for name, row in rows.items():
            times[name] += times_of(row, setup.device)
    return {name: quartiles(values) for name, values in times.items()}


def name_of(dtype: torch.dtype) -> str:
    """Return `bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def described(case: Any) -> dict[str, Any]:
    """Return the fields of a case, a named tuple, for JSON."""
    fields = case._asdict()
    return {key: name_of(x) if isinstance(x, torch.dtype) else x for key, x in fields.items()}


def shown(figure: Quartiles, digits: int = 2) -> str:
    """Return a median and its quartiles as a cell."""
    low, middle, high = (f"{x:.{digits}f}" for x in figure)
    return f"{middle} ({low} to {high})"


def line(*cells: object) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def heads(title: str, *names: str) -> None:
    """Print the top of a table."""
    print(f"\n{title}\n")
    line(*names)
    print(f"|{' --- |' * len(names)}")
