"""Numba, without the settings of a `.numba_config.yaml` in the current folder.

Such a file may name a folder of compiled code, which would be run. Every module imports Numba's
functions from here.
"""

from __future__ import annotations

import functools
from threading import Thread
from typing import TYPE_CHECKING

from numba import get_num_threads, njit, prange, set_num_threads  # noqa: F401
from numba.core import config

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

config._config_fname = ""
config.reload_config()  # type: ignore[no-untyped-call]


@functools.cache
def launch_threads() -> None:
    """Let Numba start its threads, once per process.

    This changes torch's thread count for the calling Python thread, so a short-lived thread calls.
    """
    starter = Thread(target=get_num_threads)
    starter.start()
    starter.join()


def array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values as an array that compiled functions take."""
    return tensor.detach().contiguous().numpy()
