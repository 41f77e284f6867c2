"""The training losses: smoothed cross-entropy of each example, weighted by its label.

torch's own cross-entropy, with class weights and smoothing, weights the smoothed target of each
class and not the example, so a common example's loss is lowest where a rare class is likely.
A CUDA graph can hold a loss: no shape depends on a value, and no value is read from a tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srucli.config import TrainConfig


class Objective(nn.Module):
    """sum(w_i l_i) / sum(w_i) over examples i: l_i is the smoothed loss, w_i the weight.

    Numerator and denominator are separate, so that the mean can span several batches.
    """

    multi_label: bool
    weights: Tensor

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", weights)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum () of w_i l_i for logits (B, C)."""
        raise NotImplementedError

    def weight(self, targets: Tensor) -> Tensor:
        """Return the sum () of w_i, which is above 0."""
        raise NotImplementedError

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted mean () for logits (B, C)."""
        return self.losses(logits, targets) / self.weight(targets)


class CrossEntropy(Objective):
    """For single-label examples: targets (B,) int64; weights (C,) of an example by its label.

    With smoothing s: l = -(1 - s) log p(label) - s mean over classes of log p(class).
    """

    multi_label = False

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        logs = logits.log_softmax(dim=1)
        right = logs.gather(1, targets.unsqueeze(1)).squeeze(1)
        if self.smoothing:
            right = (1 - self.smoothing) * right + self.smoothing * logs.mean(dim=1)
        return -(self.weights.index_select(0, targets) * right).sum()

    def weight(self, targets: Tensor) -> Tensor:
        return self.weights.index_select(0, targets).sum()


class BinaryCrossEntropy(Objective):
    """For multi-label examples: targets (B, C) float32 of 0 and 1.

    l is a sum over labels, each with a weight: weights (2, C) if it is false and if it is true. The
    weight of an example is the mean of the weights of its labels. With smoothing s a target y
    becomes (1 - s) y + s / C: what is taken from a true label is spread over all labels.
    """

    multi_label = True

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        smooth = targets * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        each = nn.functional.softplus(logits) - logits * smooth
        return (self._weights(targets) * each).sum()

    def weight(self, targets: Tensor) -> Tensor:
        return self._weights(targets).mean(dim=1).sum()

    def _weights(self, targets: Tensor) -> Tensor:
        false, true = self.weights.unbind()
        return false + (true - false) * targets


def balanced(targets: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Return balanced weights: (C,) for targets (B,), and (2, C) for multi-label targets (B, C).

    As in scikit-learn: n / (k n_h) for k classes with n_h of the n examples, so that all classes
    have the same total weight. A multi-label task is one binary task per label, and the weights are
    the square roots of these: without the root, the few positive examples would dominate. A label
    that is never or always true has weight 1.
    """
    examples = len(targets)
    if targets.ndim == 1:
        return examples / (classes * np.bincount(targets, minlength=classes).clip(min=1))
    true = targets.sum(axis=0, dtype=np.float64)
    counts = np.stack([examples - true, true])
    weights: NDArray[np.float64] = examples / ((counts > 0).sum(axis=0) * counts.clip(min=1))
    return np.sqrt(weights)


def class_weights(
    settings: TrainConfig, targets: NDArray[Any], classes: int
) -> NDArray[np.float64]:
    """Return the weights for training targets: (C,), or (2, C) for multi-label targets (B, C)."""
    if settings.class_weights == "balanced":
        return balanced(targets, classes)
    return np.ones((2, classes) if targets.ndim == 2 else classes)


def loss_function(settings: TrainConfig, targets: NDArray[Any], classes: int) -> Objective:
    """Return the objective for training targets (B,), or (B, C) for multi-label examples."""
    weights = class_weights(settings, targets, classes)
    kind = BinaryCrossEntropy if targets.ndim == 2 else CrossEntropy
    return kind(torch.tensor(weights, dtype=torch.float32), settings.label_smoothing)
