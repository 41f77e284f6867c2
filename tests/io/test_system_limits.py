"""Limits of the system: each is named in one sentence, with how to raise it."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from srucli.errors import SrucliError
from srucli.io.children import child
from srucli.io.files import read_within, write_atomic
from srucli.io.streams import open_input
from srucli.io.system_limits import RAISE_OPEN_FILES, reached
from tests.support import Tiny, child_environment

resource = pytest.importorskip("resource")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("can't start new thread"), "a thread cannot be started; end others"),
        (ImportError("libx.so: failed to map segment from shared object"), "a library cannot be"),
        (OSError("libx.so: cannot map zero-fill pages: Cannot allocate memory"), "a library canno"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open; close other"),
        (FileNotFoundError(2, "No usable temporary directory found in []"), "no temporary folder"),
        (caused(ImportError("cannot import name f"), MemoryError()), "memory ran out; free some"),
        (
            caused(
                OSError("Could not find/load shared object file 'libllvmlite.so' from resource"),
                OSError("libllvmlite.so: failed to map segment from shared object"),
            ),
            "a library cannot be loaded (libllvmlite.so: failed to map",
        ),
    ],
    ids=["thread", "library", "pages", "files", "temporary", "cause", "compiler"],
)
def test_a_limit_is_recognized(error: Exception, said: str) -> None:
    assert str(reached(error)).startswith(said)


@pytest.mark.parametrize("error", [RuntimeError("x"), ImportError("no module"), OSError(2, "x")])
def test_other_errors_are_no_limit(error: Exception) -> None:
    assert reached(caused(error, ValueError("x"))) is None


@pytest.mark.parametrize("limit", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
@pytest.mark.parametrize(
    ("handler", "is_limit"),
    [
        ("raise KeyError('a bug in the handler')", False),
        ("None.missing", False),
        ("raise ImportError('a package') from None", False),
        ("raise ImportError('a package')", True),
        ("raise ValueError('a package') from error", True),
    ],
)
def test_a_bug_in_a_handler_is_no_limit(limit: Exception, handler: str, is_limit: bool) -> None:
    code = f"try:\n    raise limit\nexcept Exception as error:\n    {handler}"
    with pytest.raises((LookupError, AttributeError, ImportError, ValueError)) as caught:
        exec(code, {"limit": limit})
    assert (reached(caught.value) is not None) == is_limit


def start(path: Path) -> None:
    with child("srucli.tokenizer.child", own_stderr=True):
        pass


OPENING: dict[str, Callable[[Path], object]] = {
    "read": lambda path: read_within(path.parent, path.name, 9),
    "write": lambda path: write_atomic({path: b"x"}),
    "input": lambda path: open_input(path).__enter__(),
    "child": start,
}


@pytest.mark.parametrize("opening", OPENING)
def test_too_many_open_files_are_not_blamed_on_the_file(tmp_path: Path, opening: str) -> None:
    (tmp_path / "a").write_bytes(b"x")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(SrucliError) as caught:
            OPENING[opening](tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert str(caught.value).endswith(f"(Too many open files); {RAISE_OPEN_FILES}")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
def test_threads_that_cannot_be_started_by_sentencepiece(tmp_path: Path) -> None:
    """1,024 stacks of threads need 8 GB."""
    (tmp_path / "t.txt").write_text("lovely soup , awful train\n" * 200)
    tokenize = f"'{sys.executable}' -m srucli tokenize t.txt -o m --vocab-size 20 --num-threads"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -s 8192 -v 4000000; {tokenize} 1024 || {tokenize} 4"],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = "training the tokenizer could not start all threads; use fewer: --num-threads 512\n"
    assert done.stderr.startswith(f"srucli: {said}")
    assert done.stdout == "m.model\n"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
def test_too_little_memory_for_a_library_is_one_sentence(tiny: Tiny) -> None:
    """Less than torch's largest library takes."""
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 300000; '{sys.executable}' -m srucli predict run test.tsv"],
        cwd=tiny.folder,
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("srucli: a library cannot be loaded (")
    assert done.stderr.endswith("; free some memory, or raise the limit: ulimit -v\n")
