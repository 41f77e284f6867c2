"""Python's warnings are sentences in commands."""

from __future__ import annotations

import sys
import warnings

import pytest

from srucli.io.python_warnings import show_warnings


@pytest.fixture(autouse=True)
def as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    warnings.resetwarnings()  # pytest undoes this


def test_a_warning_is_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings()
    warnings.warn("the driver is\x1b[2J too old\nSee the manual", stacklevel=1)
    assert capsys.readouterr().err == "the driver is\\x1b[2J too old\n"


def test_what_packages_say_of_locks_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings()
    warnings.warn("[Errno 30] Read-only.  joblib will operate in serial mode", stacklevel=1)
    warnings.warn("\nCould not obtain multiprocessing lock due to OS level error", stacklevel=1)
    assert capsys.readouterr().err == ""


def test_what_older_numpy_says_of_flushed_denormals_is_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_warnings()
    said = "The value of the smallest subnormal for <class 'numpy.float32'> type is zero."
    warnings.warn(said, stacklevel=1)
    assert capsys.readouterr().err == ""


def test_who_chose_how_python_warns_gets_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    before = warnings.showwarning
    show_warnings()
    assert warnings.showwarning is before
