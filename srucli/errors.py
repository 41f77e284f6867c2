"""The errors that a user can act on, each with the exit code of the command.

The command prints the message of a `SrucliError` on stderr, without a traceback, and exits with
`exit_code`. Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

# The most characters of a message, and of a word that is compared with known ones; the most of
# these, which may be the header of an untrusted file.
MAX_MESSAGE, MAX_WORD, MAX_WORDS = 2_000, 200, 1_000


def shortened(text: str) -> str:
    """Return `text` with at most MAX_MESSAGE characters, since it may quote long input.

    A part before the end is left out: the beginning names the place, and the end the remedy, which
    may be a command with paths and settings.
    """
    if len(text) <= MAX_MESSAGE:
        return text
    first, last = MAX_MESSAGE // 4, MAX_MESSAGE // 4 * 3 - 40
    return f"{text[:first]}... ({len(text) - first - last:,} characters) ...{text[-last:]}"


class SrucliError(Exception):
    """An error that the user can act on. Its message is one sentence and names the remedy."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class DivergedError(SrucliError):
    """Training has diverged: a loss, gradient, weight or probability is NaN or Inf."""


class UsageError(SrucliError):
    """A flag, an argument or a configuration value is wrong."""

    exit_code = 2


class GateError(SrucliError):
    """A requested gate, such as `--fail-under`, failed."""

    exit_code = 3


class DataError(SrucliError):
    """An input file has unusable content."""

    exit_code = 65

    def __init__(self, source: str, line: int | None, problem: str, remedy: str) -> None:
        """source: the file's name as given. line: counted from 1, None if no line applies."""
        self.source, self.line, self.problem, self.remedy = source, line, problem, remedy
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.source, self.line, self.problem, self.remedy)


class TextError(SrucliError):
    """One of many texts is unusable. `number` is its place among them, from 0."""

    def __init__(self, number: int, problem: str, remedy: str) -> None:
        self.number, self.problem, self.remedy = number, problem, remedy
        super().__init__(f"{problem}; {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.number, self.problem, self.remedy)


@contextmanager
def located(source: str, line_of: Callable[[int], int]) -> Iterator[None]:
    """Raise DataError, with the file and the line, for a TextError in a block."""
    try:
        yield
    except TextError as error:
        line = line_of(error.number)
        raise DataError(source, line, error.problem, error.remedy) from None


class InputMissingError(SrucliError):
    """An input file or folder does not exist or cannot be opened."""

    exit_code = 66


class OutputError(SrucliError):
    """An output cannot be written: it exists, the disk is full, or permission is denied."""

    exit_code = 73


class OutOfMemoryError(SrucliError):
    """Memory, or a GPU's memory, could not be allocated. The message names what to lower."""


class InterruptedRun(SrucliError):
    """The user or the machine interrupted the run; everything worth keeping is on disk.

    stopped: what was stopped, and where. how: how a command resumes it, empty if it cannot.
    """

    exit_code = 75

    def __init__(self, stopped: str, how: str = "") -> None:
        super().__init__(f"{stopped}; {how}" if how else stopped)
        self.stopped, self.how = stopped, how

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stopped, self.how)


def closest(word: str, words: Sequence[str]) -> str | None:
    """Return the one of `words` that was probably meant; None if nothing is close.

    The first of these that exists: the same word but for case; the shortest that begins with it;
    the first of which it is a part, as `f1` is of `macro_f1`; one with a few other letters.
    """
    words = [known for known in words[:MAX_WORDS] if len(known) <= MAX_WORD]
    wanted, folded = word.casefold(), {known.casefold(): known for known in reversed(words)}
    if not wanted.strip("-") or len(word) > MAX_WORD:
        return None
    begins = sorted((known for known in words if known.casefold().startswith(wanted)), key=len)
    parts = [known for name, known in folded.items() if wanted in re.split(r"[._-]", name)]
    near = difflib.get_close_matches(wanted, folded)
    near.sort(key=lambda name: sorted(name) != sorted(wanted))  # two letters swapped
    exact = [folded[wanted]] if wanted in folded else []
    return next(iter([*exact, *begins, *reversed(parts), *map(folded.__getitem__, near)]), None)


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """Return " (did you mean 'x'?)", or if nothing is close, the list of words if it is short."""
    close = closest(word, words)
    if close is not None:
        return f" (did you mean '{close}'?)"
    return f" (known: {', '.join(words)})" if len(words) <= 24 else ""
