"""Non-blocking pipes lose nothing, and messages that cannot be written end no command."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from srucli.io.console import say
from srucli.io.waiting import Notes
from tests.support import Tiny, child_environment, until

FULL = Path("/dev/full")


def pipe(quick: int) -> tuple[int, int]:
    """Return a pipe of which one end, 0: the reading one, does not block."""
    ends = os.pipe()
    os.set_blocking(ends[quick], False)
    return ends


def unread(descriptor: int) -> int:
    """Return the number of bytes that wait in a pipe."""
    return int(*struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))))


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_waits_for_non_blocking_pipes(tiny: Tiny, unbuffered: str) -> None:
    (source, to), (start, sink) = pipe(0), pipe(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "srucli", "encode", tiny.run / "tokenizer.model"],
        stdin=source,
        stdout=sink,
        stderr=subprocess.PIPE,
        env=child_environment(PYTHONUNBUFFERED=unbuffered),
    )
    os.close(source)
    os.close(sink)
    with open(start, "rb") as read:
        os.write(to, b"a\n")
        first = read.readline()  # now it waits for more
        os.write(to, b"a\n" * 20_000)
        os.close(to)
        almost = fcntl.fcntl(start, fcntl.F_GETPIPE_SZ) - 4096
        until(lambda: unread(start) > almost or process.poll() is not None)
        assert first + read.read() == first * 20_001
    assert (process.communicate(timeout=30)[1], process.returncode) == (b"", 0)


def test_what_python_does_not_buffer_is_written_at_once() -> None:
    """With PYTHONUNBUFFERED=1, as in many containers, and else when the stream is flushed."""
    code = (
        "import os, sys; from srucli.cli import process; process.escaped_output().__enter__(); "
        "print('a', end=''); os.write(1, b'b')"
    )
    for unbuffered, out in (("1", "ab"), ("", "ba")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=child_environment(PYTHONUNBUFFERED=unbuffered),
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == (out, "")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_stderr_changes_neither_output_nor_exit_code(tiny: Tiny) -> None:
    command = [sys.executable, "-m", "srucli", "encode", str(tiny.run / "tokenizer.model"), "-"]
    words = "--output-format", "id"  # says that characters are unknown
    with FULL.open("w") as full:
        done = subprocess.run(
            [*command, *words],
            input="\u2603\n".encode(),
            stdout=subprocess.PIPE,
            stderr=full,
            env=child_environment(),
        )
        assert (done.returncode, done.stdout.count(b"\n")) == (0, 1)
        missing = [*command[:-1], "missing.txt"]
        assert subprocess.run(missing, stderr=full, env=child_environment()).returncode == 66


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_stderr_ends_no_library_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with FULL.open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        say("half done", "done")


def test_a_pipe_that_nobody_reads_takes_every_message() -> None:
    read, write = os.pipe()
    os.close(read)
    with Notes(write, "w") as notes:
        assert notes.write(b"half done\n") == 10
