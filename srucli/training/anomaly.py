"""Find the example that causes a non-finite loss or gradient."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.data.batch import Batch
from srucli.data.loader import DataLoader
from srucli.data.store import TokenStore
from srucli.errors import DataError
from srucli.training.step import Step


def anomaly_error(step: Step, loader: DataLoader) -> DataError | None:
    """Return an error that names the example of the latest step; None if no single one is to blame.

    The weights must be those from before the step. A skipped step does not change them.
    """
    found = _first_anomaly(step, loader.store, loader.latest_step())
    if found is None:
        return None
    example, problem = found
    remedy = "look at the text, and lower optim.lr if nothing is wrong with it"
    problem = f"{problem} at step {loader.position.step}"
    return DataError(loader.data.source, loader.data.lines[example], problem, remedy)


def _first_anomaly(
    step: Step, store: TokenStore, examples: NDArray[np.int64]
) -> tuple[int, str] | None:
    """Return the first example (number in the store) with an anomaly on its own, and the anomaly.

    None if no example has one, or if all have: then the weights are the cause.
    """
    random_state, found = torch.get_rng_state(), []
    for example in examples.tolist():
        torch.set_rng_state(random_state)
        problem = _anomaly(step, store.batch(np.array([example])).to(step.device))
        if problem:
            found.append((example, problem))
    return found[0] if 0 < len(found) < max(len(examples), 2) else None


def _anomaly(step: Step, batch: Batch) -> str | None:
    """Return what is non-finite in the loss or gradient of a batch, and drop the gradient.

    The model is in training mode, so the result can depend on dropout.
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
