"""The table of back ends: what cannot run is refused, or warned about, with a reason."""

from __future__ import annotations

import pytest
import torch

from srucli.errors import UsageError
from srucli.kernels.backends import choose, fastest


def test_back_ends_that_cannot_run_are_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="there are auto, reference, cpu, triton"):
        choose("fast", "cpu")
    with pytest.raises(UsageError, match=r"takes float32, not torch\.float64"):
        choose("cpu", "cpu", torch.float64)
    with pytest.raises(UsageError, match="runs on a cpu device, not on cuda"):
        choose("cpu", "cuda")
    monkeypatch.setattr("srucli.kernels.backends.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="kernel triton needs triton: pip install triton"):
        choose("triton", "cuda")
    fastest.cache_clear()
    with pytest.warns(UserWarning, match="numba is not installed: the SRU runs as a loop"):
        assert fastest("cpu", torch.float32) == "reference"
    fastest.cache_clear()
