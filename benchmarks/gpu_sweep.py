"""The parts of `benchmarks.gpu` that check choices which were made without a GPU.

sweep: the passes of `gpu_layers.py` with other bytes of columns per program (`triton_walk._block`),
tokens in a group of loads and groups (STEPS, STAGES) than the kernels choose. The table shows the
fastest, and how many times as long the kernels' own choice takes. Results depend on none of them.

operators: the sums of looked-up rows and the loss, forward and backward, beside the operators of
torch that they replace, replayed from CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.gpu_layers import KernelCase, kernel_runs, ratio, ways
from benchmarks.speed import (
    VOCABULARY,
    Quartiles,
    Report,
    Row,
    Run,
    Setup,
    described,
    heads,
    in_turn,
    line,
    name_of,
    shown,
)
from srucli.kernels.loss import cross_entropy
from srucli.kernels.rows import take_rows

# Texts of a training batch in both dtypes, documents, and what fills a GPU. Each choice is compiled
# for each case and pass, which takes a second or two.
SWEEP_CASES = [
    KernelCase(24, 32, 256, torch.float32, 2, 3),
    KernelCase(24, 32, 256, torch.bfloat16, 2, 3),
    KernelCase(1024, 8, 256, torch.bfloat16, 2, 3),
    KernelCase(256, 128, 512, torch.bfloat16, 1, 3),
]
PASSES = ("forward, saving states", "backward")
BYTES, STEPS, STAGES = (128, 512), (2, 4, 8), (2, 4)


class OperatorCase(NamedTuple):
    """Tokens of a batch, its texts, and the classes."""

    tokens: int
    texts: int
    classes: int


OPERATOR_CASES = [
    OperatorCase(700, 32, 2),
    OperatorCase(700, 32, 77),
    OperatorCase(7_500, 256, 6),
    OperatorCase(20_000, 256, 1_000),
]
EMBEDDING = 128


class Choice(NamedTuple):
    """What a program of the recurrence does at once."""

    bytes: int
    steps: int
    stages: int


@contextmanager
def chosen(choice: Choice | None) -> Iterator[None]:
    """Let the kernels of the recurrence run so, or as they choose."""
    from srucli.kernels import triton_sru, triton_walk

    with ExitStack() as stack:
        if choice is not None:

            def block(texts: int, units: int, directions: int, like: Tensor) -> int:
                return choice.bytes // like.element_size()

            stack.enter_context(patch.object(triton_walk, "_block", block))
            stack.enter_context(patch.object(triton_sru, "STEPS", choice.steps))
            stack.enter_context(patch.object(triton_sru, "STAGES", choice.stages))
        yield


def timed(run: Run, choice: Choice | None, setup: Setup) -> Quartiles:
    """Return milliseconds of a pass with a choice."""
    with chosen(choice):
        return in_turn({"kernel": Row(run, 1)}, setup)["kernel"]


def measure_sweep(
    setup: Setup,
    report: Report,
    cases: Iterable[KernelCase] = SWEEP_CASES,
    choices: Iterable[tuple[int, int, int]] | None = None,
) -> None:
    """Measure each pass with each choice, and with the kernels' own."""
    names = ("L, B, D", "dtype", "pass", "own choice, microseconds", "fastest", "bytes", "steps")
    heads("sweep, single calls, cold L2 cache", *names, "stages", "own / fastest")
    tried = [Choice(*each) for each in choices or product(BYTES, STEPS, STAGES)]
    for case in cases:
        torch.manual_seed(0)
        runs = kernel_runs(case, setup)
        for what, run in ((name, runs[name]) for name in PASSES):
            own = timed(run, None, setup)
            times = {choice: timed(run, choice, setup) for choice in tried}
            best = min(times, key=lambda choice: times[choice][1])
            all_times = [{**choice._asdict(), "ms": times[choice]} for choice in tried]
            report.add("sweep", described(case) | {"pass": what, "own": own, "ms": all_times})
            cells = [", ".join(map(str, case[:3])), name_of(case.dtype), what]
            cells += [shown([1e3 * time for time in ms], 1) for ms in (own, times[best])]
            line(*cells, *best, f"{own[1] / times[best][1]:.2f}")


def gradient_runs(
    outputs: dict[str, Callable[[], Tensor]], wanted: Tensor, grad: Tensor | None = None
) -> dict[str, Run]:
    """Return runs that compute each output and its gradient."""
    return {
        name: lambda output=output: torch.autograd.grad(output(), wanted, grad)  # type: ignore[misc]
        for name, output in outputs.items()
    }


def row_runs(case: OperatorCase, setup: Setup) -> dict[str, Run]:
    """Return the lookup of a batch's tokens, by Zipf's law, and its gradient."""
    draws = torch.rand(case.tokens, generator=torch.Generator().manual_seed(0))
    index = (VOCABULARY ** draws.double()).long().sub_(1).to(setup.device)
    table = torch.randn(VOCABULARY, EMBEDDING, device=setup.device, requires_grad=True)
    grad = torch.randn(case.tokens, EMBEDDING, device=setup.device)
    outputs = {
        "srucli": lambda: take_rows(table, index, setup.kernel),
        "torch": lambda: nn.functional.embedding(index, table),
    }
    return gradient_runs(outputs, table, grad)


def loss_runs(case: OperatorCase, setup: Setup) -> dict[str, Run]:
    """Return the smoothed loss of a batch and its gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(case.texts, case.classes, generator=generator).to(setup.device)
    targets = torch.randint(case.classes, (case.texts,), generator=generator).to(setup.device)
    weights = torch.ones(case.classes, device=setup.device)
    logits.requires_grad_()
    outputs = {
        "srucli": lambda: cross_entropy(logits, targets, weights, 0.1, setup.kernel).sum(),
        "torch": lambda: nn.functional.cross_entropy(
            logits, targets, weights, label_smoothing=0.1, reduction="sum"
        ),
    }
    return gradient_runs(outputs, logits)


def measure_operators(
    setup: Setup, report: Report, cases: Iterable[OperatorCase] = OPERATOR_CASES
) -> None:
    """Measure operators beside those of torch."""
    names = ("operator", "tokens", "texts", "classes", "way", "srucli, ms", "torch / srucli")
    heads("operators, forward and backward", *names)
    for case, (what, make) in product(cases, (("rows", row_runs), ("loss", loss_runs))):
        for way, times in ways(make(case, setup), setup).items():
            report.add("operators", case._asdict() | {"operator": what, "way": way, "ms": times})
            cells = what, case.tokens, case.texts, case.classes, way, shown(times["srucli"], 3)
            line(*cells, ratio(times, "torch"))
