"""Record what an optimizer does to each parameter group, once in a given number of steps.

A record costs a few passes over the parameters: norms are exact, quantiles and shares come from a
sample of entries that stays the same during a training. Steps 1, 2, 3, 4, 6, 8, 12, 16, ... are
recorded too, since the first steps differ most and slopes are fitted against log t.

A record has lr; grad_norm, of all gradients before clipping; clipped, the share of steps since the
last record with clipped gradients; and for each group the norms of gradients, update and weights
before it, and the ratio of the last two. If the optimizer divides by a root of squared gradients,
it also has, of the entries that ever had a gradient: p10, p50 and p90 of effective, the distance
that a unit of gradient moves them, lr / (root + eps), and of accumulator, from which the root is
computed; eps_dominates, the share whose root is below eps; stride, the root mean square of their
moves in units of lr. untouched is the share of each table's rows that still have their initial
values. by_frequency has geometric means of effective over the tokens in each decile of frequency,
the most frequent first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from srucli.optim.effective import SecondMoment
from srucli.optim.rows import values_of
from srucli.optim.schedules import lr_of

QUANTILES = (0.1, 0.5, 0.9)
ENTRIES_PER_TENSOR = 4096
ROWS_PER_TABLE = 1024
DECILES = 10
TOKENS_PER_DECILE = 32
Record = dict[str, Any]


def is_recorded(step: int, every: int) -> bool:
    """Return whether a step (from 1) is recorded: multiples of `every`, 2^k and 3 2^k."""
    power = step & -step
    return step % every == 0 or step // power in (1, 3)


def deciles(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the tokens that occur in ten parts of equal size, the most frequent first.

    counts (V,): how often each token of the vocabulary occurs.
    """
    present = np.flatnonzero(counts)
    ranked = present[np.argsort(-counts[present], kind="stable")]
    return np.array_split(ranked, DECILES)


class Table(NamedTuple):
    """An embedding table, a sample of its rows, and their values before the first step."""

    weight: Tensor
    rows: Tensor
    initial: Tensor


