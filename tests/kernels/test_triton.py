"""The Triton back end against a float64 reference: in Triton's interpreter, and on a GPU.

The same cases run on a GPU if there is one and, in a separate process, in the interpreter. Other
tests compile the kernels for a GPU and read the compiler's output.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton", reason="Triton is not installed")

from benchmarks.gpu_sweep import Choice, chosen  # noqa: E402
from srucli.kernels import (  # noqa: E402
    reference,
    triton_loss,
    triton_pool,
    triton_rows,
    triton_sru,
    triton_walk,
)
from tests.kernels import compiled, random_cases  # noqa: E402
from tests.kernels.triton_cases import (  # noqa: E402
    DEVICE,
    INTERPRETED,
    NAMES,
    Case,
    kernel_results,
    pool_errors,
    recurrence_of,
    sru_errors,
)
from tests.poison import poison  # noqa: E402

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


def on_device(case: Case) -> dict[str, Tensor]:
    """Return the tensors of a case in float32."""
    return {
        name: each.float().to(DEVICE) if each.is_floating_point() else each.to(DEVICE)
        for name, each in case.tensors().items()
    }


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    with poison() if INTERPRETED or DEVICE == "cuda" else nullcontext():
        yield


@runs
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: Case) -> None:
    errors = sru_errors(case)
    assert max(errors.values()) <= 1, errors


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
def test_results_do_not_depend_on_the_block_size(dtype: torch.dtype) -> None:
    case = Case((5, 0, 2), 70, 2, 3, True, dtype)
    first, again = kernel_results(case), kernel_results(case)
    wide = kernel_results(replace(case, block=256))
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
    Case((3,), 1, 1, 3, False),
    Case((0,), 7, 1, 3, False),
    Case((), 7, 1, 3, False),
    Case((63, 1, 0, 17), 63, 1, 3, False),
    Case((1, 0, 5, 2), 128, 1, 3, False, bf16),
    Case((130,), 7, 1, 3, False, fp16),
]


@runs
@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_pooling(case: Case) -> None:
    errors = pool_errors(case, whole=True)
    assert max(errors.values()) <= 1, errors


@runs
def test_random_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """A short form of the command; the first case has texts of 0, 1 and over 250 tokens."""
    assert random_cases.main(["--cases", "4", "--device", DEVICE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:4]] == [
        f"{kernel}: 4 cases" for kernel in random_cases.KERNELS
    ]


@runs
def test_random_cases_name_a_failing_case(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that leaves its output unwritten, and one that stops."""
    arguments = ["--only", "1", "--device", DEVICE]
    case = random_cases.random_case(1, 0)
    repeated = f"--seed 0 --only 1: {case}"

    def unwritten(largest: Tensor, mean: Tensor, *others: Any) -> Tensor:
        return mean.new_empty(sum(case.lengths), case.units)

    monkeypatch.setattr(triton_pool, "pool_backward", unwritten)
    assert random_cases.main(arguments) == 1
    assert capsys.readouterr().out.startswith(f"{repeated}: grad_h inf\n")
    monkeypatch.setattr(triton_pool, "pool", None)
    assert random_cases.main(arguments) == 1
    assert capsys.readouterr().out.startswith(f"{repeated}: TypeError")


@pytest.mark.skipif(INTERPRETED, reason="needs no kernel")
def test_random_cases_cover_what_they_should() -> None:
    cases = [random_cases.random_case(number, 0) for number in range(400)]
    assert {case.units for case in cases} == set(random_cases.WIDTHS)
    assert {case.dtype for case in cases} == {torch.float32, bf16, fp16}
    assert len({(case.directions, case.planes, case.tanh) for case in cases}) == 8
    lengths = {length for case in cases for length in case.lengths}
    assert set(range(21)) < lengths
    assert max(lengths) > 290
    assert {0, 1} < set(cases[0].lengths)
    assert max(cases[0].lengths) > 250


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


