"""Type, range and meaning of an optimizer's options, and checks of given options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from srucli.errors import UsageError, did_you_mean
from srucli.io.console import excerpt

if TYPE_CHECKING:
    from srucli.config import OptimConfig

Value = bool | int | float | tuple[float, ...]


class Range(NamedTuple):
    """The numbers that an option accepts, as a predicate and in words that follow 'a number'."""

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
    """One option: its default, its meaning and its range. The default's type is the option's type.

    If the default is a tuple, a value has as many numbers, each within the range.
    """

    default: Value
    meaning: str
    range: Range = NOT_NEGATIVE

    def checked(self, key: str, value: Any) -> Value:
        """Return `value` in the default's type. Raises UsageError with `key` in its message."""
        kind = type(self.default)
        if isinstance(self.default, tuple):
            same_length = isinstance(value, list | tuple) and len(value) == len(self.default)
            if same_length and all(self._fits(part, float) for part in value):
                return tuple(map(float, value))
        elif isinstance(value, bool) if kind is bool else self._fits(value, kind):
            return kind(value)
        raise UsageError(f"{key} = {excerpt(value)}: must be {self.wanted}")

    @property
    def wanted(self) -> str:
        """The accepted values in words: 'true or false', 'a number above 0'."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, tuple):
            return f"a list of {len(self.default)} numbers, each {self.range.text}"
        return f"a {'whole ' if isinstance(self.default, int) else ''}number {self.range.text}"

    def described(self) -> dict[str, Any]:
        """Return the option as data that JSON can hold."""
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        return {"default": default, "wanted": self.wanted, "meaning": self.meaning}

    def _fits(self, value: Any, kind: type) -> bool:
        return (
            isinstance(value, int if kind is int else int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
            and self.range.holds(value)
        )


def check_names(config: OptimConfig, known: Iterable[str]) -> None:
    """Raise UsageError for an option that is not among the known ones."""
    names = list(known)
    for key in config.options:
        if key not in names:
            hint = did_you_mean(key, names) if names else " (it takes none)"
            raise UsageError(f"optim.options.{key}: {config.name} has no such option{hint}")
