"""What the wheel and the source distribution hold, built by setuptools without network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support import ROOT

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""
# The files of the wheel besides Python's, without its metadata.
DATA = {"srucli/py.typed", "srucli/guide.md", "srucli/config/recipes/*.yaml"}


def tracked() -> list[str]:
    """Return the files of the repository; skip the test outside of one."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not (ROOT / ".git").exists():
        pytest.skip("not in a checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def built(kind: str, folder: Path) -> Path:
    """Build a copy of the repository, since setuptools writes into its folder."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml demands")
    copy = folder / "copy"
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    words = [sys.executable, "-c", BUILD, kind, str(folder)]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return folder / done.stdout.splitlines()[-1]


def test_the_wheel_has_the_package_and_nothing_else(tmp_path: Path) -> None:
    wheel = zipfile.ZipFile(built("wheel", tmp_path))
    metadata = {name for name in wheel.namelist() if ".dist-info/" in name}
    code = {name for name in tracked() if name.startswith("srucli/") and name.endswith(".py")}
    data = {path.relative_to(ROOT).as_posix() for glob in DATA for path in ROOT.glob(glob)}
    assert set(wheel.namelist()) - metadata == code | data
    assert "srucli/config/recipes/korean.yaml" in data
    assert {Path(name).name for name in metadata} == {
        *("METADATA", "RECORD", "WHEEL", "LICENSE", "entry_points.txt", "top_level.txt")
    }


def test_the_source_distribution_has_the_whole_repository(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked()) - names == set()
