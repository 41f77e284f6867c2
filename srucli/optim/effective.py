"""How far one unit of gradient moves each weight, computed from an optimizer's state.

Optimizers that divide by a root of squared gradients take steps of lr g / (root + eps), where root
differs from weight to weight. The functions here compute that root. They only use tensors' methods,
so torch is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Effective(NamedTuple):
    """A weight's effective step is lr scale / (root + eps), tensors of the weight's shape.

    accumulator: the state that root comes from, 0 where there never was a gradient.
    scale: 1, or a number, or a tensor.
    eps_dominates: whether eps determines the step; None where that is root < eps.
    """

    accumulator: Any
    root: Any
    eps: float
    scale: Any = 1.0
    eps_dominates: Any = None


# From a weight's state, its group's options and the number of steps taken.
Rule = Callable[[Mapping[str, Any], Mapping[str, Any], int], Effective]


def _adagrad(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the sum; lr_decay shrinks the learning rate in addition."""
    scale = 1 / (1 + (step - 1) * group["lr_decay"])
    grown = state["sum"] - group["initial_accumulator_value"]
    return Effective(grown, state["sum"].sqrt(), group["eps"], scale)


def _rmsprop(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the mean square, or of the variance if centered."""
    square = state["square_avg"]
    spread = square - state["grad_avg"] ** 2 if group["centered"] else square
    return Effective(square, spread.clamp(min=0).sqrt(), group["eps"])


def _adam(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root of the second moment (amsgrad: of the largest), bias-corrected unless turned off."""
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    corrected = group.get("bias_correction", True)
    root = (square / (1 - group["betas"][1] ** step)).sqrt() if corrected else square.sqrt()
    return Effective(square, root, group["eps"])


def _radam(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """As Adam, scaled by the rectification; no division while the second moment is uncertain."""
    beta = group["betas"][1]
    square, longest = state["exp_avg_sq"], 2 / (1 - beta) - 1
    length = longest - 2 * step * beta**step / (1 - beta**step)
    if length <= 5:
        return Effective(square, square * 0 + 1, 0.0)
    rest = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    root = square.sqrt() / math.sqrt(1 - beta**step)
    return Effective(square, root, group["eps"], math.sqrt(rest))


def _adadelta(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The root mean square of steps over that of gradients; eps is under both roots."""
    square, eps = state["square_avg"], group["eps"]
    scale = (state["acc_delta"] + eps).sqrt()
    return Effective(square, (square + eps).sqrt(), 0.0, scale, square < eps)


def _adamax(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """The decaying maximum of the gradients, which includes eps; eps alone without a gradient."""
    return Effective(state["exp_inf"] - group["eps"], state["exp_inf"], 0.0)


def _rmsprop_excess(options: Mapping[str, Any], step: int) -> float | None:
    """RMSProp has no bias correction, and no first moment that would need one."""
    return 1 / math.sqrt(1 - float(options["alpha"]) ** step)


def _adam_excess(options: Mapping[str, Any], step: int) -> float | None:
    """Kingma & Ba 2015, section 3: m is short by 1 - beta1^t, v by 1 - beta2^t."""
    if options.get("bias_correction", True):
        return None
    first, second = options["betas"]
    return float((1 - first**step) / math.sqrt(1 - second**step))


class SecondMoment(NamedTuple):
    """How an optimizer divides by what it accumulates of squared gradients, for diagnostics.

    state: the name of that tensor in a weight's state; weights without it are updated differently.
    effective: computes the effective step.
    decay: the option with its decay per step, the last number of a tuple; None for a sum.
    excess: computes, from the options and the step (from 1), the factor by which missing bias
    correction lengthens that step; None if nothing is missing.
    """

    state: str
    effective: Rule
    decay: str | None = None
    excess: Callable[[Mapping[str, Any], int], float | None] = lambda options, step: None


ADAGRAD = SecondMoment("sum", _adagrad)
RMSPROP = SecondMoment("square_avg", _rmsprop, "alpha", _rmsprop_excess)
ADAM = SecondMoment("exp_avg_sq", _adam, "betas", _adam_excess)
RADAM = SecondMoment("exp_avg_sq", _radam, "betas")
ADADELTA = SecondMoment("square_avg", _adadelta, "rho")
ADAMAX = SecondMoment("exp_inf", _adamax, "betas")
