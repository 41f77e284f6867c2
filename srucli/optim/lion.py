"""Lion, which torch does not have."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Chen et al. 2023 (arXiv 2302.06675), algorithm 2: the sign of an interpolated momentum."""

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            grads = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["exp_avg"] = torch.zeros_like(weight)
            means = [self.state[weight]["exp_avg"] for weight in weights]
            lr, (beta1, beta2) = group["lr"], group["betas"]
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
            steps = torch._foreach_lerp(grads, means, beta1)
            torch._foreach_sign_(steps)
            torch._foreach_add_(weights, steps, alpha=-lr)
            torch._foreach_lerp_(means, grads, 1 - beta2)
