"""matplotlib, without what it logs when it is imported: where it keeps its files without a home.

Every module imports matplotlib's names from here. Raises OutputError if matplotlib finds no folder
for its files, neither in the home folder nor a temporary one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from srucli.errors import OutputError


@contextmanager
def _imported() -> Iterator[None]:
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except OSError as error:
        raise OutputError(
            "plots need a folder for matplotlib's files; "
            "set MPLCONFIGDIR to one that can be written"
        ) from error
    finally:
        logger.setLevel(before)


with _imported():
    from matplotlib import colormaps, rc_context, rcdefaults, rcParams
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.font_manager import (
        FontEntry,
        findSystemFonts,
        fontManager,
        get_font,
        weight_dict,
    )
    from matplotlib.ticker import FuncFormatter, NullFormatter

__all__ = [
    "Figure",
    "FontEntry",
    "FuncFormatter",
    "NullFormatter",
    "PowerNorm",
    "colormaps",
    "findSystemFonts",
    "fontManager",
    "get_font",
    "rcParams",
    "rc_context",
    "rcdefaults",
    "weight_dict",
]
