"""What an optimizer does to each group of parameters, looked at every so many steps.

A look costs a few passes over the parameters: norms are exact, quantiles and shares come from a
sample that stays the same over the run. Steps are recorded at 1, 2, 3, 4, 6, 8, 12, 16, ... too,
since the first ones differ most and slopes are taken against log t.

A record of a step: lr; grad_norm, of all gradients before clipping; clipped, the share of steps
since the last record whose gradients were; of each group the norms of gradients, update and weights
before it, and their ratio. Where an optimizer divides by a root of squared gradients, of those
entries that ever had a gradient: effective, how far a unit of gradient moves them, lr / (root +
eps), and accumulator, what the root comes from, at p10, p50 and p90; eps_dominates, the share whose
root is below eps; stride, the root mean square of their moves in units of lr. untouched: the share
of each table's rows that are as they began. by_frequency: geometric means of effective over the
pieces in each decile of frequency, the most frequent first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from srucli.optim.effective import SecondMoment

QUANTILES = (0.1, 0.5, 0.9)
SAMPLE = 4096  # entries of a tensor
ROWS = 1024  # of a table
DECILES = 10
PIECES_OF_DECILE = 32
Record = dict[str, Any]


def is_looked_at(step: int, every: int) -> bool:
    """Whether step (from 1) is recorded: multiples of `every`, and 2^k and 3 2^k."""
    power = step & -step
    return step % every == 0 or step // power in (1, 3)


def deciles(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The pieces that occur, in ten parts of equal size, the most frequent first.

    counts (V,): how often each piece occurs.
    """
    present = np.flatnonzero(counts)
    ranked = present[np.argsort(-counts[present], kind="stable")]
    return np.array_split(ranked, DECILES)


class Table(NamedTuple):
    """An embedding table, rows of it, and what those were before the first step."""

    weight: Tensor
    rows: Tensor
    initial: Tensor


