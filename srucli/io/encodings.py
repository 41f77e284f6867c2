"""Character encodings: which one bytes are in, decoding, and what is said of bytes that do not fit.

Where lines end is decided in `lines.py`.
"""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from srucli.errors import DataError, UsageError
from srucli.io.streams import CHUNK

T = TypeVar("T")

_UTF_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}
# Common encodings, each with the Unicode names of the letters that it is used for.
_ENCODINGS = {
    "cp932": ("HIRAGANA", "KATAKANA", "CJK"),
    "cp949": ("HANGUL",),
    "cp1251": ("CYRILLIC",),
    "gb18030": ("CJK",),
    "cp1252": ("LATIN",),
}


def known_encoding(name: str) -> str:
    """Return Python's name of an encoding. Raises UsageError for one that it does not have."""
    try:
        "\n".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise UsageError(
            f"--encoding {name}: no such encoding; try utf-8, latin-1, cp949 or utf-16"
        ) from None
    return "utf-8" if found == "utf-8-sig" else found  # a byte-order mark is dropped in any case


def marked_encoding(head: bytes, encoding: str) -> str | None:
    """Return the encoding of a byte-order mark; None without one, or where `encoding` has it."""
    mark = next(filter(head.startswith, _UTF_MARKS), None)
    if mark is None or mark.decode(encoding, "replace") in ("", "\ufeff"):
        return None
    return _UTF_MARKS[mark]


def is_narrow(encoding: str) -> bool:
    """Whether the byte 0x0A is LF in an encoding, and nothing else."""
    return "\n".encode(encoding) == b"\n"


def is_utf8(data: bytes) -> bool:
    """Whether bytes, which may end within a character, are UTF-8 text.

    A NUL says no: it is a part of a character of UTF-16 or UTF-32.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


# ------------------------------------------------------------------ decoding

_replaced = [0]


def _counting(how: str) -> Callable[[UnicodeError], tuple[str | bytes, int]]:
    """Return one of Python's error handlers that also counts its calls."""

    def handle(error: UnicodeError) -> tuple[str | bytes, int]:
        _replaced[0] += 1
        return codecs.lookup_error(how)(error)

    return handle


for _how in ("replace", "ignore"):
    codecs.register_error(f"srucli-{_how}", _counting(_how))


def counted(errors: str) -> str:
    """Return the name of the counting error handler that does what the handler `errors` does."""
    return errors if errors == "strict" else f"srucli-{errors}"


def leniently(passed: Counter[str], convert: Callable[..., T], *arguments: Any) -> T:
    """Call a decoder or encoder with a counting error handler.

    `passed["bytes"]` counts what it replaced or left out.
    """
    before = _replaced[0]
    converted = convert(*arguments)
    if _replaced[0] > before:
        passed["bytes"] += _replaced[0] - before
    return converted


def decoded(raw: bytes, encoding: str, errors: str, name: str, passed: Counter[str]) -> str:
    """Decode a line of a narrow encoding. Raises DataError naming the byte that does not fit."""
    try:
        return leniently(passed, raw.decode, encoding, errors)
    except UnicodeDecodeError as error:
        bad = f"byte {error.start + 1} of the line (0x{raw[error.start]:02x})"
        raise DataError(name, None, f"{bad} is not {encoding}", _remedy(raw)) from error
    except UnicodeError as error:  # of encodings that are made of several
        raise DataError(name, None, f"not {encoding} ({error})", _remedy(raw)) from error


def decoded_chunks(
    stream: io.BufferedReader, encoding: str, errors: str, name: str, passed: Counter[str]
) -> Iterator[str]:
    """Decode a stream chunk by chunk, for encodings that are not narrow (UTF-16, EBCDIC).

    Raises DataError after the text before a byte that does not fit.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    chunk = b"\n"
    while chunk:
        chunk, held, problem = stream.read1(CHUNK), len(decoder.getstate()[0]), None
        try:
            text = leniently(passed, decoder.decode, chunk, not chunk)
        except UnicodeDecodeError as error:
            text = _decodable(error.object[held : error.start], encoding)
            problem = f"byte 0x{error.object[error.start]:02x} is not {encoding}"
        except UnicodeError as error:
            text, problem = "", str(error)  # a UTF-16 stream without its mark
        yield text
        if problem:
            raise DataError(name, None, problem, _remedy())


def _decodable(data: bytes, encoding: str) -> str:
    """Decode what is before a wrong byte; "" where even that fails."""
    try:
        return data.decode(encoding)
    except UnicodeError:
        return ""


def refuse_surrogates(line: str, name: str, number: int) -> None:
    """Raise DataError for half of a surrogate pair, which some encodings can hold but no file."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        problem = f"half of a surrogate pair at character {error.start + 1} of the line"
        raise DataError(name, number, problem, _remedy()) from None


# ------------------------------------------------------------------ messages


def said_of_encoding(passed: Mapping[str, int], before: str) -> Iterator[str]:
    """Yield what is said where a file is read as UTF-8, not in `before`, the run's encoding."""
    if passed.get("mark"):
        yield f"read by its byte-order mark, not as {before}, the encoding of the training file"
    if passed.get("not as before"):
        yield (
            f"read as UTF-8, which it is, not as {before}, the encoding of the training file; "
            f"--encoding {before} asks for that"
        )


def losses(passed: Mapping[str, int], encoding: str, errors: str) -> Iterator[str]:
    """Yield what is said of bytes that were replaced or left out, if any were."""
    if count := passed.get("bytes", 0):
        how = "left out" if errors == "ignore" else "replaced"
        what = "a sequence" if count == 1 else f"{count:,} sequences"
        yield f"{what} of bytes that {'is' if count == 1 else 'are'} not {encoding} {how}"


def nul_remedy(line: str) -> str:
    """Advise on a line with NULs, which show UTF-16 or UTF-32 and its byte order."""
    wide = "utf-32" if "\0\0\0" in line else "utf-16"
    order = "be" if line.startswith("\0") else "le"
    return f"take it out, or pass --encoding {wide}-{order} if that is what this is"


def _remedy(raw: bytes = b"") -> str:
    """Advise on bytes that are not in an encoding, first an encoding that this line may be in."""
    fit = [name for name, letters in _ENCODINGS.items() if _spells(raw, name, letters)]
    known = dict.fromkeys([*fit[:1], "latin-1", "cp949", "utf-16-le"])
    return f"pass the right --encoding ({', '.join(known)}, ...) or --errors replace"


def _spells(raw: bytes, encoding: str, letters: tuple[str, ...]) -> bool:
    """Whether nearly all non-ASCII characters are such letters.

    Letters that are not Latin must also follow each other, and not follow a Latin letter.
    """
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    odd = [unicodedata.name(c, "").startswith(letters) for c in text if not c.isascii()]
    other = r"[^\W\da-zA-Z_]"
    words = re.search(other * 2, text) and not re.search(f"[a-zA-Z]{other}", text)
    words = words or letters == ("LATIN",)
    return bool(words) and 10 * sum(odd) > 9 * len(odd)
