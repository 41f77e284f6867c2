"""What an optimizer's option may be, and the check of one that a person gave.

Not which options exist. No torch here: a wrong option is reported before torch is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from srucli.errors import UsageError

Value = bool | int | float | tuple[float, ...]


@dataclass(frozen=True)
class Range:
    """The numbers an option may be, as a test and in words that follow 'a number'."""

    text: str
    holds: Callable[[float], bool]


SHARE = Range("at least 0 and below 1", lambda x: 0.0 <= x < 1.0)
INNER_SHARE = Range("above 0 and below 1", lambda x: 0.0 < x < 1.0)
NOT_NEGATIVE = Range("at least 0", lambda x: x >= 0.0)
POSITIVE = Range("above 0", lambda x: x > 0.0)
NEGATIVE = Range("below 0", lambda x: x < 0.0)
AT_LEAST_ONE = Range("at least 1", lambda x: x >= 1.0)
STEPS = Range("from 1 to 99", lambda x: 1 <= x <= 99)


@dataclass(frozen=True)
class Option:
    """One option: its default, whose type is the option's type, its meaning and its range.

    Where the default is a tuple, a value has as many numbers, each within the range.
    """

    default: Value
    meaning: str
    range: Range = NOT_NEGATIVE

    def checked(self, key: str, value: Any) -> Value:
        """`value` in the default's type. Raises UsageError naming `key`, as `optim.options.eps`."""
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
        elif isinstance(self.default, tuple):
            if (
                isinstance(value, list | tuple)
                and len(value) == len(self.default)
                and all(self._fits(part, float) for part in value)
            ):
                return tuple(float(part) for part in value)
        elif self._fits(value, type(self.default)):
            return type(self.default)(value)
        raise UsageError(f"{key} = {value!r}: must be {self.wanted}")

    @property
    def wanted(self) -> str:
        """What a value must be, in words: 'true or false', 'a number above 0'."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, tuple):
            return f"a list of {len(self.default)} numbers, each {self.range.text}"
        return f"a {'whole ' if isinstance(self.default, int) else ''}number {self.range.text}"

    def _fits(self, value: Any, kind: type) -> bool:
        allowed = int if kind is int else (int, float)
        return (
            isinstance(value, allowed)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
            and self.range.holds(value)
        )
