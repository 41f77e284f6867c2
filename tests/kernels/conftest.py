"""Kernels are tested with two threads, because some errors show only if threads run at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from srucli.kernels import threads
from srucli.runtime import use_threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "MIN_WORK", 1)  # so that small cases are shared too
    with use_threads(2):
        yield
