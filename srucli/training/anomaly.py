"""Which text a gradient that is no number comes from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.batch import TokenStore
from srucli.training.step import Step


def culprit(step: Step, store: TokenStore, texts: NDArray[np.int64]) -> tuple[int, str] | None:
    """The first of the texts (numbers in the store) that alone does it, and what is not finite.

    None where none does, or where all do: then it is the weights. The step's weights must be those
    of before the update.
    """
    device, random_state = step.device, torch.get_rng_state()
    found = []
    for text in texts.tolist():
        torch.set_rng_state(random_state)
        problem = step.anomaly(store.batch(np.array([text])).to(device))
        if problem:
            found.append((text, problem))
    return found[0] if 0 < len(found) < max(len(texts), 2) else None