class Watch:
    """Records steps: `next` counts a step, and `before` and `after` enclose a recorded one.

    `clipped` () is the number of steps since the last record with clipped gradients. Whoever clips
    adds to it on the device, so that nothing waits for the device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        moment: SecondMoment | None,
        every: int,
        counts: NDArray[np.int64],
    ) -> None:
        """counts (V,): how often each token occurs in the training set.

        The first nn.Embedding of the model must be that of the tokens.
        """
        self.optimizer, self.moment, self.every = optimizer, moment, every
        self.step = self.since = 0
        self.clipped = torch.zeros((), device=next(model.parameters()).device)
        self.record: Record | None = None
        # In `before`, the weights; in `after`, minus their moves in this step.
        self.moves: dict[Tensor, Tensor] = {}
        self.grad_norms: dict[str, float] = {}
        self.weight_norms: dict[str, float] = {}
        self.entries: dict[Tensor, Tensor] = {
            weight: _sample(weight.numel(), ENTRIES_PER_TENSOR) for weight in model.parameters()
        }
        self.tables: dict[str, Table] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding):
                rows = _sample(len(module.weight), ROWS_PER_TABLE).to(module.weight.device)
                self.tables[name] = Table(module.weight, rows, module.weight.detach()[rows])
        self.embedding = next(iter(self.tables.values())).weight
        parts = deciles(counts)
        self.counts = [round(float(counts[part].mean()), 2) if len(part) else 0 for part in parts]
        self.deciles = [
            torch.from_numpy(part)[_sample(len(part), TOKENS_PER_DECILE)] for part in parts
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs, except for the tables' initial rows."""
        return {"step": self.step, "since": self.since, "clipped": float(self.clipped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.step, self.since = int(state["step"]), int(state["since"])
        self.clipped.fill_(float(state["clipped"]))

    def next(self) -> bool:
        """Count one more step; return whether it is to be recorded."""
        self.step += 1
        self.since += 1
        return is_recorded(self.step, self.every)

    @torch.no_grad()
    def before(self) -> None:
        """Read weights and gradients before clipping and before the optimizer's step."""
        for name, groups in self._by_name().items():
            weights = [weight for group in groups for weight in _with_gradient(group)]
            self.grad_norms[name] = _norm(list(map(values_of, weights)))
            self.weight_norms[name] = _norm(weights)
            self.moves |= {weight: weight.detach().clone() for weight in weights}

    @torch.no_grad()
    def after(self) -> None:
        """Make the record, after the optimizer's step."""
        for weight, move in self.moves.items():
            move.sub_(weight)
        self.record = {
            "step": self.step,
            "lr": lr_of(self.optimizer),
            "grad_norm": math.hypot(*self.grad_norms.values()),
            "clipped": float(self.clipped) / self.since,
            "groups": {name: self._record_of(name, own) for name, own in self._by_name().items()},
            "untouched": self._untouched(),
            "by_frequency": self._by_frequency(),
        }
        self.since = 0
        self.clipped.zero_()
        self.moves.clear()

    def pop_record(self) -> Record | None:
        """Return the record of the last step, if there is one, and forget it."""
        record, self.record = self.record, None
        return record

    def _by_name(self) -> dict[str, list[dict[str, Any]]]:
        """Return the optimizer's groups by name: several, if layers have different rates."""
        found: dict[str, list[dict[str, Any]]] = {}
        for group in self.optimizer.param_groups:
            found.setdefault(group["name"], []).append(group)
        return found

    def _record_of(self, name: str, groups: Sequence[Mapping[str, Any]]) -> Record:
        weights = [(weight, group) for group in groups for weight in _with_gradient(group)]
        update_norm = _norm([self.moves[weight] for weight, _ in weights])
        weight_norm = self.weight_norms[name]
        record: Record = {
            "grad_norm": self.grad_norms[name],
            "update_norm": update_norm,
            "weight_norm": weight_norm,
            "ratio": update_norm / weight_norm if weight_norm else None,
        }
        parts = [self._effective(*each, self.entries[each[0]]) for each in weights]
        if any(parts):
            columns = zip(*filter(None, parts), strict=True)
            accumulator, eps_dominates, steps, strides = (torch.cat(column) for column in columns)
            record["effective"] = _quantiles(steps)
            record["accumulator"] = _quantiles(accumulator)
            record["eps_dominates"] = _mean(eps_dominates)
            record["stride"] = _mean(strides.square()) ** 0.5
        return record

    def _effective(
        self, weight: Tensor, group: Mapping[str, Any], entries: Tensor
    ) -> tuple[Tensor, ...] | None:
        """Return accumulators, whether eps dominates, effective steps, and moves in units of lr.

        They are those of the entries (flat indices) that ever had a gradient. None if the weight
        is frozen, or if the optimizer does not divide by a root of squared gradients here.
        """
        state = self.optimizer.state[weight]
        if self.moment is None or self.moment.state not in state or weight not in self.moves:
            return None
        sampled = {
            key: value.flatten()[entries]
            for key, value in state.items()
            if isinstance(value, Tensor) and value.shape == weight.shape
        }
        # Fewer than in the training, if the weight was frozen at first.
        steps = int(state.get("step", self.step))
        found = self.moment.effective(sampled, group, steps)
        lr = float(group["lr"])
        step = lr * found.scale / (found.root + found.eps)
        touched = found.accumulator > 0
        small = found.root < found.eps if found.eps_dominates is None else found.eps_dominates
        moves = self.moves[weight].flatten()[entries]
        parts = (found.accumulator, small, step, moves / lr if lr else torch.zeros_like(moves))
        return tuple(part[touched] for part in parts)

    def _embedding_group(self) -> dict[str, Any]:
        """Return the optimizer's group with the tokens' embedding."""
        groups = self.optimizer.param_groups
        return next(g for g in groups if any(weight is self.embedding for weight in g["params"]))

    def _untouched(self) -> dict[str, float]:
        """Return the share of untouched rows of each table; none if weight decay moves all rows."""
        if self._embedding_group()["weight_decay"] > 0:
            return {}
        return {
            name: _mean((table.weight.detach()[table.rows] == table.initial).all(dim=1))
            for name, table in self.tables.items()
        }

    def _by_frequency(self) -> list[float | None] | None:
        group, width = self._embedding_group(), self.embedding.shape[1]
        means: list[float | None] = []
        for tokens in self.deciles:
            entries = (tokens.unsqueeze(1) * width + torch.arange(width)).flatten()
            parts = self._effective(self.embedding, group, entries.to(self.embedding.device))
            if parts is None:
                return None
            steps = parts[2]
            means.append(float(steps.log().mean().exp()) if len(steps) else None)
        return means


def _sample(size: int, largest: int) -> Tensor:
    """Return at most `largest` indices below `size`, evenly spaced."""
    return torch.linspace(0, size - 1, min(size, largest), dtype=torch.float64).long()


def _with_gradient(group: Mapping[str, Any]) -> list[Tensor]:
    return [weight for weight in group["params"] if weight.grad is not None]


def _norm(tensors: list[Any]) -> float:
    return float(torch.stack(torch._foreach_norm(tensors)).norm()) if tensors else 0.0


def _mean(values: Tensor) -> float:
    return float(values.float().mean()) if values.numel() else 0.0


def _quantiles(values: Tensor) -> list[float] | None:
    if not values.numel():
        return None
    points = torch.tensor(QUANTILES, dtype=values.dtype, device=values.device)
    return [float(value) for value in torch.quantile(values, points)]
