"""SRU layers and stacks: initial values, directions, dropout."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from srucli.model.sru import SRULayer, SRUStack
from tests.model.test_classifier import LENGTHS, offsets_of


@pytest.mark.parametrize("bias", [0.0, -3.0])
@pytest.mark.parametrize(("size", "planes"), [(400, 3), (300, 4)])
def test_initial_weights_follow_section_3_2_of_the_paper(
    size: int, planes: int, bias: float
) -> None:
    torch.manual_seed(0)
    layer = SRULayer(size, 200, highway_bias=bias)
    alpha = math.sqrt(1 + 2 * math.exp(bias))
    assert layer.planes == planes
    assert layer.alpha == pytest.approx(alpha)
    weights = layer.weight.detach().view(planes, 400, size)
    variances = [1 / size, 0.5 / size, 0.5 / size, alpha**2 / size]
    for plane, variance in zip(weights, variances, strict=False):
        assert float(plane.var()) == pytest.approx(variance, rel=0.02)
        assert float(plane.abs().max()) <= math.sqrt(3 * variance) * (1 + 1e-5)
        assert abs(float(plane.mean())) < 0.01 * math.sqrt(variance) * 3
    assert float(layer.v.detach().var()) == pytest.approx(0.5 / 400, rel=0.15)
    assert layer.bias[0].eq(0).all()
    assert layer.bias[1].eq(bias).all()


@pytest.mark.parametrize("size", [6, 12])
def test_reversing_the_texts_swaps_the_directions(size: int) -> None:
    torch.manual_seed(0)
    layer = SRULayer(size, 6, activation="tanh", highway_bias=-1.0)
    swapped = SRULayer(size, 6, activation="tanh", highway_bias=-1.0)
    swap = [*range(6, 12), *range(6)]
    with torch.no_grad():
        weight = layer.weight.view(layer.planes, 12, size)[:, swap]
        if size == 12:  # the highway copies the input's units, so they are swapped as well
            weight = weight[:, :, swap]
        swapped.weight.copy_(weight.reshape(-1, size))
        swapped.v.copy_(layer.v[:, swap])
        swapped.bias.copy_(layer.bias[:, swap])
    offsets = offsets_of(LENGTHS)
    x = torch.randn(sum(LENGTHS), size)
    backwards = torch.cat([torch.arange(b - 1, a - 1, -1) for a, b in pairwise(offsets.tolist())])
    turned = x[backwards] if size == 6 else x[backwards][:, swap]
    h, last = layer(x, offsets)
    other_h, other_last = swapped(turned, offsets)
    torch.testing.assert_close(other_h[backwards][:, swap], h)
    torch.testing.assert_close(other_last[:, swap], last)


def test_a_one_way_layer_does_not_read_ahead() -> None:
    torch.manual_seed(0)
    stack = SRUStack(5, 7, 2, bidirectional=False)
    assert stack.output_size == 7
    x, changed = torch.randn(6, 5), torch.randn(6, 5)
    changed[:4] = x[:4]
    offsets = torch.tensor([0, 6])
    h, last = stack(x, offsets)
    other, _ = stack(changed, offsets)
    torch.testing.assert_close(h[:4], other[:4])
    assert not torch.allclose(h[4:], other[4:])
    assert last.shape == (1, 7)


def test_dropout_between_layers_has_one_mask_per_text() -> None:
    torch.manual_seed(0)
    stack = SRUStack(8, 4, 2, dropout=0.5)
    x, offsets = torch.randn(5, 8), torch.tensor([0, 5])
    assert not torch.equal(stack(x, offsets)[0], stack(x, offsets)[0])
    stack.eval()
    assert torch.equal(stack(x, offsets)[0], stack(x, offsets)[0])
