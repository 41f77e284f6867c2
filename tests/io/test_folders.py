"""Open folders: links are not followed, nothing is left behind, replacements are noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srucli.errors import DataError, OutputError
from srucli.io import folders
from srucli.io.files import append, read_within, write_atomic, write_files
from srucli.io.folders import LinkError, OpenFolder
from tests.support import tree

SECRET = b"somebody else's\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file, and a folder with a file, that must not be touched."""
    place = tmp_path / "outside"
    (place / "folder").mkdir(parents=True)
    (place / "file").write_bytes(SECRET)
    (place / "folder" / "file").write_bytes(SECRET)
    return place


@pytest.fixture
def own(tmp_path: Path) -> Path:
    place = tmp_path / "own"
    (place / "folder").mkdir(parents=True)
    (place / "file").write_bytes(b"mine\n")
    (place / "folder" / "file").write_bytes(b"mine\n")
    return place


@pytest.fixture(params=[True, False], ids=["", "without descriptors of folders"])
def descriptors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let folders be held open, or not, as on Windows."""
    monkeypatch.setattr(folders, "HAS_DESCRIPTORS", request.param)
    if not request.param:
        monkeypatch.delattr(os, "O_NOFOLLOW")


both = pytest.mark.usefixtures("descriptors")

WRITERS: dict[str, Callable[[OpenFolder, str], object]] = {
    "open": lambda folder, name: folder.open(name, os.O_RDONLY),
    "open_to_write": lambda folder, name: folder.open_to_write(name, os.O_CREAT),
    "create": lambda folder, name: folder.create(name, b"x"),
    "append": lambda folder, name: folder.append(name, b"x"),
    "cut": lambda folder, name: folder.cut(name, 0),
    "child": lambda folder, name: folder.child(name).__enter__(),
    "made child": lambda folder, name: folder.child(name, make=True).__enter__(),
    "below": lambda folder, name: folder.below(f"{name}/deeper", make=True).__enter__(),
}


@both
@pytest.mark.parametrize("target", ["file", "folder", "absent"])
@pytest.mark.parametrize("writer", WRITERS)
def test_no_name_is_opened_through_a_link(
    own: Path, outside: Path, writer: str, target: str
) -> None:
    before = tree(outside)
    (own / "link").symlink_to(outside / target)
    with OpenFolder.at(own) as folder, pytest.raises((LinkError, FileExistsError)):
        WRITERS[writer](folder, "link")
    assert tree(outside) == before


@both
@pytest.mark.parametrize("writer", ["open_to_write", "append", "cut"])
def test_a_file_with_hard_links_is_not_changed(own: Path, outside: Path, writer: str) -> None:
    os.link(outside / "file", own / "twin")
    with OpenFolder.at(own) as folder, pytest.raises(LinkError, match="hard links"):
        WRITERS[writer](folder, "twin")
    assert (outside / "file").read_bytes() == SECRET


@both
@pytest.mark.parametrize("kind", ["link", "twin"])
def test_an_atomic_write_replaces_the_name_and_not_the_file(
    own: Path, outside: Path, kind: str
) -> None:
    (own / "file").unlink()
    (Path.symlink_to if kind == "link" else Path.hardlink_to)(own / "file", outside / "file")
    write_files(own, {"file": b"new"})
    assert (own / "file").read_bytes() == b"new"
    assert not (own / "file").is_symlink()
    assert (outside / "file").read_bytes() == SECRET
    assert sorted(os.listdir(own)) == ["file", "folder"]


@both
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_paths_are_refused_as_names(own: Path, name: str) -> None:
    with OpenFolder.at(own) as folder, pytest.raises(OSError, match="directory"):
        folder.open(name, os.O_RDONLY)


@both
@pytest.mark.parametrize("place", ["link", "file/x", "none"])
def test_a_write_below_a_file_or_link_names_a_remedy(own: Path, place: str) -> None:
    (own / "link").symlink_to("link")
    with pytest.raises(OutputError, match=r"a: cannot be written \(.*\); "):
        write_atomic({own / place / "a": b"x"})


def test_the_remedy_for_a_missing_folder_works(own: Path) -> None:
    with pytest.raises(OutputError, match=r"No such file or directory\); make its folder first"):
        write_atomic({own / "new" / "a": b"x"})
    (own / "new").mkdir()
    write_atomic({own / "new" / "a": b"x"})


def test_a_failing_write_removes_only_its_own_temporary_files(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = own / f".a.{os.getpid()}.tmp"
    others.write_bytes(b"")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="make room"):
        write_files(own, {"a": b"x", "b": b"y"})
    assert sorted(os.listdir(own)) == [others.name, "file", "folder"]


def test_all_files_are_written_before_any_is_renamed(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OutputError, match=r"own/b: cannot be written"):
        write_files(own, {"file": b"x", "b": b"y"})
    assert (own / "file").read_bytes() == b"mine\n"


# --- replaced meanwhile ------------------------------------------------------------------


def swap_before(
    monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], object], nth: int = 1
) -> None:
    """Call `swap` just before a name is opened for the n-th time."""
    real, left = os.open, [nth]

    def opening(path: Any, *arguments: Any, **named: Any) -> int:
        if os.path.basename(path) == name:
            left[0] -= 1
            if left[0] == 0:
                swap()
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", opening)


def replace_by_link(path: Path, target: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


@pytest.mark.parametrize("part", ["folder", "file"])
def test_a_component_replaced_by_a_link_is_not_read(
    own: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    path = own / "folder" / "file" if part == "file" else own / "folder"
    target = outside / "folder" / "file" if part == "file" else outside / "folder"
    swap_before(monkeypatch, part, lambda: replace_by_link(path, target))
    with pytest.raises(DataError, match="file: is a link, or in one"):
        read_within(own, "folder/file", 99)


@pytest.mark.parametrize("write", ["append", "whole"])
def test_a_file_replaced_by_a_link_is_not_written(
    own: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    before = tree(outside)
    swap_before(monkeypatch, "own", lambda: replace_by_link(own / "file", outside / "file"))
    if write == "append":
        with pytest.raises(OutputError, match=r"it is a link\); copy the folder with `cp -rL`"):
            append(own, "file", b"more")
        whole = own.with_name("whole")
        subprocess.run(["cp", "-rL", own, whole], check=True)
        append(whole, "file", b"more")
    else:
        write_files(own, {"file": b"new"})
    assert tree(outside) == before


def test_reads_while_files_are_replaced_by_links(own: Path, outside: Path) -> None:
    """Another thread replaces a file by a link and back; the link is never followed."""
    link, file, place = own / "a link", own / "a file", own / "folder" / "file"
    link.symlink_to(outside / "file")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            shutil.copyfile(own / "file", file)
            os.replace(file, place)
            os.symlink(outside / "file", file)
            os.replace(file, place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(2000):
            try:
                seen.add(read_within(own, "folder/file", 99))
            except DataError:
                seen.add(b"")
    finally:
        stop.set()
        swapper.join()
    assert seen <= {b"mine\n", b""}


# --- identity of the folder ----------------------------------------------------------------------


def remove_and_make(own: Path) -> None:
    shutil.rmtree(own)
    own.mkdir()


def rename_and_make(own: Path) -> None:
    own.rename(own.with_name("moved"))
    own.mkdir()


GONE: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "renamed": lambda own: own.rename(own.with_name("moved")),
    "removed and made anew": remove_and_make,
    "renamed and made anew": rename_and_make,
    "a link to another": lambda own: replace_by_link(own, own.with_name("outside")),
}


@pytest.mark.parametrize("happening", GONE)
def test_nothing_is_written_to_a_replaced_folder(own: Path, outside: Path, happening: str) -> None:
    with OpenFolder.at(own) as folder:
        write_files(folder, {"a": b"x"})
        GONE[happening](own)
        before = tree(own.parent)
        said = "own: was removed or renamed, or is another"
        with pytest.raises(OutputError, match=said):
            write_files(folder, {"a": b"y"})
        with pytest.raises(OutputError, match=said):
            append(folder, "file", b"y")
        assert tree(own.parent) == before


@both
def test_nothing_is_written_to_an_unexpected_folder(own: Path) -> None:
    """Like a trial of a comparison, which gets its folder from another process."""
    status = own.stat()
    with OpenFolder.at(own, (status.st_dev, status.st_ino + 1)) as folder:
        assert not folder.is_in_place()
        with pytest.raises(OutputError, match="own: was removed or renamed, or is another"):
            write_files(folder, {"a": b"x"})
    with OpenFolder.at(own, (status.st_dev, status.st_ino)) as folder:
        write_files(folder, {"a": b"x"})


@both
def test_the_current_folder_may_change(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with OpenFolder.at(Path("own")) as folder:
        monkeypatch.chdir("/")
        write_files(folder, {"a": b"x"})
    assert (own / "a").read_bytes() == b"x"


@both
@pytest.mark.parametrize("name", ["x" * 255, "한" * 85, os.fsdecode(b"\xe9" * 248), "-a\nb"])
def test_names_that_are_as_long_as_possible(own: Path, name: str) -> None:
    """The temporary name beside it is no longer."""
    write_atomic({own / name: b"x"})
    with OpenFolder.at(own) as folder, folder.replacing(name) as descriptor:
        os.write(descriptor, b"y")
    assert (own / name).read_bytes() == b"y"
    assert sorted(os.listdir(own)) == sorted(["file", "folder", name])
