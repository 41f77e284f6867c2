"""The GPU benchmark without a GPU: its arithmetic, its tables, and each measurement on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType

from benchmarks import gpu
from srucli.config import Config
from srucli.kernels import cpu

ROOT = Path(__file__).parents[2]
SETUP = gpu.Setup(device="cpu", kernel="cpu", rounds=2, flush_mib=1)
REFERENCE = SETUP._replace(kernel="reference")
bf16 = torch.bfloat16


def report_for(setup: gpu.Setup) -> dict[str, Any]:
    return gpu.empty_report(setup) | {"copy_gb_per_s": [9.0, 10.0, 11.0]}


def through_json(report: dict[str, Any]) -> dict[str, Any]:
    """As a program reads it; NaN and infinity are no JSON."""
    read: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return read


def refused(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "-o", "never.json"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
    )


def test_without_a_gpu_one_sentence_and_code_2() -> None:
    done = refused()
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


def test_an_unknown_part_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--parts", "layers,stairs"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert (
        "unknown part stairs: there are kernels, layers, ragged, steps" in capsys.readouterr().err
    )


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["pydantic", "yaml", "sentencepiece", "numba", "tqdm", "pytest"]))
from benchmarks import gpu
setup = gpu.Setup("cpu", "reference", 1, 1)
report = gpu.empty_report(setup) | {"copy_gb_per_s": [1, 1, 1]}
gpu.measure_layers([gpu.LayerCase(3, 2, 8, gpu.torch.float32)], setup, report)
gpu.measure_steps([gpu.StepCase(2, 2, "float32")], setup, report)
"""


def test_it_needs_no_more_than_torch_numpy_and_the_checkout() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert any(row.startswith("| 3, 2, 8 | float32 | eager |") for row in rows)
    assert any(row.startswith("| 2 | 2 | float32 |") for row in rows)


def test_a_steps_settings_are_the_defaults() -> None:
    config = Config()
    wanted = {
        name: getattr(config, name).model_dump(mode="json")
        for name in ("data", "model", "optim", "train")
    }
    wanted["model"]["dropout_rate"] = config.model.dropout_rate
    assert json.loads(gpu.SETTINGS.read_text(encoding="utf-8")) == wanted


def test_tests_are_left_out_where_what_they_need_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "pydantic" else object())
    assert gpu.tests_pass()
    ((*_, last, _),) = commands
    assert last == "tests/kernels/test_triton.py"
    said = capsys.readouterr().err
    assert said == "tests/training/test_step.py is left out: it needs pydantic\n"


def test_byte_floors() -> None:
    rows = 256 * 128
    assert gpu.byte_floor(rows, 512, bf16, "forward") == 5 * 2 * rows * 512
    assert gpu.byte_floor(rows, 512, bf16, "forward, states kept") == 6 * 2 * rows * 512
    assert gpu.byte_floor(rows, 512, torch.float32, "backward") == 10 * 4 * rows * 512


def test_tables_of_cases() -> None:
    kernels = gpu.kernel_cases()
    assert {case[:3] for case in kernels} == {(256, 128, 512)}
    combinations = {(d, k) for d in (1, 2) for k in (3, 4)}
    for dtype in (bf16, torch.float32):
        assert {case[4:] for case in kernels if case.dtype == dtype} == combinations
    shapes = {case[:3] for case in gpu.layer_cases()}
    assert shapes == {(32, 32, 256), (128, 32, 512), (256, 128, 512)}
    assert {case.middle for case in gpu.ragged_cases()} == {25, 230}
    steps = {case[:2] for case in gpu.step_cases()}
    assert steps == {(texts, classes) for texts in (32, 256) for classes in (2, 20)}


def test_ragged_lengths_are_log_normal_and_repeat() -> None:
    lengths = gpu.ragged_lengths(25, 500)
    assert lengths == gpu.ragged_lengths(25, 500)
    assert 22 <= sorted(lengths)[250] <= 28
    assert min(lengths) >= 1
    assert max(lengths) <= gpu.LONGEST
    assert gpu.offsets_of([3, 0, 2]).tolist() == [0, 3, 3, 5]


