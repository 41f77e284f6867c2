"""The parts of `benchmarks.gpu` that time kernels and layers.

kernels: the forward and the backward pass without their GEMM, called once with a cold L2 cache,
beside a copy within the GPU's memory of as many bytes, timed in turn with it. The bytes are those
that a pass cannot save: per token and unit the forward pass reads three planes of u and the highway
and writes h, which is 5 elements, 6 if it saves the states; the backward pass reads u, the highway,
the states and h's gradient and writes the gradients of u and of the highway, which is 10. What
there is per sequence or per unit is left out.

layers: one layer, the forward pass and the backward pass down to every weight and to the input,
beside `nn.LSTM` and `nn.GRU` of the same size and dtype, in one direction, on sequences of equal
length. The floor is the layer's GEMMs and a copy of the bytes that its kernels cannot save.

ragged: two layers in two directions on sequences of log-normal lengths, beside `nn.LSTM` on a batch
that was packed beforehand.

Layers are timed as they are called (eager, where Python's time counts if the GPU waits for it), and
replayed from a CUDA graph (the GPU's time alone). Up to ten calls in a row are timed as one, so
that caches are warm, as in training. Triton's `do_bench_cudagraph` does the same, but a capture
that fails there leaves torch capturing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from benchmarks.speed import (
    Quartiles,
    Report,
    Row,
    Run,
    Setup,
    calls_for,
    described,
    heads,
    in_turn,
    layer_step,
    line,
    name_of,
    offsets_of,
    ragged_lengths,
    row_of,
    shown,
)
from srucli.kernels.backends import BACKENDS
from srucli.kernels.reference import Recurrence
from srucli.model.sru import SRULayer, SRUStack, use_kernel
from srucli.training.cuda_graphs import capture

# Elements read and written per token and unit.
ELEMENTS = {"forward": 5, "forward, saving states": 6, "backward": 10}
LAYER_ELEMENTS = ELEMENTS["forward, saving states"] + ELEMENTS["backward"]


class KernelCase(NamedTuple):
    """B sequences of L tokens, D units in all directions together, u with k planes."""

    length: int
    texts: int
    width: int
    dtype: torch.dtype
    directions: int
    planes: int


class LayerCase(NamedTuple):
    """B sequences of L tokens; D input features and D units."""

    length: int
    texts: int
    width: int
    dtype: torch.dtype


class RaggedCase(NamedTuple):
    """Sequences of this median length; E input features, D units in each of two directions."""

    middle: int
    texts: int
    features: int
    units: int
    dtype: torch.dtype


# Both dtypes, one and two directions, without and with a plane of u for the highway.
KERNEL_CASES = [
    KernelCase(256, 128, 512, dtype, directions, planes)
    for dtype in (torch.bfloat16, torch.float32)
    for directions in (1, 2)
    for planes in (3, 4)
]
LAYER_CASES = [
    LayerCase(*shape, dtype)
    for shape in ((32, 32, 256), (128, 32, 512), (256, 128, 512))
    for dtype in (torch.bfloat16, torch.float16, torch.float32)
]
# The sizes of `benchmarks.kernel`, with short and long sequences.
RAGGED_CASES = [
    RaggedCase(middle, texts, features, units, dtype)
    for features, units, texts in ((128, 128, 32), (300, 256, 64))
    for middle in (25, 230)
    for dtype in (torch.bfloat16, torch.float32)
]


def copy_run(count: int, device: str) -> Run:
    """Return a copy that reads and writes `count` bytes in total."""
    source = torch.zeros(count // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def kernel_runs(case: KernelCase, setup: Setup) -> dict[str, Run]:
    """The passes of ELEMENTS, without the GEMM.

    The backward pass leaves u's gradient in u, which the next call takes for u: other numbers, the
    same work.
    """
    module = importlib.import_module(BACKENDS[setup.kernel].sru)
    length, texts, width, dtype, directions, planes = case
    rows = length * texts

    def draw(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=setup.device).to(kind)

    u = draw(rows, planes, width, kind=dtype)
    x = draw(rows, width, kind=dtype) if planes == 3 else None
    vectors = 0.1 * draw(2, width), draw(2, width), draw(texts, width), draw(texts, width)
    offsets = offsets_of([length] * texts).to(setup.device)
    given = Recurrence(*vectors, offsets, directions, False, 1.3)
    _, c, _ = module.forward(u, x, given, True)
    grads = draw(rows, width, kind=dtype), draw(texts, width)
    return {
        "forward": lambda: module.forward(u, x, given, False),
        "forward, saving states": lambda: module.forward(u, x, given, True),
        "backward": lambda: module.backward(*grads, u, x, c, given),
    }


def measure_kernels(
    setup: Setup, report: Report, cases: Iterable[KernelCase] = KERNEL_CASES
) -> None:
    """Measure the element-wise passes and a copy for comparison."""
    names = ("L, B, D", "dtype", "directions", "k", "pass", "microseconds", "GB/s")
    heads("kernels, single calls, cold L2 cache", *names, "the copy's GB/s", "of the copy")
    for case in cases:
        torch.manual_seed(0)
        for what, run in kernel_runs(case, setup).items():
            size = case.length * case.texts * case.width * case.dtype.itemsize
            count = ELEMENTS[what] * size
            copy = copy_run(count, setup.device)
            times = in_turn({"kernel": Row(run, 1), "copy": Row(copy, 1)}, setup)
            report.add("kernels", described(case) | {"pass": what, "bytes": count, "ms": times})
            middle, copied = times["kernel"][1], times["copy"][1]
            cells = [", ".join(map(str, case[:3])), name_of(case.dtype), *case[4:], what]
            cells += [shown([1e3 * time for time in times["kernel"]], 1)]
            cells += [f"{count / 1e6 / time:.0f}" for time in (middle, copied)]
            line(*cells, f"{copied / middle:.1%}")


def to_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert the SRU's matrices to `dtype`; `sru_layer` takes its vectors in float32."""
    for layer in module.modules():
        if isinstance(layer, SRULayer):
            layer.weight = nn.Parameter(layer.weight.detach().to(dtype))
    return module


