"""Adam that takes sparse gradients, and whose bias correction can be turned off.

torch's Adam offers neither. The update itself, fused or not, is torch's own.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from srucli.optim.rows import on_rows


class Adam(torch.optim.Adam):
    """Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1; without correction m / (sqrt(v) + eps).

    torch divides m by 1 - beta1^t and sqrt(v) by sqrt(1 - beta2^t). A learning rate and an eps that
    are changed for the step cancel that exactly.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, bias_correction: bool = True, **options: Any
    ) -> None:
        super().__init__(groups, **options)
        for group in self.param_groups:
            group["bias_correction"] = bias_correction
            group["steps"] = 0  # counted only where needed: a CUDA graph would not count
        if not bias_correction:  # a kernel that skips a step would not be counted right
            self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step."""
        settings = [(group["lr"], group["eps"]) for group in self.param_groups]
        for group in self.param_groups:
            if not group["bias_correction"]:
                group["steps"] += 1
                first, second = (1 - beta ** group["steps"] for beta in group["betas"])
                group["lr"] *= first / math.sqrt(second)
                group["eps"] /= math.sqrt(second)
        try:
            with on_rows(self):
                super().step()
        finally:
            for group, (lr, eps) in zip(self.param_groups, settings, strict=True):
                group["lr"], group["eps"] = lr, eps
