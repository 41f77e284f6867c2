"""One training step: forward, losses, backward, clipping, the optimizer's update.

On a GPU a step is replayed from a CUDA graph where nothing in it waits for the GPU. No data, no
files and no progress here; the losses are defined in `objectives.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from srucli import optim
from srucli.data.batch import Batch
from srucli.diagnostics.watch import Watch
from srucli.kernels import backends
from srucli.model.classifier import Classifier
from srucli.runs.checkpoints import TRAINING_TENSORS
from srucli.runs.tensors import check_fit
from srucli.runs.training_state import OptimizerState
from srucli.training.cuda_graphs import CaptureError, Graphs
from srucli.training.objectives import Objective

if TYPE_CHECKING:
    from srucli.config import OptimConfig, TrainConfig


class StepStats(NamedTuple):
    """What an epoch's steps came to so far.

    loss_sum: the weighted sum of the losses of all examples; weight_sum: of their weights, which
    are 1 without class weights; skipped: the steps with a non-finite gradient; skipped_in_a_row:
    how many of those the latest steps were, also across epochs.
    """

    loss_sum: float
    weight_sum: float
    skipped: int
    skipped_in_a_row: int

    @property
    def loss(self) -> float:
        """The weighted mean over examples; 0 where there were none."""
        return self.loss_sum / self.weight_sum if self.weight_sum else 0.0


def _stats(totals: Tensor) -> StepStats:
    loss_sum, weight_sum, *counts = totals.tolist()
    return StepStats(loss_sum, weight_sum, *map(int, counts))


class Step:
    """What a batch, or several whose gradients are accumulated, does to a model and its optimizer.

    A step whose gradient is not finite changes nothing: on a GPU, where nobody waits to see that,
    it is a step with a gradient of zero. `totals` (4,) float64 are the fields of `StepStats` on the
    device, since `begin`. `captured` tells whether steps are replayed as CUDA graphs. `watch` looks
    at the steps, where it is set.
    """

    def __init__(
        self, train: TrainConfig, optimizer: OptimConfig, model: Classifier, objective: Objective
    ) -> None:
        self.settings, self.clip, self.precision = optimizer, optimizer.clip, train.precision
        self.model = model
        self.device = next(model.parameters()).device
        self.objective = objective.to(self.device)
        self.captured = self.device.type == "cuda" and can_be_captured(train, optimizer, model)
        self.optimizer = optim.build(optimizer, model, captured=self.captured)
        self._state = OptimizerState(model, self.optimizer, own=optimizer.name in optim.OPTIMIZERS)
        self._training = True
        self.scaler = torch.amp.GradScaler(enabled=train.precision == "fp16")
        self.totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        self._readout = Readout()
        self.watch: Watch | None = None
        self.graphs = Graphs(self._captured) if self.captured else None

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def lr(self) -> float:
        """The learning rate of the latest step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def peak_lr(self) -> float:
        """The learning rate that the schedule scales."""
        return float(self.optimizer.param_groups[0]["initial_lr"])

    def has_finite_weights(self) -> bool:
        """Whether no weight is NaN or Inf; waits for a GPU."""
        return all(bool(weight.isfinite().all()) for weight in self.model.parameters())

    def set_mode(self, *, training: bool) -> None:
        """Put the weights in place that are trained, or those that predict.

        They differ where the optimizer averages the weights that it trains.
        """
        self.model.train(training)
        optim.set_mode(self.optimizer, training=training)
        self._training = training

    def begin(self) -> None:
        """An epoch begins."""
        self.totals[:3] = 0

    @property
    def stats(self) -> StepStats:
        """What `totals` say; waits for a GPU."""
        return _stats(self.totals)

    def latest_stats(self) -> StepStats | None:
        """The same without waiting: on a GPU what an earlier call asked for, once, or None."""
        totals = self._readout.latest(self.totals)
        return None if totals is None else _stats(totals)

    def __call__(self, batches: Sequence[Batch], rate: float) -> None:
        """One step on batches with targets, as if they were one, at `rate` times the peak rate."""
        optim.set_lr(self.optimizer, rate)
        look = self.watch is not None and self.watch.next()
        whole = all(batch.part is None for batch in batches)
        if self.graphs is not None and whole and not look:
            try:
                (batch,) = batches
                self.graphs.run(batch)
                return
            except CaptureError as error:
                warnings.warn(
                    f"steps are launched kernel by kernel: no CUDA graph holds them ({error})",
                    stacklevel=2,
                )
                self.graphs, self.captured = None, False
                self.optimizer.zero_grad(set_to_none=True)
        self._whole(batches, look)

    def _captured(self, batch: Batch) -> None:
        self._whole([batch], look=False)

    def _whole(self, batches: Sequence[Batch], look: bool) -> None:
        weights = [self.weight(batch) for batch in batches]
        total = torch.stack(weights).sum()
        for batch, weight in zip(batches, weights, strict=True):
            self._backward(batch, weight, total)
        self._update(look)

    def weight(self, batch: Batch) -> Tensor:
        """What the batch's examples weigh together ()."""
        assert batch.targets is not None
        return self.objective.weight(batch.targets)

    def _backward(self, batch: Batch, weight: Tensor, total: Tensor) -> None:
        """Add the gradients of one batch to a mean over texts that weigh `total` () together."""
        losses = self.losses(batch)
        scaled: Tensor = self.scaler.scale(losses.sum() / total)
        torch.autograd.backward(scaled)
        mean = losses.detach().mean().double()
        finite = mean.isfinite()
        self.totals[0] += torch.where(finite, mean, 0.0)
        self.totals[1] += finite * weight

    def losses(self, batch: Batch) -> Tensor:
        """Of each branch (n,), summed. Texts at the batch's end without a target do not count."""
        assert batch.targets is not None
        texts, precision = len(batch.targets), self.precision
        kind = torch.bfloat16 if precision == "bf16" else torch.float16
        with torch.autocast(self.device.type, kind, enabled=precision != "float32"):
            branches = self.model.branches(
                batch.tokens, batch.offsets, batch.characters, batch.part
            )
        losses = [self.objective.losses(logits[:texts], batch.targets) for logits in branches]
        return torch.stack(losses)

    def _update(self, look: bool) -> None:
        """Clip, step, forget the gradients. Where `look`, the watch looks at it."""
        clip = self.clip
        self.scaler.unscale_(self.optimizer)
        if self.watch and look:
            self.watch.before()
        parameters = self.model.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, clip) if clip else self.gradient_norm()
        finite = norm.isfinite()
        self.totals[2] += ~finite
        self.totals[3] = (self.totals[3] + 1) * ~finite
        if self.watch and clip:
            self.watch.clipped += norm > clip
        if self.device.type == "cpu" and not finite:
            look = False
        else:
            self._forget_unless(finite)
            self.scaler.step(self.optimizer)
        if self.watch and look:
            self.watch.after()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients ()."""
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def _forget_unless(self, finite: Tensor) -> None:
        """Gradients of zero on a GPU, where they are not `finite` ()."""
        if self.device.type == "cpu":
            return
        for weight in self.model.parameters():
            if weight.grad is not None:
                weight.grad.copy_(torch.where(finite, weight.grad, 0.0))

    def weights(self) -> dict[str, Tensor]:
        """The weights that predict; between epochs they are those in the model."""
        trained = self._trained_weights()
        if not trained:
            return self.model.state_dict()
        optim.set_mode(self.optimizer, training=False)
        weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        optim.set_mode(self.optimizer, training=True)
        self._set_weights(trained)  # since going back and forth is not exact
        return weights

    def _trained_weights(self) -> dict[str, Tensor]:
        """Copies of the parameters, where they are not the weights that predict."""
        if not self._training or not optim.has_averages(self.optimizer):
            return {}
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    @torch.no_grad()
    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self.model.named_parameters():
            weight.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, besides `weights`."""
        return {
            "figures": self.totals,
            "optimizer": self._state.state_dict(),
            "scaler": self.scaler.state_dict(),
            "watch": self.watch.state_dict() if self.watch else None,
            "weights": self._trained_weights(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it, but leave the optimizer new where its state is None.

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
    """Not where something waits for the GPU: some encoders and optimizers, fp16, no Triton."""
    return (
        not model.encoder.waits
        and all(backends.can_be_captured(kernel) for kernel in (train.kernel, "auto"))
        and optim.can_be_captured(optimizer)
        and train.precision != "fp16"
        and train.accumulate == 1
        and not train.detect_anomaly
    )


class Readout:
    """Reads numbers that a GPU works out, without waiting for them."""

    def __init__(self) -> None:
        self.copy: Tensor | None = None
        self.copied: Any = None

    def latest(self, values: Tensor) -> Tensor | None:
        """`values` themselves on a CPU; else what an earlier call was given, once, or None."""
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
