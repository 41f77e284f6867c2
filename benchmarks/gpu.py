"""srucli on a GPU: kernels beside the memory's speed, layers beside LSTM and GRU, training steps.

Usage: python -m benchmarks.gpu [-o gpu.json] [--rounds N] [--parts kernels,layers,ragged,steps]

kernels: forward and backward without their GEMM, in GB/s of the bytes that cannot be saved, and as
a share of what a copy from device memory to device memory reaches. Per token and unit the forward
pass reads three planes of u and the highway and writes h: 5 elements, 6 where it keeps the states;
the backward pass reads u, the highway, the states and h's gradient and writes u's and the highway's
gradients: 10. What there is per text or per unit is left out. A backward pass includes the sums of
the parameters' gradients. Before each call other memory is read until the L2 cache holds only that.

layers: one layer, forward pass, and backward pass down to every weight and to the input, beside
`nn.LSTM` and `nn.GRU` of the same size and dtype, all in one direction over texts of one length.
The floor is the layer's GEMMs alone and the time that a copy takes for the kernels' bytes.

ragged: two layers in two directions over texts of log-normal lengths, beside `nn.LSTM` on a batch
that was packed beforehand.

steps: a step of the default classifier as `srucli train` takes it, on a batch that lies on the GPU
and from a CUDA graph, and what the GPU's kernels take of it by torch's profiler. Its settings are
`step.json` beside this file: the defaults, which a test compares, without what checks settings.

Layers are timed as they are called (eager; Python's time counts where the GPU waits for it), and
replayed from a CUDA graph (the GPU's time alone). A round runs every system, up to ten calls in a
row each; a ratio is a system's time to srucli's in the same round. Caches are warm, as in training.
Times are CUDA events; a figure is the median over rounds, with its quartiles.

It needs torch, Triton, NumPy and the checkout. The GPU tests run first, as far as what they need is
installed, and nothing is measured if they fail. Tables go to stdout, then one JSON line, whose
figures are [lower quartile, median, upper quartile]. Exit codes: 1 where the tests or a part
failed, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
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
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from srucli.data.batch import Batch, upload
from srucli.kernels.sru import BACK_ENDS, sru_layer
from srucli.model.classifier import Classifier
from srucli.model.sru import SRULayer, SRUStack, use_kernel
from srucli.training.cuda_graphs import capture
from srucli.training.objectives import loss_function
from srucli.training.step import Step

ROOT = Path(__file__).parent.parent
SETTINGS = Path(__file__).with_name("step.json")
TESTS = {
    "tests/kernels/test_triton.py": ("pytest",),
    "tests/training/test_step.py": ("pytest", "hypothesis", "pydantic", "yaml", "numba"),
}
MIB = 2**20
CALLS, LONG_CALL = 10, 20.0  # calls in a row, but one where a call takes more milliseconds
SIGMA, LONGEST = 0.6, 1024
PIECES = 8_000
# Elements read and written per token and unit.
ELEMENTS = {"forward": 5, "forward, states kept": 6, "backward": 10}
# At least this share of a copy's speed; at least so many times as fast as an LSTM; at most so many
# times the floor, and so many times the kernels' own time.
COPY_GOAL, FLOOR_GOAL, STEP_GOAL = 0.85, 1.3, 1.3
LSTM_GOALS = {(32, 32, 256): 20.0, (128, 32, 512): 15.0}
Run = Callable[[], object]
Report = dict[str, Any]


class Setup(NamedTuple):
    """Where is measured, with which back end of srucli, how often, and how much empties a cache."""

    device: str = "cuda"
    kernel: str = "triton"
    rounds: int = 30
    flush_mib: int = 256


class KernelCase(NamedTuple):
    """What the kernels read: B texts of L tokens of D units in all directions, k planes of u."""

    length: int
    texts: int
    width: int
    dtype: torch.dtype
    directions: int
    planes: int


class LayerCase(NamedTuple):
    """What a layer of D units reads: B texts of L tokens of D features."""

    length: int
    texts: int
    width: int
    dtype: torch.dtype


class RaggedCase(NamedTuple):
    """What two layers of two times D units read: texts of E features around a middle length."""

    middle: int
    texts: int
    features: int
    units: int
    dtype: torch.dtype


class StepCase(NamedTuple):
    """A step of the classifier; `precision` is a name that `train.precision` knows."""

    texts: int
    classes: int
    precision: str


def kernel_cases() -> list[KernelCase]:
    """Both dtypes, both numbers of directions, with and without a highway of its own."""
    return [
        KernelCase(256, 128, 512, dtype, directions, planes)
        for dtype in (torch.bfloat16, torch.float32)
        for directions in (1, 2)
        for planes in (3, 4)
    ]


def layer_cases() -> list[LayerCase]:
    """float16 too: not every cuDNN takes bfloat16, and torch flattens no LSTM's weights in it."""
    return [
        LayerCase(*shape, dtype)
        for shape in (*LSTM_GOALS, (256, 128, 512))
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    ]


