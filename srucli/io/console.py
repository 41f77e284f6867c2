"""Lines for people, on stderr."""

from __future__ import annotations

import sys
from contextlib import suppress

from tqdm import tqdm


def say(line: str) -> None:
    """A line for people, above a progress bar where there is one."""
    with suppress(BrokenPipeError):  # whoever read it has gone; the work goes on
        tqdm.write(line, file=sys.stderr)
