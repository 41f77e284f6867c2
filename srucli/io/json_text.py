"""JSON: the one place that writes it, and that reads what srucli wrote.

Input data is read by `json_objects.py`; the state of a training, which may hold NaN, by
`runs/training_state.py`.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Any

from srucli.io.console import JOINERS

# Whole numbers of at most as many characters fit 64 bits; longer ones are read as floats.
_MAX_DIGITS = 18


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON that every parser reads and every terminal and editor shows as it is.

    Numbers that are NaN or Inf become null. Control and invisible characters, and halves of
    surrogate pairs, are escaped as `\\u202e`.
    """
    import json  # here, so that `srucli --help` does not load it

    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(c if _is_plain(c) else json.dumps(c)[1:-1] for c in text)


def json_value(text: str | bytes) -> Any:
    """Return the value of JSON. Raises ValueError, RecursionError.

    Numbers that no 64 bits hold become floats, and those that are not finite None.
    """
    import json

    return json.loads(text, parse_int=_whole, parse_float=_number, parse_constant=lambda _: None)


def _is_plain(c: str) -> bool:
    # Line ends are those of the indentation: in strings, `dumps` has escaped them.
    return c.isprintable() or c == "\n" or c in JOINERS or unicodedata.category(c) == "Zs"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else _number(digits)


def _number(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None
