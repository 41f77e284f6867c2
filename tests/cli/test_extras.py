"""Optional packages: which extra a command names if one is missing, and whether there is one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from srucli.cli.info import OPTIONAL
from tests.support import ROOT, RunMain

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TRAIN = ("train", "x.tsv", "-o", "run")
# For each extra: its module, and a command that needs it.
COMMANDS = {
    "tune": ("optuna", ("tune", "x.tsv")),
    "tensorboard": ("tensorboard", (*TRAIN, "train.tensorboard=true")),
    "mlflow": ("mlflow", (*TRAIN, "train.mlflow=true")),
    "wandb": ("wandb", (*TRAIN, "train.wandb=true")),
    "schedulefree": ("schedulefree", (*TRAIN, "--optimizer", "schedulefree:AdamWScheduleFree")),
    "pytorch-optimizer": ("pytorch_optimizer", (*TRAIN, "--optimizer", "pytorch_optimizer:Lion")),
    "zst": ("zstandard", ("train", "x.tsv.zst", "-o", "run")),
}
# Those of scripts and of Python; see tests/data/test_demo_data.py and tests/test_sklearn.py.
OF_OTHERS = {"demo", "benchmarks", "dev", "sklearn"}


@pytest.mark.parametrize("extra", COMMANDS)
def test_a_command_names_the_extra_that_it_needs(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.tsv").write_text("a\tb c\nd\te f\n" * 9)
    Path("x.tsv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    module, words = COMMANDS[extra]
    monkeypatch.setitem(sys.modules, module, None)
    ended = run_main(*words)
    assert (ended.code != 0, ended.out) == (True, "")
    assert ended.err.splitlines()[-1].endswith(f"pip install 'srucli[{extra}]'"), ended.err
    assert not Path("run").exists()


def test_info_names_all_extras_of_commands(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, (_, extra) in OPTIONAL.items():
        assert COMMANDS[extra][0] == module
        monkeypatch.setitem(sys.modules, module, None)
    said = run_main("info").out
    assert all(f"pip install 'srucli[{extra}]'" in said for extra in COMMANDS)
    assert set(COMMANDS) | OF_OTHERS == set(EXTRAS)


def test_benchmarks_name_their_extra() -> None:
    for name in ("accuracy", "imbalance", "peers"):
        code = f"import sys; sys.modules['sklearn'] = None; import benchmarks.{name}"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.endswith("is not installed; run: pip install '.[benchmarks]'\n")


def test_readme_names_all_extras() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Install\n")[2].partition("\n## ")[0]
    assert all(f"`{extra}`" in section for extra in EXTRAS.keys() - {"dev"})
