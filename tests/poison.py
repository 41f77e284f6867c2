"""New memory that is full of NaN, so that a test sees what nobody has written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


@contextmanager
def poison() -> Iterator[None]:
    """Fill new memory with NaN or -9, which shows if a kernel does not write all of it."""

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(math.nan if tensor.is_floating_point() else -9)

        return made

    with torch.device("cpu"):  # torch lists what takes a device at the first use of one
        torch.empty(0)
    with (
        patch.object(torch, "empty", poisoned(torch.empty)),
        patch.object(torch, "empty_like", poisoned(torch.empty_like)),
        patch.object(Tensor, "new_empty", poisoned(Tensor.new_empty)),
    ):
        yield
