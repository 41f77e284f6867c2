"""The GPU benchmark without a GPU: its command line, its report, and each part on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gpu, gpu_checks, gpu_layers, gpu_runs, gpu_sweep
from benchmarks.speed import Quartiles, Report, Setup, ragged_lengths
from tests.support import ROOT

SETUP = Setup(device="cpu", kernel="cpu", rounds=1)
REFERENCE = Setup(device="cpu", kernel="reference", rounds=1)
bf16 = torch.bfloat16


def through_json(report: Report) -> dict[str, Any]:
    """Return the report as a program reads it."""
    read: dict[str, Any] = json.loads(str(report))
    return read


def is_time(quartiles: Quartiles) -> bool:
    low, middle, high = quartiles
    return 0 < low <= middle <= high


def test_without_a_gpu_one_sentence_and_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "-o", "never.json"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "there is no GPU that torch can use: nothing is measured\n"
    assert not (ROOT / "never.json").exists()


def test_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert gpu.refusal() is None
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "unset it" in str(gpu.refusal())
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert "pip install triton" in str(gpu.refusal())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--parts", "layers,stairs"], "unknown part stairs: there are tests, capture, reruns"),
        (["-o", "missing/gpu.json"], "-o missing/gpu.json: its folder does not exist"),
    ],
)
def test_usage_errors(
    given: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", *given])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_gpu_tests_are_there() -> None:
    """The files exist, and so does the test that is excluded on a GPU."""
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in gpu_checks.TESTS}
    file, _, name = gpu_checks.DESELECTED.partition("::")
    assert f"def {name}(" in texts[file]
    assert all("there is no GPU" in text for text in texts.values())


def test_a_part_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in its own process. The file and the last line have everything; the exit code is 1."""
    output = tmp_path / "gpu.json"
    parts = ["--device", "cpu", "--data", str(tmp_path), "--parts", "prediction"]
    monkeypatch.setattr(sys, "argv", ["gpu", *parts, "-o", str(output)])
    with pytest.raises(SystemExit, match="failed: prediction"):
        gpu.main()
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    assert json.loads(output.read_text()) == found
    assert "has no train and test" in found["parts"]["prediction"]["failed"]
    assert found["parts"]["prediction"]["seconds"] > 0
    assert found["machine"]["torch"] == torch.__version__
    assert "\n| prediction | " in said


def test_a_part_adds_to_the_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its process. What it measured before it failed stays, and so do others' values."""

    def fails(setup: Setup, report: Report) -> None:
        report.add("layers", {"rounds": setup.rounds})
        assert json.loads(output.read_text())["layers"] == [{"rounds": 7}]
        raise RuntimeError("out of memory")

    output = tmp_path / "gpu.json"
    output.write_text('{"steps": [1]}')
    monkeypatch.setitem(gpu.PARTS, "layers", gpu.Part(fails, 9))
    given = ["--device", "cpu", "--rounds", "7", "--parts", "layers", "--in-process"]
    monkeypatch.setattr(sys, "argv", ["gpu", *given, "-o", str(output)])
    gpu.main()
    found = json.loads(output.read_text())
    assert found["steps"] == [1]
    assert found["layers"] == [{"rounds": 7}]
    assert found["parts"]["layers"]["failed"] == "RuntimeError: out of memory"
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_a_process_that_hangs_or_dies_is_reported(tmp_path: Path) -> None:
    """Its child is killed with it, which may hold the GPU."""
    pid = tmp_path / "pid"
    hangs = ["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"]
    assert gpu.run_apart(hangs, 0.3) == "killed after 0.3 s"
    child = Path("/proc") / pid.read_text().strip() / "stat"
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        sleep(0.01)
    assert gpu.run_apart(["sh", "-c", "kill -9 $$"], 9) == "ended by signal 9"
    assert gpu.run_apart(["sh", "-c", "exit 3"], 9) == "exit code 3"
    assert gpu.run_apart(["true"], 9) is None


def test_the_machine() -> None:
    found = gpu.machine()
    assert found["torch"] == torch.__version__
    assert {"driver", "cuda", "cudnn", "triton", "numpy", "python", "date"} <= found.keys()


def test_tables_of_cases() -> None:
    for dtype in (bf16, torch.float32):
        cases = {case[4:] for case in gpu_layers.KERNEL_CASES if case.dtype == dtype}
        assert cases == {(d, k) for d in (1, 2) for k in (3, 4)}
    shapes = {case[:3] for case in gpu_layers.LAYER_CASES}
    assert shapes == {(32, 32, 256), (128, 32, 512), (256, 128, 512)}
    assert {case.middle for case in gpu_layers.RAGGED_CASES} == {25, 230}
    assert len(gpu_runs.STEP_CASES) == 4


