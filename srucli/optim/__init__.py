"""Optimizers by name, their parameter groups and their learning rate over a run.

Importing this package does not import torch; `build` does.
"""

from srucli.optim.external import has_averages, set_mode
from srucli.optim.factory import build, can_be_captured, resolve, validate
from srucli.optim.groups import GROUPS, depths, parameter_groups
from srucli.optim.schedules import SCHEDULES, lr_factor, lr_of, set_lr
from srucli.optim.table import OPTIMIZERS, describe, matching, second_moment
