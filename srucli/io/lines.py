"""Lines of text from files, compressed files and standard input, each as soon as it has arrived.

- A line ends at LF and nowhere else; the CR of a CRLF and a byte-order mark at the start are
  dropped. Only where no LF is in the first MiB, or in all of a shorter file, a line ends at CR, as
  on the classic Mac.
- gzip, xz and zstandard are recognised by their first bytes, not by the file's name, and so are
  UTF-8, UTF-16 and UTF-32 with a byte-order mark.
- `-` is standard input.
- Memory is bounded, whoever wrote the file: compressed data is taken apart by the kilobyte, and no
  line may be longer than MAX_LINE.

What a line means is not known here: that is `srucli/data/readers.py`.
"""

from __future__ import annotations

import codecs
import io
import itertools
import lzma
import os
import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from srucli.errors import DataError, InputMissingError, SrucliError, UsageError

Source = str | os.PathLike[str]
T = TypeVar("T")

_CHUNK = 1 << 16
# Bytes of compressed data taken apart at once: not even a bomb makes more than some MB of them.
_MOUTHFUL = 1 << 10
_XZ_MEMORY = 1 << 28
MAX_LINE = 1 << 26
# What people take for text, or for one of the above.
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1\x15": "a Parquet file",
    b"BZh91AY&SY": "bzip2 data",
}
# Small files may compress as well as they like.
_FREE_BYTES = 1 << 20
# Where no LF comes in so much, CR may end lines.
_HEAD = 1 << 20
_UTF_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}


def excerpt(text: str) -> str:
    """`text` in quotes for an error message: under 60 characters, nothing that moves a cursor."""
    kept = text[:54]
    while len(repr(kept)) > 56:
        kept = kept[:-1]
    return repr(kept) if kept == text else f"{kept!r}..."


def for_terminal(line: str) -> str:
    """A line of output as a terminal may get it: `escaped`, but for its tabs."""
    return "\t".join(map(escaped, line.split("\t")))


def escaped(text: str) -> str:
    """`text` with what a terminal would obey, or nobody can see, written as `\\x1b`."""
    joiners = "\u200c\u200d"  # part of the spelling of Persian, Hindi and many emoji
    return "".join(
        c if c.isprintable() or c in joiners else c.encode("unicode_escape").decode() for c in text
    )


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _zstandard() -> _Decompressor:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


class _Compression(NamedTuple):
    magic: bytes
    name: str
    start: Callable[[], _Decompressor]


