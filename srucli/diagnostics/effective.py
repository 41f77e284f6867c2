"""How far one unit of gradient moves each weight, read from what an optimizer keeps.

Optimizers that divide by a root of squared gradients take steps of lr g / (root + eps), and root is
another one for every weight. Here is what that root is for each of them. Tensors are only computed
with, so no torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    """The corrected root of the second moment, or the largest one under amsgrad."""
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    left = 1 - group["betas"][1] ** step
    return Effective(square, (square / left).sqrt(), group["eps"])


def adam_nobias(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Effective:
    """As it is kept: too small in the first steps, by the root of 1 - beta2^t."""
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
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


RULES: dict[str, Rule] = {
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adam,
    "adam-nobias": adam_nobias,
    "nadam": adam,
    "radam": radam,
    "adadelta": adadelta,
    "adamax": adamax,
    "muon": adam,  # of what is no hidden matrix
}


# What the rules read; a weight without any of them takes steps of another kind.
SECOND_MOMENTS = {"sum", "square_avg", "exp_avg_sq", "exp_inf"}


def rule_of(name: str, options: Mapping[str, Any]) -> Rule | None:
    """The rule of an optimizer with its options; None where all weights take steps of lr alike."""
    if name == "adam" and not options.get("bias_correction", True):
        return adam_nobias
    return RULES.get(name)