def test_quartiles_and_cells() -> None:
    assert gpu.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == [2.0, 3.0, 4.0]
    assert gpu.shown([1.0, 2.0, 3.0], 1) == "2.0 (1.0 to 3.0)"
    assert gpu.shown(None) == "-"
    assert gpu.verdict(">= 85%", True) == ">= 85%: met"
    assert gpu.verdict(">= 85%", False) == ">= 85%: MISSED"
    assert gpu.verdict(">= 85%", None) == ""


def test_ratios_are_of_one_round() -> None:
    """A machine that slows down by half slows both down."""
    times = {"srucli": [1.0, 2.0, 1.0], "lstm": [20.0, 40.0, 20.0]}
    assert gpu.ratios(times) == {"lstm": [20.0, 20.0, 20.0]}


def test_a_layer_beside_its_floor() -> None:
    """16 elements a token and unit: 16 * 2 * 4096 * 512 bytes at 1000 GB/s are 0.067 ms."""
    case = gpu.LayerCase(128, 32, 512, bf16)
    times = {"srucli": [0.12] * 3, "lstm": [2.4] * 3, "gemms": [0.05] * 3}
    figures = gpu.layer_figures(case, times, copy=1000.0)
    assert figures["floor"][1] == pytest.approx(0.12 / (0.05 + 0.0671), rel=1e-3)
    assert figures["lstm"] == [20.0] * 3
    assert figures["gru"] is None
    assert gpu.layer_goals(case[:3], figures) == "LSTM >= 15: met, floor <= 1.3: met"
    figures |= {"lstm": [14.0] * 3, "floor": [1.4] * 3}
    assert gpu.layer_goals(case[:3], figures) == "LSTM >= 15: MISSED, floor <= 1.3: MISSED"
    assert gpu.layer_goals((32, 32, 256), figures) == "LSTM >= 20: MISSED"


def test_what_the_profiler_saw_on_the_gpu() -> None:
    def event(key: str, kind: DeviceType, microseconds: float, mark: bool = False) -> Any:
        return SimpleNamespace(
            key=key,
            count=20,
            device_type=kind,
            self_device_time_total=microseconds,
            is_user_annotation=mark,
        )

    events = [
        event("aten::mm", DeviceType.CPU, 500.0),
        event("Memcpy HtoD", DeviceType.CUDA, 100.0),
        event("gemm", DeviceType.CUDA, 500.0),
        event("Optimizer.step", DeviceType.CUDA, 900.0, mark=True),
    ]
    assert gpu.device_rows(events, calls=10) == [
        {"kernel": "gemm", "count": 2.0, "milliseconds": 0.05},
        {"kernel": "Memcpy HtoD", "count": 2.0, "milliseconds": 0.01},
    ]


def test_the_names_that_torchs_profiler_uses() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(2) @ torch.ones(2)
    for event in profile.key_averages():
        assert event.device_type == DeviceType.CPU
        assert event.count >= 1
        assert event.self_device_time_total == 0


def test_events_are_recorded_around_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def event(enable_timing: bool) -> Any:
        assert enable_timing
        return SimpleNamespace(
            record=lambda: said.append("record"),
            synchronize=lambda: said.append("synchronize"),
            elapsed_time=lambda end: 1.5,
        )

    monkeypatch.setattr(torch.cuda, "Event", event)
    took = gpu.time_of(lambda: said.append("run"), "cuda", lambda: said.append("before"))
    assert took == 1.5
    assert said == ["before", "record", "run", "record", "synchronize"]


def test_a_cpu_is_timed_too() -> None:
    assert gpu.time_of(lambda: sum(range(100_000)), "cpu") > 0.01
    assert gpu.copy_speed(SETUP)[1] > 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to make graphs with")
def test_where_no_graph_can_be_made_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.graphed(lambda: None, "lstm") is None
    assert capsys.readouterr().err.startswith("lstm: no CUDA graph can be made of it: ")


