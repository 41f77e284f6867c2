"""The matrix products of layers, on a CPU with the faster of torch's two libraries.

torch multiplies float32 matrices with Intel's MKL, which uses AVX-512 only on Intel's processors.
On AMD's Zen 5, oneDNN, which torch contains too, takes 0.4 to 0.7 times as long. On Zen 4, whose
AVX-512 is no faster than its AVX2, it gains only where there are many rows.
torch has no public function for it; its compiler calls the operator that is called here. If that is
missing, torch's own functions are used.

oneDNN compiles and keeps code for each shape, half a millisecond and half a megabyte. Batches may
have any number of rows, so they are padded or split to a few numbers of rows.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

OPERATOR = "_linear_pointwise"
# Fewer rows are left to MKL; more rows in one product do not stay in the cache.
MIN_ROWS, MAX_ROWS = 16, 1024
MIN_ROWS_ZEN4 = 2048


@functools.cache
def least_rows() -> float:
    """Return from how many rows on oneDNN is used: infinity except on AMD's Zen 4 and later.

    That is also the answer for a torch without oneDNN's operator.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    known = importlib.util.find_spec("llvmlite")  # names the processor, and comes with Numba
    if not wide or not known or not hasattr(torch.ops.mkldnn, OPERATOR):
        return math.inf
    from llvmlite import binding

    name = binding.get_host_cpu_name()
    if name == "znver4":
        return MIN_ROWS_ZEN4
    return MIN_ROWS if name.startswith("znver") else math.inf


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x (N, E) times the transpose of weight (K, E): (N, K)."""
    if not _uses_onednn(x, weight):
        return linear(x, weight)
    rows = x.shape[0]
    return _onednn(pad(x, (0, 0, 0, -rows % _step(rows))), weight)[:rows]


def input_gradient(grad: Tensor, weight: Tensor, onto: Tensor | None = None) -> Tensor:
    """Return grad (N, K), of a product, times weight (K, E): (N, E), added to `onto` if given."""
    if not _uses_onednn(grad, weight):
        return grad @ weight if onto is None else onto.addmm_(grad, weight)
    total = grad.new_zeros(grad.shape[0], weight.shape[1]) if onto is None else onto
    for run, multiply in _runs(grad.shape[0]):
        total[run].add_(multiply(grad[run], weight.t()))
    return total


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return the transpose of grad (N, K), of a product, times x (N, E): (K, E)."""
    if not _uses_onednn(grad, x):
        return grad.t() @ x
    # Transposed, since oneDNN is faster with fewer rows in the first matrix.
    parts = (multiply(x[run].t(), grad[run].t()) for run, multiply in _runs(grad.shape[0]))
    return functools.reduce(Tensor.add_, parts).t().contiguous()


def _uses_onednn(rows: Tensor, other: Tensor) -> bool:
    """Return whether oneDNN multiplies these; it refuses empty ones."""
    fit = (x.device.type == "cpu" and x.dtype == torch.float32 for x in (rows, other))
    return all(fit) and rows.numel() > 0 and rows.shape[0] >= least_rows()


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    made: Tensor = getattr(torch.ops.mkldnn, OPERATOR)(x, weight, None, "none", [], "")
    return made


def _step(rows: int) -> int:
    """Return the step between allowed numbers of rows: there are eight per power of two."""
    return 1 << max(rows.bit_length() - 4, 0)


def _runs(rows: int) -> Iterator[tuple[slice, Callable[[Tensor, Tensor], Tensor]]]:
    """Split rows into runs of a few different sizes, each with the function that multiplies it."""
    start = 0
    while rows - start >= MIN_ROWS:
        left = min(rows - start, MAX_ROWS)
        stop = start + left - left % _step(left)
        yield slice(start, stop), _onednn
        start = stop
    if start < rows:
        yield slice(start, rows), linear
