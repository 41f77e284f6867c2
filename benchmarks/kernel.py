"""srucli's SRU layers on a CPU beside torch's LSTM and GRU, the `sru` package, and GEMMs alone.

Usage: python -m benchmarks.kernel [--threads 1,2] [--rounds N] [--cases NAME,...]

Every system reads the same batch: B texts of E features, two layers of D units in two directions.
Lengths are log-normal around 25 or 230 (the median; sigma 0.6, at most 1,024), or all equal to
those. `srucli` reads the batch ragged; `nn.LSTM` and `nn.GRU` padded, and packed; `sru` 2.6.0
padded, with its mask where lengths differ, and with its C++ for inference where it compiles.
`gemms` is what srucli's layers multiply, and nothing else: the floor.

A training step is the forward pass, and the backward pass down to every weight and to the input.
A round times every system once, in turn, each right after a call that is not timed, as in a loop
of training; the figures are medians over rounds of the ratio of a system's time to srucli's in the
same round, so that a machine whose speed drifts does not decide. What takes 20 times as long as
srucli or more is timed in the first round only. Memory that is freed stays with the process for
every system, as it does in srucli's commands.

The kernels' tests run first, and nothing is measured if they fail. The table goes to stdout, then
one JSON line.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from benchmarks.speed import Run, layer_step, offsets_of, ragged_lengths
from srucli.kernels import gemm
from srucli.model.sru import SRUStack
from srucli.runtime import tune_process

LAYERS = 2
SLOW = 20
SIZES = [(128, 128, 32), (300, 256, 64)]


class Case(NamedTuple):
    """A batch's texts and the sizes of the layers that read it."""

    name: str
    features: int
    units: int
    lengths: tuple[int, ...]

    def texts(self) -> list[Tensor]:
        """Return B texts (length, E)."""
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(n, self.features, generator=generator) for n in self.lengths]


def cases() -> list[Case]:
    """Return every size with short and long texts, ragged and of one length."""
    made = []
    for (features, units, texts), middle in ((size, m) for size in SIZES for m in (25, 230)):
        ragged = tuple(ragged_lengths(middle, texts))
        for kind, lengths in (("ragged", ragged), ("equal", (middle,) * texts)):
            made.append(Case(f"{kind}-{middle}-{features}x{units}", features, units, lengths))
    return made


def inference(module: nn.Module, inputs: Callable[[], Any]) -> Run:
    """Return a forward pass without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return module(*inputs())

    return run


def both(module: nn.Module, inputs: Callable[[], Any], x: Tensor) -> tuple[Run, Run]:
    """Return a training step, and inference."""
    return layer_step(module, inputs, x), inference(module, inputs)


def srucli_runs(case: Case) -> tuple[Run, Run]:
    """Return srucli's layers on ragged rows."""
    stack = SRUStack(case.features, case.units, LAYERS)
    x = torch.cat(case.texts())
    offsets = offsets_of(case.lengths)
    return both(stack, lambda: (x, offsets), x)


def padded_runs(case: Case, kind: type[nn.LSTM | nn.GRU]) -> tuple[Run, Run]:
    """Return torch's layers on a padded batch."""
    net = kind(case.features, case.units, LAYERS, bidirectional=True)
    x = pad_sequence(case.texts())
    return both(net, lambda: (x,), x)


def packed_runs(case: Case, kind: type[nn.LSTM | nn.GRU]) -> tuple[Run, Run]:
    """Return torch's layers on a packed batch; packing is part of the step."""
    net = kind(case.features, case.units, LAYERS, bidirectional=True)
    x, lengths = pad_sequence(case.texts()), torch.tensor(case.lengths)
    return both(net, lambda: (pack_padded_sequence(x, lengths, enforce_sorted=False),), x)


def load_sru() -> Any:
    """Return the `sru` package, with its C++ code if a compiler and ninja are installed."""
    warnings.filterwarnings("ignore", module="sru")
    try:
        return importlib.import_module("sru"), True
    except Exception:
        sys.modules.pop("sru.ops", None)
        import torch.utils.cpp_extension as extension

        extension.load = lambda *_, **__: None
        return importlib.import_module("sru"), False