def ragged_cases() -> list[RaggedCase]:
    """The sizes of `benchmarks.kernel`, with short and long texts."""
    return [
        RaggedCase(middle, texts, features, units, dtype)
        for features, units, texts in ((128, 128, 32), (300, 256, 64))
        for middle in (25, 230)
        for dtype in (torch.bfloat16, torch.float32)
    ]


def step_cases() -> list[StepCase]:
    """Few and many texts and labels, in the default precision and in bfloat16."""
    return [
        StepCase(texts, classes, precision)
        for texts in (32, 256)
        for classes in (2, 20)
        for precision in ("float32", "bf16")
    ]


def name_of(dtype: torch.dtype) -> str:
    """`bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def described(case: NamedTuple) -> Report:
    """A case's fields, as JSON takes them."""
    fields = case._asdict()
    return {key: name_of(x) if isinstance(x, torch.dtype) else x for key, x in fields.items()}


def byte_floor(rows: int, width: int, dtype: torch.dtype, what: str) -> int:
    """Bytes that a pass over N tokens of D units cannot save."""
    return ELEMENTS[what] * rows * width * dtype.itemsize


def ragged_lengths(middle: int, texts: int) -> list[int]:
    """Log-normal lengths around a median; equal in every run."""
    draws = np.random.default_rng(0).lognormal(np.log(middle), SIGMA, texts)
    lengths: list[int] = draws.round().clip(1, LONGEST).astype(int).tolist()
    return lengths


def offsets_of(lengths: Iterable[int]) -> Tensor:
    """(B + 1,) int64."""
    return torch.tensor([0, *lengths]).cumsum(0)


def quartiles(values: Iterable[float]) -> list[float]:
    """Lower quartile, median and upper quartile, to four digits."""
    return [float(f"{x:.4g}") for x in np.percentile(list(values), (25, 50, 75))]


