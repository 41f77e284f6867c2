"""Weights of an earlier network in a new one: which are copied, and where labels end up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srucli.config import ModelConfig
from srucli.model.classifier import Classifier
from srucli.model.encoders import ENCODERS
from srucli.model.transfer import biases, fill, places

OLD, NEW = ["b", "c", "d"], ["a", "b", "d", "e"]
SIZES = {"embedding_size": 8, "hidden": 4, "layers": 2, "bag_buckets": 32}


def small(classes: int, seed: int, **settings: object) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(ModelConfig.model_validate({**SIZES, **settings}), 20, classes)


def test_places_of_labels() -> None:
    assert places(OLD, NEW).tolist() == [-1, 0, 2, -1]
    assert places([], NEW).tolist() == [-1] * 4


def test_biases_from_shares() -> None:
    shares = np.array([0.5, 0.25, 0.25, 0.0])
    single, several = biases(shares, False), biases(shares, True)
    np.testing.assert_allclose(single[:3], np.log([2, 1, 1]))
    np.testing.assert_allclose(several[:3], np.log([1, 1 / 3, 1 / 3]), atol=1e-12)
    assert np.isfinite([single[3], several[3]]).all()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_rows_of_labels_are_copied_and_new_ones_are_zero(encoder: str, head: str) -> None:
    settings = {"encoder": encoder, "head": head, "pooling": ("mean", "attention")}
    old, new = small(3, 0, **settings), small(4, 1, **settings)
    blend = new.blend.clone()
    fill(new, old.state_dict(), places(OLD, NEW), np.array([5.0, 6.0, 7.0, 8.0]))
    last = "head." if head == "linear" else "head.3."
    before = old.state_dict()
    for name, weight in new.state_dict().items():
        if name == "blend":
            assert torch.equal(weight, blend)
        elif not name.startswith(last):
            assert torch.equal(weight, before[name]), name
    weight, bias = (new.state_dict()[f"{last}{name}"] for name in ("weight", "bias"))
    assert torch.equal(weight[[1, 2]], before[f"{last}weight"][[0, 2]])
    assert not weight[[0, 3]].any()
    assert bias.tolist() == [5.0, *before[f"{last}bias"][[0, 2]].tolist(), 8.0]


def test_without_known_labels_the_head_stays_new() -> None:
    old, new = small(3, 0, head="mlp"), small(3, 1, head="mlp")
    fresh = {name: weight.clone() for name, weight in new.state_dict().items()}
    fill(new, old.state_dict(), places(OLD, ["x", "y", "z"]), np.zeros(3))
    for name, weight in new.state_dict().items():
        source = fresh if name.startswith(("head.", "blend")) else old.state_dict()
        assert torch.equal(weight, source[name]), name


def test_embedding_and_encoder_are_enough() -> None:
    old, new = small(3, 0), small(3, 1)
    parts = ("embedding.", "encoder.")
    weights = {name: each for name, each in old.state_dict().items() if name.startswith(parts)}
    head = new.state_dict()["head.weight"].clone()
    fill(new, weights, places([], NEW[:3]), np.zeros(3))
    assert torch.equal(new.embedding.weight, old.embedding.weight)
    assert torch.equal(new.state_dict()["head.weight"], head)