def sru_runs(case: Case) -> tuple[Run, Run]:
    """Return the `sru` package on a padded batch, with its mask if lengths differ."""
    package, compiled = load_sru()
    net = package.SRU(case.features, case.units, LAYERS, bidirectional=True, rescale=True)
    x = pad_sequence(case.texts())
    places = torch.arange(x.shape[0]).unsqueeze(1)
    mask = places >= torch.tensor(case.lengths)
    given = (x, None, mask) if mask.any() else (x,)
    infer = inference(net.eval(), lambda: given) if compiled else lambda: net(*given)
    return layer_step(net.train(), lambda: given, x), infer


def gemm_runs(case: Case) -> tuple[Run, Run]:
    """Return the products of srucli's layers, by the library that it uses on this processor."""
    rows, width = sum(case.lengths), 2 * case.units
    forward: list[Run] = []
    backward: list[Run] = []
    size = case.features
    for _ in range(LAYERS):
        planes = 3 if size == width else 4
        x, weight = torch.randn(rows, size), torch.randn(planes * width, size)
        u = torch.randn(rows, planes * width)
        forward.append(lambda x=x, w=weight: gemm.product(x, w))  # type: ignore[misc]
        backward.append(lambda u=u, w=weight: gemm.input_gradient(u, w))  # type: ignore[misc]
        backward.append(lambda u=u, x=x: gemm.weight_gradient(u, x))  # type: ignore[misc]
        size = width
    return lambda: [run() for run in forward + backward], lambda: [run() for run in forward]


SYSTEMS: dict[str, Callable[[Case], tuple[Run, Run]]] = {
    "srucli": srucli_runs,
    "gemms": gemm_runs,
    "lstm-padded": lambda case: padded_runs(case, nn.LSTM),
    "lstm-packed": lambda case: packed_runs(case, nn.LSTM),
    "gru-padded": lambda case: padded_runs(case, nn.GRU),
    "gru-packed": lambda case: packed_runs(case, nn.GRU),
    "sru": sru_runs,
}


def timed(run: Run) -> float:
    """Return the seconds of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start


def ratios(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Return srucli's milliseconds, and the ratios of the others' times to it."""
    first = {name: min(timed(run), timed(run)) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            slow = first[name] > SLOW * first["srucli"]
            if slow and number == 0:
                seconds[name].append(first[name])
            elif not slow:
                run()
                seconds[name].append(timed(run))
    own = seconds.pop("srucli")
    others = {
        name: median(other / mine for other, mine in zip(times, own, strict=False))
        for name, times in seconds.items()
    }
    return {"milliseconds": 1e3 * median(own), **others}


def measure(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """Return `ratios` of training and of inference."""
    torch.manual_seed(0)
    runs = {name: make(case) for name, make in SYSTEMS.items()}
    return {
        kind: ratios({name: both_runs[place] for name, both_runs in runs.items()}, rounds)
        for place, kind in enumerate(("training", "inference"))
    }


def tests_pass() -> bool:
    """Return whether the tests of the kernels pass; no speed is reported otherwise."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/kernels/test_sru.py"], stdout=sys.stderr
    )
    return done.returncode == 0


def row(case: Case, threads: int, kind: str, figures: dict[str, float]) -> str:
    """Return a line of the table: the times of others in units of srucli's."""
    others = [f"{figures[name]:.2f}" for name in SYSTEMS if name != "srucli"]
    tokens = f"{sum(case.lengths):,}"
    cells = [case.name, tokens, str(threads), kind, f"{figures['milliseconds']:.2f}", *others]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", default=",".join(map(str, sorted({1, min(2, cores)}))))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", help="comma list of names; default: all")
    parser.add_argument("--no-tests", action="store_true", help="the tests have just passed")
    given = parser.parse_args()
    if not given.no_tests and not tests_pass():
        raise SystemExit("the kernels' tests fail: nothing is measured")
    chosen = [case for case in cases() if not given.cases or case.name in given.cases.split(",")]
    heads = ["case", "tokens", "threads", "pass", "srucli, ms", *list(SYSTEMS)[1:]]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    everything = []
    for threads in map(int, given.threads.split(",")):
        tune_process(threads)
        for case in chosen:
            figures = measure(case, given.rounds)
            for kind, values in figures.items():
                print(row(case, threads, kind, values), flush=True)
            everything.append({"case": case.name, "threads": threads, **figures})
    facts = {"machine": platform.machine(), "torch": torch.__version__, "rounds": given.rounds}
    print(json.dumps({**facts, "measurements": everything}))


if __name__ == "__main__":
    main()
