"""Descriptors that another process may have made non-blocking, as a terminal or pipe it shares.

Python takes such a pipe for ended if nothing has arrived, and drops what does not fit into it.
"""

from __future__ import annotations

import io
import select
from typing import Any


class WaitingFile(io.FileIO):
    """A binary file without a buffer that waits until it can be read or written."""

    def readinto(self, buffer: Any) -> int:
        while (size := super().readinto(buffer)) is None:
            select.select([self], [], [])
        return size

    def write(self, data: Any) -> int:
        """Write all of `data`: a text stream without a buffer, as with `python -u`, tries once."""
        left = memoryview(data).cast("B")
        while left:
            size = super().write(left)
            if size is None:
                select.select([], [self], [])
            else:
                left = left[size:]
        return len(data)


class Notes(WaitingFile):
    """A file for messages, which must not end what they tell of: what it cannot take is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:  # as on a full disk, or if nobody reads a pipe any more
            return len(data)