@pytest.mark.parametrize("setup", [SETUP, REFERENCE], ids=["cpu", "reference"])
@pytest.mark.parametrize(("directions", "planes"), [(1, 3), (2, 4)])
def test_kernels(
    setup: Setup, directions: int, planes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report({})
    case = gpu_layers.KernelCase(3, 2, 8, torch.float32, directions, planes)
    gpu_layers.measure_kernels(setup, report, [case])
    rows = through_json(report)["kernels"]
    assert [row["pass"] for row in rows] == list(gpu_layers.ELEMENTS)
    for row in rows:
        assert row["dtype"] == "float32"
        assert row["bytes"] == gpu_layers.ELEMENTS[row["pass"]] * 6 * 8 * 4
        assert is_time(row["ms"]["kernel"])
        assert is_time(row["ms"]["copy"])
    assert capsys.readouterr().out.count("| backward |") == 1


def test_a_copy_moves_the_given_number_of_bytes() -> None:
    target: Any = gpu_layers.copy_run(64, "cpu")()
    assert 2 * target.nbytes == 64


@pytest.mark.parametrize(
    ("setup", "dtype"),
    [(SETUP, torch.float32), (REFERENCE, bf16), (REFERENCE, torch.float16)],
    ids=["float32", "bfloat16", "float16"],
)
def test_layers(setup: Setup, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({})
    gpu_layers.measure_layers(setup, report, [gpu_layers.LayerCase(3, 2, 8, dtype)])
    (row,) = through_json(report)["layers"]
    assert row["way"] == "eager"
    assert row["cudnn"] is False
    assert list(row["ms"]) == ["srucli", "lstm", "gru", "floor"]
    assert all(map(is_time, row["ms"].values()))
    assert "TF32 in cuDNN" in row["tf32"]
    assert "| 3, 2, 8 |" in capsys.readouterr().out


def test_operators() -> None:
    report = Report({})
    gpu_sweep.measure_operators(SETUP, report, [gpu_sweep.OperatorCase(9, 4, 3)])
    rows = through_json(report)["operators"]
    assert [row["operator"] for row in rows] == ["rows", "loss"]
    assert all(is_time(row["ms"][name]) for row in rows for name in ("srucli", "torch"))


def test_a_sweep_compares_choices(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton")
    report, case = Report({}), gpu_layers.KernelCase(3, 2, 8, torch.float32, 2, 3)
    gpu_sweep.measure_sweep(SETUP, report, [case], [(128, 4, 2), (512, 2, 4)])
    rows = through_json(report)["sweep"]
    assert [row["pass"] for row in rows] == list(gpu_sweep.PASSES)
    assert [each["bytes"] for each in rows[0]["ms"]] == [128, 512]
    assert all(is_time(row["own"]) for row in rows)
    assert "own / fastest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setup", "dtype"),
    [(SETUP, torch.float32), (REFERENCE, bf16)],
    ids=["float32", "bfloat16"],
)
def test_ragged(setup: Setup, dtype: torch.dtype) -> None:
    report = Report({})
    gpu_layers.measure_ragged(setup, report, [gpu_layers.RaggedCase(4, 3, 6, 5, dtype)])
    (row,) = through_json(report)["ragged"]
    assert row["tokens"] == sum(ragged_lengths(4, 3))
    assert is_time(row["ms"]["lstm"])


INTERPRETED = """
import torch
from benchmarks import gpu_checks, gpu_layers as layers
from benchmarks.speed import Report, Setup
setup, report = Setup("cpu", "triton", 1), Report({})
layers.measure_kernels(setup, report, [layers.KernelCase(3, 2, 8, torch.bfloat16, 2, 4)])
layers.measure_ragged(setup, report, [layers.RaggedCase(2, 2, 6, 5, torch.float16)])
gpu_checks.ODD_LENGTHS = (1, 0)
gpu_checks.odd_kernels("cpu", "triton")
print(report)
"""


def test_tritons_kernels_in_the_interpreter() -> None:
    """The same inputs and dtypes as on a GPU."""
    pytest.importorskip("triton", reason="Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this release of Triton cannot interpret kernels with this release of NumPy")
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {part: len(rows) for part, rows in found.items()} == {"kernels": 3, "ragged": 1}


def test_only_the_matrices_of_an_sru_have_the_dtype() -> None:
    case = gpu_layers.LayerCase(3, 2, 8, bf16)
    grads: Any = gpu_layers.layer_runs(case, REFERENCE)["srucli"]()
    assert [grad.dtype for grad in grads] == [bf16, bf16, torch.float32, torch.float32]


def test_a_packed_batch_gets_gradients_for_all_rows() -> None:
    case = gpu_layers.RaggedCase(4, 3, 6, 5, torch.float32)
    grads: Any = gpu_layers.ragged_runs(case, SETUP)["lstm"]()
    assert grads[0].shape == (sum(ragged_lengths(4, 3)), 6)
    assert all(isinstance(grad, Tensor) and grad.abs().sum() > 0 for grad in grads)


def test_a_system_that_cannot_run_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise RuntimeError("not supported")

    times = gpu_layers.ways({"srucli": lambda: None, "lstm": fails, "gru": lambda: None}, SETUP)
    assert list(times["eager"]) == ["srucli", "gru"]
    assert gpu_layers.ratio(times["eager"], "lstm") == "-"
    assert capsys.readouterr().err == "lstm: left out: not supported\n"
    with pytest.raises(RuntimeError, match="not supported"):
        gpu_layers.ways({"srucli": fails}, SETUP)


def test_eager_times_are_kept_without_a_graph(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even for srucli, whose cells of the table are then empty."""
    on_gpu = Setup(device="cuda", rounds=1)
    measured = iter([{"srucli": [1.0, 2.0, 3.0]}, {}])
    monkeypatch.setattr(gpu_layers, "calls_for", lambda run, device: 1)
    monkeypatch.setattr(gpu_layers, "in_turn", lambda rows, setup: next(measured))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    times = gpu_layers.ways({"srucli": lambda: None}, on_gpu)
    assert times == {"eager": {"srucli": [1.0, 2.0, 3.0]}, "graph": {}}
    assert gpu_layers.own(times["eager"]) == "2.000 (1.000 to 3.000)"
    assert gpu_layers.own(times["graph"]) == "-"
    assert capsys.readouterr().err == "srucli: no CUDA graph can be made of it: none\n"
