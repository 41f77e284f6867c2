"""The announcement that kernels are compiled: at the first compilation, not if a cache has them."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TextIO

import pytest
from numba.core import event

from srucli.kernels.jit import COMPILING, Announcement

SOURCE = """
from srucli.kernels.jit import njit

@njit(cache=True)
def double(x):
    return 2 * x

@njit(cache=True)
def triple(x):
    return 3 * x
"""


def loaded(name: str, path: Path) -> Any:
    """Return the module `name`, executed anew as in another process."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Noting(io.StringIO):
    """A stream that notes what stderr was when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.stderr: list[TextIO] = []

    def write(self, text: str) -> int:
        self.stderr.append(sys.stderr)
        return super().write(text)


def said(call: Callable[[], object]) -> str:
    """Return what a new announcement says during a call, although stderr is muted then."""
    with redirect_stderr(Noting()) as stream:
        announcement = Announcement()
    with (
        event.install_listener("numba:compile", announcement),
        redirect_stderr(io.StringIO()) as muted,
    ):
        call()
    assert muted.getvalue() == ""
    assert all(each is muted for each in stream.stderr), "another thread's stderr was redirected"
    return stream.getvalue()


def test_only_a_cold_cache_is_announced_and_once(tmp_path: Path) -> None:
    file = tmp_path / "fresh.py"
    file.write_text(SOURCE)

    def run(name: str) -> str:
        module = loaded(name, file)
        return said(lambda: (module.double(2), module.triple(2)))

    assert run("srucli.kernels.fresh") == f"{COMPILING}\n"
    assert run("srucli.kernels.fresh") == ""


@pytest.mark.parametrize("name", ["fresh", "sruclient"])
def test_code_of_others_is_not_announced(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.py"
    file.write_text(SOURCE)
    assert said(lambda: loaded(name, file).double(2)) == ""


def test_a_closed_stderr_hinders_no_compilation(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text(SOURCE)
    with open(tmp_path / "log.txt", "w") as stream, redirect_stderr(stream):
        announcement = Announcement()
    with event.install_listener("numba:compile", announcement):
        assert loaded("srucli.kernels.late", file).double(2) == 4
    assert announcement.said
