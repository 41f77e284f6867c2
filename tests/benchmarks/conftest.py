"""Fixtures of the benchmarks over sets: `srucli` with a small network, in the tests' process."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import accuracy, encoders, raw_text, teachers
from tests.support import NETWORK, RunMain


@pytest.fixture
def commands(run_main: RunMain, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the commands that benchmarks run; trainings have a small network and two epochs."""
    run: list[tuple[Any, ...]] = []

    def small(*arguments: object) -> str:
        run.append(arguments)
        settings: dict[str, tuple[object, ...]]
        settings = {"eval": (), "predict": (), "pretrain": ("--embedding-size", 16, "--epochs", 1)}
        own = settings.get(str(arguments[0]), (*NETWORK, "train.epochs=2"))
        done = run_main(*arguments, *own)
        assert done.code == 0, done.err
        return done.out

    for module in (accuracy, encoders, raw_text, teachers):
        monkeypatch.setattr(module, "srucli", small)
    return run
