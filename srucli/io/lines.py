"""Numbered lines of text from files, compressed files and standard input, each as it arrives.

- A line ends at LF and nowhere else; the CR of a CRLF and a byte-order mark at the start are
  dropped. Only where no LF is in the first MiB, or in all of a shorter file, a line ends at CR, as
  on the classic Mac.
- UTF-8, UTF-16 and UTF-32 with a byte-order mark are recognised by it.
- No line may be longer than MAX_LINE.

Opening and decompressing is done in `streams.py`, decoding in `encodings.py`. What a line means is
not known here: that is `srucli/data/readers.py`.
"""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from srucli.errors import DataError
from srucli.io.console import excerpt
from srucli.io.encodings import (
    counted,
    decoded,
    decoded_chunks,
    is_narrow,
    is_utf8,
    known_encoding,
    losses,
    marked_encoding,
    nul_remedy,
    refuse_surrogates,
)
from srucli.io.streams import CHUNK, Source, buffered, display_name, open_input

MAX_LINE = 1 << 26
# Where the first so many bytes have no LF, CR may end lines.
_HEAD = 1 << 20


class Lines(Iterator[tuple[int, str]]):
    """Lines as (1-based number, text without its end), each as soon as its end has arrived.

    `encoding` and `ends` (LF, CRLF or CR) are the file's once its first line is read. `passed`
    counts what was replaced or left out so far as "bytes", and carriage returns within lines as
    "CR". `sure` is False where `encoding` is only that of another file: then a byte-order mark, or
    a first line that is not ASCII but UTF-8, counts more.
    """

    def __init__(
        self,
        source: Source,
        encoding: str,
        errors: str,
        max_ratio: float | None,
        passed: Counter[str] | None = None,
        sure: bool = True,
    ) -> None:
        self.encoding, self.ends = known_encoding(encoding), "LF"
        self.sure = sure or self.encoding == "utf-8"
        self.errors, self.passed = errors, Counter() if passed is None else passed
        self._lines = self._read(source, counted(errors), max_ratio)

    def __next__(self) -> tuple[int, str]:
        return next(self._lines)

    def losses(self) -> Iterator[str]:
        """Yield what is said of the bytes that were replaced or left out so far."""
        return losses(self.passed, self.encoding, self.errors)

    def _read(
        self, source: Source, errors: str, max_ratio: float | None
    ) -> Iterator[tuple[int, str]]:
        name, number = display_name(source), 0
        try:
            with open_input(source, max_ratio) as stream:
                for number, whole in enumerate(self._with_ends(stream, errors, name), 1):
                    if number == 1:
                        whole = whole.removeprefix("\ufeff")
                        if not whole:
                            return  # a byte-order mark and nothing else
                        if whole.endswith("\r\n"):
                            self.ends = "CRLF"
                    line = _without_end(whole)
                    if "\r" in line:
                        self.passed["CR"] += line.rstrip("\r").count("\r")
                    if self.encoding != "utf-8":
                        refuse_surrogates(line, name, number)
                    if "\0" in line:
                        problem = f"a NUL character after {excerpt(line[: line.index(chr(0))])}"
                        raise DataError(name, number, problem, nul_remedy(line))
                    yield number, line
        except DataError as error:
            if error.line is not None:
                raise
            raise DataError(name, number + 1, error.problem, error.remedy) from error

    def _with_ends(self, stream: io.BufferedReader, errors: str, name: str) -> Iterator[str]:
        """Yield lines with their ends, after a look at what comes before the first LF."""
        chunks = iter(lambda: stream.read1(CHUNK), b"")
        head = b"".join(_until(b"\n", chunks))
        parts: Iterator[bytes] = itertools.chain([head], chunks)
        self._obey_mark(head, name)
        if not is_narrow(self.encoding) and not self.sure and is_utf8(head):
            self._take_utf8()
        if not is_narrow(self.encoding):
            yield from self._wide(buffered(parts), errors, name)
            return
        if self._ends_at_cr(b"\n" in head, b"\r" in head):
            parts = (part.replace(b"\r", b"\n") for part in parts)
        whole = buffered(parts)
        for raw in iter(lambda: whole.readline(MAX_LINE + 1), b""):
            _refuse_long(raw, name)
            if not self.sure and not raw.isascii():  # the first such line decides
                if is_utf8(raw):
                    self._take_utf8()
                self.sure = True
            yield decoded(raw, self.encoding, errors, name, self.passed)

    def _take_utf8(self) -> None:
        self.encoding, self.sure = "utf-8", True
        self.passed["not as before"] += 1

    def _wide(self, stream: io.BufferedReader, errors: str, name: str) -> Iterator[str]:
        """Yield lines of an encoding in which the byte 0x0A may be a part of a character."""
        texts = decoded_chunks(stream, self.encoding, errors, name, self.passed)
        first = "".join(_until("\n", texts))
        whole: Iterator[str] = itertools.chain([first], texts)
        if self._ends_at_cr("\n" in first, "\r" in first):
            whole = (text.replace("\r", "\n") for text in whole)
        yield from _cut(whole, name)

    def _obey_mark(self, head: bytes, name: str) -> None:
        """Take the encoding of a byte-order mark. Raises DataError where another was asked for."""
        marked = marked_encoding(head, self.encoding)
        if marked is None:
            return
        if self.sure and self.encoding != "utf-8":
            problem = f"a {marked.upper()} byte-order mark, so this is not {self.encoding}"
            raise DataError(name, None, problem, f"pass --encoding {marked}")
        if self.encoding != "utf-8":
            self.passed["mark"] += 1
        self.encoding, self.sure = marked, True

    def _ends_at_cr(self, has_lf: bool, has_cr: bool) -> bool:
        if has_cr and not has_lf:
            self.ends = "CR"
        return self.ends == "CR"


def _cut(texts: Iterator[str], name: str) -> Iterator[str]:
    """Yield lines, each as soon as its LF is there."""
    tail = ""
    for text in texts:
        *lines, tail = (tail + text).split("\n")
        yield from (line + "\n" for line in lines)
        _refuse_long(tail, name)
    if tail:
        yield tail


def _until(end: Any, parts: Iterator[Any]) -> Iterator[Any]:
    """Yield parts up to the one that holds `end`, or until they have _HEAD bytes or characters."""
    size = 0
    for part in parts:
        yield part
        size += len(part)
        if end in part or size >= _HEAD:
            return


def _without_end(line: str) -> str:
    if line.endswith("\r\n"):
        return line[:-2]
    return line[:-1] if line.endswith("\n") else line


def _refuse_long(line: bytes | str, name: str) -> None:
    if len(line) > MAX_LINE:
        problem = f"a line of over {MAX_LINE >> 20} MB"
        remedy = "cut it, as a JSON array between its objects, or look whether this is text"
        raise DataError(name, None, problem, remedy)


def read_lines(
    source: Source,
    encoding: str = "utf-8",
    errors: str = "strict",
    max_ratio: float | None = None,
    passed: Counter[str] | None = None,
    sure: bool = True,
) -> Lines:
    """Return the lines of a file; `passed` counts what of it is replaced or left out.

    Raises what `open_input` raises; UsageError for an unknown encoding; DataError with the line for
    bytes that the encoding does not allow, for a NUL, for too long a line, and for compressed data
    that is broken or grows beyond `max_ratio` times its size.
    """
    return Lines(source, encoding, errors, max_ratio, passed, sure)
