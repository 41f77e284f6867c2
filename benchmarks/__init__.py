"""Measurements against other tools. Not part of the installed package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra() -> Iterator[None]:
    """Exit with one sentence if a block imports a package that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed; run: pip install '.[benchmarks]'")
