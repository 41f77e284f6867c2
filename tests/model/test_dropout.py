"""Dropout masks: their values, their share, and that torch's generator alone determines them."""

from __future__ import annotations

import pytest
import torch

from srucli.model.dropout import Dropout, dropout_mask


@pytest.mark.parametrize("p", [0.05, 0.129, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mask_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mask = dropout_mask(torch.zeros(1, dtype=dtype), (100, 1000), p)
    assert (mask.shape, mask.dtype) == ((100, 1000), dtype)
    dropped, kept = sorted(set(mask.flatten().tolist()))
    assert dropped == 0
    assert kept == pytest.approx(1 / (1 - p))
    spread = (p * (1 - p) / mask.numel()) ** 0.5
    assert float((mask == 0).double().mean()) == pytest.approx(p, abs=5 * spread)


def test_dropout_multiplies_by_a_mask_that_the_seed_repeats() -> None:
    drop, x = Dropout(0.25), torch.randn(50, 40, requires_grad=True)
    torch.manual_seed(1)
    y = drop(x)
    torch.manual_seed(1)
    mask = dropout_mask(x, x.shape, 0.25)
    assert torch.equal(y, x * mask)
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    assert torch.equal(x.grad, mask)
    assert not torch.equal(drop(x), y)


def test_no_dropout_in_prediction_or_with_probability_0_and_all_with_1() -> None:
    x = torch.randn(5, 4)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()
