"""Learning rate schedules: the learning rate of a step as a fraction of its peak.

A schedule rises during the warm-up and then falls, to 0 at the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer

Curve = Callable[[float], float]

START = 1 / 25  # the first factor of a warm-up, as in torch's OneCycleLR (Smith & Topin 2018)


def _linear(progress: float) -> float:
    return progress


def _cosine(progress: float) -> float:
    return (1.0 - math.cos(math.pi * progress)) / 2.0


def _constant(progress: float) -> float:
    return 0.0


# name -> how it rises and how it falls, as functions from [0, 1] to [0, 1]
SCHEDULES: dict[str, tuple[Curve, Curve]] = {
    "constant": (_linear, _constant),
    "linear": (_linear, _linear),
    "cosine": (_linear, _cosine),  # Loshchilov & Hutter 2017, arXiv 1608.03983, one period
    "one-cycle": (_cosine, _cosine),  # Smith & Topin 2018, arXiv 1708.07120
}


def lr_factor(schedule: str, step: int, total: int, warmup: float) -> float:
    """Return the learning rate at `step` (from 0) of `total` steps, as a fraction of its peak.

    The peak is at the fraction `warmup` (at least 0, below 1) of the way from the first step to the
    last. The only step of a training of one has the peak rate; steps after the last are like it.
    """
    rise, fall = SCHEDULES[schedule]
    last = total - 1
    if last < 1:
        return 1.0
    step = min(step, last)
    peak = warmup * last
    if step < peak:
        return START + (1.0 - START) * rise(step / peak)
    return 1.0 - fall((step - peak) / (last - peak))


def lr_of(optimizer: Optimizer, key: str = "lr") -> float:
    """Return the learning rate of the head: the largest, as lower layers' may be multiples."""
    return max(float(group[key]) for group in optimizer.param_groups)


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak, `initial_lr`.

    A tensor is changed in place, so that CUDA graphs see the new value; once, if groups share it.
    """
    tensors = {}
    for group in optimizer.param_groups:
        lr = group["initial_lr"] * factor
        if isinstance(group["lr"], float):
            group["lr"] = lr
        else:
            tensors[id(group["lr"])] = group["lr"], lr
    for tensor, lr in tensors.values():
        tensor.fill_(lr)
