"""The cache of compiled functions: where it is, and what happens if it cannot be used."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from numba.core import config
from numba.core.caching import InTreeCacheLocator

from srucli.kernels import cache
from srucli.kernels.jit import njit


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a module and a temporary folder; nothing was said before."""
    (tmp_path / "doubling.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(cache, "_said", set())
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def compiled(place: Path) -> Any:
    """Import the module anew, and return its function, compiled and called once."""
    spec = importlib.util.spec_from_file_location("doubling", place / "doubling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    double = njit(cache=True)(module.double)
    assert double(2) == 4
    return double


def refuse_numbas_folders(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a file where each of the folders would be made, which stops root too."""
    (place / "file").touch()
    (place / "__pycache__").touch()
    monkeypatch.setattr(config, "CACHE_DIR", str(place / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "file"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def names(folder: Path, pattern: str) -> list[str]:
    return [path.name for path in folder.rglob(pattern)]


def test_a_temporary_folder_is_used_and_named_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_numbas_folders(place, monkeypatch)
    for hits in (0, 1):
        assert sum(compiled(place).stats.cache_hits.values()) == hits
    [own] = (place / "tmp").iterdir()
    assert own.stat().st_mode & 0o777 == 0o700
    message = (
        f"kernels: compiled code is kept in {own}, as no other folder for it can be written; set "
        "NUMBA_CACHE_DIR to choose one\n"
    )
    assert capsys.readouterr().err == message
    monkeypatch.setattr(config, "CACHE_DIR", str(place / "mine"))
    compiled(place)
    assert names(place / "mine", "*.nbc")
    assert capsys.readouterr().err == ""


def test_a_command_may_run_in_the_temporary_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_numbas_folders(place, monkeypatch)
    monkeypatch.chdir(place / "tmp")
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    compiled(place)
    assert names(place / "tmp", "*.nbc")


@pytest.mark.parametrize("unsafe", ["of others", "link", "file", "current", "relative", "missing"])
def test_without_a_safe_folder_nothing_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unsafe: str
) -> None:
    """A folder that others can write may hold their code; so may the current folder."""
    refuse_numbas_folders(place, monkeypatch)
    own = place / "tmp" / f"srucli-{os.getuid()}"
    if unsafe == "of others":
        own.mkdir()
        own.chmod(0o770)
    elif unsafe == "link":
        own.symlink_to(place / "elsewhere")
    elif unsafe == "file":
        own.touch()
    elif unsafe == "current":
        monkeypatch.chdir(place / "tmp")
    elif unsafe == "relative":
        monkeypatch.chdir(place / "tmp")
        monkeypatch.setenv("TMPDIR", os.curdir)
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(place / "file" / "tmp"))
    for _ in range(2):
        assert not compiled(place).stats.cache_hits
    assert not names(place, "*.nb?")
    said = capsys.readouterr().err
    assert said.startswith("kernels: compiled code is not kept, as no folder for it can be written")
    assert said.count("\n") == 1


def test_no_code_is_read_from_the_current_folder_without_a_home(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of the cache in the home folder is then a relative one."""
    refuse_numbas_folders(place, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    compiled(place)
    assert names(place / "tmp", "*.nbc")
    assert list((place / "elsewhere").iterdir()) == []


def test_code_that_came_with_a_read_only_package_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing there is kept in the user's folder."""
    compiled(place)
    shipped = names(place, "*.nb?")

    def refuse(self: InTreeCacheLocator) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(InTreeCacheLocator, "ensure_cache_path", refuse)
    monkeypatch.setattr(config, "CACHE_DIR", str(place / "file" / "of" / "nobody"))
    (place / "file").touch()
    double = compiled(place)
    assert sum(double.stats.cache_hits.values()) == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(config, "CACHE_DIR", str(place / "mine"))
    for hits in (1, 2):
        double = compiled(place)
        assert double(0.5) == 1.0
        assert sum(double.stats.cache_hits.values()) == hits
    assert len(names(place / "mine", "*.nbc")) == 1
    assert names(place / "__pycache__", "*.nb?") == shipped
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x05K\x01.", b"cno_such_module\nf\n.", None])
def test_a_damaged_cache_is_replaced(
    place: Path, capsys: pytest.CaptureFixture[str], pattern: str, content: bytes | None
) -> None:
    """None: half of the file."""
    compiled(place)
    [damaged] = place.rglob(pattern)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if content is None else content)
    compiled(place)
    said = capsys.readouterr().err
    where = re.escape(str(place / "__pycache__"))
    damage = rf"kernels: compiled code in {where} cannot be read \(.+\), and is compiled anew\n"
    assert re.fullmatch(damage, said) or (pattern, content) == ("*.nbi", b"\x80\x05K\x01.")
    assert sum(compiled(place).stats.cache_hits.values()) == 1


def test_a_full_disk_is_named_once_and_stops_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        double = compiled(place)
        assert double(2.5) == 5.0  # saved in a file of its own
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = (
        f"kernels: compiled code cannot be kept in {place / '__pycache__'} (File too large), so "
        "the next start compiles it anew; set NUMBA_CACHE_DIR to another folder, or make room\n"
    )
    assert capsys.readouterr().err == message
    assert not names(place, "*.nbc")
    compiled(place)
    assert names(place, "*.nbc")
