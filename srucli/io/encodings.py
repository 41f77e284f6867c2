"""Character encodings: detect them, decode bytes, and report bytes that cannot be decoded."""

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
# Common encodings, each with the first words in the Unicode names of its letters.
_ENCODINGS = {
    "cp932": ("HIRAGANA", "KATAKANA", "CJK"),
    "cp949": ("HANGUL",),
    "cp1251": ("CYRILLIC",),
    "gb18030": ("CJK",),
    "cp1252": ("LATIN",),
}


def known_encoding(name: str) -> str:
    """Return Python's name of an encoding. Raises UsageError for an unknown one."""
    try:
        "\n".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise UsageError(
            f"--encoding {name}: no such encoding; try utf-8, latin-1, cp949 or utf-16"
        ) from None
    return "utf-8" if found == "utf-8-sig" else found  # a byte-order mark is always removed


def marked_encoding(head: bytes, encoding: str) -> str | None:
    """Return the encoding of a byte-order mark; None without one, or if it fits `encoding`."""
    mark = next(filter(head.startswith, _UTF_MARKS), None)
    if mark is None or mark.decode(encoding, "replace") in ("", "\ufeff"):
        return None
    return _UTF_MARKS[mark]


def is_narrow(encoding: str) -> bool:
    """Whether the byte 0x0A is LF, and only that, in an encoding."""
    return "\n".encode(encoding) == b"\n"


def is_utf8(data: bytes) -> bool:
    """Whether bytes, which may end within a character, are UTF-8. A NUL shows UTF-16 or UTF-32."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


_replaced = [0]


def _counting(how: str) -> Callable[[UnicodeError], tuple[str | bytes, int]]:
    def handle(error: UnicodeError) -> tuple[str | bytes, int]:
        _replaced[0] += 1
        return codecs.lookup_error(how)(error)

    return handle


for _how in ("replace", "ignore"):
    codecs.register_error(f"srucli-{_how}", _counting(_how))


def counting(errors: str) -> str:
    """Return the name of the error handler that counts its calls and else does the same."""
    return errors if errors == "strict" else f"srucli-{errors}"


def count_replacements(counts: Counter[str], convert: Callable[..., T], *arguments: Any) -> T:
    """Call a codec that has a counting error handler; `counts["bytes"]` counts replacements."""
    before = _replaced[0]
    converted = convert(*arguments)
    if _replaced[0] > before:
        counts["bytes"] += _replaced[0] - before
    return converted


def decode_line(raw: bytes, encoding: str, errors: str, name: str, counts: Counter[str]) -> str:
    """Decode a line in a narrow encoding. Raises DataError naming the byte that does not fit."""
    try:
        return count_replacements(counts, raw.decode, encoding, errors)
    except UnicodeDecodeError as error:
        bad = f"byte {error.start + 1} of the line (0x{raw[error.start]:02x})"
        raise DataError(name, None, f"{bad} is not {encoding}", _remedy(raw)) from error
    except UnicodeError as error:  # of encodings that combine several
        raise DataError(name, None, f"not {encoding} ({error})", _remedy(raw)) from error


def decode_chunks(
    stream: io.BufferedReader, encoding: str, errors: str, name: str, counts: Counter[str]
) -> Iterator[str]:
    """Decode a stream chunk by chunk, for encodings that are not narrow (UTF-16, EBCDIC).

    Raises DataError after the text before a byte that does not fit.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    chunk = b"\n"
    while chunk:
        chunk, held, problem = stream.read1(CHUNK), len(decoder.getstate()[0]), None
        try:
            text = count_replacements(counts, decoder.decode, chunk, not chunk)
        except UnicodeDecodeError as error:
            text = _decodable(error.object[held : error.start], encoding)
            problem = f"byte 0x{error.object[error.start]:02x} is not {encoding}"
        except UnicodeError as error:
            text, problem = "", str(error)  # a UTF-16 stream without its mark
        yield text
        if problem:
            raise DataError(name, None, problem, _remedy())


def _decodable(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError:
        return ""


def refuse_surrogates(line: str, name: str, number: int) -> None:
    """Raise DataError for half of a surrogate pair, which some encodings can represent."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        problem = f"half of a surrogate pair at character {error.start + 1} of the line"
        raise DataError(name, number, problem, _remedy()) from None


def encoding_notes(counts: Mapping[str, int], inherited: str) -> Iterator[str]:
    """Yield messages if a file is not in the encoding inherited from the training file."""
    if counts.get("mark"):
        yield f"read by its byte-order mark, not as {inherited}, the encoding of the training file"
    if counts.get("utf-8"):
        yield (
            f"read as UTF-8, which it is, not as {inherited}, the encoding of the training file; "
            f"--encoding {inherited} asks for that"
        )


def replacement_notes(counts: Mapping[str, int], encoding: str, errors: str) -> Iterator[str]:
    """Yield a message about bytes that were replaced or left out, if any were."""
    if count := counts.get("bytes", 0):
        how = "left out" if errors == "ignore" else "replaced"
        what = "a sequence" if count == 1 else f"{count:,} sequences"
        yield f"{what} of bytes that {'is' if count == 1 else 'are'} not {encoding} {how}"


def nul_remedy(line: str) -> str:
    """Return advice for a line with NULs, which show UTF-16 or UTF-32 and its byte order."""
    wide = "utf-32" if "\0\0\0" in line else "utf-16"
    order = "be" if line.startswith("\0") else "le"
    return f"remove it, or pass --encoding {wide}-{order} if that is what this is"


def _remedy(raw: bytes = b"") -> str:
    """Return advice for bytes that do not fit; first, an encoding that fits this line."""
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
    return bool(words or letters == ("LATIN",)) and 10 * sum(odd) > 9 * len(odd)
