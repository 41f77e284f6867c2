"""What srucli may print for people and for programs, whatever its input holds."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

# Characters that move a terminal's cursor, start its commands, or reorder what follows: C0 but tab,
# line feed and the carriage return of a progress bar; DEL; C1; overrides and isolates of direction.
UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# No message is longer, in characters: its file's name, two quotes of its input, and its words.
MAX_LINE = 2000


def check_printed(text: str, most: int = MAX_LINE) -> None:
    """Check text for people. Raises AssertionError."""
    text.encode()
    found = UNSAFE.search(text)
    assert not found, f"prints {found[0]!a} in {text[max(0, found.start() - 50) :][:100]!a}"
    longest = max(text.split("\n"), key=len)
    assert len(longest) <= most, f"a line of {len(longest):,} characters: {longest[:100]!a}"


def check_json(text: str) -> Any:
    """Return the value of JSON for programs, which must be strict. Raises AssertionError."""
    found = UNSAFE.search(text)
    assert not found, f"JSON with {found[0]!a} in {text[max(0, found.start() - 50) :][:100]!a}"

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"JSON with {word} in {text[:100]!a}")

    return json.loads(text, parse_constant=refuse)