def floor_run(case: LayerCase, device: str) -> Run:
    """Return the GEMMs of srucli's layer, into allocated memory, and the kernels' copies."""
    x = torch.randn(case.length * case.texts, case.width, device=device).to(case.dtype)
    weight = torch.randn(3 * case.width, case.width, device=device).to(case.dtype)
    u, grad_x, grad_weight = x @ weight.t(), x.clone(), weight.clone()
    copy = copy_run(LAYER_ELEMENTS * x.nbytes, device)

    def run() -> object:
        torch.mm(x, weight.t(), out=u)
        copy()
        torch.mm(u, weight, out=grad_x)
        return torch.mm(u.t(), x, out=grad_weight)

    return run


def layer_runs(case: LayerCase, setup: Setup) -> dict[str, Run]:
    """Return one layer of each kind, and the lower bound of srucli's."""
    length, texts, width, dtype = case
    kernel: Any = setup.kernel
    layer = SRULayer(width, width, bidirectional=False).to(setup.device)
    use_kernel(layer, kernel)
    rows = torch.randn(texts * length, width, device=setup.device).to(dtype)
    offsets = offsets_of([length] * texts).to(setup.device)
    runs = {"srucli": layer_step(to_dtype(layer, dtype), lambda: (rows, offsets), rows)}
    for name, kind in (("lstm", nn.LSTM), ("gru", nn.GRU)):
        net = kind(width, width).to(setup.device, dtype)
        x = torch.randn(length, texts, width, device=setup.device).to(dtype)
        runs[name] = layer_step(net, lambda x=x: (x,), x)  # type: ignore[misc]
    return runs | {"floor": floor_run(case, setup.device)}


def ragged_runs(case: RaggedCase, setup: Setup) -> dict[str, Run]:
    """Return two layers in two directions: srucli on ragged rows, LSTM on a packed batch."""
    lengths = ragged_lengths(case.middle, case.texts)
    kernel: Any = setup.kernel
    stack = SRUStack(case.features, case.units, 2).to(setup.device)
    use_kernel(stack, kernel)
    texts = [torch.randn(n, case.features, device=setup.device).to(case.dtype) for n in lengths]
    rows, offsets = torch.cat(texts), offsets_of(lengths).to(setup.device)
    net = nn.LSTM(case.features, case.units, 2, bidirectional=True).to(setup.device, case.dtype)
    # The packed batch's data needs gradients, so it is packed once.
    packed = pack_sequence(texts, enforce_sorted=False)
    packed.data.requires_grad_()
    return {
        "srucli": layer_step(to_dtype(stack, case.dtype), lambda: (rows, offsets), rows),
        "lstm": layer_step(net, lambda: (packed,), packed.data),
    }


