"""Muon for the hidden matrices and AdamW for all other parameters, as one optimizer.

Both update rules are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Jordan et al. 2024, with the step scaled as by Liu et al. 2025 (arXiv 2502.16982).

    With this scale, a Muon step is about as large as an Adam step, and one learning rate fits both.
    The two optimizers share the state and the groups of this object, so that `state_dict` and
    `load_state_dict` are those of any torch optimizer.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        fused: bool = False,
        **options: Any,
    ) -> None:
        """groups: from `parameter_groups`; Muon gets the one named 'matrices', and `options`."""
        hidden = [group for group in groups if _is_hidden(group)]
        others = [group for group in groups if not _is_hidden(group)]
        self.parts: list[Optimizer] = []
        if hidden:
            self.parts.append(Muon(hidden, lr=lr, adjust_lr_fn="match_rms_adamw", **options))
        if others:
            self.parts.append(AdamW(others, lr=lr, betas=betas, eps=eps, fused=fused))
        super().__init__(groups, {})
        self._share()

    def _share(self) -> None:
        for part in self.parts:
            hidden = isinstance(part, Muon)
            part.param_groups = [g for g in self.param_groups if _is_hidden(g) == hidden]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load state and groups, and share the new objects with both optimizers."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step with both optimizers."""
        for part in self.parts:
            part.step()


def _is_hidden(group: dict[str, Any]) -> bool:
    return bool(group["name"] == "matrices")
