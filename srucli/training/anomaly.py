"""Find the example that causes a non-finite loss or gradient."""

from __future__ import annotations

import numpy as np
import torch

from srucli.data.batch import Batch
from srucli.data.loader import DataLoader
from srucli.errors import DataError
from srucli.io.memory import ran_out
from srucli.training.step import Step


def anomaly_error(step: Step, loader: DataLoader) -> DataError | None:
    """Return an error that names the first example of the latest step with an anomaly on its own.

    None if no example has one, or if all have: then the weights are the cause. The weights must be
    those from before the step. A skipped step does not change them.
    """
    random_state, found = torch.get_rng_state(), []
    examples = loader.latest_step().tolist()
    for example in examples:
        torch.set_rng_state(random_state)
        problem = _anomaly(step, loader.store.batch(np.array([example])).to(step.device))
        if problem:
            found.append((example, problem))
    if not found or len(found) == len(examples) > 1:
        return None
    example, problem = found[0]
    remedy = "look at the text, and lower optim.lr if nothing is wrong with it"
    problem = f"{problem} at step {loader.position.step}"
    return DataError(loader.data.source, loader.data.lines[example], problem, remedy)


def _anomaly(step: Step, batch: Batch) -> str | None:
    """Return what is non-finite in the loss or gradient of a batch, and drop the gradient.

    The model is in training mode, so the result can depend on dropout.
    """
    step.optimizer.zero_grad(set_to_none=True)
    try:
        with torch.autograd.set_detect_anomaly(True):
            loss = step.loss(batch) / step.weight(batch)
            if not loss.isfinite():
                return f"its loss is {float(loss.detach())}"
            torch.autograd.backward(loss)
        return None if step.gradient_norm().isfinite() else "its gradient is not finite"
    except RuntimeError as error:  # autograd names the operation
        if ran_out(error):
            raise
        return f"its gradient is not finite: {str(error).partition(chr(10))[0]}"
    finally:
        step.optimizer.zero_grad(set_to_none=True)
