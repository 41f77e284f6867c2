"""Safetensors files that anybody may have written: bounded, and compared with what is expected."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from srucli.errors import DataError
from srucli.io.console import escaped
from srucli.io.files import COPY_AGAIN

# Of a safetensors file, what is not numbers: for each tensor, and besides.
HEADER_OF_TENSOR, HEADER, MAX_HEADER = 4096, 2**16, 2**22
# Tensors, as on the meta device, whose names, shapes and dtypes are expected.
Shapes = Mapping[str, Tensor]


def most_bytes(shapes: Shapes) -> int:
    """Return the size in bytes of the largest safetensors file that can hold such tensors."""
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in shapes.values())
    return HEADER + HEADER_OF_TENSOR * len(shapes) + numbers


def tensors_of(data: bytes, source: str) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file. Raises DataError naming `source`."""
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        problem = f"damaged: its header is larger than the {MAX_HEADER:,} bytes that it can need"
        raise DataError(source, None, problem, COPY_AGAIN)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        # What it says repeats names and types as they stand in the file.
        problem = f"damaged ({escaped(str(error)[:200])})"
        raise DataError(source, None, problem, COPY_AGAIN) from error


def check_fit(weights: Mapping[str, Tensor], shapes: Shapes, source: str) -> None:
    """Refuse weights of other names, shapes or dtypes. Raises DataError naming `source`."""
    for name in [*shapes, *weights]:
        found, wanted = weights.get(name), shapes.get(name)
        same = found is not None and wanted is not None
        if not same or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):  # type: ignore[union-attr]
            problem = f"the weights do not fit config.yaml (see {name[:99]!r})"
            raise DataError(source, None, problem, COPY_AGAIN)
