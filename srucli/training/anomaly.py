"""Which example a non-finite gradient comes from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.batch import Batch
from srucli.data.loader import DataLoader
from srucli.data.store import TokenStore
from srucli.errors import DataError
from srucli.training.step import Step


def anomaly(step: Step, loader: DataLoader) -> DataError | None:
    """The error that names the example, after the loader's latest step; None if no single one is.

    The weights must be those of before the step, which a skipped step leaves.
    """
    found = culprit(step, loader.store, loader.latest_step())
    if found is None:
        return None
    example, problem = found
    remedy = "look at the text, and lower optim.lr if nothing is wrong with it"
    problem = f"{problem} at step {loader.position.step}"
    return DataError(loader.data.source, loader.data.lines[example], problem, remedy)


def culprit(step: Step, store: TokenStore, examples: NDArray[np.int64]) -> tuple[int, str] | None:
    """The first of the examples (numbers in the store) that alone does it, and what is not finite.

    None where none does, or where all do: then it is the weights.
    """
    device, random_state = step.device, torch.get_rng_state()
    found = []
    for example in examples.tolist():
        torch.set_rng_state(random_state)
        problem = non_finite(step, store.batch(np.array([example])).to(device))
        if problem:
            found.append((example, problem))
    return found[0] if 0 < len(found) < max(len(examples), 2) else None


def non_finite(step: Step, batch: Batch) -> str | None:
    """What is not finite in the loss or the gradient of a batch, if anything; nothing is kept.

    The model is in training mode, so dropout may decide it.
    """
    step.optimizer.zero_grad(set_to_none=True)
    try:
        with torch.autograd.set_detect_anomaly(True):
            loss = step.losses(batch).sum() / step.weight(batch)
            if not loss.isfinite():
                return f"its loss is {float(loss.detach())}"
            torch.autograd.backward(loss)
        return None if step.gradient_norm().isfinite() else "its gradient is not finite"
    except RuntimeError as error:  # autograd names the operation
        return f"its gradient is not finite: {str(error).partition(chr(10))[0]}"
    finally:
        step.optimizer.zero_grad(set_to_none=True)
