"""The table of back ends, and the choice of one.

A new back end is one more row. Its modules are imported at their first use, since the packages that
they need may not be installed.
"""

from __future__ import annotations

import functools
import os
import warnings
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from srucli.errors import UsageError

SMALL = (torch.bfloat16, torch.float16)


class Backend(NamedTuple):
    """One back end.

    sru: the module whose `forward` and `backward` compute what those of `reference` do.
    pool: the module whose `pool` and `pool_backward` do.
    rows: the module whose `sum_rows` does.
    loss: the module whose `cross_entropy` does.
    widens: whether `sru` must get small dtypes as float32. All back ends compute in float32.
    package: what the modules need in addition to torch.
    device, dtypes: of the tensors that they accept; None for all.
    capturable: whether a CUDA graph can capture them.
    """

    sru: str
    pool: str
    rows: str = "srucli.kernels.reference"
    loss: str = "srucli.kernels.reference"
    widens: bool = False
    package: str | None = None
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    capturable: bool = False

    def widened(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """Return the tensors in the dtype in which `sru` reads them."""
        return [
            each.float() if self.widens and each is not None and each.dtype in SMALL else each
            for each in tensors
        ]


BACKENDS: dict[str, Backend] = {
    "reference": Backend("srucli.kernels.reference", "srucli.kernels.reference", widens=True),
    "cpu": Backend(
        "srucli.kernels.cpu_sru",
        "srucli.kernels.cpu_pool",
        package="numba",
        device="cpu",
        dtypes=(torch.float32,),
    ),
    "triton": Backend(
        "srucli.kernels.triton_sru",
        "srucli.kernels.triton_pool",
        "srucli.kernels.triton_rows",
        "srucli.kernels.triton_loss",
        package="triton",
        device="cuda",
        dtypes=(torch.float32, *SMALL),
        capturable=True,
    ),
}


@functools.cache
def fastest(device: str, dtype: torch.dtype) -> str:
    """Return the back end for tensors of this device type and dtype; warn if it is a slow one."""
    for name, row in BACKENDS.items():
        if row.package and row.device == device and dtype in (row.dtypes or ()):
            if find_spec(row.package):
                return name
            warnings.warn(
                f"{row.package} is not installed: the SRU runs as a loop in torch, several times "
                f"slower; `pip install {row.package}`",
                stacklevel=4,
            )
    return "reference"


def choose(kernel: str, device: str, dtype: torch.dtype = torch.float32) -> str:
    """Return the back end that `kernel`, a name or auto, means for this device type and dtype.

    Raises UsageError if there is none of that name, or if it cannot run here.
    """
    if kernel == "auto":
        return fastest(device, dtype)
    if kernel not in BACKENDS:
        raise UsageError(f"kernel {kernel}: there are auto, {', '.join(BACKENDS)}")
    row = BACKENDS[kernel]
    if row.package and not find_spec(row.package):
        raise UsageError(f"kernel {kernel} needs {row.package}: pip install {row.package}")
    interpreted = kernel == "triton" and os.environ.get("TRITON_INTERPRET") == "1"  # on any device
    if row.device not in (None, device) and not interpreted:
        raise UsageError(f"kernel {kernel} runs on a {row.device} device, not on {device}")
    if row.dtypes is not None and dtype not in row.dtypes:
        names = ", ".join(str(each).removeprefix("torch.") for each in row.dtypes)
        raise UsageError(f"kernel {kernel} takes {names}, not {dtype}")
    return kernel


def can_be_captured(kernel: str) -> bool:
    """Return whether CUDA graphs can capture `kernel` on a GPU. Raises UsageError."""
    return BACKENDS[choose(kernel, "cuda")].capturable


def backend_for(kernel: str, like: Tensor) -> Backend:
    """Return the row that `kernel` means for tensors like this one. Raises UsageError."""
    return BACKENDS[choose(kernel, like.device.type, like.dtype)]
