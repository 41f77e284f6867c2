"""The matrix products of layers, with torch's functions and with oneDNN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from srucli.kernels import gemm


@pytest.fixture(params=[False, True], ids=["torch", "onednn"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use each library, on any processor."""
    if request.param and not hasattr(torch.ops.mkldnn, gemm.OPERATOR):
        pytest.skip("torch without oneDNN")
    least = gemm.MIN_ROWS if request.param else math.inf
    monkeypatch.setattr(gemm, "least_rows", lambda: least)


def near(made: Tensor, one: Tensor, other: Tensor, plus: float = 0) -> None:
    """Assert that `made` is one @ other + plus, within the usual bound of rounding."""
    one, other = one.double(), other.double()
    error = (made.double() - (one @ other + plus)).abs()
    assert made.is_contiguous()
    assert (error <= 1e-6 * (one.abs() @ other.abs() + plus)).all()


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 100, 1935])
@pytest.mark.parametrize(("features", "width"), [(1, 3), (7, 28), (128, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products(rows: int, features: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(features, rows, generator=generator, dtype=dtype).t()
    weight = torch.randn(width, features, generator=generator, dtype=dtype)
    grad = torch.randn(rows, width, generator=generator, dtype=dtype)
    near(gemm.product(x, weight), x, weight.t())
    near(gemm.weight_gradient(grad, x), grad.t(), x)
    near(gemm.input_gradient(grad, weight), grad, weight)
    onto = torch.ones(rows, features, dtype=dtype)
    assert gemm.input_gradient(grad, weight, onto) is onto
    near(onto, grad, weight, plus=1)


@pytest.mark.parametrize(
    ("processor", "vectors", "least"),
    [
        ("znver4", "AVX512", 2048),
        ("znver5", "AVX512", 16),
        ("znver6", "AVX512", 16),
        ("znver3", "AVX2", math.inf),
        ("sapphirerapids", "AVX512", math.inf),
    ],
)
def test_which_processors_use_onednn(
    processor: str, vectors: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the library that the fixture has chosen
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert gemm.least_rows.__wrapped__() == least
    monkeypatch.setattr(gemm, "OPERATOR", "no such operator")
    assert gemm.least_rows.__wrapped__() == math.inf


def test_products_are_repeatable_to_the_bit() -> None:
    x, weight = torch.randn(300, 100), torch.randn(500, 100)
    assert torch.equal(gemm.product(x, weight), gemm.product(x, weight))


def test_nan_stays_in_its_row() -> None:
    x, weight = torch.randn(20, 16), torch.randn(12, 16)
    x[3, 5] = torch.nan
    made = gemm.product(x, weight)
    assert made[3].isnan().all()
    assert made.isnan().sum() == 12
