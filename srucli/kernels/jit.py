"""Numba, without the settings that it takes from a `.numba_config.yaml` in the current folder.

They may name a folder of compiled code, which would be run. Every module gets Numba from here.
"""

from __future__ import annotations

from numba import get_num_threads, njit, prange, set_num_threads
from numba.core import config

__all__ = ["config", "get_num_threads", "njit", "prange", "set_num_threads"]

config._config_fname = ""
config.reload_config()  # type: ignore[no-untyped-call]
