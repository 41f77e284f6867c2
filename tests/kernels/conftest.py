"""Kernels are tested with two threads, because some errors show only if threads run at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from srucli.runtime import use_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with use_threads(2):
        yield
