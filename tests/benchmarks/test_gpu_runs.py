"""Steps, trainings and prediction of the GPU benchmark on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from benchmarks import gpu_runs
from benchmarks.speed import Report, Setup
from tests.benchmarks.test_gpu import SETUP, is_time, through_json
from tests.support import QUICK, RunMain, restored_process, sentences, write_tsv


def test_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_runs, "PROFILED", 1)
    report = Report({})
    gpu_runs.measure_steps(SETUP, report, [gpu_runs.StepCase(2, 2, "float32")])
    (row,) = through_json(report)["steps"]
    assert is_time(row["ms"])
    # The profiler sees no GPU's kernels here.
    assert (row["kernel_ms"], row["kernels"], row["slowest"]) == (0, 0, [])
    assert "slowest kernels: 2 texts, 2 classes, float32" in capsys.readouterr().out


class Driver:
    """CUDA's driver with a graph of two kernels, one fill and a node of another kind."""

    KINDS = (0, 0, 2, 7)

    def cuGraphGetNodes(self, graph: Any, nodes: Any, count: Any) -> int:
        count._obj.value = len(self.KINDS)
        if nodes is not None:
            nodes[:] = range(1, len(self.KINDS) + 1)
        return 0 if graph.value == 12 else 400

    def cuGraphNodeGetType(self, node: Any, kind: Any) -> int:
        kind._obj.value = self.KINDS[node.value - 1]
        return 0


def test_nodes_of_a_graph_are_counted_by_kind() -> None:
    assert gpu_runs.node_kinds(Driver(), 12) == {"kernel": 2, "memset": 1, "other": 1}
    with pytest.raises(RuntimeError, match="driver returns 400"):
        gpu_runs.node_kinds(Driver(), 13)


def test_a_step_in_bfloat16() -> None:
    case = gpu_runs.StepCase(2, 20, "bf16")
    run: Any = gpu_runs.step_run(*gpu_runs.case_step(case, "cpu"))
    first = run()
    assert first.isfinite()
    assert not torch.equal(first, run())


def test_steps_learn() -> None:
    """The loss on one batch falls."""
    torch.manual_seed(0)
    case = gpu_runs.StepCase(8, 2, "float32")
    run: Any = gpu_runs.step_run(*gpu_runs.case_step(case, "cpu"))
    losses = [float(run()) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_profiler_events_on_the_gpu() -> None:
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
    assert gpu_runs.device_rows(events, calls=10) == [
        {"kernel": "gemm", "count": 2.0, "milliseconds": 0.05},
        {"kernel": "Memcpy HtoD", "count": 2.0, "milliseconds": 0.01},
    ]


def test_the_names_that_torchs_profiler_uses() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(2) @ torch.ones(2)
    events = profile.key_averages()
    assert gpu_runs.device_rows(events, calls=1) == []
    for event in events:
        assert event.device_type.name == "CPU"
        assert event.count >= 1
        assert event.self_device_time_total == 0


KERNELS = {
    "_backward": "_backward",
    "Memcpy DtoD (Device -> Device)": "Memcpy DtoD (Device -> Device)",
    "void at::native::(anonymous namespace)::EmbeddingBag_kernel<float, long>(float const*)": (
        "EmbeddingBag_kernel<float, long>(float const*)"
    ),
    "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, at::De|x>": (
        "vectorized_elementwise_kernel<4, FillFunctor<float>, De/x>"
    ),
    "void at_cuda_detail::cub::detail::Sort<at_cuda_detail::cub::Policy>": (
        "cub::detail::Sort<cub::Policy>"
    ),
}


@pytest.mark.parametrize(("kernel", "short"), KERNELS.items(), ids=KERNELS.values())
def test_names_of_kernels_are_short(kernel: str, short: str) -> None:
    assert gpu_runs.short_name(kernel) == short


def made_set(folder: Path, examples: int) -> Setup:
    """Return the setup for a small set in a folder."""
    rows = sentences()
    (folder / "made").mkdir()
    write_tsv(folder / "made" / "train.tsv", rows[:examples])
    write_tsv(folder / "made" / "test.tsv", rows[200:240])
    setup = Setup("cpu", "cpu", 1, folder)
    flags = (*QUICK, "train.epochs=1")
    return replace(setup, sets=("made",), encoders=("sru",), flags=flags, lines=250)


def test_trainings_and_prediction(
    tmp_path: Path,
    run_main: RunMain,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def here(*arguments: object) -> str:
        """Run the command in this process."""
        done = run_main(*arguments)
        assert done.code == 0, done.err
        return done.out

    monkeypatch.setattr(gpu_runs, "srucli", here)
    setup = made_set(tmp_path, 200)
    report = Report({})
    with restored_process():
        gpu_runs.measure_trainings(setup, report)
    said = capsys.readouterr().out
    assert "\n| made | recipe | sru | " in said
    assert "\n| made | alone | sru | " in said
    gpu_runs.measure_prediction(setup, report)
    assert "\n| cpu | 250 | " in capsys.readouterr().out
    found = through_json(report)
    first, second = found["trainings"]
    assert 0 < first["accuracy"] <= 1
    assert first["sha256"] != second["sha256"]
    assert 0 < first["epochs_seconds"] < first["seconds"]
    assert first["epochs"] == 1
    (prediction,) = found["prediction"]
    assert (prediction["device"], prediction["lines"]) == ("cpu", 250)


def test_a_training_that_fails_leaves_the_others(tmp_path: Path) -> None:
    setup = replace(made_set(tmp_path, 200), encoders=("none", "sru"))
    report = Report({})
    with restored_process(), pytest.raises(RuntimeError, match="made, recipe, none; made, alone"):
        gpu_runs.measure_trainings(setup, report)
    assert [row["encoder"] for row in through_json(report)["trainings"]] == ["sru", "sru"]


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    setup = Setup(data=tmp_path)
    with pytest.raises(FileNotFoundError, match="trec has no train and test"):
        gpu_runs.measure_trainings(setup, Report({}))
