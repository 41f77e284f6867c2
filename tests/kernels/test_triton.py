"""The Triton back end against a float64 reference: in Triton's interpreter, and on a GPU.

The same cases run on a GPU if there is one and, in a separate process, in the interpreter. Other
tests compile the kernels for a GPU and read the compiler's output.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.backends.nvidia.compiler import get_ptxas  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from srucli.kernels import (  # noqa: E402
    reference,
    triton_pool,
    triton_sru,
    triton_walk,
)
from srucli.kernels.reference import Recurrence  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
runs = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED,
    reason="there is no GPU; test_in_the_interpreter runs this one",
)
compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")


@compiles
def test_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= len(CASES)


@dataclass(frozen=True)
class Case:
    """A batch of random texts with values that `dtype` can represent."""

    lengths: tuple[int, ...]
    units: int
    directions: int
    planes: int
    tanh: bool
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        shape = f"{self.units}x{self.directions}x{self.planes}"
        lengths = "-".join(map(str, self.lengths)) or "none"
        return f"{lengths},{shape}{',tanh' * self.tanh},{str(self.dtype)[6:]}"

    def tensors(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.units * 31 + self.planes)
        width, rows, texts = self.units * self.directions, sum(self.lengths), len(self.lengths)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(self.dtype).double()

        return {
            "grad_h": draw(rows, width),
            "grad_last": draw(texts, width),
            "u": draw(rows, self.planes, width),
            "x": draw(rows, width),
            # Halved: stronger feedback can double a rounding error at every step, so that the
            # largest error is chance.
            "v": draw(2, width) / 2,
            "bias": draw(2, width),
            "initial": draw(texts, width),
            "mask": (draw(texts, width) > 0).double() * 2,
            "offsets": torch.tensor([0, *self.lengths]).cumsum(0),
        }


bf16, fp16 = torch.bfloat16, torch.float16
CASES = [
    Case((3,), 1, 1, 3, False),
    Case((3,), 128, 2, 4, True),
    Case((0,), 7, 2, 3, False),
    Case((), 7, 2, 3, False),
    Case((1, 0, 5, 2), 7, 2, 3, False),
    Case((1, 0, 5, 2), 63, 1, 4, True),
    Case((1, 0, 5, 2), 500, 1, 3, True),
    Case((63, 1, 0, 17), 63, 2, 4, False),
    Case((63, 1, 0, 17), 128, 1, 3, True),
    Case((130,), 1, 2, 3, True),
    Case((130,), 7, 1, 4, False),
    Case((512,), 7, 1, 3, False),
    Case((3,), 128, 2, 3, False, bf16),
    Case((1, 0, 5, 2), 7, 2, 4, True, bf16),
    Case((63, 1, 0, 17), 128, 1, 3, True, bf16),
    Case((130,), 63, 1, 4, False, bf16),
    Case((0,), 7, 2, 4, True, fp16),
    Case((1, 0, 5, 2), 63, 2, 3, False, fp16),
    Case((130,), 7, 2, 3, True, fp16),
]
if INTERPRETED:  # it is slow; 33 tokens are more than two rounds of the kernels' buffers
    SHORTER = {17: 5, 63: 33, 130: 33, 512: 17}
    CASES = [
        replace(case, lengths=tuple(SHORTER.get(n, n) for n in case.lengths)) for case in CASES
    ]
    CASES = [replace(case, units=case.units if case.units <= 128 else 100) for case in CASES]
    # The first blocks of a long text are enough.
    CASES = [
        replace(case, units=min(case.units, 64 if 33 in case.lengths else 128)) for case in CASES
    ]
SMALL_CASES = [case for case in CASES if case.dtype != torch.float32 and sum(case.lengths) < 20]
NAMES = ["h", "c", "last", "grad_u", "grad_x", "grad_v", "grad_bias", "grad_initial"]
# Inputs that the kernels read in a small dtype; all others are float32.
SMALL = ("grad_h", "u", "x")


def results(
    back_end: Any,
    case: Case,
    dtype: torch.dtype,
    wide: torch.dtype,
    tensors: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return outputs and gradients, with gradients of both outputs; SMALL in `dtype`."""
    device = DEVICE if back_end is triton_sru else "cpu"
    given = {
        name: tensor.to(device, dtype if name in SMALL else wide)
        if tensor.is_floating_point()
        else tensor.to(device)
        for name, tensor in (tensors or case.tensors()).items()
    }
    grads = given.pop("grad_h"), given.pop("grad_last")
    u, x = given["u"], None if case.planes == 4 else given["x"]
    recurrence = recurrence_of(given, case.directions, case.tanh)
    h, c, last = back_end.forward(u, x, recurrence, True)
    back = back_end.backward(*grads, u.clone(), x, c, recurrence)
    return {name: each.cpu() for name, each in zip(NAMES, (h, c, last, *back), strict=True)}


