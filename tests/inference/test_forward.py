"""The forward pass for prediction does not wait for a GPU between batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from srucli.config import resolve
from srucli.data.batch import upload
from srucli.data.store import TokenStore
from srucli.inference import forward
from srucli.model.classifier import Classifier
from srucli.model.encoders import ENCODERS
from srucli.tokenizer.truncation import Limits, Tally

VOCABULARY, TEXTS = 30, 12


def store(longest_read: int = 1000) -> TokenStore:
    generator = np.random.default_rng(0)
    offsets = np.cumsum([0, *generator.integers(0, 9, TEXTS)])
    ids = generator.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    return TokenStore(ids, offsets, tally=Tally(TEXTS, limits=Limits(encoder=longest_read)))


def classifier(encoder: str) -> Classifier:
    config = resolve(overrides=[f"model.encoder={encoder}", "model.hidden=4"])
    return Classifier(config.model, VOCABULARY, 3)


@pytest.mark.parametrize("encoder", [name for name, row in ENCODERS.items() if not row.waits])
@pytest.mark.parametrize("tabulated", [True, False])
def test_no_value_is_read_from_a_gpu(
    encoder: str, tabulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None can be read from meta tensors. Several batches, with long texts in one."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # does not support meta
    monkeypatch.setattr(forward, "batch_size", lambda device: (4, 1000))
    model = classifier(encoder).to("meta").eval()
    if tabulated:
        model.tabulate()
    logits = forward.all_logits(model, store(longest_read=6), torch.device("meta"))
    assert logits.device.type == "meta"
    assert logits.shape == (1, TEXTS, 3)


def test_scores_come_after_the_logits() -> None:
    """In the order of the given texts."""
    model, scores = (
        classifier("sru").eval(),
        np.random.default_rng(0).random((TEXTS, 3), np.float32),
    )
    cpu, chosen = torch.device("cpu"), np.array([7, 2, 9])
    whole = forward.all_logits(model, store(), cpu, scores=scores)
    assert whole.shape == (2, TEXTS, 3)
    assert torch.equal(whole[1], torch.from_numpy(scores))
    torch.testing.assert_close(whole[:1], forward.all_logits(model, store(), cpu))
    some = forward.all_logits(model, store(), cpu, chosen, scores)
    torch.testing.assert_close(some, whole[:, chosen])


@pytest.mark.parametrize("as_for_a_gpu", [False, True])
def test_a_long_text_is_read_in_part(as_for_a_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logits are those of the first and the last tokens."""
    whole, model, cpu = store(), classifier("sru").eval(), torch.device("cpu")
    rows = [whole.ids[start:stop] for start, stop in itertools.pairwise(whole.offsets)]
    cut = [row if len(row) <= 6 else np.concatenate((row[:3], row[-3:])) for row in rows]
    ends = TokenStore(np.concatenate(cut), np.cumsum([0, *map(len, cut)]))
    assert len(ends.ids) < len(whole.ids)
    all_tokens, encoded = (forward.all_logits(model, each, cpu) for each in (whole, ends))
    if as_for_a_gpu:
        monkeypatch.setattr(forward, "uploaded", lambda batches, *rest: upload([*batches], *rest))
    found = forward.all_logits(model, store(longest_read=6), cpu)
    torch.testing.assert_close(found, encoded)
    assert not torch.allclose(found, all_tokens)