def graphed(run: Run, calls: int) -> Row:
    """Return calls that are replayed from one CUDA graph. Raises RuntimeError."""
    row = row_of(run, calls)
    stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    return Row(capture(row.run, stream, torch.cuda.graph_pool_handle()).replay, calls)


def able(runs: dict[str, Run]) -> dict[str, Run]:
    """Return the systems that run here; report the others on stderr. srucli must run."""
    found = {}
    for name, run in runs.items():
        try:
            run()
        except RuntimeError as error:
            if name == "srucli":
                raise
            print(f"{name}: left out: {error}", file=sys.stderr)
        else:
            found[name] = run
    return found


def ways(runs: dict[str, Run], setup: Setup) -> dict[str, dict[str, Quartiles]]:
    """Return milliseconds of each system, and on a GPU also of those that a graph can capture."""
    runs = able(runs)
    calls = {name: calls_for(run, setup.device) for name, run in runs.items()}
    rows = {name: row_of(run, calls[name]) for name, run in runs.items()}
    times = {"eager": in_turn(rows, setup)}
    if setup.device == "cpu":
        return times
    graphs = {}
    for name, run in runs.items():
        try:
            graphs[name] = graphed(run, calls[name])
        except RuntimeError as error:
            print(f"{name}: no CUDA graph can be made of it: {error}", file=sys.stderr)
    return times | {"graph": in_turn(graphs, setup)}


def by_cudnn(dtype: torch.dtype, device: str) -> bool:
    """Return whether torch uses cuDNN for an LSTM of this dtype."""
    net = nn.LSTM(8, 8).to(device, dtype)
    try:
        output, _ = net(torch.zeros(2, 2, 8, device=device, dtype=dtype))
    except RuntimeError:
        return False
    return "cudnn" in output.grad_fn.name().lower()


def tf32() -> str:
    """Return which libraries round float32 factors to TF32 with the current settings of torch."""
    matmul = torch.get_float32_matmul_precision()
    return f"float32 products: {matmul}; TF32 in cuDNN: {torch.backends.cudnn.allow_tf32}"


def ratio(times: dict[str, Quartiles], name: str, other: str = "srucli") -> str:
    """Return the ratio of two systems' times, as a cell."""
    if name not in times or other not in times:
        return "-"
    return f"{times[name][1] / times[other][1]:.2f}"


def own(times: dict[str, Quartiles]) -> str:
    """Return srucli's milliseconds as a cell."""
    return shown(times["srucli"], 3) if "srucli" in times else "-"


def measure_layers(setup: Setup, report: Report, cases: Iterable[LayerCase] = LAYER_CASES) -> None:
    """Measure a layer, LSTM, GRU and the layer's lower bound."""
    names = ("L, B, D", "dtype", "way", "srucli, ms", "LSTM / srucli", "GRU / srucli")
    heads(f"layers, forward and backward; {tf32()}", *names, "srucli / floor", "cuDNN")
    for case in cases:
        torch.manual_seed(0)
        cudnn = by_cudnn(case.dtype, setup.device)
        for way, times in ways(layer_runs(case, setup), setup).items():
            facts = {"way": way, "cudnn": cudnn, "tf32": tf32(), "ms": times}
            report.add("layers", described(case) | facts)
            cells = [", ".join(map(str, case[:3])), name_of(case.dtype), way, own(times)]
            cells += [ratio(times, "lstm"), ratio(times, "gru"), ratio(times, "srucli", "floor")]
            line(*cells, "yes" if cudnn else "no")


def measure_ragged(
    setup: Setup, report: Report, cases: Iterable[RaggedCase] = RAGGED_CASES
) -> None:
    """Measure layers on sequences of different lengths."""
    names = ("median length", "texts", "tokens", "E, D", "dtype", "way", "srucli, ms")
    heads("ragged, two layers, two directions", *names, "packed LSTM / srucli", "cuDNN")
    for case in cases:
        torch.manual_seed(0)
        tokens = sum(ragged_lengths(case.middle, case.texts))
        cudnn = by_cudnn(case.dtype, setup.device)
        for way, times in ways(ragged_runs(case, setup), setup).items():
            facts = {"tokens": tokens, "way": way, "cudnn": cudnn, "ms": times}
            report.add("ragged", described(case) | facts)
            sizes = f"{case.features}, 2 x {case.units}"
            cells = [case.middle, case.texts, f"{tokens:,}", sizes, name_of(case.dtype), way]
            line(*cells, own(times), ratio(times, "lstm"), "yes" if cudnn else "no")