_COMPRESSIONS = (
    _Compression(b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(wbits=31)),
    _Compression(b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
    _Compression(b"\x28\xb5\x2f\xfd", "zstandard", _zstandard),
)


class _ChunkReader(io.RawIOBase):
    """A readable file over an iterator of chunks; a read returns what one chunk still has."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def display_name(source: Source) -> str:
    """How messages name a source."""
    return "<stdin>" if os.fspath(source) == "-" else os.fspath(source)


def is_piped(source: Source) -> bool:
    """Whether it can be read only once: standard input, or a pipe that has a name."""
    return os.fspath(source) == "-" or Path(source).is_fifo()


def _unreadable(source: str, error: OSError) -> InputMissingError:
    if isinstance(error, FileNotFoundError):
        return InputMissingError(f"{source}: no such file; check the name and the folder")
    if isinstance(error, IsADirectoryError):
        return InputMissingError(f"{source}: is a folder; name a file in it")
    if isinstance(error, PermissionError):
        return InputMissingError(f"{source}: no permission to read it; see chmod +r")
    return InputMissingError(f"{source}: cannot be read ({error.strerror}); check the disk or pipe")


def _chunks(stream: Any, source: str) -> Iterator[bytes]:
    """What has arrived, as it arrives: `read1` never waits for a full chunk."""
    try:
        while chunk := stream.read1(_CHUNK):
            yield chunk
    except OSError as error:
        raise _unreadable(source, error) from error


def _start(kind: _Compression, source: str) -> _Decompressor:
    try:
        return kind.start()
    except ImportError:
        raise SrucliError(
            f"{source}: {kind.name} data needs one more package; pip install 'srucli[zst]'"
        ) from None


def _inflate(chunks: Iterator[bytes], kind: _Compression, source: str) -> Iterator[bytes]:
    """Decompress chunks, over the members that a file of several holds one after the other."""
    member = _start(kind, source)
    for chunk in _mouthfuls(chunks):
        while chunk:
            if member.eof:
                chunk = chunk.lstrip(b"\0")  # gzip and xz allow padding between members
                if not chunk:
                    break
                member = _start(kind, source)
            try:
                plain = member.decompress(chunk)
            except Exception as error:  # each library raises a class of its own
                problem = f"broken {kind.name} data ({error})"
                raise DataError(source, None, problem, "copy the file again") from error
            yield plain
            chunk = member.unused_data if member.eof else b""
    if not member.eof:
        raise DataError(source, None, f"the {kind.name} data is cut short", "copy the file again")


def _mouthfuls(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _MOUTHFUL):
            yield chunk[start : start + _MOUTHFUL]


class _Counted:
    """Chunks, and how many bytes they had so far."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks, self.bytes = chunks, 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.bytes += len(chunk)
            yield chunk


def _within(ratio: float, plain: Iterable[bytes], packed: _Counted, source: str) -> Iterator[bytes]:
    """The plain chunks, as long as they are not `ratio` times as long as the compressed ones."""
    size = 0
    for chunk in plain:
        size += len(chunk)
        if size > max(ratio * packed.bytes, _FREE_BYTES):
            problem = f"grows beyond {ratio:g} times its size"
            raise DataError(source, None, problem, "raise --max-ratio if you trust it")
        yield chunk


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
        if what := next((_NO_TEXT[magic] for magic in _NO_TEXT if head.startswith(magic)), None):
            remedy = "unpack it, or save it as CSV or JSON, in the program that made it"
            raise DataError(source, None, f"{what}, which is not read", remedy)
        return whole
    packed = _Counted(whole)
    plain = _inflate(iter(packed), kind, source)
    return plain if ratio is None else _within(ratio, plain, packed, source)


def _open(source: Source, name: str) -> AbstractContextManager[Any]:
    if os.fspath(source) == "-":
        if sys.stdin is None:
            raise InputMissingError(f"{name}: is closed; pipe text into the command or name a file")
        # Not sys.stdin.buffer: the interpreter cannot end while a thread waits in that one.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return open(source, "rb")
    except OSError as error:
        raise _unreadable(name, error) from error


@contextmanager
def open_input(source: Source, max_ratio: float | None = None) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of a file, or of standard input for '-', readable as they arrive.

    Raises InputMissingError where it cannot be opened or read, DataError (without a line) where
    compressed data is broken or grows beyond `max_ratio` times its size, SrucliError where
    zstandard is not installed.
    """
    name = display_name(source)
    with _open(source, name) as stream:
        yield _buffered(_plain_chunks(stream, name, max_ratio))


def _buffered(chunks: Iterator[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_ChunkReader(chunks), _CHUNK)


# ------------------------------------------------------------------ lines


def _checked_encoding(encoding: str) -> str:
    try:
        "\n".encode(encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise UsageError(
            f"--encoding {encoding}: no such encoding; try utf-8, latin-1, cp949 or utf-16"
        ) from None
    return "utf-8" if name == "utf-8-sig" else name  # a byte-order mark is dropped in any case


# Encodings that people have, each with how Unicode calls the letters that it is used for.
_ENCODINGS = {
    "cp932": ("HIRAGANA", "KATAKANA", "CJK"),
    "cp949": ("HANGUL",),
    "cp1251": ("CYRILLIC",),
    "gb18030": ("CJK",),
    "cp1252": ("LATIN",),
}


def _decode_remedy(raw: bytes = b"") -> str:
    """What to do about bytes that are not in an encoding, with one that this line may be in."""
    fit = [name for name, letters in _ENCODINGS.items() if _spells(raw, name, letters)]
    known = dict.fromkeys([*fit[:1], "latin-1", "cp949", "utf-16-le"])
    return f"pass the right --encoding ({', '.join(known)}, ...) or --errors replace"


def _spells(raw: bytes, encoding: str, letters: tuple[str, ...]) -> bool:
    """Whether what is not ASCII is of these letters, in words of their own where not Latin."""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    odd = [unicodedata.name(c, "").startswith(letters) for c in text if not c.isascii()]
    other = r"[^\W\da-zA-Z_]"
    words = re.search(other * 2, text) and not re.search(f"[a-zA-Z]{other}", text)
    words = words or letters == ("LATIN",)
    return bool(words) and 10 * sum(odd) > 9 * len(odd)


_replaced = [0]


def _counting(how: str) -> Callable[[UnicodeError], tuple[str | bytes, int]]:
    """One of Python's ways with bytes or characters that an encoding lacks, which counts them."""

    def handle(error: UnicodeError) -> tuple[str | bytes, int]:
        _replaced[0] += 1
        return codecs.lookup_error(how)(error)

    return handle


for _how in ("replace", "ignore"):
    codecs.register_error(f"srucli-{_how}", _counting(_how))


def counted(errors: str) -> str:
    """The name of an error handler, by that of the one of srucli's that counts."""
    return errors if errors == "strict" else f"srucli-{errors}"


def leniently(passed: Counter[str], convert: Callable[..., T], *arguments: Any) -> T:
    """What a decoder or encoder gives; `passed` counts, as "bytes", what it replaced or left out.

    Its error handler is one that counts.
    """
    before = _replaced[0]
    converted = convert(*arguments)
    if _replaced[0] > before:
        passed["bytes"] += _replaced[0] - before
    return converted


def said_of_encoding(passed: Mapping[str, int], before: str) -> Iterator[str]:
    """What is said where a file is read as UTF-8 although another one was `before`."""
    if passed.get("mark"):
        yield f"read by its byte-order mark, not as {before}, the encoding of the training file"
    if passed.get("not as before"):
        yield (
            f"read as UTF-8, which it is, not as {before}, the encoding of the training file; "
            f"--encoding {before} asks for that"
        )


def losses(passed: Mapping[str, int], encoding: str, errors: str) -> Iterator[str]:
    """What is said of bytes that were replaced or left out, if any were."""
    if count := passed.get("bytes", 0):
        how = "left out" if errors == "ignore" else "replaced"
        what = "a sequence" if count == 1 else f"{count:,} sequences"
        yield f"{what} of bytes that {'is' if count == 1 else 'are'} not {encoding} {how}"


def _is_narrow(encoding: str) -> bool:
    """Whether the byte 0x0A is LF in an encoding, and nothing else."""
    return "\n".encode(encoding) == b"\n"


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 as texts have it: NULs are parts of wider characters."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # which may be cut at its end
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _byte_lines(
    stream: io.BufferedIOBase, encoding: str, errors: str, name: str, passed: Counter[str]
) -> Iterator[str]:
    """Lines of an encoding in which the byte 0x0A is LF and nothing else."""
    for raw in iter(lambda: stream.readline(MAX_LINE + 1), b""):
        _refuse_long(raw, name)
        try:
            line = leniently(passed, raw.decode, encoding, errors)
        except UnicodeDecodeError as error:
            bad = f"byte {error.start + 1} of the line (0x{raw[error.start]:02x})"
            raise DataError(name, None, f"{bad} is not {encoding}", _decode_remedy(raw)) from error
        except UnicodeError as error:  # of encodings that are made of several
            raise DataError(name, None, f"not {encoding} ({error})", _decode_remedy(raw)) from error
        yield line


def _wide_texts(
    stream: io.BufferedReader, encoding: str, errors: str, name: str, passed: Counter[str]
) -> Iterator[str]:
    """Text of the other encodings (UTF-16, UTF-32, EBCDIC), which is decoded before it is cut."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    chunk = b"\n"
    while chunk:
        chunk, held, problem = stream.read1(_CHUNK), len(decoder.getstate()[0]), None
        try:
            text = leniently(passed, decoder.decode, chunk, not chunk)
        except UnicodeDecodeError as error:  # first give the lines before the bad one
            text = _decodable(error.object[held : error.start], encoding)
            problem = f"byte 0x{error.object[error.start]:02x} is not {encoding}"
        except UnicodeError as error:
            text, problem = "", str(error)  # a UTF-16 stream without its mark
        yield text
        if problem:
            raise DataError(name, None, problem, _decode_remedy())


def _cut(texts: Iterator[str], name: str) -> Iterator[str]:
    """Lines, each as soon as its LF is there."""
    tail = ""
    for text in texts:
        *lines, tail = (tail + text).split("\n")
        yield from (line + "\n" for line in lines)
        _refuse_long(tail, name)
    if tail:
        yield tail


def _decodable(data: bytes, encoding: str) -> str:
    """Text before a byte that is none; nothing where even that cannot be told."""
    try:
        return data.decode(encoding)
    except UnicodeError:
        return ""


def _refuse_halves(line: str, name: str, number: int) -> None:
    """Some encodings can spell halves of surrogate pairs, which no file can hold."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        problem = f"half of a surrogate pair at character {error.start + 1} of the line"
        raise DataError(name, number, problem, _decode_remedy()) from None


def _nul_remedy(line: str) -> str:
    """What NULs may be: one of the bytes of each character, in an order that they show."""
    wide = "utf-32" if "\0\0\0" in line else "utf-16"
    order = "be" if line.startswith("\0") else "le"
    return f"take it out, or pass --encoding {wide}-{order} if that is what this is"


def _refuse_long(line: bytes | str, name: str) -> None:
    if len(line) > MAX_LINE:
        problem = f"a line of over {MAX_LINE >> 20} MB"
        remedy = "cut it, as a JSON array between its objects, or look whether this is text"
        raise DataError(name, None, problem, remedy)


def _without_end(line: str) -> str:
    if line.endswith("\r\n"):
        return line[:-2]
    return line[:-1] if line.endswith("\n") else line


class Lines(Iterator[tuple[int, str]]):
    """Lines as (1-based number, text without its end), each as soon as its end has arrived.

    encoding and ends (LF, CRLF or CR): those of the file, known when its first line is read.
    passed: counts, as "bytes", what was replaced or left out so far, and as "CR" the carriage
    returns inside of lines. sure: nothing but `encoding` counts; else it is that of another file,
    and this one's mark, or its first line that is not ASCII if it is UTF-8, counts more.
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
        self.encoding, self.ends = _checked_encoding(encoding), "LF"
        self.sure = sure or self.encoding == "utf-8"
        self.errors, self.passed = errors, Counter() if passed is None else passed
        self._lines = self._read(source, counted(errors), max_ratio)

    def __next__(self) -> tuple[int, str]:
        return next(self._lines)

    def losses(self) -> Iterator[str]:
        """What is to be said of the bytes that were replaced or left out so far."""
        return losses(self.passed, self.encoding, self.errors)

    def _read(
        self, source: Source, errors: str, max_ratio: float | None
    ) -> Iterator[tuple[int, str]]:
        name, number = display_name(source), 0
        try:
            with open_input(source, max_ratio) as stream:
                for number, decoded in enumerate(self._decoded(stream, errors, name), 1):
                    if number == 1:
                        decoded = decoded.removeprefix("\ufeff")
                        if not decoded:
                            return  # a mark and nothing else
                        if decoded.endswith("\r\n"):
                            self.ends = "CRLF"
                    line = _without_end(decoded)
                    if "\r" in line:
                        self.passed["CR"] += line.rstrip("\r").count("\r")
                    if self.encoding != "utf-8":
                        _refuse_halves(line, name, number)
                    if "\0" in line:
                        problem = f"a NUL character after {excerpt(line[: line.index(chr(0))])}"
                        raise DataError(name, number, problem, _nul_remedy(line))
                    yield number, line
        except DataError as error:
            if error.line is not None:
                raise
            raise DataError(name, number + 1, error.problem, error.remedy) from error

    def _decoded(self, stream: io.BufferedReader, errors: str, name: str) -> Iterator[str]:
        """Lines with their ends, after a look at what comes before the first LF."""
        chunks = iter(lambda: stream.read1(_CHUNK), b"")
        head = b"".join(_until(b"\n", chunks))
        parts: Iterator[bytes] = itertools.chain([head], chunks)
        self._obey_mark(head, name)
        if not _is_narrow(self.encoding) and not self.sure and _is_utf8(head):
            self.encoding = "utf-8"
            self.passed["not as before"] += 1
        if not _is_narrow(self.encoding):
            yield from self._wide(_buffered(parts), errors, name)
            return
        if self._ends_at_cr(b"\n" in head, b"\r" in head):
            parts = (part.replace(b"\r", b"\n") for part in parts)
        whole = _buffered(parts)
        if not self.sure and self.encoding != "utf-8":
            yield from self._until_told(whole, errors, name)
        yield from _byte_lines(whole, self.encoding, errors, name, self.passed)

    def _until_told(self, stream: io.BufferedReader, errors: str, name: str) -> Iterator[str]:
        """Lines up to the first one that is not ASCII, which tells UTF-8 from other encodings."""
        for raw in iter(lambda: stream.readline(MAX_LINE + 1), b""):
            if is_told := not raw.isascii():
                if _is_utf8(raw):
                    self.encoding = "utf-8"
                    self.passed["not as before"] += 1
                self.sure = True
            yield from _byte_lines(io.BytesIO(raw), self.encoding, errors, name, self.passed)
            if is_told:
                return

    def _wide(self, stream: io.BufferedReader, errors: str, name: str) -> Iterator[str]:
        texts = _wide_texts(stream, self.encoding, errors, name, self.passed)
        first = "".join(_until("\n", texts))
        whole: Iterator[str] = itertools.chain([first], texts)
        if self._ends_at_cr("\n" in first, "\r" in first):
            whole = (text.replace("\r", "\n") for text in whole)
        yield from _cut(whole, name)

    def _obey_mark(self, head: bytes, name: str) -> None:
        """Take the encoding that a mark says. Raises DataError where another was asked for."""
        mark = next(filter(head.startswith, _UTF_MARKS), None)
        if mark is None or mark.decode(self.encoding, "replace") in ("", "\ufeff"):
            return
        marked = _UTF_MARKS[mark]
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


def _until(end: Any, parts: Iterator[Any]) -> Iterator[Any]:
    """Parts up to the one that holds `end`, or until they are as long as a head may be."""
    size = 0
    for part in parts:
        yield part
        size += len(part)
        if end in part or size >= _HEAD:
            return


def read_lines(
    source: Source,
    encoding: str = "utf-8",
    errors: str = "strict",
    max_ratio: float | None = None,
    passed: Counter[str] | None = None,
    sure: bool = True,
) -> Lines:
    """The lines of a file; `passed` counts what of it is replaced or left out.

    Raises what `open_input` raises; UsageError for an unknown encoding; DataError with the line for
    bytes that the encoding does not allow, for a NUL, for too long a line, and for compressed data
    that is broken or grows beyond `max_ratio` times its size.
    """
    return Lines(source, encoding, errors, max_ratio, passed, sure)
