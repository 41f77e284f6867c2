"""One training step: forward, losses, backward, clipping, update.

On a GPU a step is replayed from a CUDA graph, if nothing in it waits for the GPU. Data, files and
progress are not handled here; the losses are defined in `objectives.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from srucli import optim
from srucli.config import OptimConfig, TrainConfig
from srucli.data.batch import Batch
from srucli.diagnostics.watch import Watch
from srucli.kernels import backends
from srucli.model.classifier import Classifier
from srucli.optim.rows import values_of
from srucli.runs.checkpoints import TRAINING_TENSORS
from srucli.runs.tensors import check_fit
from srucli.runs.training_state import OptimizerState
from srucli.training.clipping import clipped, is_finite
from srucli.training.cuda_graphs import CaptureError, Graphs
from srucli.training.objectives import Objective


class StepStats(NamedTuple):
    """Totals over the steps of an epoch so far.

    loss_sum: the weighted sum of the losses of all examples. weight_sum: the sum of their weights,
    which are 1 by default. skipped: steps with a non-finite gradient. skipped_in_a_row:
    the latest consecutive ones of these, also across epochs.
    """

    loss_sum: float
    weight_sum: float
    skipped: int
    skipped_in_a_row: int

    @classmethod
    def of(cls, totals: Tensor) -> StepStats:
        """Read the values (4,); waits for a GPU."""
        loss_sum, weight_sum, *counts = totals.tolist()
        return cls(loss_sum, weight_sum, *map(int, counts))

    @property
    def loss(self) -> float:
        """The weighted mean over the examples; 0 if there were none."""
        return self.loss_sum / self.weight_sum if self.weight_sum else 0.0


class Step:
    """A training step of a model and its optimizer, on one batch or on several accumulated ones.

    A step with a non-finite gradient changes nothing, or is one with a gradient of zero
    (`clipping.py`). totals (4,) float64 on the device: the fields of `StepStats` since
    `begin_epoch`. captured: steps are replayed as CUDA graphs. watch: records diagnostics, if it is
    set.
    """

    def __init__(
        self, train: TrainConfig, optimizer: OptimConfig, model: Classifier, objective: Objective
    ) -> None:
        self.settings, self.clip, self.precision = optimizer, optimizer.clip, train.precision
        self.model, self._trained = model, list(model.parameters())
        self._freeze, self._depths = train.freeze, optim.depths(model)
        self.device = next(model.parameters()).device
        self.objective = objective.to(self.device)
        self.captured = self.device.type == "cuda" and can_be_captured(train, optimizer, model)
        gradual = train.freeze == "gradual"
        self.optimizer = optim.build(optimizer, model, captured=self.captured, by_depth=gradual)
        self._state = OptimizerState(model, self.optimizer, own=optimizer.name in optim.OPTIMIZERS)
        self._training = True
        self.scaler = torch.amp.GradScaler(enabled=train.precision == "fp16")
        self.totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        self._readout = Readout()
        self.watch: Watch | None = None
        self.graphs = Graphs(lambda batch: self._run([batch])) if self.captured else None

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def lr(self) -> float:
        """The learning rate of the latest step."""
        return optim.lr_of(self.optimizer)

    @property
    def peak_lr(self) -> float:
        """The learning rate that the schedule scales."""
        return optim.lr_of(self.optimizer, "initial_lr")

    def has_finite_weights(self) -> bool:
        """Return whether no weight is NaN or Inf; waits for a GPU."""
        return all(bool(weight.isfinite().all()) for weight in self.model.parameters())

    def set_mode(self, *, training: bool) -> None:
        """Put the weights for training or for prediction into the model.

        They differ if the optimizer averages weights.
        """
        self.model.train(training)
        optim.set_mode(self.optimizer, training=training)
        self._training = training

    def unfreeze(self, epoch: int) -> None:
        """Let only those weights change that `train.freeze` allows in an epoch, from 0.

        Gradual unfreezing is from Howard & Ruder 2018 (arXiv 1801.06146), section 3.3.
        """
        deepest = {"none": math.inf, "encoder": 0, "gradual": epoch}[self._freeze]
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(self._depths[name] <= deepest)

    def begin_epoch(self) -> None:
        """Reset the totals of the epoch."""
        self.totals[:3] = 0

    @property
    def stats(self) -> StepStats:
        """The current totals; waits for a GPU."""
        return StepStats.of(self.totals)

    def latest_stats(self) -> StepStats | None:
        """Return totals without waiting: on a GPU those of an earlier call, each once, or None."""
        totals = self._readout.latest(self.totals)
        return None if totals is None else StepStats.of(totals)

    def __call__(self, batches: Sequence[Batch], lr_factor: float) -> None:
        """Take a step on batches with targets, as if they were one, at a fraction of the peak rate.

        Warns if steps cannot be captured as CUDA graphs.
        """
        optim.set_lr(self.optimizer, lr_factor)
        look = self.watch is not None and self.watch.next()
        whole = all(batch.part is None for batch in batches)
        if self.graphs is not None and whole:
            try:
                (batch,) = batches
                watched = (lambda padded: self._run([padded], look)) if look else None
                self.graphs.run(batch, watched)
                return
            except CaptureError as error:
                warnings.warn(
                    f"kernels are launched one by one: a CUDA graph cannot hold a step ({error})",
                    stacklevel=2,
                )
                self.graphs, self.captured = None, False
                self.optimizer.zero_grad(set_to_none=True)
        self._run(batches, look)

    def _run(self, batches: Sequence[Batch], look: bool = False) -> None:
        """Take a step; with `look`, record diagnostics of it."""
        weights = [self.weight(batch) for batch in batches]
        total = sum(weights[1:], start=weights[0])
        for batch, weight in zip(batches, weights, strict=True):
            self._backward(batch, weight, total)
        self._update(look)

    def weight(self, batch: Batch) -> Tensor:
        """Return the total weight () of the batch's examples."""
        assert batch.targets is not None
        return self.objective.weight(batch.targets, batch.weights)

    def _backward(self, batch: Batch, weight: Tensor, total: Tensor) -> None:
        """Add the batch's part of the gradient of a mean over examples of `total` () weight."""
        loss = self.loss(batch)
        scaled: Tensor = self.scaler.scale(loss / total)
        torch.autograd.backward(scaled)
        figures = torch.stack((loss.detach(), weight)).double()
        self.totals[:2].add_(torch.where(is_finite(figures[0]), figures, 0.0))

    def loss(self, batch: Batch) -> Tensor:
        """Return the summed loss (). Fillers at the batch's end do not count."""
        assert batch.targets is not None
        examples, precision = len(batch.targets), self.precision
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        with torch.autocast(self.device.type, dtype, enabled=precision != "float32"):
            logits = self.model(batch.tokens, batch.offsets, batch.part)
        return self.objective.losses(logits[:examples], batch.targets, batch.weights)

    def _update(self, look: bool) -> None:
        """Clip the gradient, update the weights, drop the gradient."""
        watch = self.watch
        self.scaler.unscale_(self.optimizer)
        if watch and look:
            watch.before()
        gradients = self._gradients()
        norm = nn.utils.get_total_norm(gradients)
        skipped = ~is_finite(norm)
        self.totals[2].add_(skipped)
        self.totals[3].add_(1).mul_(skipped)
        if watch and self.clip:
            watch.clipped += norm > self.clip
        with clipped(self.optimizer, gradients, norm, self.clip) as taken:
            if taken:
                self.scaler.step(self.optimizer)
                if watch and look:
                    watch.after()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient_norm(self) -> Tensor:
        """Return the norm () of all gradients together."""
        return nn.utils.get_total_norm(self._gradients())

    def _gradients(self) -> list[Tensor]:
        """Return the values of all gradients, which share their memory."""
        return [values_of(weight) for weight in self._trained if weight.grad is not None]

    def weights(self) -> dict[str, Tensor]:
        """Return the weights for prediction."""
        trained = self._trained_weights()
        if not trained:
            return self.model.state_dict()
        optim.set_mode(self.optimizer, training=False)
        weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        optim.set_mode(self.optimizer, training=True)
        self._set_weights(trained)  # because switching there and back is not exact
        return weights

    def _trained_weights(self) -> dict[str, Tensor]:
        """Return copies of the parameters, if they are not the weights for prediction."""
        if not self._training or not optim.has_averages(self.optimizer):
            return {}
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    @torch.no_grad()
    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self.model.named_parameters():
            weight.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, besides `weights`."""
        return {
            "figures": self.totals,
            "optimizer": self._state.state_dict(),
            "scaler": self.scaler.state_dict(),
            "watch": self.watch.state_dict() if self.watch else None,
            "weights": self._trained_weights(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state; the optimizer stays new if its state is None.

        Raises LookupError, TypeError, ValueError, AttributeError, RuntimeError, DataError.
        """
        if state["optimizer"] is not None:
            self._state.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.totals.copy_(state["figures"])
        if state["weights"]:
            check_fit(state["weights"], dict(self.model.named_parameters()), TRAINING_TENSORS)
            self._set_weights(state["weights"])
        if self.watch and state["watch"]:
            self.watch.load_state_dict(state["watch"])


def can_be_captured(train: TrainConfig, optimizer: OptimConfig, model: Classifier) -> bool:
    """Return whether no part of a step waits for the GPU, so that a CUDA graph can hold it."""
    return (
        not model.encoder.waits
        and all(backends.can_be_captured(kernel) for kernel in (train.kernel, "auto"))
        and optim.can_be_captured(optimizer)
        and train.precision != "fp16"
        and train.accumulate == 1
        and not train.detect_anomaly
        and train.freeze != "gradual"
    )


class Readout:
    """Reads values that a GPU computes, without waiting for it."""

    def __init__(self) -> None:
        self.copy: Tensor | None = None
        self.copied: Any = None

    def latest(self, values: Tensor) -> Tensor | None:
        """Return `values` on a CPU; on a GPU those of an earlier call, once, or None."""
        if values.device.type == "cpu":
            return values
        found = None
        if self.copy is not None and self.copied.query():
            found, self.copy = self.copy, None
        if self.copy is None:
            self.copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.copy.copy_(values, non_blocking=True)
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()
        return found
