"""The matrix products of layers, on a CPU by the faster of torch's two libraries.

torch multiplies float32 matrices by Intel's MKL, which keeps its AVX-512 kernels for Intel's
processors. On those of AMD that have AVX-512, oneDNN, which is in torch too, takes 0.4 to 0.7 times
as long. torch has no public function for it; its compiler calls the operator that is called here,
and without it everything is as torch has it.

oneDNN compiles code for each shape that it meets, half a millisecond and half a megabyte, and keeps
it. Batches have any number of rows, so they are filled up or cut to few numbers.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

OPERATOR = "_linear_pointwise"
# Fewer rows than this are MKL's; runs of more than this do not stay in the cache.
FEW, MANY = 16, 1024


@functools.cache
def prefers_onednn() -> bool:
    """Whether this is an AMD processor with AVX-512, and torch has oneDNN's operator."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    known = importlib.util.find_spec("llvmlite")  # knows the processor, and comes with Numba
    if not wide or not known or not hasattr(torch.ops.mkldnn, OPERATOR):
        return False
    from llvmlite import binding

    return bool(binding.get_host_cpu_name().startswith("znver"))


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, E) times the transpose of weight (K, E): (N, K)."""
    if not _by_onednn(x, weight):
        return linear(x, weight)
    rows = x.shape[0]
    return _onednn(pad(x, (0, 0, 0, -rows % _step(rows))), weight)[:rows]


def input_gradient(grad: Tensor, weight: Tensor, onto: Tensor | None = None) -> Tensor:
    """grad (N, K), of a product, times weight (K, E): (N, E), added onto a tensor if given."""
    if not _by_onednn(grad, weight):
        return grad @ weight if onto is None else onto.addmm_(grad, weight)
    total = grad.new_zeros(grad.shape[0], weight.shape[1]) if onto is None else onto
    for run, times in _runs(grad.shape[0]):
        total[run].add_(times(grad[run], weight.t()))
    return total


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The transpose of grad (N, K), of a product, times x (N, E): (K, E)."""
    if not _by_onednn(grad, x):
        return grad.t() @ x
    # Transposed, since oneDNN is the faster the fewer rows the first matrix has.
    parts = (times(x[run].t(), grad[run].t()) for run, times in _runs(grad.shape[0]))
    return functools.reduce(Tensor.add_, parts).t().contiguous()


def _by_onednn(rows: Tensor, other: Tensor) -> bool:
    """Whether oneDNN is to multiply these; it refuses empty ones."""
    fit = (x.device.type == "cpu" and x.dtype == torch.float32 for x in (rows, other))
    return rows.shape[0] >= FEW and rows.numel() > 0 and all(fit) and prefers_onednn()


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    made: Tensor = getattr(torch.ops.mkldnn, OPERATOR)(x, weight, None, "none", [], "")
    return made


def _step(rows: int) -> int:
    """What numbers of about this many rows are multiples of: eight of them to a power of two."""
    return 1 << max(rows.bit_length() - 4, 0)


def _runs(rows: int) -> Iterator[tuple[slice, Callable[[Tensor, Tensor], Tensor]]]:
    """Runs of rows of few different sizes, each with what multiplies it."""
    start = 0
    while rows - start >= FEW:
        left = min(rows - start, MANY)
        stop = start + left - left % _step(left)
        yield slice(start, stop), _onednn
        start = stop
    if start < rows:
        yield slice(start, rows), linear
