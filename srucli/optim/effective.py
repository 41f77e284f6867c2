"""How far one unit of gradient moves each weight, read from what an optimizer keeps.

Optimizers that divide by a root of squared gradients take steps of lr g / (root + eps), and root is
another one for every weight. Here is what that root is for each of them. Tensors are only computed
with, so no torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Effective(NamedTuple):
    """A weight's effective step is lr scale / (root + eps), tensors of the weight's shape.

    kept: what the optimizer keeps that root comes from, 0 where no gradient ever came. scale is 1,
    or a tensor too. small: whether eps decides, where that is not root < eps.
    """

    kept: Any
    root: Any
    eps: float
    scale: Any = 1.0
    small: Any = None


# From a weight's state, its group's options and the number of steps taken.
Rule = Callable[[Mapping[str, Any], Mapping[str, Any], int], Effective]


def adagrad(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the sum; lr_decay shrinks the rate besides."""
    scale = 1 / (1 + (step - 1) * group["lr_decay"])
    grown = state["sum"] - group["initial_accumulator_value"]
    return Effective(grown, state["sum"].sqrt(), group["eps"], scale)


def rmsprop(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the mean; where centered, of the variance."""
    square = state["square_avg"]
    spread = square - state["grad_avg"] ** 2 if group["centered"] else square
    return Effective(square, spread.clamp(min=0).sqrt(), group["eps"])


def adam(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the second moment, or of the largest under amsgrad; corrected unless off."""
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    if group.get("bias_correction", True):
        left = 1 - group["betas"][1] ** step
        return Effective(square, (square / left).sqrt(), group["eps"])
    return Effective(square, square.sqrt(), group["eps"])


def radam(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """Adam's, scaled by the rectification; undivided while the second moment is uncertain."""
    beta = group["betas"][1]
    square, longest = state["exp_avg_sq"], 2 / (1 - beta) - 1
    length = longest - 2 * step * beta**step / (1 - beta**step)
    if length <= 5:
        return Effective(square, square * 0 + 1, 0.0)
    rest = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    root = square.sqrt() / math.sqrt(1 - beta**step)
    return Effective(square, root, group["eps"], math.sqrt(rest))


def adadelta(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the mean square of steps over that of gradients; eps stands under both roots."""
    square, eps = state["square_avg"], group["eps"]
    scale = (state["acc_delta"] + eps).sqrt()
    return Effective(square, (square + eps).sqrt(), 0.0, scale, square < eps)


def adamax(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The decaying largest gradient, in which eps is already, and alone where none ever came."""
    return Effective(state["exp_inf"] - group["eps"], state["exp_inf"], 0.0)


def rmsprop_excess(options: Mapping[str, Any], step: int) -> float | None:
    """rmsprop has no bias correction, and no first moment that lacks one too."""
    return 1 / math.sqrt(1 - float(options["alpha"]) ** step)


def adam_excess(options: Mapping[str, Any], step: int) -> float | None:
    """Kingma & Ba 2015, section 3: m lacks 1 - beta1^t and v lacks 1 - beta2^t."""
    if options.get("bias_correction", True):
        return None
    first, second = options["betas"]
    return float((1 - first**step) / math.sqrt(1 - second**step))


@dataclass(frozen=True)
class SecondMoment:
    """How an optimizer divides by what it keeps of squared gradients, for diagnostics.

    state: the name of that tensor in a weight's state; weights without it take other steps.
    effective: the effective step. decay: the option that is its decay per step, of several numbers
    the last; None for a sum. excess: the factor by which missing bias correction lengthens step t
    (from 1), from the options; None where it is not missing.
    """

    state: str
    effective: Rule
    decay: str | None = None
    excess: Callable[[Mapping[str, Any], int], float | None] = lambda options, step: None


ADAGRAD = SecondMoment("sum", adagrad)
RMSPROP = SecondMoment("square_avg", rmsprop, "alpha", rmsprop_excess)
ADAM = SecondMoment("exp_avg_sq", adam, "betas", adam_excess)
RADAM = SecondMoment("exp_avg_sq", radam, "betas")
ADADELTA = SecondMoment("square_avg", adadelta, "rho")
ADAMAX = SecondMoment("exp_inf", adamax, "betas")