@pytest.mark.parametrize("setup", [SETUP, REFERENCE])
@pytest.mark.parametrize(("directions", "planes"), [(1, 3), (2, 4)])
def test_kernels(
    setup: gpu.Setup, directions: int, planes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_for(setup)
    case = gpu.KernelCase(3, 2, 8, torch.float32, directions, planes)
    gpu.measure_kernels([case], setup, report)
    rows = through_json(report)["kernels"]
    assert [row["pass"] for row in rows] == list(gpu.ELEMENTS)
    for row in rows:
        assert row["dtype"] == "float32"
        assert row["bytes"] == gpu.ELEMENTS[row["pass"]] * 6 * 8 * 4
        assert row["gb_per_s"] >= 0
        assert row["microseconds"] == sorted(row["microseconds"])
        assert len(row["microseconds"]) == 3
    assert capsys.readouterr().out.count("| backward |") == 1


@pytest.mark.parametrize(
    ("setup", "dtype"),
    [(SETUP, torch.float32), (REFERENCE, bf16), (REFERENCE, torch.float16)],
)
def test_layers(setup: gpu.Setup, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_for(setup)
    gpu.measure_layers([gpu.LayerCase(3, 2, 8, dtype)], setup, report)
    (row,) = through_json(report)["layers"]
    assert row["way"] == "eager"
    assert row["cudnn"] is False
    for name in ("milliseconds", "lstm", "gru", "floor"):
        low, middle, high = row[name]
        assert 0 < low <= middle <= high
    assert "TF32 in cuDNN" in report["tf32"]
    assert "| 3, 2, 8 |" in capsys.readouterr().out


INTERPRETED = """
import torch
from benchmarks import gpu
setup = gpu.Setup("cpu", "triton", 1, 1)
report = gpu.empty_report(setup) | {"copy_gb_per_s": [1, 1, 1]}
for dtype, case in ((torch.bfloat16, (1, 3)), (torch.float32, (2, 4))):
    gpu.measure_kernels([gpu.KernelCase(3, 2, 8, dtype, *case)], setup, report)
    gpu.measure_layers([gpu.LayerCase(3, 2, 8, dtype)], setup, report)
gpu.measure_ragged([gpu.RaggedCase(2, 2, 6, 5, torch.bfloat16)], setup, report)
print(gpu.kernels_agree(setup, [torch.float16]))
"""


def test_tritons_kernels_in_the_interpreter() -> None:
    """What a GPU is given, in the dtypes that it is given them, and with the right results."""
    pytest.importorskip("triton", reason="Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "True", done.stderr
    assert sum(" | backward | " in line for line in lines) == 2
    assert sum(" | eager | " in line for line in lines) == 3


def test_an_srus_matrices_take_the_dtype_and_its_vectors_do_not() -> None:
    case = gpu.LayerCase(3, 2, 8, bf16)
    grads: Any = gpu.layer_runs(case, REFERENCE)["srucli"]()
    assert [grad.dtype for grad in grads] == [bf16, bf16, torch.float32, torch.float32]


def test_a_system_that_cannot_run_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise RuntimeError("not supported")

    runs: dict[str, gpu.Run] = {"srucli": lambda: None, "lstm": fails, "gemms": lambda: None}
    times = gpu.ways(runs, SETUP)["eager"]
    assert list(times) == ["srucli", "gemms"]
    assert capsys.readouterr().err == "lstm: left out: not supported\n"
    with pytest.raises(RuntimeError, match="not supported"):
        gpu.ways({"srucli": fails}, SETUP)


@pytest.mark.parametrize(("setup", "dtype"), [(SETUP, torch.float32), (REFERENCE, bf16)])
def test_ragged(setup: gpu.Setup, dtype: torch.dtype) -> None:
    report = report_for(setup)
    gpu.measure_ragged([gpu.RaggedCase(4, 3, 6, 5, dtype)], setup, report)
    (row,) = through_json(report)["ragged"]
    assert row["tokens"] == sum(gpu.ragged_lengths(4, 3))
    assert row["lstm"][1] > 0
    assert row["middle"] == 4


def test_a_packed_batch_gives_gradients_of_all_it_holds() -> None:
    case = gpu.RaggedCase(4, 3, 6, 5, torch.float32)
    grads: Any = gpu.ragged_runs(case, SETUP)["lstm"]()
    assert grads[0].shape == (sum(gpu.ragged_lengths(4, 3)), 6)
    assert all(isinstance(grad, Tensor) and grad.abs().sum() > 0 for grad in grads)


def test_the_batch_of_a_step() -> None:
    batch = gpu.text_batch(gpu.StepCase(256, 20, "float32"), "cpu")
    tokens, offsets, targets = batch.tokens, batch.offsets, batch.targets
    assert targets is not None
    assert 22 <= offsets.diff().double().quantile(0.5) <= 28
    assert offsets[-1] == tokens.numel()
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < gpu.PIECES
    assert targets.shape == (256,)
    assert set(targets.tolist()) == set(range(20))
    codes, starts = gpu.spelling()
    assert len(starts) == gpu.PIECES + 1
    assert starts[-1] == len(codes)
    assert batch.characters == np.diff(starts)[tokens].sum() + 256


def test_steps(capsys: pytest.CaptureFixture[str]) -> None:
    setup = SETUP._replace(rounds=1)
    report = report_for(setup)
    gpu.measure_steps([gpu.StepCase(2, 2, "float32")], setup, report)
    (row,) = through_json(report)["steps"]
    assert row["milliseconds"][1] > 0
    # The profiler sees no GPU's kernels here, so there is no ratio to them.
    assert (row["kernel_milliseconds"], row["ratio"], row["slowest"]) == (0, None, [])
    said = capsys.readouterr().out
    assert "the ten kernels that take longest: 2 texts, 2 classes, float32" in said


def test_a_step_in_bfloat16() -> None:
    run: Any = gpu.classifier_step(gpu.StepCase(2, 20, "bf16"), "cpu")
    first = run()
    assert first.dtype == torch.float64
    assert first.isfinite()
    assert not torch.equal(first, run())


def test_steps_learn() -> None:
    """They are steps: the loss of the one batch falls."""
    torch.manual_seed(0)
    run: Any = gpu.classifier_step(gpu.StepCase(8, 2, "float32"), "cpu")
    losses = [float(run()) for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_comparison_without_pytest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It passes for kernels that are right, and not for wrong ones nor for NaN."""
    assert gpu.kernels_agree(SETUP, [torch.float32])
    assert gpu.kernels_agree(REFERENCE, [bf16, torch.float16])
    right = cpu.forward
    for wrong in (1e-4, float("nan")):

        def forward(*given: Any, wrong: float = wrong) -> Any:
            h, c, last = right(*given)
            return h + wrong, c, last

        monkeypatch.setattr(cpu, "forward", forward)
        assert not gpu.kernels_agree(SETUP, [torch.float32])
    assert "wrong: ([3], 128, 3), float32" in capsys.readouterr().err


def test_the_json_line() -> None:
    report = through_json(gpu.empty_report(SETUP))
    machine = report.pop("machine")
    assert report == {
        "rounds": 2,
        **{name: [] for name in ("kernels", "layers", "ragged", "steps")},
        "failed": [],
    }
    wanted = {"device", "capability", "memory_gib", "processors", "driver", "cuda", "cudnn"}
    assert set(machine) == wanted | {"torch", "triton", "python", "date"}
    assert machine["torch"] == torch.__version__
    assert machine["date"].startswith("20")


def test_a_part_that_fails_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(setup: gpu.Setup, report: dict[str, Any]) -> None:
        raise RuntimeError("out of memory")

    case = gpu.RaggedCase(4, 3, 6, 5, torch.float32)
    monkeypatch.setitem(gpu.PARTS, "layers", fails)
    monkeypatch.setitem(gpu.PARTS, "ragged", lambda *given: gpu.measure_ragged([case], *given))
    output = tmp_path / "gpu.json"
    report = gpu.empty_report(SETUP)
    gpu.measure(["layers", "ragged"], SETUP, report, output)
    written = json.loads(output.read_text())
    assert written == through_json(report)
    assert written["failed"] == ["layers"]
    assert len(written["ragged"]) == 1
    assert written["copy_gb_per_s"][1] > 0
    assert "out of memory" in capsys.readouterr().err