class Watch:
    """Looks at steps. `next` counts one; `before` and `after` stand around what applies it.

    `clipped` () counts the steps since the last record whose gradients were clipped; whoever clips
    adds to it, on the device, so that nothing waits for that.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        moment: SecondMoment | None,
        every: int,
        counts: NDArray[np.int64],
    ) -> None:
        """counts (V,): how often each piece occurs in the training texts.

        The pieces' table is the model's first.
        """
        self.optimizer, self.moment, self.every = optimizer, moment, every
        self.step = self.since = 0
        self.clipped = torch.zeros((), device=next(model.parameters()).device)
        self.record: Record | None = None
        # Minus what each weight moves by in this step; before that, what it was.
        self.moves: dict[Tensor, Tensor] = {}
        self.grads: dict[str, float] = {}
        self.sizes: dict[str, float] = {}
        self.places: dict[Tensor, Tensor] = {
            weight: _sample(weight.numel(), SAMPLE) for weight in model.parameters()
        }
        self.tables = {
            name: _table(module.weight)
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding)
        }
        self.pieces = next(iter(self.tables.values())).weight
        parts = deciles(counts)
        self.counts = [round(float(counts[part].mean()), 2) if len(part) else 0 for part in parts]
        self.deciles = [
            torch.from_numpy(part[_sample(len(part), PIECES_OF_DECILE).numpy()]) for part in parts
        ]

    def tree(self) -> dict[str, Any]:
        """What going on needs, besides weights as they were before the first step."""
        return {"step": self.step, "since": self.since, "clipped": float(self.clipped)}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Take over what `tree` gave."""
        self.step, self.since = int(tree["step"]), int(tree["since"])
        self.clipped.fill_(float(tree["clipped"]))

    def next(self) -> bool:
        """One more step begins; whether it is to be looked at."""
        self.step += 1
        self.since += 1
        return is_looked_at(self.step, self.every)

    @torch.no_grad()
    def before(self) -> None:
        """Gradients are there, not yet clipped."""
        for group in self.optimizer.param_groups:
            weights = _with_gradient(group)
            self.grads[group["name"]] = _norm([_gradient(weight) for weight in weights])
            self.sizes[group["name"]] = _norm(weights)
            self.moves |= {weight: weight.detach().clone() for weight in weights}

    @torch.no_grad()
    def after(self) -> None:
        """The step is taken."""
        for weight, move in self.moves.items():
            move.sub_(weight)
        self.record = {
            "step": self.step,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "grad_norm": math.hypot(*self.grads.values()),
            "clipped": float(self.clipped) / self.since,
            "groups": {group["name"]: self._group(group) for group in self.optimizer.param_groups},
            "untouched": self._untouched(),
            "by_frequency": self._by_frequency(),
        }
        self.since = 0
        self.clipped.zero_()
        self.moves.clear()

    def taken(self) -> Record | None:
        """The record of the last step, once, if it was looked at."""
        record, self.record = self.record, None
        return record

    def _group(self, group: Mapping[str, Any]) -> Record:
        """Norms of a group's gradients, step and weights, and how far a unit of gradient moves."""
        weights = _with_gradient(group)
        update = _norm([self.moves[weight] for weight in weights])
        size = self.sizes[group["name"]]
        found: Record = {
            "grad_norm": self.grads[group["name"]],
            "update_norm": update,
            "weight_norm": size,
            "ratio": update / size if size else None,
        }
        looked = [self._look(weight, group, self.places[weight]) for weight in weights]
        if any(looked):
            columns = zip(*filter(None, looked), strict=True)
            kept, small, step, moved = (torch.cat(column) for column in columns)
            found["effective"] = _quantiles(step)
            found["accumulator"] = _quantiles(kept)
            found["eps_dominates"] = _mean(small)
            rate = float(group["lr"])
            found["stride"] = _mean(moved.square()) ** 0.5 / rate if rate else 0.0
        return found

    def _look(
        self, weight: Tensor, group: Mapping[str, Any], places: Tensor
    ) -> tuple[Tensor, ...] | None:
        """Of the entries at `places` that were ever touched: what is kept, and whether eps is more.

        And effective steps, and moves in this step. None where the optimizer keeps no such thing.
        """
        state = self.optimizer.state[weight]
        if self.moment is None or self.moment.state not in state:
            return None
        # Only these entries are computed with.
        few = {
            key: value.flatten()[places]
            for key, value in state.items()
            if isinstance(value, Tensor) and value.shape == weight.shape
        }
        found = self.moment.effective(few, group, self.step)
        step = float(group["lr"]) * found.scale / (found.root + found.eps)
        touched = found.kept > 0
        small = found.root < found.eps if found.small is None else found.small
        parts = (found.kept, small, step, self.moves[weight].flatten()[places])
        return tuple(part[touched] for part in parts)

    def _untouched(self) -> dict[str, float]:
        """Of each table; nothing where weight decay moves all rows."""
        if self._embeddings()["weight_decay"] > 0:
            return {}
        return {name: _untouched(each) for name, each in self.tables.items()}

    def _embeddings(self) -> dict[str, Any]:
        """The optimizer's group that holds the pieces' table."""
        groups = self.optimizer.param_groups
        return next(g for g in groups if any(weight is self.pieces for weight in g["params"]))

    def _by_frequency(self) -> list[float | None] | None:
        """Geometric means of the effective steps of the pieces in each decile of frequency."""
        own, width = self._embeddings(), self.pieces.shape[1]
        means: list[float | None] = []
        for rows in self.deciles:
            places = (rows.unsqueeze(1) * width + torch.arange(width)).flatten()
            looked = self._look(self.pieces, own, places.to(self.pieces.device))
            if looked is None:
                return None
            steps = looked[2]
            means.append(float(steps.log().mean().exp()) if len(steps) else None)
        return means


def _table(weight: Tensor) -> Table:
    rows = _sample(len(weight), ROWS).to(weight.device)
    return Table(weight, rows, weight.detach()[rows])


def _untouched(table: Table) -> float:
    """The share of rows that are as they were before the first step."""
    same = (table.weight.detach()[table.rows] == table.initial).all(dim=1)
    return float(same.float().mean())


def _sample(size: int, most: int) -> Tensor:
    """At most `most` places among `size`, evenly spread."""
    return torch.linspace(0, size - 1, min(size, most), dtype=torch.float64).long()


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def _with_gradient(group: Mapping[str, Any]) -> list[Tensor]:
    return [weight for weight in group["params"] if weight.grad is not None]


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack(torch._foreach_norm(tensors)).norm()) if tensors else 0.0


def _mean(values: Tensor) -> float:
    return float(values.float().mean()) if values.numel() else 0.0


def _quantiles(values: Tensor) -> list[float] | None:
    if not values.numel():
        return None
    points = torch.tensor(QUANTILES, dtype=values.dtype, device=values.device)
    return [float(value) for value in torch.quantile(values, points)]
