"""What training minimizes: the smoothed loss of each text, weighted by what is true of that text.

Written out: torch's own cross-entropy, given weights and smoothing, weights the smoothed mass of
every class and not the text, so that a common text's loss is least where a rare class is likely.
All shapes are those of the inputs and nothing is read from a tensor, so a CUDA graph can hold it.
Only torch and NumPy here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from srucli.config import TrainConfig


class Objective(nn.Module):
    """sum(w_i l_i) / sum(w_i) over texts i: l_i the text's own smoothed loss, w_i its weight.

    The parts are apart, so that a mean can go over several batches.
    """

    multi_label: bool
    weights: Tensor

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", weights)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (B, C) -> (): the sum of w_i l_i."""
        raise NotImplementedError

    def weight(self, targets: Tensor) -> Tensor:
        """(): the sum of w_i, which is above 0."""
        raise NotImplementedError

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (B, C) -> (): the weighted mean."""
        return self.losses(logits, targets) / self.weight(targets)


class CrossEntropy(Objective):
    """One label a text; targets (B,) int64. weights (C,): of a text, by its label.

    With smoothing s: l = -(1 - s) log p(label) - s mean over classes of log p(class).
    """

    multi_label = False

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As `Objective.losses`."""
        logs = logits.log_softmax(dim=1)
        right = logs.gather(1, targets.unsqueeze(1)).squeeze(1)
        if self.smoothing:
            right = (1 - self.smoothing) * right + self.smoothing * logs.mean(dim=1)
        return -(self.weights.index_select(0, targets) * right).sum()

    def weight(self, targets: Tensor) -> Tensor:
        """As `Objective.weight`."""
        return self.weights.index_select(0, targets).sum()


class BinaryCrossEntropy(Objective):
    """Several labels a text; targets (B, C) float32 of 0 and 1.

    l sums over labels, each with a weight of its own: weights (2, C), where it is false and where
    it is true. A text's weight is the mean of its labels'. With smoothing s a target y becomes
    (1 - s) y + s / C: what is taken from a true label is spread over all.
    """

    multi_label = True

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As `Objective.losses`."""
        smooth = targets * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        each = nn.functional.softplus(logits) - logits * smooth
        return (self._weights(targets) * each).sum()

    def weight(self, targets: Tensor) -> Tensor:
        """As `Objective.weight`."""
        return self._weights(targets).mean(dim=1).sum()

    def _weights(self, targets: Tensor) -> Tensor:
        false, true = self.weights.unbind()
        return false + (true - false) * targets


def balanced(targets: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Weights by class: of targets (B,) those of texts (C,); of (B, C) those of labels (2, C).

    As scikit-learn's: n / (k n_h) for each of k classes with n_h of the n texts, so that all weigh
    the same together. With several labels a text each label is a task of two classes, false and
    true, and the weights are the square roots of these: a label is true of few texts, and those
    would be nearly all that is learnt from. Where only one of the two occurs, it weighs 1.
    """
    texts = len(targets)
    if targets.ndim == 1:
        return texts / (classes * np.bincount(targets, minlength=classes).clip(min=1))
    true = targets.sum(axis=0, dtype=np.float64)
    counts = np.stack([texts - true, true])
    weights: NDArray[np.float64] = texts / ((counts > 0).sum(axis=0) * counts.clip(min=1))
    return np.sqrt(weights)


def loss_function(settings: TrainConfig, targets: NDArray[Any], classes: int) -> Objective:
    """The objective for training examples with these targets (B,), or multi-label ones (B, K)."""
    several = targets.ndim == 2
    weights = np.ones((2, classes) if several else classes)
    if settings.class_weights == "balanced":
        weights = balanced(targets, classes)
    made = BinaryCrossEntropy if several else CrossEntropy
    return made(torch.tensor(weights, dtype=torch.float32), settings.label_smoothing)
