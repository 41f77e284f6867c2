"""Fill a new classifier with the weights of an earlier one; labels keep their rows of the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srucli.model.classifier import Classifier


def places(old: Sequence[str], new: Sequence[str]) -> NDArray[np.int64]:
    """Return the number in `old` of each of the `new` labels (C,); -1 if it is not there."""
    number = {label: index for index, label in enumerate(old)}
    return np.array([number.get(label, -1) for label in new], np.int64)


def biases(shares: NDArray[np.float64], multi_label: bool) -> NDArray[np.float64]:
    """Return the bias (C,) of labels of which only their shares (C,) of the examples are known.

    Multi-label: the log odds. Otherwise the log ratio to the share of an average label, because the
    biases of a trained head are about 0 on average.
    """
    shares = np.clip(shares, 1e-6, 1 - 1e-6)
    return np.log(shares / (1 - shares)) if multi_label else np.log(shares * len(shares))


@torch.no_grad()
def fill(
    model: Classifier,
    weights: Mapping[str, Tensor],
    found: NDArray[np.int64],
    new: NDArray[np.float64],
) -> None:
    """Copy the weights of an earlier classifier, or of only its embedding and encoder.

    weights: on a CPU, as in its `state_dict`; of the same shapes as the model's, except for the
    head's last layer. found (C,): the earlier number of each label, -1 for a new one; see `places`.
    new (C,): the biases of new labels, whose weights are 0. Without an earlier label the head stays
    as it is. So do the weights of network and n-grams, which are fitted to the data.
    """
    known = torch.from_numpy(found >= 0)
    last = "head." if isinstance(model.head, nn.Linear) else "head.3."  # the mlp's last layer
    for name, tensor in model.state_dict().items():
        in_head = name.startswith("head.")
        if name not in weights or name == "blend" or (in_head and not known.any()):
            continue
        if name.startswith(last):
            rows = torch.zeros(tensor.shape) if tensor.ndim == 2 else torch.from_numpy(new).float()
            rows[known] = weights[name][torch.from_numpy(found)[known]]
            tensor.copy_(rows)
        else:
            tensor.copy_(weights[name])