def time_of(run: Run, device: str, before: Run | None = None) -> float:
    """Milliseconds of one call, by CUDA events on a GPU, after `before`, which is not timed.

    Where `before` keeps the GPU busy, the call's launches are in its queue when it gets there.
    """
    if before is not None:
        before()
    if device == "cpu":
        began = perf_counter()
        run()
        return 1e3 * (perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def warm_up(run: Run, device: str) -> None:
    """Compile, fetch memory, choose algorithms; leaves the GPU idle."""
    for _ in range(3):
        run()
    if device != "cpu":
        torch.cuda.synchronize()


def flusher(setup: Setup) -> Run:
    """A run that reads much memory: it empties the L2 cache, and keeps a GPU busy for a while.

    It does not write, since what it wrote would go to memory during the call that is timed.
    """
    memory = torch.zeros(setup.flush_mib * MIB // 4, device=setup.device)
    return lambda: [memory.sum() for _ in range(4)]


def single_times(run: Run, setup: Setup, flush: Run) -> list[float]:
    """Milliseconds of single calls with an empty cache."""
    warm_up(run, setup.device)
    return [time_of(run, setup.device, flush) for _ in range(setup.rounds)]


def in_turn(runs: dict[str, Run], setup: Setup) -> dict[str, list[float]]:
    """Milliseconds of a call of each system, round by round; in a round all take their turn."""
    calls = {}
    for name, run in runs.items():
        warm_up(run, setup.device)
        calls[name] = 1 if time_of(run, setup.device) > LONG_CALL else CALLS
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(setup.rounds):
        for name, run in runs.items():
            count = calls[name]
            row = time_of(lambda run=run, n=count: [run() for _ in range(n)], setup.device)  # type: ignore[misc]
            times[name].append(row / count)
    return times


def graphed(run: Run, name: str) -> Run | None:
    """The same work replayed from a CUDA graph; None, and a line on stderr, where none is made."""
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        return capture(run, stream, torch.cuda.graph_pool_handle()).replay
    except RuntimeError as error:
        print(f"{name}: no CUDA graph can be made of it: {error}", file=sys.stderr)
        return None


def that_run(runs: dict[str, Run]) -> dict[str, Run]:
    """srucli, and those of the others that torch can run here; a line on stderr for the rest."""
    able = {}
    for name, run in runs.items():
        try:
            run()
        except RuntimeError as error:
            if name == "srucli":
                raise
            print(f"{name}: left out: {error}", file=sys.stderr)
        else:
            able[name] = run
    return able


def ways(runs: dict[str, Run], setup: Setup) -> dict[str, dict[str, list[float]]]:
    """The times of each system as it is called, and on a GPU, of those that a graph can hold."""
    runs = that_run(runs)
    times = {"eager": in_turn(runs, setup)}
    if setup.device != "cpu":
        graphs = {name: graphed(run, name) for name, run in runs.items()}
        made = {name: graph for name, graph in graphs.items() if graph is not None}
        if "srucli" in made:
            times["graph"] = in_turn(made, setup)
    return times


def ratios(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """How many times as long as srucli the others take."""
    own = times["srucli"]
    return {
        name: quartiles(other / mine for other, mine in zip(values, own, strict=True))
        for name, values in times.items()
        if name != "srucli"
    }


def shown(figure: list[float] | None, digits: int = 2) -> str:
    """A median and its quartiles as a cell."""
    if figure is None:
        return "-"
    low, middle, high = (f"{x:.{digits}f}" for x in figure)
    return f"{middle} ({low} to {high})"


def verdict(goal: str, met: bool | None) -> str:
    """A goal, and whether it was met; nothing where there is none."""
    return "" if met is None else f"{goal}: {'met' if met else 'MISSED'}"


def line(*cells: object) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def heads(title: str, *names: str) -> None:
    """Print the top of a table."""
    print(f"\n{title}\n")
    line(*names)
    print(f"|{' --- |' * len(names)}")


def copy_speed(setup: Setup) -> list[float]:
    """GB/s of a copy within the device's memory, bytes read and bytes written both counted."""
    source = torch.zeros(setup.flush_mib * MIB, device=setup.device)
    target = torch.empty_like(source)
    times = single_times(lambda: target.copy_(source), setup, flusher(setup))
    speed = quartiles(2 * source.nbytes / 1e6 / time for time in times)
    print(f"\ncopy within the device's memory: {shown(speed, 0)} GB/s")
    return speed


def kernel_runs(case: KernelCase, setup: Setup) -> dict[str, Run]:
    """The passes of ELEMENTS, without the GEMM.

    The backward pass leaves u's gradient in u and is then given that as u: other numbers, and the
    same work.
    """
    module = importlib.import_module(BACK_ENDS[setup.kernel])
    length, texts, width, dtype, directions, planes = case
    rows = length * texts

    def draw(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=setup.device).to(kind)

    u = draw(rows, planes, width, kind=dtype)
    x = draw(rows, width, kind=dtype) if planes == 3 else None
    vectors = 0.1 * draw(2, width), draw(2, width), draw(texts, width), draw(texts, width)
    offsets = offsets_of([length] * texts).to(setup.device)
    given = u, x, *vectors
    shape = directions, False, 1.3
    _, c, _ = module.forward(*given, offsets, *shape, True)
    grads = draw(rows, width, kind=dtype), draw(texts, width)
    return {
        "forward": lambda: module.forward(*given, offsets, *shape, False),
        "forward, states kept": lambda: module.forward(*given, offsets, *shape, True),
        "backward": lambda: module.backward(*grads, *given, c, offsets, *shape),
    }


def measure_kernels(cases: Iterable[KernelCase], setup: Setup, report: Report) -> None:
    """The element-wise passes beside a copy."""
    copy = report["copy_gb_per_s"][1]
    names = ("L, B, D", "dtype", "directions", "k", "pass", "microseconds", "GB/s")
    heads("kernels, single calls, L2 cache empty", *names, "of a copy", "goal")
    flush = flusher(setup)
    for case in cases:
        for what, run in kernel_runs(case, setup).items():
            times = [1e3 * time for time in single_times(run, setup, flush)]
            count = byte_floor(case.length * case.texts, case.width, case.dtype, what)
            speed = count / 1e3 / median(times)
            share = speed / copy
            figures: Report = {"pass": what, "bytes": count, "microseconds": quartiles(times)}
            figures |= {"gb_per_s": round(speed, 1), "copy_share": round(share, 4)}
            report["kernels"].append(described(case) | figures)
            cells = [", ".join(map(str, case[:3])), name_of(case.dtype), case.directions]
            cells += [case.planes, what, shown(figures["microseconds"], 1), f"{speed:.0f}"]
            line(*cells, f"{share:.1%}", verdict(f">= {COPY_GOAL:.0%}", share >= COPY_GOAL))


def to_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The SRU's matrices in `dtype`; its vectors stay float32, as `sru_layer` has them."""
    for layer in module.modules():
        if isinstance(layer, SRULayer):
            layer.weight = nn.Parameter(layer.weight.detach().to(dtype))
    return module


def step(module: nn.Module, inputs: Callable[[], Any], x: Tensor) -> Run:
    """One training step: outputs summed with fixed weights, gradients of all weights and of x."""
    wanted = [x.requires_grad_(), *module.parameters()]
    weights: list[Tensor] = []

    def run() -> object:
        output = module(*inputs())[0]
        output = output.data if isinstance(output, PackedSequence) else output
        if not weights:
            weights.append(torch.randn_like(output))
        return torch.autograd.grad(output, wanted, weights[0])

    return run


def gemm_run(case: LayerCase, device: str) -> Run:
    """The multiplications of srucli's layer, into memory that is there already."""
    x = torch.randn(case.length * case.texts, case.width, device=device).to(case.dtype)
    weight = torch.randn(3 * case.width, case.width, device=device).to(case.dtype)
    u, grad_x, grad_weight = x @ weight.t(), x.clone(), weight.clone()

    def run() -> object:
        torch.mm(x, weight.t(), out=u)
        torch.mm(u, weight, out=grad_x)
        return torch.mm(u.t(), x, out=grad_weight)

    return run


def layer_runs(case: LayerCase, setup: Setup) -> dict[str, Run]:
    """One layer of each kind, and the GEMMs of srucli's."""
    length, texts, width, dtype = case
    kernel: Any = setup.kernel
    layer = SRULayer(width, width, bidirectional=False).to(setup.device)
    use_kernel(layer, kernel)
    rows = torch.randn(texts * length, width, device=setup.device).to(dtype)
    offsets = offsets_of([length] * texts).to(setup.device)
    runs = {"srucli": step(to_dtype(layer, dtype), lambda: (rows, offsets), rows)}
    for name, kind in (("lstm", nn.LSTM), ("gru", nn.GRU)):
        net = kind(width, width).to(setup.device, dtype)
        x = torch.randn(length, texts, width, device=setup.device).to(dtype)
        runs[name] = step(net, lambda x=x: (x,), x)  # type: ignore[misc]
    return runs | {"gemms": gemm_run(case, setup.device)}


def by_cudnn(case: LayerCase | RaggedCase, device: str) -> bool:
    """Whether torch hands an LSTM of this dtype to cuDNN."""
    net = nn.LSTM(8, 8).to(device, case.dtype)
    try:
        output, _ = net(torch.zeros(2, 2, 8, device=device, dtype=case.dtype))
    except RuntimeError:
        return False
    return "cudnn" in output.grad_fn.name().lower()


def tf32() -> str:
    """Who rounds the factors of float32 products to TF32, by torch's settings as they are."""
    matmul = torch.get_float32_matmul_precision()
    return f"float32 products: {matmul}; TF32 in cuDNN: {torch.backends.cudnn.allow_tf32}"


def measure_layers(cases: Iterable[LayerCase], setup: Setup, report: Report) -> None:
    """A layer beside LSTM, GRU and its own floor."""
    report["tf32"] = tf32()
    names = ("L, B, D", "dtype", "way", "srucli, ms", "LSTM / srucli", "by cuDNN", "GRU / srucli")
    heads(f"layers, forward and backward; {tf32()}", *names, "srucli / floor", "goals")
    for case in cases:
        torch.manual_seed(0)
        shape, cudnn = case[:3], by_cudnn(case, setup.device)
        for way, times in ways(layer_runs(case, setup), setup).items():
            figures = layer_figures(case, times, report["copy_gb_per_s"][1])
            report["layers"].append(described(case) | {"way": way, "cudnn": cudnn} | figures)
            cells = [", ".join(map(str, shape)), name_of(case.dtype), way]
            cells += [shown(figures["milliseconds"], 3), shown(figures["lstm"], 1)]
            cells += ["yes" if cudnn else "no", shown(figures["gru"], 1), shown(figures["floor"])]
            line(*cells, layer_goals(shape, figures))


def layer_figures(case: LayerCase, times: dict[str, list[float]], copy: float) -> Report:
    """Milliseconds of srucli, the ratios of others to it, and its own to the floor; copy in GB/s.

    None for a system that was not timed.
    """
    others = ratios(times)
    figures: Report = {"milliseconds": quartiles(times["srucli"])}
    figures |= {name: others.get(name) for name in ("lstm", "gru")} | {"floor": None}
    if "gemms" in times:
        rows = case.length * case.texts
        passes = ("forward, states kept", "backward")
        count = sum(byte_floor(rows, case.width, case.dtype, what) for what in passes)
        pairs = zip(times["srucli"], times["gemms"], strict=True)
        figures["floor"] = quartiles(own / (gemms + count / 1e6 / copy) for own, gemms in pairs)
    return figures


def layer_goals(shape: tuple[int, ...], figures: Report) -> str:
    """The goals of a shape in words."""
    said = []
    if shape in LSTM_GOALS and figures["lstm"]:
        goal = LSTM_GOALS[shape]
        said.append(verdict(f"LSTM >= {goal:.0f}", figures["lstm"][1] >= goal))
    if shape[2] == 512 and figures["floor"]:
        said.append(verdict(f"floor <= {FLOOR_GOAL}", figures["floor"][1] <= FLOOR_GOAL))
    return ", ".join(said)


def ragged_runs(case: RaggedCase, setup: Setup) -> dict[str, Run]:
    """Two layers in two directions: srucli on rows, LSTM on a packed batch."""
    lengths = ragged_lengths(case.middle, case.texts)
    kernel: Any = setup.kernel
    stack = SRUStack(case.features, case.units, 2).to(setup.device)
    use_kernel(stack, kernel)
    texts = [torch.randn(n, case.features, device=setup.device).to(case.dtype) for n in lengths]
    rows, offsets = torch.cat(texts), offsets_of(lengths).to(setup.device)
    net = nn.LSTM(case.features, case.units, 2, bidirectional=True).to(setup.device, case.dtype)
    # A packed batch must not be made anew: its data is what gradients are wanted of.
    packed = pack_sequence(texts, enforce_sorted=False)
    packed.data.requires_grad_()
    return {
        "srucli": step(to_dtype(stack, case.dtype), lambda: (rows, offsets), rows),
        "lstm": step(net, lambda: (packed,), packed.data),
    }


def measure_ragged(cases: Iterable[RaggedCase], setup: Setup, report: Report) -> None:
    """Texts of different lengths."""
    names = ("median length", "texts", "tokens", "E, D", "dtype", "way", "srucli, ms")
    heads("ragged, two layers, two directions", *names, "packed LSTM / srucli", "by cuDNN")
    for case in cases:
        torch.manual_seed(0)
        tokens = sum(ragged_lengths(case.middle, case.texts))
        cudnn = by_cudnn(case, setup.device)
        for way, times in ways(ragged_runs(case, setup), setup).items():
            figures: Report = {"tokens": tokens, "way": way, "cudnn": cudnn}
            figures["milliseconds"] = quartiles(times["srucli"])
            figures["lstm"] = ratios(times).get("lstm")
            report["ragged"].append(described(case) | figures)
            sizes = f"{case.features}, 2 x {case.units}"
            cells = [case.middle, case.texts, f"{tokens:,}", sizes, name_of(case.dtype), way]
            cells += [shown(figures["milliseconds"], 3), shown(figures["lstm"], 1)]
            line(*cells, "yes" if cudnn else "no")


def spelling() -> tuple[Any, Any]:
    """PIECES pieces of 2 to 6 made-up characters, as `Classifier` takes them."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 7, PIECES)
    codes = generator.integers(1, 200, lengths.sum())
    return codes.astype(np.int64), np.cumsum([0, *lengths], dtype=np.int64)


def text_batch(case: StepCase, device: str) -> Batch:
    """Tokens as frequent as by Zipf's law, random labels, on the device as in training."""
    generator = torch.Generator().manual_seed(0)
    offsets = offsets_of(ragged_lengths(25, case.texts))
    draws = torch.rand(int(offsets[-1]), generator=generator, dtype=torch.float64)
    tokens = (PIECES**draws).long() - 1
    labels = torch.randint(case.classes, (case.texts,), generator=generator)
    spelled = np.diff(spelling()[1])
    (batch,) = upload([Batch(tokens, offsets, labels)], torch.device(device), spelled)
    return batch


class Section(SimpleNamespace):
    """Settings as `srucli.config` has them."""

    def model_copy(self, update: dict[str, Any]) -> Section:
        """As pydantic's."""
        return Section(**vars(self) | update)


def default_settings() -> Section:
    """What `srucli train` takes where no flag is given."""
    sections = json.loads(SETTINGS.read_text(encoding="utf-8"))
    return Section(**{name: Section(**section) for name, section in sections.items()})


def classifier_step(case: StepCase, device: str) -> Run:
    """A step of the default classifier as `srucli train` takes it; its loss."""
    config: Any = default_settings()
    config.train.precision = case.precision
    model = Classifier(config.model, spelling(), case.classes).to(device).train()
    step = Step(config, model, loss_function(config, np.zeros(0), case.classes))
    batch = text_batch(case, device)

    def run() -> object:
        step.begin()
        step([batch], rate=0.5)
        return step.totals[0] / case.texts

    return run


def gpu_kernels(run: Run, device: str, calls: int = 10) -> list[Report]:
    """The GPU's kernels and copies in a call: names, times called, milliseconds, longest first."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # The first profile of a process starts the profiler up, and is thrown away.
    for count in (1, calls):
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(count):
                run()
            if device != "cpu":
                torch.cuda.synchronize()
    return device_rows(profile.key_averages(), calls)


def device_rows(events: Iterable[Any], calls: int) -> list[Report]:
    """What ran on the GPU, per call; not the operators that launched it, nor marked regions."""
    rows = [
        {
            "kernel": event.key,
            "count": event.count / calls,
            "milliseconds": event.self_device_time_total / 1e3 / calls,
        }
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
    ]
    return sorted(rows, key=lambda row: -row["milliseconds"])


def measure_steps(cases: Iterable[StepCase], setup: Setup, report: Report) -> None:
    """Training steps of the classifier, and the kernels that take longest in each."""
    names = ("texts", "classes", "precision", "step, ms", "GPU's kernels, ms", "kernels")
    heads("steps of the default classifier", *names, "step / kernels", "goal")
    measured = [step_figures(case, setup) for case in cases]
    report["steps"] += measured
    for figures in measured:
        print_slowest(figures)


def step_figures(case: StepCase, setup: Setup) -> Report:
    """Measure one case and print its line; there is no ratio where the profiler saw no kernel."""
    torch.manual_seed(0)
    run = classifier_step(case, setup.device)
    times = in_turn({"srucli": run}, setup)["srucli"]
    rows = gpu_kernels(run, setup.device)
    own = sum(row["milliseconds"] for row in rows)
    count = sum(row["count"] for row in rows)
    ratio = round(median(times) / own, 3) if own else None
    goal = verdict(f"<= {STEP_GOAL}", None if ratio is None else ratio <= STEP_GOAL)
    seen = f"{own:.3f}" if own else "none seen"
    line(*case, shown(quartiles(times), 3), seen, f"{count:.0f}", ratio or "-", goal)
    figures = {"milliseconds": quartiles(times), "kernel_milliseconds": own, "kernels": count}
    return described(case) | figures | {"ratio": ratio, "slowest": rows[:10]}


def print_slowest(figures: Report) -> None:
    """The kernels that take longest in a step."""
    names = ("texts", "classes", "precision")
    case = ", ".join(f"{figures[name]} {name}".replace(" precision", "") for name in names)
    heads(f"the ten kernels that take longest: {case}", "microseconds a step", "calls", "kernel")
    for row in figures["slowest"]:
        name = row["kernel"].replace("|", "/")
        line(f"{1e3 * row['milliseconds']:.1f}", f"{row['count']:.1f}", name[:90])


def layer_results(
    lengths: list[int], width: int, planes: int, dtype: torch.dtype, kernel: str, device: str
) -> list[Tensor]:
    """h, last states and all gradients of a layer in two directions, from equal random numbers.

    Every number is one that bfloat16 can hold.
    """
    generator = torch.Generator().manual_seed(0)
    state = torch.promote_types(dtype, torch.float32)

    def draw(*shape: int, kind: torch.dtype, scale: float = 1.0) -> Tensor:
        made = scale * torch.randn(*shape, generator=generator)
        return made.bfloat16().to(device, kind).requires_grad_()

    size = width if planes == 3 else width + 3
    x = draw(sum(lengths), size, kind=dtype)
    weight = draw(planes * width, size, kind=dtype, scale=size**-0.5)
    v, bias = draw(2, width, kind=state, scale=0.5), draw(2, width, kind=state)
    offsets = offsets_of(lengths).to(device)
    name: Any = kernel
    h, last = sru_layer(x, weight, v, bias, offsets, directions=2, alpha=1.3, kernel=name)
    grads = draw(*h.shape, kind=h.dtype), draw(*last.shape, kind=last.dtype)
    back = torch.autograd.grad((h, last), (x, weight, v, bias), grads)
    return [each.detach() for each in (h, last, *back)]


def kernels_agree(setup: Setup, dtypes: Iterable[torch.dtype]) -> bool:
    """Whether a layer has at most twice the error of the reference loop in the same dtype.

    Errors are those against float64, with a floor of 2e-6 of the largest value, and of half a unit
    in the last place in a small dtype.
    """
    for lengths, width, planes in (([3], 128, 3), ([1, 0, 5, 2], 14, 4), ([130, 63, 1], 126, 3)):
        for dtype in dtypes:
            shape = lengths, width, planes
            wanted = layer_results(*shape, torch.float64, "reference", setup.device)
            plain = layer_results(*shape, dtype, "reference", setup.device)
            got = layer_results(*shape, dtype, setup.kernel, setup.device)
            for want, simple, result in zip(wanted, plain, got, strict=True):
                step = torch.finfo(result.dtype).eps / 2 if result.dtype.itemsize == 2 else 0.0
                floor = (2e-6 + step) * max(1.0, want.abs().max().item())
                bound = 2 * (simple.double() - want).abs().max().item() + floor
                # Not `>`: NaN is wrong too.
                if not (result.double() - want).abs().max().item() <= bound:
                    print(f"wrong: {shape}, {name_of(dtype)}", file=sys.stderr)
                    return False
    return True


def tests_pass() -> bool:
    """Whether the kernels are right: a speed of wrong results is no speed."""
    files = []
    for file, needs in TESTS.items():
        if missing := [name for name in needs if find_spec(name) is None]:
            print(f"{file} is left out: it needs {' and '.join(missing)}", file=sys.stderr)
        else:
            files.append(file)
    if not files:
        print("layers are compared with the reference loop instead", file=sys.stderr)
        return kernels_agree(Setup(), (torch.float32, torch.bfloat16, torch.float16))
    # The test left out runs the others without a GPU.
    rest = "--deselect=tests/kernels/test_triton.py::test_in_the_interpreter"
    command = [sys.executable, "-m", "pytest", "-q", *files, rest]
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode == 0


def refusal() -> str | None:
    """Why nothing can be measured here."""
    if not torch.cuda.is_available():
        return "there is no GPU that torch can use: nothing is measured"
    if find_spec("triton") is None:
        return "Triton is not installed, and it compiles the GPU kernels: pip install triton"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1 runs the kernels in Python: unset it"
    return None


def driver() -> str | None:
    """The version of NVIDIA's driver, where its tool is there to ask."""
    if not shutil.which("nvidia-smi"):
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip() or None


def facts() -> Report:
    """The machine and the versions."""
    made: Report = {"device": None, "memory_gib": None, "processors": None, "capability": None}
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        made["device"], made["processors"] = found.name, found.multi_processor_count
        made["memory_gib"] = round(found.total_memory / 2**30, 1)
        made["capability"] = f"{found.major}.{found.minor}"
    made |= {"driver": driver(), "cuda": torch.version.cuda}
    made["cudnn"] = torch.backends.cudnn.version()
    made["torch"] = torch.__version__
    made["triton"] = importlib.import_module("triton").__version__ if find_spec("triton") else None
    made["python"] = platform.python_version()
    made["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    return made


PARTS: dict[str, Callable[[Setup, Report], None]] = {
    "kernels": lambda setup, report: measure_kernels(kernel_cases(), setup, report),
    "layers": lambda setup, report: measure_layers(layer_cases(), setup, report),
    "ragged": lambda setup, report: measure_ragged(ragged_cases(), setup, report),
    "steps": lambda setup, report: measure_steps(step_cases(), setup, report),
}


def empty_report(setup: Setup) -> Report:
    """The JSON line before anything is measured."""
    made: Report = {"machine": facts(), "rounds": setup.rounds}
    return made | {name: [] for name in PARTS} | {"failed": []}


def measure(parts: Iterable[str], setup: Setup, report: Report, output: Path | None) -> None:
    """Every part, though one before it failed, and what there is after each into the file."""
    report["copy_gb_per_s"] = copy_speed(setup)
    for name in parts:
        try:
            PARTS[name](setup, report)
        except Exception:
            traceback.print_exc()
            report["failed"].append(name)
        if output is not None:
            output.write_text(json.dumps(report) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, and print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="file for the JSON line too")
    parser.add_argument("--rounds", type=int, default=Setup().rounds)
    parser.add_argument("--parts", default=",".join(PARTS), help="comma list; default: all")
    parser.add_argument("--no-tests", action="store_true", help="the tests have just passed")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]}: there are {', '.join(PARTS)}")
    if (why := refusal()) is not None:
        print(why, file=sys.stderr)
        raise SystemExit(2)
    if not given.no_tests and not tests_pass():
        raise SystemExit("the GPU tests fail: nothing is measured")
    setup = Setup(rounds=given.rounds)
    report = empty_report(setup)
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    measure(parts, setup, report, given.output)
    print(json.dumps(report))
    if report["failed"]:
        raise SystemExit(f"failed: {', '.join(report['failed'])}")


if __name__ == "__main__":
    main()
