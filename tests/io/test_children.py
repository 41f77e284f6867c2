"""Child processes import nothing from the current folder, and end with their parent's block."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

import pytest

from srucli.io import children
from tests.support import NETWORK, ROOT, Tiny, child_environment

SCRIPT = Path(sysconfig.get_path("scripts")) / "srucli"
# Packages that srucli's processes import, whatever of the standard library comes with them.
PACKAGES = (
    *("torch", "numpy", "scipy", "sklearn", "numba", "llvmlite", "sentencepiece", "safetensors"),
    *("yaml", "pydantic", "pydantic_core", "typer", "click", "tqdm", "matplotlib", "optuna"),
    *("joblib", "PIL", "sitecustomize", "usercustomize", "srucli_child", "triton", "tensorboard"),
)
# Settings of other packages that they read from the current folder.
SETTINGS = {
    ".numba_config.yaml": "cache_dir: mark/numba\n",
    "matplotlibrc": "text.usetex: true\nsavefig.directory: mark\nfigure.dpi: 7\nsvg.fonttype: path",
}


def before_the_first_line(way: list[str], folder: Path) -> set[str]:
    """Return the modules that Python imports before it runs a package."""
    (folder / "probe").mkdir()
    (folder / "probe" / "__init__.py").write_text("import sys; print(*sys.modules)")
    (folder / "probe" / "__main__.py").write_text("")
    done = subprocess.run([*way, "probe"], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def hostile(folder: Path, names: set[str]) -> Path:
    """Create a folder with modules that write their names to `mark` if they run."""
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(
            f"import os\nos.makedirs({str(folder / 'mark')!r}, exist_ok=True)\n"
            f"open({str(folder / 'mark' / name)!r}, 'w').close()\n"
        )
    for name in ("numpy", "torch", "multiprocessing"):  # also as packages, which take precedence
        (folder / name).mkdir()
        (folder / f"{name}.py").rename(folder / name / "__init__.py")
    for name, text in SETTINGS.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("way", ["console script", "python -m"])
def test_no_command_imports_from_the_current_folder(way: str, tiny: Tiny, tmp_path: Path) -> None:
    names = set(sys.stdlib_module_names) | set(PACKAGES)
    command: list[object] = [sys.executable, "-m", "tests.commands"]
    if way == "python -m":
        names -= before_the_first_line([sys.executable, "-m"], tmp_path)
        assert {"json", "subprocess", "multiprocessing", "typing", "random", "ast"} <= names
    elif SCRIPT.is_file():
        command = [SCRIPT]
    else:
        pytest.skip(f"srucli is not installed at {SCRIPT}")
    folder = hostile(tmp_path / "hostile", names)
    environment = child_environment() if way == "python -m" else None
    few = ("train.epochs=1", "train.threads=1", *NETWORK)
    short = ("--steps", 2, "--grid", 1, "--seeds", 1, "train.threads=1", *NETWORK)
    words = [*command, "compare", tiny.train, "-o", "compared", "--optimizer", "adam,sgd", *short]
    if way == "python -m":  # the only way with the current folder on the path
        words += [",", "train", tiny.train, "-o", "run", "--diagnose", 5, *few]
        words += [",", "tune", tiny.train, "--minutes", 0.05, *few]
        words += [",", "eval", tiny.run, tiny.test, "--plots", "plots"]
        words += [",", "diagnose", "run", "--plots", "plots"]
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True
    )
    codes = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    assert done.returncode == 0, done.stderr
    assert codes == ["code 0"] * 5 * (way == "python -m"), done.stderr
    assert not (folder / "mark").exists(), os.listdir(folder / "mark")
    for plot in folder.glob("plots/confusion.svg"):
        assert "<text" in plot.read_text()  # the default: not drawn as paths


def test_a_childs_environment_has_no_current_folder() -> None:
    entries = ["", ".", "lib", "/opt/lib", "..", str(Path.cwd())]
    environment = {"PYTHONPATH": os.pathsep.join(entries), "HOME": "/home/me"}
    children.isolate(environment)
    wanted = os.pathsep.join(["/opt/lib", str(Path.cwd())])
    assert environment == {"PYTHONPATH": wanted, "PYTHONSAFEPATH": "1", "HOME": "/home/me"}
    nothing = {"PYTHONPATH": os.pathsep}
    children.isolate(nothing)
    assert nothing == {"PYTHONSAFEPATH": "1"}


def test_a_child_does_not_get_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    (tmp_path / "link").symlink_to(here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(
        sys, "path", ["", ".", "lib", str(here), str(tmp_path / "link"), str(elsewhere)]
    )
    assert children.inherited_path() == [str(elsewhere)]


PARENT = """
import os, sys
sys.path.insert(0, "lib")
sys.path.insert(0, os.path.abspath("lib"))
from srucli.io.children import child
with child("srucli.told", own_stderr=False) as started:
    print(started.stdout.readline().decode())
"""


def told(folder: Path, code: str, **environment: str) -> list[Any]:
    """A line of JSON that a child prints, started by a copy of srucli in `folder`, the current one.

    It runs this code.
    """
    package = folder / "srucli"
    shutil.copytree(ROOT / "srucli" / "io", package / "io")
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "srucli" / name, package)
    (package / "told.py").write_text(f"def main():\n{textwrap.indent(code, '    ')}\n")
    done = subprocess.run(
        [sys.executable, "-c", PARENT],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


WHERE = """import json, sys, srucli
print(json.dumps([srucli.__file__, *sys.path]), flush=True)"""


def test_only_the_package_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    """As in a checkout that is not installed, even if another srucli is."""
    own, first, *path = told(tmp_path, WHERE)
    assert own == str(tmp_path / "srucli" / "__init__.py")
    assert first == str(tmp_path / "lib")
    assert str(tmp_path) not in path
    assert all(map(os.path.isabs, path))


def test_absolute_entries_of_pythonpath_stay(tmp_path: Path) -> None:
    """They were set on purpose, even the current folder; relative entries are removed."""
    own, *path = told(tmp_path, WHERE, PYTHONPATH=f":lib:{tmp_path}")
    assert own == str(tmp_path / "srucli" / "__init__.py")
    assert str(tmp_path) in path


def test_grandchildren_end_with_the_block(tmp_path: Path) -> None:
    """They end before the block does, so nothing is written afterwards."""
    code = """import fcntl, os, time
fcntl.flock(os.open("lock", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
if os.fork():
    print("[]", flush=True)
time.sleep(600)"""
    assert told(tmp_path, code) == []
    fcntl.flock(os.open(tmp_path / "lock", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
