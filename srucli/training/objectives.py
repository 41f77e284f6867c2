"""The training losses: smoothed cross-entropy of each example, weighted by its label and itself.

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
from srucli.kernels.loss import cross_entropy


class Objective(nn.Module):
    """sum(w_i l_i) / sum(w_i) over examples i: l_i is the smoothed loss, w_i the weight.

    w_i is the example's own weight times that of its label. Numerator and denominator are separate,
    so that the mean can span several batches.
    """

    multi_label: bool
    weights: Tensor

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", weights)

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses times the weights of labels for logits (B, C): (B,), or (B, C)."""
        raise NotImplementedError

    def each_weight(self, targets: Tensor) -> Tensor:
        """Return the weights (B,) of the labels, which are above 0."""
        raise NotImplementedError

    def losses(self, logits: Tensor, targets: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the sum () of w_i l_i for logits (B, C); own (B,): the examples' own weights."""
        return _sum(self.each(logits, targets), own)

    def weight(self, targets: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the sum () of w_i, which is above 0 even if all own weights (B,) are 0."""
        total = _sum(self.each_weight(targets), own)
        return total if own is None else total.clamp(min=torch.finfo(total.dtype).tiny)

    def forward(self, logits: Tensor, targets: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the weighted mean () for logits (B, C)."""
        return self.losses(logits, targets, own) / self.weight(targets, own)


def _sum(values: Tensor, own: Tensor | None) -> Tensor:
    if own is None:
        return values.sum()
    return (own.unsqueeze(1) * values.reshape(len(own), -1)).sum()


class CrossEntropy(Objective):
    """For single-label examples: targets (B,) int64; weights (C,) of an example by its label.

    With smoothing s: l = -(1 - s) log p(label) - s mean over classes of log p(class).
    """

    multi_label = False

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.device.type != "cpu":  # where an operator takes longer than its work
            return cross_entropy(logits, targets, self.weights, self.smoothing)
        logs = logits.log_softmax(dim=1)
        right = logs.gather(1, targets.unsqueeze(1)).squeeze(1)
        if self.smoothing:
            right = (1 - self.smoothing) * right + self.smoothing * logs.mean(dim=1)
        return -(self.weights.index_select(0, targets) * right)

    def each_weight(self, targets: Tensor) -> Tensor:
        return self.weights.index_select(0, targets)


class SoftCrossEntropy(Objective):
    """For single-label examples: targets (B, C) float32 with the sum 1; weights (C,) of labels.

    An example is as if it occurred once with each label, weighted by the target of that label:
    w l = -sum over labels of w(label) target(label) log p(label). Targets of 0 and 1 are smoothed
    as in `CrossEntropy`; others are not, since they are smooth already.
    """

    multi_label = False

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        logs, weighted = logits.log_softmax(dim=1), targets * self.weights
        right = (weighted * logs).sum(dim=1)
        if self.smoothing:
            smoothing = self.smoothing * (targets.amax(dim=1) == 1)
            right = (1 - smoothing) * right + smoothing * weighted.sum(dim=1) * logs.mean(dim=1)
        return -right

    def each_weight(self, targets: Tensor) -> Tensor:
        return (targets * self.weights).sum(dim=1)


class BinaryCrossEntropy(Objective):
    """For multi-label examples: targets (B, C) float32 of 0 and 1.

    l is a sum over labels, each with a weight: weights (2, C) if it is false and if it is true. The
    weight of an example is the mean of the weights of its labels. With smoothing s a target y
    becomes (1 - s) y + s / C: what is taken from a true label is spread over all labels.
    """

    multi_label = True

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        each = nn.functional.softplus(logits) - logits * self._goals(targets)
        return self._weights(targets) * each

    def each_weight(self, targets: Tensor) -> Tensor:
        return self._weights(targets).mean(dim=1)

    def _goals(self, targets: Tensor) -> Tensor:
        return targets * (1 - self.smoothing) + self.smoothing / targets.shape[1]

    def _weights(self, targets: Tensor) -> Tensor:
        false, true = self.weights.unbind()
        return false + (true - false) * targets


class SoftBinaryCrossEntropy(BinaryCrossEntropy):
    """For multi-label examples: targets (B, C) float32 from 0 to 1.

    An example with a target y of a label is as if it occurred with the label, weighted by y, and
    without it, weighted by 1 - y. Examples whose targets are all 0 or 1 are smoothed.
    """

    def _goals(self, targets: Tensor) -> Tensor:
        hard = ((targets == 0) | (targets == 1)).all(dim=1, keepdim=True)
        soft = self.weights[1] * targets / self._weights(targets)
        return torch.where(hard, super()._goals(targets), soft)


def balanced(targets: NDArray[Any], classes: int, multi_label: bool) -> NDArray[np.float64]:
    """Return balanced weights: (C,), or (2, C) for multi-label targets; targets (B,) or (B, C).

    As in scikit-learn: n / (k n_h) for k classes with n_h of the n examples, so that all classes
    have the same total weight. A multi-label task is one binary task per label, and the weights are
    the square roots of these: without the root, the few positive examples would dominate. A label
    that is never or always true has weight 1. Soft targets count as the expected number of examples
    with each label.
    """
    examples = len(targets)
    if not multi_label:
        counts = np.bincount(targets, minlength=classes) if targets.ndim == 1 else _sums(targets)
        return examples / (classes * counts.clip(min=1))
    true = _sums(targets)
    counts = np.stack([examples - true, true])
    weights: NDArray[np.float64] = examples / ((counts > 0).sum(axis=0) * counts.clip(min=1))
    return np.sqrt(weights)


def _sums(targets: NDArray[Any]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = targets.sum(axis=0, dtype=np.float64)
    return sums


def class_weights(
    settings: TrainConfig, targets: NDArray[Any], classes: int, multi_label: bool
) -> NDArray[np.float64]:
    """Return the weights for training targets, (B,) or (B, C): (C,), or (2, C) if multi-label."""
    if settings.class_weights == "balanced":
        return balanced(targets, classes, multi_label)
    return np.ones((2, classes) if multi_label else classes)


def loss_function(
    settings: TrainConfig,
    targets: NDArray[Any],
    classes: int,
    *,
    multi_label: bool,
    soft: bool = False,
) -> Objective:
    """Return the objective for training targets, (B,) int64, or (B, C) if multi-label or soft."""
    weights = class_weights(settings, targets, classes, multi_label)
    if multi_label:
        kind: type[Objective] = SoftBinaryCrossEntropy if soft else BinaryCrossEntropy
    else:
        kind = SoftCrossEntropy if soft else CrossEntropy
    return kind(torch.tensor(weights, dtype=torch.float32), settings.label_smoothing)
