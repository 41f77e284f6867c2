"""Numbered lines of text from files, compressed files and standard input, each as it arrives.

- A line ends at LF. The CR of a CRLF, and a byte-order mark at the start, are removed. A line ends
  at CR, as on the classic Mac, only if no LF is in the first MiB, or in all of a shorter file.
- UTF-8, UTF-16 and UTF-32 are recognized by a byte-order mark.
- No line may be longer than MAX_LINE.
"""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from srucli.errors import DataError
from srucli.io import encodings
from srucli.io.console import excerpt
from srucli.io.streams import CHUNK, Source, buffered, display_name, open_input

MAX_LINE = 1 << 26
# If there is no LF in so many bytes, CR may end lines.
_HEAD = 1 << 20

NumberedLines = Iterator[tuple[int, str]]


class Lines(NumberedLines):
    """The lines of a file as (number from 1, text without its end), each as soon as it has ended.

    `encoding` and `ends` (LF, CRLF or CR) are known once the first line is read. `counts` counts
    what was replaced or left out so far as "bytes", and carriage returns within lines as "CR".
    """

    def __init__(
        self,
        source: Source,
        encoding: str = "utf-8",
        errors: str = "strict",
        max_ratio: float | None = None,
        counts: Counter[str] | None = None,
        sure: bool = True,
    ) -> None:
        """Lines are read when they are requested.

        sure: False if `encoding` is only another file's, so that a byte-order mark, or a first
        non-ASCII line in UTF-8, overrides it.

        Raises UsageError for an unknown encoding. Reading raises what `open_input` raises, and
        DataError with the line for bytes that cannot be decoded, a NUL, and too long a line.
        """
        self.encoding, self.ends = encodings.known_encoding(encoding), "LF"
        self.sure = sure or self.encoding == "utf-8"
        self.errors, self.counts = errors, Counter() if counts is None else counts
        self._lines = self._read(source, encodings.counting(errors), max_ratio)

    def __next__(self) -> tuple[int, str]:
        return next(self._lines)

    def _read(self, source: Source, errors: str, max_ratio: float | None) -> NumberedLines:
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
                    line = whole[:-2] if whole.endswith("\r\n") else whole.removesuffix("\n")
                    if "\r" in line:
                        self.counts["CR"] += line.rstrip("\r").count("\r")
                    if self.encoding != "utf-8":
                        encodings.refuse_surrogates(line, name, number)
                    if "\0" in line:
                        problem = f"a NUL character after {excerpt(line[: line.index(chr(0))])}"
                        raise DataError(name, number, problem, encodings.nul_remedy(line))
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
        if not encodings.is_narrow(self.encoding) and not self.sure and encodings.is_utf8(head):
            self._take_utf8()
        if not encodings.is_narrow(self.encoding):
            yield from self._wide(buffered(parts), errors, name)
            return
        if self._ends_at_cr(b"\n" in head, b"\r" in head):
            parts = (part.replace(b"\r", b"\n") for part in parts)
        whole = buffered(parts)
        for raw in iter(lambda: whole.readline(MAX_LINE + 1), b""):
            _refuse_long(raw, name)
            if not self.sure and not raw.isascii():  # the first such line decides
                if encodings.is_utf8(raw):
                    self._take_utf8()
                self.sure = True
            yield encodings.decode_line(raw, self.encoding, errors, name, self.counts)

    def _take_utf8(self) -> None:
        self.encoding, self.sure = "utf-8", True
        self.counts["utf-8"] += 1

    def _wide(self, stream: io.BufferedReader, errors: str, name: str) -> Iterator[str]:
        """Yield lines in an encoding where the byte 0x0A may be part of a character."""
        texts = encodings.decode_chunks(stream, self.encoding, errors, name, self.counts)
        head = "".join(_until("\n", texts))
        texts = itertools.chain([head], texts)
        if self._ends_at_cr("\n" in head, "\r" in head):
            texts = (text.replace("\r", "\n") for text in texts)
        tail = ""
        for text in texts:
            *lines, tail = (tail + text).split("\n")
            yield from (line + "\n" for line in lines)
            _refuse_long(tail, name)
        if tail:
            yield tail

    def _obey_mark(self, head: bytes, name: str) -> None:
        """Take the encoding of a byte-order mark. Raises DataError if another was requested."""
        marked = encodings.marked_encoding(head, self.encoding)
        if marked is None:
            return
        if self.sure and self.encoding != "utf-8":
            problem = f"a {marked.upper()} byte-order mark, so this is not {self.encoding}"
            raise DataError(name, None, problem, f"pass --encoding {marked}")
        if self.encoding != "utf-8":
            self.counts["mark"] += 1
        self.encoding, self.sure = marked, True

    def _ends_at_cr(self, has_lf: bool, has_cr: bool) -> bool:
        if has_cr and not has_lf:
            self.ends = "CR"
        return self.ends == "CR"


def _until(end: Any, parts: Iterator[Any]) -> Iterator[Any]:
    """Yield parts up to one that contains `end`, or until they have _HEAD bytes or characters."""
    size = 0
    for part in parts:
        yield part
        size += len(part)
        if end in part or size >= _HEAD:
            return


def _refuse_long(line: bytes | str, name: str) -> None:
    if len(line) > MAX_LINE:
        problem = f"a line of over {MAX_LINE >> 20} MB"
        remedy = "cut it, as a JSON array between its objects, or check whether this is text"
        raise DataError(name, None, problem, remedy)
