"""Systems that lack what Linux has, and systems like containers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srucli.errors import OutputError
from srucli.io import locks
from srucli.io.folders import OpenFolder
from tests.robustness.test_hazards import run_in_namespace
from tests.support import ROOT, SETTINGS, RunMain, Tiny, child_environment

REMOVER = Path(__file__).with_name("other_systems.py")


def run_without(system: str, folder: Path, *lines: str) -> list[str]:
    """Run lines of `commands.py` without what a system lacks; return the lines of stdout."""
    shutil.copy(REMOVER, folder / "sitecustomize.py")
    environment = child_environment(SRUCLI_SYSTEM=system)
    environment["PYTHONPATH"] = f"{folder}:{environment['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands", *" , ".join(lines).split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def test_all_of_srucli_without_what_macos_lacks(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    flags = " ".join(SETTINGS)
    train = f"train {tiny.train} -o run --epochs 1 {flags}"
    said = run_without(
        "macos",
        tmp_path,
        train,
        f"predict run {tiny.test} --text 2",
        f"eval run {tiny.test}",
        f"compare {tiny.train} -o cmp --optimizer adam,sgd --grid 1 --seeds 1 --epochs 1 {flags}",
    )
    assert [line for line in said if line.startswith("code ")] == ["code 0"] * 4, said
    again = run_main(*train.replace("-o run", f"-o {tmp_path / 'again'}").split())
    assert again.code == 0
    weights = [next((tmp_path / each).rglob("model.safetensors")) for each in ("run", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_predict_and_eval_without_what_windows_lacks(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    predict = f"predict {tiny.run} {tiny.test} --text 2"
    said = run_without(
        "windows",
        tmp_path,
        predict,
        f"eval {tiny.run} {tiny.test} --predictions p.tsv --plots plots",
        f"encode {tiny.run / 'tokenizer.model'} {tiny.test}",
        f"compare {tiny.train} -o cmp --optimizer adam,sgd --epochs 1",
    )
    expected = run_main(*predict.split()).out.splitlines()
    assert said[: len(expected) + 1] == [*expected, "code 0"]
    assert [line for line in said if line.startswith("code ")] == [*["code 0"] * 3, "code 1"]
    assert any(line.startswith("srucli: a comparison needs Linux or macOS: ") for line in said)
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".png", ".svg"}
    assert len((tmp_path / "p.tsv").read_text().splitlines()) == 121


def test_a_folder_is_locked_without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """msvcrt's function is here one of fcntl, which refuses in the same way."""
    import fcntl

    class Windows:
        LK_NBLCK = 2

        @staticmethod
        def locking(descriptor: int, mode: int, size: int) -> None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PermissionError(13, "Permission denied") from error

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", Windows)
    with OpenFolder.at(tmp_path) as folder, OpenFolder.at(tmp_path) as other:
        with locks.locked(folder):
            assert locks.is_locked(tmp_path)
            with (
                pytest.raises(OutputError, match=r"writes there \(process \d+ on "),
                locks.locked(other),
            ):
                pass
        assert not locks.is_locked(tmp_path)
        with locks.locked(other):
            assert locks.is_left(other)


def test_a_lack_of_rights_is_no_other_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SELinux may forbid to lock a file, which only Windows reports as it does a held lock."""

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fcntl.flock", refused)
    with (
        OpenFolder.at(tmp_path) as folder,
        pytest.raises(OutputError, match=r"lock: cannot be written \(Permission denied\); choose"),
        locks.locked(folder),
    ):
        pass
    assert not locks.is_locked(tmp_path)


def test_a_read_only_system_without_home_and_network(tiny: Tiny, tmp_path: Path) -> None:
    """Only the folder `work` can be written, so kernels are kept only if they lie beside srucli."""
    are_shipped = any((ROOT / "srucli" / "kernels" / "__pycache__").glob("*.nbi"))
    (tmp_path / "work").mkdir()
    said = run_in_namespace(
        tmp_path,
        "! mount -t tmpfs -o ro tmpfs /dev/shm",
        "! mount --bind work work && mount -o remount,bind,ro /",
        "! touch here 2>/dev/null && echo open",
        f"train {tiny.train} -o work/run --epochs 1 {' '.join(SETTINGS)} model.encoder=bag",
        f"eval work/run {tiny.test} --plots work/plots",
        f"eval work/run {tiny.test}",
        f"predict work/run {tiny.test} --text 2",
        HOME="/nonexistent",
        TMPDIR="/nonexistent",
        XDG_CACHE_HOME="",
        NUMBA_CACHE_DIR="",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        MPLCONFIGDIR="",
    )
    if "open" in said:
        pytest.skip("this user may not make its root read-only")
    assert [line for line in said if line.startswith("code ")] == [
        *("code 0", "code 73"),
        *["code 0"] * 2,
    ], said
    not_kept = [line for line in said if line.startswith("kernels: compiled code is not kept")]
    assert len(not_kept) == 1 or (are_shipped and not not_kept)
    assert not [line for line in said if "arn" in line or "Matplotlib" in line], said
    assert (
        len([line for line in said if "; set MPLCONFIGDIR to one that can be written" in line]) == 1
    )
