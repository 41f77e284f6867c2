"""Python's warnings, shown to the people who run a command, or kept from them."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from srucli.io.console import warn

_HARMLESS = (
    # What packages say without a writable /dev/shm, for locks that srucli never uses.
    "joblib will operate in serial mode",
    "Could not obtain multiprocessing lock",
    # Of older NumPy, where numbers below the smallest normal one count as zero to save time.
    "The value of the smallest subnormal for .* is zero",
)


def show_warnings() -> None:
    """Show each Python warning in this process as a sentence, without the code that warned.

    Only processes of commands call this. It does nothing if the user chose how Python warns.
    """
    if sys.warnoptions:
        return
    for words in _HARMLESS:
        warnings.filterwarnings("ignore", f"(?s).*{words}")
    warnings.showwarning = _show


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(str(message).strip().partition("\n")[0])