def recurrence_of(
    given: Mapping[str, Tensor], directions: int, tanh: bool, alpha: float = 1.3
) -> Recurrence:
    fields = (given[name] for name in ("v", "bias", "initial", "mask", "offsets"))
    v, bias, initial, mask, offsets = fields
    return Recurrence(v, bias, initial, mask, offsets, directions, tanh, alpha)


def on_device(case: Case) -> dict[str, Tensor]:
    """Return the tensors of a case in float32."""
    return {
        name: each.float().to(DEVICE) if each.is_floating_point() else each.to(DEVICE)
        for name, each in case.tensors().items()
    }


def kernel_results(case: Case, tensors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return results(triton_sru, case, case.dtype, torch.float32, tensors)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new memory with NaN or -9, which shows if a kernel does not write all of it."""

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(math.nan if tensor.is_floating_point() else -9)

        return made

    with torch.device("cpu"):  # torch lists what takes a device at the first use of one
        torch.empty(0)
    if INTERPRETED or DEVICE == "cuda":
        monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
        monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
        monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))


@runs
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: Case) -> None:
    """At most twice the error of the reference computed in the case's dtype, plus a floor.

    The floor is 2e-6 of the largest value (errors seen are up to 5e-7), and for a result in a small
    dtype half a unit in its last place more. In a small dtype the reference rounds every step, so
    that the bound is wide; the next test is sharp there.
    """
    wanted = results(reference, case, torch.float64, torch.float64)
    plain = results(reference, case, case.dtype, case.dtype)
    for name, got in kernel_results(case).items():
        want = wanted[name]
        small = name in ("h", "c", "grad_u", "grad_x")
        assert got.dtype == (case.dtype if small else torch.float32)
        assert got.shape == want.shape
        if want.numel():
            step = torch.finfo(case.dtype).eps / 2 if small else 0.0
            floor = (2e-6 + step) * max(1.0, want.abs().max().item())
            error = (plain[name].double() - want).abs().max()
            assert (got.double() - want).abs().max() <= 2 * error + floor, name


@runs
@pytest.mark.parametrize("case", SMALL_CASES, ids=str)
def test_a_small_dtype_is_float32_rounded_once(case: Case) -> None:
    """Loads are exact and arithmetic is float32, so a small dtype only affects stores."""
    tensors = on_device(case)
    grads = tensors["grad_h"], tensors["grad_last"]
    x = None if case.planes == 4 else tensors["x"]
    given = recurrence_of(tensors, case.directions, case.tanh)
    small = kernel_results(case)
    h, c, last = triton_sru.forward(tensors["u"], x, given, True)
    saved = stored(c, case.dtype).float()
    back = triton_sru.backward(*grads, tensors["u"], x, saved, given)
    for name, full in zip(NAMES, (h, c, last, *back), strict=True):
        assert torch.equal(stored(full.cpu(), small[name].dtype), small[name]), name


def stored(full: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float32 as a kernel's store does; the interpreter truncates to bfloat16."""
    if INTERPRETED and dtype == torch.bfloat16:
        full = (full.view(torch.int32) & -(2**16)).view(torch.float32)
    return full.to(dtype)


@runs
@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_results_do_not_depend_on_the_block_size(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case((5, 0, 2), 70, 2, 3, True, dtype)
    first, again = kernel_results(case), kernel_results(case)
    monkeypatch.setattr(triton_walk, "_block", lambda *_: 256)
    wide = kernel_results(case)
    for name, result in first.items():
        assert torch.equal(result, again[name]), name
        assert torch.equal(result, wide[name]), name


@runs
@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_a_text_alone_equals_itself_in_a_batch(dtype: torch.dtype) -> None:
    """To the bit, except for the gradients of parameters, which are sums over texts."""
    case = Case((5, 0, 9), 7, 2, 3, False, dtype)
    batch = kernel_results(case)
    tensors = case.tensors()
    alone = {name: tensors[name][5:] for name in ("grad_h", "u", "x")}
    alone |= {name: tensors[name][2:] for name in ("grad_last", "initial", "mask")}
    alone |= {"v": tensors["v"], "bias": tensors["bias"], "offsets": torch.tensor([0, 9])}
    got = kernel_results(case, {name: alone[name] for name in tensors})
    for name in ("h", "c", "grad_u", "grad_x"):
        assert torch.equal(batch[name][5:], got[name]), name
    for name in ("last", "grad_initial"):
        assert torch.equal(batch[name][2:], got[name]), name


@runs
def test_states_are_not_saved_without_gradients() -> None:
    case = Case((5, 2), 7, 2, 4, False)
    tensors = on_device(case)
    given = recurrence_of(tensors, 2, False, 1.0)
    h, c, last = triton_sru.forward(tensors["u"], None, given, False)
    saved, _, end = triton_sru.forward(tensors["u"], None, given, True)
    assert c.numel() == 0
    assert torch.equal(h, saved)
    assert torch.equal(last, end)


@runs
def test_nan_stays_nan_and_affects_only_its_text() -> None:
    case = Case((3, 4), 5, 1, 4, True)
    tensors = case.tensors()
    tensors["u"][1, 0, 2] = math.nan
    got = kernel_results(case, tensors)
    assert got["h"][1:3, 2].isnan().all()
    assert got["last"][0, 2].isnan()
    assert got["grad_initial"][0, 2].isnan()
    assert got["grad_v"][:, 2].isnan().all()
    for name in ("h", "grad_u"):
        assert not got[name][3:].isnan().any()
        # One column of the states, and that column of each of the four planes.
        assert int(got[name][:3].isnan().any(dim=0).sum()) == {"h": 1, "grad_u": 4}[name]


POOL_CASES = [
    ((3,), 1, torch.float32),
    ((0,), 7, torch.float32),
    ((), 7, torch.float32),
    ((63, 1, 0, 17), 63, torch.float32),
    ((1, 0, 5, 2), 128, bf16),
    ((130,), 7, fp16),
]


@runs
@pytest.mark.parametrize(("lengths", "width", "dtype"), POOL_CASES, ids=str)
def test_pooling(lengths: tuple[int, ...], width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(width)
    texts, rows = len(lengths), sum(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    # Whole numbers, so that there are equal maxima, of which the first is selected.
    h = torch.randn(rows, width, generator=generator).mul(2).round().to(dtype)
    got = [each.cpu() for each in triton_pool.pool(h.to(DEVICE), offsets.to(DEVICE))]
    largest, mean, argument = reference.pool(h.double(), offsets)
    rtol, atol = torch.finfo(dtype).eps, 1e-6
    assert torch.equal(got[0], largest.to(dtype))
    torch.testing.assert_close(got[1].double(), mean, rtol=rtol, atol=atol)
    assert torch.equal(got[2], _first(h, offsets, argument))

    grads = torch.randn(2, texts, width, generator=generator).to(dtype)
    largest, mean = grads.to(DEVICE)
    back = triton_pool.pool_backward(
        largest, mean, got[2].to(DEVICE), offsets.to(DEVICE), rows
    ).cpu()
    assert back.dtype == dtype
    largest, mean = grads.double()
    want = reference.pool_backward(largest, mean, got[2], offsets, rows)
    torch.testing.assert_close(back.double(), want, rtol=rtol, atol=atol)


def _first(h: Tensor, offsets: Tensor, argument: Tensor) -> Tensor:
    """Return the first row of each maximum, which torch.max does not guarantee."""
    first = argument.clone()
    for text, (start, stop) in enumerate(itertools.pairwise(offsets)):
        if start < stop:
            rows = h[start:stop]
            first[text] = (rows == rows.amax(dim=0)).int().argmax(dim=0) + start
    return first


@runs
def test_pooling_keeps_the_first_nan() -> None:
    nan = math.nan
    h = torch.tensor([[1.0, nan, -math.inf], [nan, 2.0, -math.inf], [nan, nan, -math.inf]])
    offsets = torch.tensor([0, 3])
    largest, mean, argument = triton_pool.pool(h.to(DEVICE), offsets.to(DEVICE))
    assert largest.isnan().tolist() == [[True, True, False]]
    assert argument.tolist() == [[1, 0, 0]]
    assert mean.cpu()[0, :2].isnan().all()


@pytest.mark.skipif(DEVICE == "cpu", reason="there is no GPU")
def test_a_cuda_graph_captures_the_kernels() -> None:
    case = Case((9, 0, 33), 70, 2, 3, True)
    want = kernel_results(case)
    given = on_device(case)
    u, x, offsets = given["u"].clone(), given["x"], given["offsets"]
    recurrence = recurrence_of(given, 2, True)

    def run() -> tuple[Tensor, ...]:
        h, c, last = triton_sru.forward(u, x, recurrence, True)
        back = triton_sru.backward(given["grad_h"], given["grad_last"], u, x, c, recurrence)
        return (h, c, last, *back, *triton_pool.pool(h, offsets))

    # Triton loads a kernel at its first call, which CUDA forbids during a capture.
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    u.copy_(given["u"])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        outputs = run()
    u.copy_(given["u"])
    graph.replay()
    for name, got in zip(NAMES, outputs, strict=False):
        assert torch.equal(got.cpu(), want[name]), name


FLOATS = ("v", "bias", "initial", "mask", "last", "grad_last", "grad_initial", "partial")
SRU = {"PLANES": 3, "TANH": True, "STEPS": triton_walk.STEPS, "STAGES": triton_walk.STAGES}
COMPILED: dict[str, dict[str, Any]] = {
    "_forward": {**SRU, "SAVE": True},
    "_backward": SRU,
    "_pool": {"STEPS": 2 * triton_walk.STEPS, "STAGES": triton_walk.STAGES},
    "_pool_backward": {},
}


def ptx(name: str, dtype: str, block: int, capability: int) -> str:
    """Compile a kernel for a GPU that need not exist, with aligned tensors as torch allocates them.

    250 units are a multiple of 4 bytes in both dtypes, but not of 16.
    """
    units = 512 if block >= 128 else 250
    constants = {**COMPILED[name], "UNITS": units, "DIRECTIONS": 1, "BLOCK": block}
    kernel = getattr(triton_pool if name.startswith("_pool") else triton_sru, name)
    types = {"alpha": "fp32", "offsets": "*i64", "argument": "*i64"}
    types |= dict.fromkeys(FLOATS, "*fp32") | dict.fromkeys(constants, "constexpr")
    signature = {argument: types.get(argument, f"*{dtype}") for argument in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": 1, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    text: str = made.asm["ptx"]
    return text


def spilled(text: str, capability: int, folder: Path) -> int:
    """Return the bytes of registers that the assembler spills."""
    (folder / "kernel.ptx").write_text(text)
    (target,) = re.findall(r"^\.target (\w+)", text, re.MULTILINE)
    assembler = [get_ptxas(capability).path, "-v", "--fmad=false", "--gpu-name", target]
    done = subprocess.run(
        [*assembler, "kernel.ptx", "-o", "kernel.cubin"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    (stores,) = re.findall(r"(\d+) bytes spill stores", done.stderr)
    return int(stores)


@compiles
@pytest.mark.parametrize(
    ("dtype", "block", "capability"),
    [("fp32", 32, 80), ("fp32", 128, 90), ("bf16", 64, 90), ("bf16", 256, 80)],
)
def test_compiled_kernels_load_ahead_and_do_not_spill(
    dtype: str, block: int, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both block shapes of both dtypes, each kernel."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for name in COMPILED:
        text = ptx(name, dtype, block, capability)
        assert spilled(text, capability, tmp_path) == 0, name
        assert ("cp.async" in text) == (name != "_pool_backward"), name
