"""The forward pass for prediction, shared with validation: logits, and probabilities from them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.batch import Ints, order, uploaded
from srucli.data.store import TokenStore
from srucli.model.classifier import Classifier
from srucli.tokenizer.truncation import MAX_ACTIVATIONS, Limits

# Scores (B, C) of a linear model of n-grams, if there is one.
Scores = NDArray[np.float32] | None
BATCH_TEXTS, BATCH_TOKENS = 256, 16_384
# As many times more on a GPU, which computes small batches faster than their kernels are launched.
LARGER_ON_GPU = 8
# Of a wide network, a batch has fewer tokens, and as few texts as leave each this many.
MIN_TOKENS = 16
# The most logits that are computed before they become probabilities.
MAX_LOGITS = 2**25
# The most numbers (float32: 2 GiB) that the encoder stores for one text.
MAX_OF_TEXT = 2**29


def limited(limits: Limits, model: Classifier) -> Limits:
    """Return the limits of texts, with no more tokens for the encoder than MAX_OF_TEXT allows."""
    return limits._replace(encoder=min(limits.encoder, MAX_OF_TEXT // model.width))


def batch_size(device: torch.device) -> tuple[int, int]:
    """Return the largest numbers of texts and of tokens in a batch."""
    times = 1 if device.type == "cpu" else LARGER_ON_GPU
    return times * BATCH_TEXTS, times * BATCH_TOKENS


def is_wide(model: Classifier) -> bool:
    """Whether batches have fewer tokens because the network is wide."""
    return BATCH_TOKENS * model.width > MAX_ACTIVATIONS


@torch.inference_mode()
def all_logits(
    model: Classifier,
    store: TokenStore,
    device: torch.device,
    texts: Ints | None = None,
    scores: Scores = None,
) -> torch.Tensor:
    """Return logits (1, B, C) for all texts of a store, or for those of the given numbers (B,).

    scores: those of the linear model of n-grams for all texts of the store; then (2, B, C).

    The model is left in evaluation mode. A batch stores at most MAX_ACTIVATIONS, or one text.
    """
    model.eval()
    chosen = np.arange(len(store.lengths)) if texts is None else texts
    rows: list[torch.Tensor] = []
    size, tokens = batch_size(device)
    tokens = min(tokens, MAX_ACTIVATIONS // model.width)
    size = max(min(size, tokens // MIN_TOKENS), 1)
    batches = order(store.lengths[chosen], size, batch_tokens=tokens, seed=None)
    left = (store.batch(chosen[own]) for own in batches)
    for batch in uploaded(left, device):
        rows.append(model(batch.tokens, batch.offsets, batch.part))
    joined = torch.cat(rows)
    logits = torch.empty_like(joined)
    logits[torch.from_numpy(np.concatenate(batches)).to(device)] = joined
    if scores is None:
        return logits[None]
    return torch.stack((logits, torch.from_numpy(scores[chosen]).to(device)))


def texts_at_once(model: Classifier, classes: int) -> int:
    """Return the number of texts of which all logits are held at once."""
    return max(MAX_LOGITS // (len(model.blend) * classes), 1)


def probabilities(
    model: Classifier,
    store: TokenStore,
    device: torch.device,
    classes: int,
    multi_label: bool,
    scores: Scores = None,
) -> NDArray[np.float32]:
    """Return probabilities (B, C) of the B texts of a store, with at most MAX_LOGITS at a time.

    scores: as in `all_logits`.
    """
    texts, size = np.arange(len(store.lengths)), texts_at_once(model, classes)
    found = np.empty((len(texts), classes), np.float32)
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        logits = all_logits(model, store, device, part, scores)
        found[part] = blended(logits, model.blend, multi_label)
    return found


def blended(logits: torch.Tensor, blend: torch.Tensor, multi_label: bool) -> NDArray[np.float32]:
    """Return probabilities (B, C) from logits (n, B, C) and their weights (n,).

    They are a softmax over the classes, or a sigmoid of each in a multi-label model.
    """
    mixed = torch.tensordot(blend, logits, dims=1)
    scores = mixed.sigmoid() if multi_label else mixed.softmax(dim=-1)
    probabilities: NDArray[np.float32] = scores.cpu().numpy()
    return probabilities
