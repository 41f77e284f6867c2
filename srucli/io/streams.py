"""Bytes of files, compressed files and standard input (`-`), each as soon as it has arrived.

gzip, xz and zstandard are recognized by their first bytes. Memory is bounded for any file, since
compressed data is decompressed by the kilobyte.
"""

from __future__ import annotations

import io
import itertools
import lzma
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from srucli.errors import DataError, InputMissingError, SrucliError
from srucli.io.memory import ran_out
from srucli.io.system_limits import RAISE_OPEN_FILES, is_open_files
from srucli.io.waiting import WaitingFile

Source = str | os.PathLike[str]

CHUNK = 1 << 16
# Bytes decompressed at once: even those of a decompression bomb expand to only a few MB.
_SMALL_CHUNK = 1 << 10
_XZ_MEMORY = 1 << 28
# Small files may grow beyond `max_ratio`.
_FREE_BYTES = 1 << 20
# Binary formats that users may pass instead of text, by their first bytes, and what to do.
_CONVERT = "unpack it, or save it as CSV or JSON, in the program that made it"
_NAME = "name a file of texts"
_NO_TEXT = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", _CONVERT),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", _CONVERT),
    b"PAR1\x15": ("a Parquet file", _CONVERT),
    b"SQLite format 3\0": ("an SQLite database", _CONVERT),
    b"BZh91AY&SY": ("bzip2 data", _CONVERT),
    b"\x89PNG\r\n": ("a PNG image", _NAME),
    b"\xff\xd8\xff": ("a JPEG image", _NAME),
    b"\x7fELF": ("a program", _NAME),
}
_PROBLEMS: dict[type[OSError], str] = {
    FileNotFoundError: "no such file; check the name and the folder",
    IsADirectoryError: "is a folder; name a file in it",
    PermissionError: "no permission to read it; see chmod +r",
}


def _zstandard() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


class _Compression(NamedTuple):
    magic: bytes
    name: str
    start: Callable[[], Any]


_COMPRESSIONS = (
    _Compression(b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(wbits=31)),
    _Compression(b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
    _Compression(b"\x28\xb5\x2f\xfd", "zstandard", _zstandard),
)


class _ChunkReader(io.RawIOBase):
    """A file over an iterator of chunks; one read returns at most the rest of a chunk."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if (chunk := next(self._chunks, None)) is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def display_name(source: Source) -> str:
    """Return the name of a source for messages."""
    return "<stdin>" if os.fspath(source) == "-" else os.fspath(source)


def is_piped(source: Source) -> bool:
    """Whether a source can be read only once: standard input or a named pipe."""
    return os.fspath(source) == "-" or Path(source).is_fifo()


def recorded_name(source: str) -> str:
    """Return the name of a file that is right in any current folder; "-" for any pipe."""
    return "-" if is_piped(source) else os.path.abspath(source)


def unreadable(source: str, error: OSError) -> InputMissingError:
    """Return the error for a file that cannot be opened or read."""
    remedy = RAISE_OPEN_FILES if is_open_files(error) else "check the disk or pipe"
    other = f"cannot be read ({error.strerror}); {remedy}"
    return InputMissingError(f"{source}: {_PROBLEMS.get(type(error), other)}")


def _chunks(stream: Any, source: str) -> Iterator[bytes]:
    """Yield bytes as they arrive: `read1` does not wait for a full chunk."""
    try:
        while chunk := stream.read1(CHUNK):
            yield chunk
    except OSError as error:
        raise unreadable(source, error) from error


def _start(kind: _Compression, source: str) -> Any:
    try:
        return kind.start()
    except ImportError:
        raise SrucliError(
            f"{source}: {kind.name} data needs one more package; pip install 'srucli[zst]'"
        ) from None


def _inflate(
    chunks: Iterable[bytes], kind: _Compression, source: str, ratio: float
) -> Iterator[bytes]:
    """Decompress chunks. Raises DataError for invalid data, or growth beyond `ratio`."""
    member, packed, size = _start(kind, source), 0, 0
    for chunk in chunks:
        packed += len(chunk)
        for at in range(0, len(chunk), _SMALL_CHUNK):
            part = chunk[at : at + _SMALL_CHUNK]
            while part:
                if member.eof:
                    part = part.lstrip(b"\0")  # gzip and xz allow padding between members
                    if not part:
                        break
                    member = _start(kind, source)
                try:
                    plain = member.decompress(part)
                except Exception as error:  # each library raises a class of its own
                    if ran_out(error):
                        raise
                    problem = f"broken {kind.name} data ({error})"
                    raise DataError(source, None, problem, "copy the file again") from error
                size += len(plain)
                if size > max(ratio * packed, _FREE_BYTES):
                    problem = f"grows beyond {ratio:g} times its size"
                    raise DataError(source, None, problem, "raise --max-ratio if you trust it")
                yield plain
                part = member.unused_data if member.eof else b""
    if not member.eof:
        raise DataError(source, None, f"the {kind.name} data is cut short", "copy the file again")


def _plain_chunks(stream: Any, source: str, ratio: float | None) -> Iterator[bytes]:
    chunks = _chunks(stream, source)
    head = b""
    while any(kind.magic.startswith(head) and kind.magic != head for kind in _COMPRESSIONS):
        more = next(chunks, b"")
        if not more:
            break
        head += more
    whole = itertools.chain([head], chunks)
    kind = next((kind for kind in _COMPRESSIONS if head.startswith(kind.magic)), None)
    if kind is None:
        for magic, (what, remedy) in _NO_TEXT.items():
            if head.startswith(magic):
                raise DataError(source, None, f"{what}, which is not read", remedy)
        return whole
    return _inflate(whole, kind, source, math.inf if ratio is None else ratio)


def _open(source: Source, name: str) -> AbstractContextManager[Any]:
    if os.fspath(source) == "-":
        if sys.stdin is None:
            raise InputMissingError(f"{name}: is closed; pipe text into the command or name a file")
        # Not sys.stdin.buffer: the interpreter cannot end while a thread waits in that one.
        return io.BufferedReader(WaitingFile(sys.stdin.fileno(), closefd=False))
    try:
        return open(source, "rb")
    except OSError as error:
        raise unreadable(name, error) from error


@contextmanager
def open_input(source: Source, max_ratio: float | None = None) -> Iterator[io.BufferedReader]:
    """Open the decompressed bytes of a file, or of standard input for '-', for a block.

    Raises InputMissingError if it cannot be opened or read, DataError (without a line) if
    compressed data is broken or grows beyond `max_ratio` times its size, SrucliError if zstandard
    is not installed.
    """
    name = display_name(source)
    with _open(source, name) as stream:
        yield buffered(_plain_chunks(stream, name, max_ratio))


def buffered(chunks: Iterator[bytes]) -> io.BufferedReader:
    """Return a binary file over chunks."""
    return io.BufferedReader(_ChunkReader(chunks), CHUNK)
