"""Optimizers by name, their parameter groups and their learning rate over a run.

Importing this package does not import torch; `build` does.
"""

from srucli.optim.external import has_averages, use
from srucli.optim.groups import GROUPS, parameter_groups
from srucli.optim.schedules import SCHEDULES, apply, factor
from srucli.optim.table import (
    OPTIMIZERS,
    build,
    can_be_captured,
    check,
    describe,
    matching,
    resolve,
)

__all__ = [
    "GROUPS",
    "OPTIMIZERS",
    "SCHEDULES",
    "apply",
    "build",
    "can_be_captured",
    "check",
    "describe",
    "factor",
    "has_averages",
    "matching",
    "parameter_groups",
    "resolve",
    "use",
]
