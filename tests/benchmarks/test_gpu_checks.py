"""The checks of the GPU benchmark on a CPU: tests and sanitizer, captures, reruns, memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_checks, gpu_reruns, gpu_runs
from benchmarks.speed import Report, Setup
from tests.support import QUICK, RunMain, sentences, write_tsv

SETUP = Setup(device="cpu", kernel="cpu", rounds=1)
TESTS = """
import pytest
def test_passes(): pass
def test_fails(): assert 0
@pytest.mark.skip
def test_is_skipped(): pass
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
"""
SANITIZER = """#!/bin/sh
case $2 in
  memcheck) echo '========= ERROR SUMMARY: 0 errors' ;;
  *) echo '========= RACECHECK SUMMARY: 2 hazards displayed'; exit 9 ;;
esac
"""


def rows(report: Report, part: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(str(report))[part]
    return found


def test_tests_are_counted_and_a_failed_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_checks, "sanitizer", lambda: None)
    monkeypatch.setattr(gpu_checks, "PROCESSES", 0)
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    (tmp_path / "pytest.ini").touch()  # so that names of tests begin here, wherever the checkout is
    report = Report({})
    with pytest.raises(RuntimeError, match="2 failed: test_some::test_fails; test_some::test_err"):
        gpu_checks.measure_tests(SETUP, report, [str(file)])
    tests, memcheck, _ = rows(report, "tests")
    assert [tests[key] for key in ("passed", "failed", "skipped")] == [1, 2, 1]
    assert memcheck["summary"] == "not measured: compute-sanitizer is not installed"
    assert "| pytest | 1 passed, 2 failed, 1 skipped | " in capsys.readouterr().out


def test_no_test_is_not_a_success(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text("<testsuites><testsuite tests='0'/></testsuites>")
    assert gpu_checks.test_results(tmp_path / "tests.xml")["failures"] == ["no test was found"]


def test_what_the_sanitizer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(SANITIZER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpu_checks.sanitizer() == str(program)
    found = gpu_checks.sanitized("memcheck", SETUP)
    assert found == {"summary": "ERROR SUMMARY: 0 errors", "failures": []}
    found = gpu_checks.sanitized("racecheck", SETUP)
    assert found["summary"] == "RACECHECK SUMMARY: 2 hazards displayed"
    assert found["failures"]
    program.write_text("#!/bin/sh\necho cannot inject; exit 1")
    found = gpu_checks.sanitized("memcheck", SETUP)
    assert found == {"summary": "not measured: cannot inject (exit code 1)", "failures": []}


def test_the_kernels_for_the_sanitizer() -> None:
    gpu_checks.odd_kernels("cpu", "cpu")


def test_capture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU nothing is captured, and nothing waits."""
    monkeypatch.setattr(gpu_checks, "TEXTS", 10)  # cannot be balanced
    report = Report({})
    gpu_checks.measure_capture(SETUP, report)
    found = rows(report, "capture")
    assert [row["case"] for row in found] == [case.name for case in gpu_checks.CAPTURE_CASES]
    for row in found:
        assert (row["steps"], row["captured"], row["graphs"], row["warnings"]) == (6, False, 0, [])
        assert min(row["losses"][1:]) < row["losses"][0]
        assert row["as_expected"]
    assert len({row["losses"][0] for row in found[1:]}) == len(found) - 1
    assert capsys.readouterr().out.count("| yes |") == len(found)


def test_what_is_expected_on_a_gpu() -> None:
    held: dict[str, Any] = {"captured": True, "graphs": 1, "warnings": [], "losses": [2.0, 1.0]}
    held["skipped"] = 0
    launched = held | {"captured": False, "graphs": 0, "warnings": ["one by one"]}
    assert gpu_checks.is_expected(held, waits=False, on_gpu=True)
    assert gpu_checks.is_expected(launched, waits=True, on_gpu=True)
    for row in (
        held | {"graphs": 0},
        held | {"warnings": ["another"]},
        held | {"losses": [1.0, 0.0]},
        held | {"skipped": 1},
        launched,
    ):
        assert not gpu_checks.is_expected(row, waits=False, on_gpu=True)
    for row in (held, launched | {"warnings": 2 * ["one by one"]}, launched | {"warnings": []}):
        assert not gpu_checks.is_expected(row, waits=True, on_gpu=True)


def test_steps_that_fail_the_check_fail_the_part(capsys: pytest.CaptureFixture[str]) -> None:
    """A CPU captures nothing, which is not expected of a GPU."""
    with pytest.raises(RuntimeError, match="not as expected: a new step after it"):
        gpu_checks.measure_capture(Setup("cpu:0"), Report({}), gpu_checks.CAPTURE_CASES[1:2])
    assert "| NO |" in capsys.readouterr().out


def test_a_case_that_raises_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(gpu_checks, "wait", fails)
    report = Report({})
    with pytest.raises(RuntimeError, match=r"not as expected: waits for the GPU \(it raised\)$"):
        gpu_checks.measure_capture(SETUP, report, gpu_checks.CAPTURE_CASES[:2])
    assert [row["case"] for row in rows(report, "capture")] == ["a new step after it"]


def test_reruns(tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands but the one that is stopped run in this process."""

    def here(*arguments: object) -> str:
        done = run_main(*arguments)
        assert done.code == 0, done.err
        return done.out

    monkeypatch.setattr(gpu_runs, "srucli", here)
    monkeypatch.setattr(gpu_reruns, "PAUSE", 0)
    monkeypatch.setattr(gpu_reruns, "PRECISIONS", ("float32",))
    monkeypatch.setattr(gpu_reruns, "TEXTS", 16)
    (tmp_path / "made").mkdir()
    write_tsv(tmp_path / "made" / "train.tsv", sentences())
    write_tsv(tmp_path / "made" / "test.tsv", sentences())
    report = Report({})
    gpu_reruns.measure_reruns(replace(SETUP, data=tmp_path, sets=("made",), flags=QUICK), report)
    found = rows(report, "reruns")
    assert [row["run"] for row in found] == list(gpu_reruns.RERUNS)
    assert {row["sha256"] for row in found} == {found[0]["sha256"]}
    assert "in epoch 2 of 3" in found[2]["said"]
    assert 0 < found[0]["start_seconds"] < found[0]["seconds"]
    assert [row["epoch"] for row in rows(report, "graphs")] == [1, 2, 3, 4, 5]
