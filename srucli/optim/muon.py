"""Muon for the hidden matrices and AdamW for all other parameters, as one optimizer.

Both rules are torch's own; only the joining is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Jordan et al. 2024, with the step scaled as by Liu et al. 2025 (arXiv 2502.16982).

    So scaled, a Muon step is about as large as one of Adam's, and one learning rate fits both.
    State and groups belong to this object and the two rules share them, so `state_dict` and
    `load_state_dict` are those of any torch optimizer.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        betas: tuple[float, float],
        eps: float,
        fused: bool = False,
    ) -> None:
        """`groups` are those of `parameter_groups`; Muon takes the one named 'matrices'."""
        hidden = [group for group in groups if _is_hidden(group)]
        rest = [group for group in groups if not _is_hidden(group)]
        self.parts: list[Optimizer] = []
        if hidden:
            muon = Muon(
                hidden,
                lr=lr,
                momentum=momentum,
                nesterov=nesterov,
                ns_steps=ns_steps,
                adjust_lr_fn="match_rms_adamw",
            )
            self.parts.append(muon)
        if rest:
            self.parts.append(AdamW(rest, lr=lr, betas=betas, eps=eps, fused=fused))
        super().__init__(groups, {})
        self._share()

    def _share(self) -> None:
        for part in self.parts:
            hidden = isinstance(part, Muon)
            part.param_groups = [g for g in self.param_groups if _is_hidden(g) == hidden]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over state and groups, which torch replaces, and hand them to both rules again."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both rules."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def _is_hidden(group: dict[str, Any]) -> bool:
    return bool(group["name"] == "matrices")
