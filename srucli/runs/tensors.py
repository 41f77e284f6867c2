"""Safetensors files: written, and untrusted ones read within limits and compared with tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from srucli.errors import DataError
from srucli.io.console import MAX_REASON, beginning, excerpt
from srucli.io.files import COPY_AGAIN
from srucli.io.memory import ran_out

# Limits of a safetensors file's header in bytes: for each tensor, for the rest, and in all.
HEADER_OF_TENSOR, HEADER, MAX_HEADER = 4096, 2**16, 2**22
# Tensors with the expected names, shapes and dtypes; they may be on the meta device.
Shapes = Mapping[str, Tensor]


def max_bytes(shapes: Shapes) -> int:
    """Return an upper limit in bytes of a safetensors file with such tensors."""
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in shapes.values())
    return HEADER + HEADER_OF_TENSOR * len(shapes) + numbers


def file_of(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors, each contiguous and with memory of its own, as a file. Raises MemoryError."""
    _check_room(2 * max_bytes(tensors))  # safetensors copies the file once more
    return save({**tensors})


def _check_room(size: int) -> None:
    """Raise MemoryError if as many bytes cannot be allocated: safetensors would panic instead.

    That is so under a limit of memory (ulimit -v). Without one, Linux promises any amount, and
    nothing fails here.
    """
    np.empty(size, np.uint8)


def tensors_of(data: bytes, source: str) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file. Raises DataError naming `source`, MemoryError."""
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        problem = f"damaged: its header is larger than the {MAX_HEADER:,} bytes that it can need"
        raise DataError(source, None, problem, COPY_AGAIN)
    _check_room(len(data))
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        if ran_out(error):
            raise
        # The message repeats names and types from the file.
        problem = f"damaged ({beginning(str(error), MAX_REASON)})"
        raise DataError(source, None, problem, COPY_AGAIN) from error


def check_fit(weights: Mapping[str, Tensor], shapes: Shapes, source: str) -> None:
    """Check names, shapes, dtypes and values of weights. Raises DataError naming `source`."""
    found, wanted = (
        {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        for tensors in (weights, shapes)
    )
    for name in [*shapes, *weights]:
        if found.get(name) != wanted.get(name):
            problem = f"the weights do not fit config.yaml (see {excerpt(name)})"
            raise DataError(source, None, problem, COPY_AGAIN)
        if not bool(weights[name].isfinite().all()):
            problem = f"damaged: a weight in '{name}' is NaN or Inf"
            remedy = f"{COPY_AGAIN}, or train again, with a lower optim.lr"
            raise DataError(source, None, problem, remedy)
