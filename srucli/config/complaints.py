"""What pydantic finds wrong with a value, in plain words: `'three' is not a whole number`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from srucli.errors import did_you_mean
from srucli.io.console import beginning, excerpt

# By the kind of an error. {value} is the value as given; other names are pydantic's.
_WORDS = {
    "int_parsing": "{value} is not a whole number",
    "int_parsing_size": "{value} has too many digits",
    "int_type": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "float_parsing": "{value} is not a number",
    "float_type": "{value} is not a number",
    "finite_number": "{value} is not a finite number",
    "bool_parsing": "{value} is neither true nor false",
    "bool_type": "{value} is neither true nor false",
    "greater_than": "{value} is too small; it must be above {gt}",
    "greater_than_equal": "{value} is too small; the smallest is {ge}",
    "less_than": "{value} is too large; it must be below {lt}",
    "less_than_equal": "{value} is too large; the largest is {le}",
    "string_type": "{value} is not text; write it in quotes",
    "string_too_short": "{value} is too short; the smallest length is {min_length}",
    "string_too_long": "{value} is too long; the largest length is {max_length}",
    "string_pattern_mismatch": "{value} has a tab, a line end or another control character",
    "too_short": "{value} has too few values; it needs {min_length} or more",
    "too_long": "{value} has too many values; the most is {max_length}",
    "tuple_type": "{value} is not a list; write [one, two]",
    "dict_type": "{value} is not a list of options; write {{NAME: VALUE}}",
    "model_type": "{value} is not a section; write its settings as {{NAME: VALUE}}",
    "invalid_key": "{value} is not a name of a setting",
}
# Errors whose message names the possible values, each in single quotes.
_CHOICES = ("literal_error", "value_error")


def complaint(error: Mapping[str, Any]) -> str:
    """Return what is wrong, from an item of `ValidationError.errors()`."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _CHOICES:
        words = re.findall("'([^']*)'", context.get("expected") or error["msg"].split(" not ")[-1])
        return f"{excerpt(given)} is unknown{did_you_mean(str(given), words)}"
    is_bound = kind.startswith(("greater_than", "less_than"))
    value = beginning(str(given)) if is_bound else excerpt(given)
    if kind not in _WORDS:
        return f"{value}: {error['msg']}"
    limits = {name: _number(limit) for name, limit in context.items()}
    return _WORDS[kind].format(value=value, **limits)


def _number(limit: Any) -> str:
    """Return a limit without a fraction of zero, as `1` of 1.0."""
    whole = isinstance(limit, float) and limit.is_integer()
    return f"{int(limit) if whole else limit:,}" if isinstance(limit, int | float) else str(limit)
