"""Smoothed cross-entropy with its gradient on a GPU, compiled by Triton: float32.

One program of one warp walks twice over the logits of a text: for the logarithm of the sum of their
exponentials, and for the gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Logits that a warp reads at once.
MAX_BLOCK = 512


@triton.jit(do_not_specialize_on_alignment=["targets"])  # as in `triton_walk.py`
def _cross_entropy(
    logits,
    targets,
    weights,
    losses,
    grad,
    smoothing,
    CLASSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    text = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + text)
    weight = tl.load(weights + target)
    logits, grad = logits + text * CLASSES, grad + text * CLASSES
    own = tl.load(logits + target)
    best, exponentials, total = own, 0.0, 0.0
    for start in range(0, CLASSES, BLOCK):
        d = start + tl.arange(0, BLOCK)
        z = tl.load(logits + d, d < CLASSES, -float("inf"))
        highest = tl.maximum(best, tl.max(z))
        exponentials = exponentials * tl.exp(best - highest) + tl.sum(tl.exp(z - highest))
        best = highest
        # Differences, so that precision does not depend on what all logits have in common.
        total += tl.sum(tl.where((d < CLASSES) & (smoothing > 0), z - own, 0.0))
    rest = smoothing / CLASSES
    tl.store(losses + text, weight * (tl.log(exponentials) + (best - own) - rest * total))
    for start in range(0, CLASSES, BLOCK):
        d = start + tl.arange(0, BLOCK)
        z = tl.load(logits + d, d < CLASSES, 0.0)
        wanted = tl.where(d == target, 1.0 - smoothing + rest, rest)
        tl.store(grad + d, weight * (tl.exp(z - best) / exponentials - wanted), d < CLASSES)


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """As `reference.cross_entropy`."""
    texts, classes = logits.shape
    losses, grad = logits.new_empty(texts), logits.new_empty(texts, classes)
    block = min(MAX_BLOCK, max(32, triton.next_power_of_2(classes)))
    given = logits.contiguous(), targets.contiguous(), weights.contiguous()
    with torch.cuda.device_of(logits):
        _cross_entropy[(texts,)](
            *given, losses, grad, smoothing, CLASSES=classes, BLOCK=block, num_warps=1
        )
    return losses, grad