@compiles
@pytest.mark.parametrize(
    ("dtype", "width", "units", "capability"),
    [
        ("fp32", 128, 250, 80),
        ("fp32", 512, 512, 90),
        ("bf16", 128, 250, 90),
        ("bf16", 512, 512, 80),
    ],
)
def test_compiled_kernels_load_ahead_and_do_not_spill(
    dtype: str,
    width: int,
    units: int,
    capability: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both block shapes of both dtypes, each kernel. A thread loads a 32nd of a block."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for name in compiled.CONSTANTS:
        made = compiled.compiled(name, dtype, width, units, capability, tmp_path)
        assert made.spilled == 0, name
        assert made.registers > 0
        assert made.ahead() == (set() if name == "_pool_backward" else {width // 32}), name
        assert ("cp.async" in made.ptx) == (name != "_pool_backward"), name


@compiles
@pytest.mark.parametrize(("units", "columns"), [(257, 64), (258, 64), (264, 256)])
def test_only_rows_at_multiples_of_16_bytes_get_wide_blocks(
    units: int, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In wide blocks, the first two spill 1,632 and 224 bytes."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    _, settings = triton_walk.launch(10_000, units, 2, torch.empty(0, dtype=bf16))
    assert settings["BLOCK"] == columns
    made = compiled.compiled("_backward", "bf16", columns * 2, units, 90, tmp_path)
    assert made.spilled == 0


@compiles
def test_no_kernel_depends_on_where_offsets_begin() -> None:
    """It would be compiled once for offsets at multiples of 16 bytes and once for others."""
    for name in compiled.CONSTANTS:
        parameters = compiled.kernel_named(name).params
        free = [each.name for each in parameters if each.do_not_specialize_on_alignment]
        assert free == ["offsets"], name


@compiles
def test_pointers_are_aligned_unless_the_kernel_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    constants = {"UNITS": 512, "DIRECTIONS": 1, "BLOCK": 256}
    plain = triton_pool._pool_backward.fn
    widths = []
    for unaligned in ([], ["grad_largest", "grad_mean"]):
        kernel = triton.jit(plain, do_not_specialize_on_alignment=unaligned)
        text, shared = compiled.ptx(kernel, constants, "fp16", 80)
        widths.append(compiled.Made(text, 0, 0, shared).loads())
    assert widths == [{8, 16}, {2, 8, 16}]  # offsets have 8 bytes, rows of `argument` 16


def test_a_row_has_one_value_per_gpu_where_they_differ() -> None:
    text = """
    @%p1 cp.async.cg.shared.global [ %r88 + 0 ], [ %rd28 + 0 ], 0x10, %r89;
    @%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    ld.global.b64 { %rd1 }, [ %rd2 + 0 ];
    """
    made = [compiled.Made(text, 60, 0, 6144), compiled.Made(text, 62, 8, 6144)]
    assert compiled.row("_pool_backward", "bf16", 512, 257, made) == (
        "| pool backward | bf16 | 257 | 256 | 60 / 62 | 0 / 8 | 6 | 16 | 8, 16 |"
    )


@runs
def test_results_do_not_depend_on_the_choices_of_a_sweep() -> None:
    case = Case((9, 0, 5), 40, 2, 3, True)
    own = kernel_results(case)
    for choice in (Choice(128, 2, 2), Choice(512, 8, 4)):
        with chosen(choice):
            assert all(torch.equal(own[name], got) for name, got in kernel_results(case).items())


# Places, rows of the table, columns: more than one block of places, and of columns.
LOOKUPS = [(1, 1, 1), (5, 3, 7), (300, 9, 130), (140, 1000, 128), (0, 4, 3)]


def looked_up(places: int, rows: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return gradients (N, E) and an index (N,) that has some rows often and others rarely."""
    generator = torch.Generator().manual_seed(places)
    grad = torch.randn(places, width, generator=generator).to(DEVICE, dtype)
    often = torch.rand(places, generator=generator) ** 3 * rows
    return grad, often.long().to(DEVICE)


@runs
@pytest.mark.parametrize("dtype", [torch.float32, bf16, fp16], ids=str)
@pytest.mark.parametrize("shape", LOOKUPS, ids=str)
def test_rows_are_summed_in_the_order_of_their_places(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    grad, index = looked_up(*shape, dtype)
    want = torch.zeros(shape[1:])
    for place, row in enumerate(index.tolist()):
        want[row] += grad[place].float().cpu()
    got = triton_rows.sum_rows(grad, index, shape[1]).cpu()
    assert got.dtype == dtype
    if dtype == torch.float32:
        assert torch.equal(got, want)
    else:
        torch.testing.assert_close(got.float(), want, rtol=torch.finfo(dtype).eps, atol=1e-6)


@runs
def test_larger_batches_are_summed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    grad, index = looked_up(300, 9, 130, torch.float32)
    want = triton_rows.sum_rows(grad, index, 9)
    monkeypatch.setattr(triton_rows, "MAX_PLACES", 299)
    torch.testing.assert_close(triton_rows.sum_rows(grad, index, 9), want)


@compiles
@pytest.mark.parametrize("capability", compiled.CAPABILITIES)
def test_the_other_compiled_kernels_do_not_spill(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for dtype in compiled.SIZES:
        constants = {"WIDTH": 128, **compiled.ROWS}
        made = compiled.assembled("_sum_rows", constants, dtype, capability, tmp_path)
        assert made.spilled == 0
        assert compiled.SIZES[dtype] not in made.loads()  # a thread loads four columns at once
    constants = {"CLASSES": 1000, "BLOCK": triton_loss.MAX_BLOCK}
    made = compiled.assembled("_cross_entropy", constants, "fp32", capability, tmp_path)
    assert made.spilled == 0
    assert 16 in made.loads()  # four logits


# Texts, classes, smoothing: no text, one block of classes, several.
LOSSES = [(1, 1, 0.0), (0, 3, 0.1), (5, 2, 0.1), (3, 151, 0.0), (4, 1300, 0.2)]


@runs
@pytest.mark.parametrize("shape", LOSSES, ids=str)
def test_losses_against_float64(shape: tuple[int, int, float]) -> None:
    texts, classes, smoothing = shape
    generator = torch.Generator().manual_seed(classes)
    logits = 20 * torch.randn(texts, classes, generator=generator)
    targets = torch.randint(classes, (texts,), generator=generator)
    weights = torch.rand(classes, generator=generator) + 0.5
    want = reference.cross_entropy(logits.double(), targets, weights.double(), smoothing)
    plain = reference.cross_entropy(logits, targets, weights, smoothing)
    got = triton_loss.cross_entropy(
        logits.to(DEVICE), targets.to(DEVICE), weights.to(DEVICE), smoothing
    )
    for each, right, simple in zip(got, want, plain, strict=True):
        assert each.shape == right.shape
        if right.numel():
            floor = 2e-6 * right.abs().max().clamp(min=1)
            allowed = 2 * (simple.double() - right).abs().max() + floor
            assert (each.double().cpu() - right).abs().max() <= allowed


@runs
def test_what_logits_have_in_common_costs_no_precision() -> None:
    logits = torch.randn(3, 1300, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    far = (logits + 2.0**14).double()  # rounded once
    targets, weights = torch.tensor([0, 5, 1299], device=DEVICE), logits.new_ones(1300)
    got, _ = triton_loss.cross_entropy(far.float(), targets, weights, 0.1)
    want, _ = reference.cross_entropy(far, targets, weights.double(), 0.1)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)


@runs
def test_a_class_that_cannot_be_has_no_loss_without_smoothing() -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.0]], device=DEVICE)
    targets, weights = torch.tensor([0], device=DEVICE), logits.new_ones(3)
    got = triton_loss.cross_entropy(logits, targets, weights, 0.0)
    want = reference.cross_entropy(logits, targets, weights, 0.0)
    torch.testing.assert_close(got, want)
    assert want[0].isfinite().all()


@runs
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_seen(bad: float) -> None:
    logits = torch.zeros(2, 40, device=DEVICE)
    logits[0, 7] = bad
    targets = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    losses, grad = triton_loss.cross_entropy(logits, targets, logits.new_ones(40), 0.1)
    assert losses.isfinite().tolist() == [False, True]
    assert not grad[0].isfinite().all()
    assert grad[1].isfinite().all()
