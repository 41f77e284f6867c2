"""The learning rate over a run, as a share of its peak. Pure functions of the step; no torch.

A schedule rises over the warm-up and falls over what is left, to 0 at the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer

Curve = Callable[[float], float]

START = 1 / 25  # where a warm-up begins: Smith & Topin 2018's one-cycle, as torch's OneCycleLR


def _line(share: float) -> float:
    return share


def _half_wave(share: float) -> float:
    return (1.0 - math.cos(math.pi * share)) / 2.0


def _stay(share: float) -> float:
    return 0.0


# name -> how it rises, how it falls; a curve goes from 0 to 1 as its stretch goes from 0 to 1
SCHEDULES: dict[str, tuple[Curve, Curve]] = {
    "constant": (_line, _stay),
    "linear": (_line, _line),
    "cosine": (_line, _half_wave),  # Loshchilov & Hutter 2017, arXiv 1608.03983, one period
    "one-cycle": (_half_wave, _half_wave),  # Smith & Topin 2018, arXiv 1708.07120
}


def lr_factor(schedule: str, step: int, total: int, warmup: float) -> float:
    """The learning rate at `step` (from 0) of `total` steps, as a share of its peak.

    The peak stands at `warmup` (at least 0, below 1) of the way from the first step to the last.
    The only step of a run of one is taken at the peak; steps beyond the last are as the last.
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


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its own peak, `initial_lr`.

    A rate that is a tensor gets the new value, so that CUDA graphs which read it see that.
    """
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], float):
            group["lr"] = rate
        else:
            group["lr"].fill_(rate)
