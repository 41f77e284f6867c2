"""The errors that srucli raises on purpose, each with the exit code its command ends with.

Everything a person can mend is a `SrucliError`: the command line prints its message on stderr,
without a traceback, and exits with `exit_code`. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import ClassVar


class SrucliError(Exception):
    """Something the person can act on. The message is one or two lines and names the remedy."""

    exit_code: ClassVar[int] = 1


class DivergedError(SrucliError):
    """A training whose loss, gradients, weights or probabilities are no longer numbers."""


class UsageError(SrucliError):
    """A flag, an argument or a configuration value is wrong."""

    exit_code = 2


class GateError(SrucliError):
    """A gate that was asked for, such as `--fail-under`, failed."""

    exit_code = 3


class DataError(SrucliError):
    """An input file holds something unusable."""

    exit_code = 65

    def __init__(self, source: str, line: int | None, problem: str, remedy: str) -> None:
        """`source` is the file's name as typed; `line` is 1-based, None where no line applies."""
        self.source, self.line, self.problem, self.remedy = source, line, problem, remedy
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.source, self.line, self.problem, self.remedy)


class InputMissingError(SrucliError):
    """An input file or folder does not exist or cannot be opened."""

    exit_code = 66


class OutputError(SrucliError):
    """An output cannot be written: it exists already, the disk is full, no permission."""

    exit_code = 73


class InterruptedRun(SrucliError):
    """The person or the machine asked for a stop; everything worth keeping is on disk."""

    exit_code = 75


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """' (did you mean 'x'?)', or where nothing is close, the whole short list."""
    close = difflib.get_close_matches(word, words)
    close.sort(key=lambda known: sorted(known) != sorted(word))  # two letters swapped
    if not close and "." not in word:
        close = [known for known in words if known.rpartition(".")[2] == word][:1]
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(words)})" if len(words) <= 24 else ""
