"""One training step: forward, losses, backward, clipping, the optimizer's update.

On a GPU a step is replayed from a CUDA graph where nothing in it waits for the GPU. No data, no
files and no progress here.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srucli import kernels, optim
from srucli.batching import Batch
from srucli.graphs import CaptureError, Graphs
from srucli.model import Classifier
from srucli.optim.diagnostics import Watch

if TYPE_CHECKING:
    from srucli.config import Config


def loss_function(config: Config, targets: NDArray[Any], classes: int) -> Any:
    """Cross-entropy, or for several labels a text binary cross-entropy; (logits, targets) -> ()."""
    smoothing = config.train.label_smoothing
    if config.data.multi_label:

        def several(logits: Tensor, wanted: Tensor) -> Tensor:
            smooth = wanted * (1 - smoothing) + smoothing / classes
            return nn.functional.binary_cross_entropy_with_logits(
                logits, smooth, reduction="sum"
            ) / len(logits)

        return several
    weight = None
    if config.train.class_weights == "balanced":
        counts = np.bincount(targets, minlength=classes).clip(min=1)
        weight = torch.tensor(len(targets) / (classes * counts), dtype=torch.float32)
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)


class Step:
    """What one batch does to a model and its optimizer.

    A step whose gradient is not finite changes nothing: on a GPU, where nobody waits to see that,
    it is a step with a gradient of zero. `figures` (4,) are the sum of the losses of all texts
    since `begin`, their number, the steps without a finite gradient, and how many of those there
    have been in a row by now. `captured` tells whether steps are replayed as CUDA graphs. `watch`
    looks at the steps, where it is set.
    """

    def __init__(self, config: Config, model: Classifier, loss: Any) -> None:
        self.config, self.model, self.loss = config, model, loss
        self.device = next(model.parameters()).device
        if isinstance(loss, nn.Module):
            loss.to(self.device)
        self.captured = self.device.type == "cuda" and self._can_be_captured()
        self.optimizer = optim.build(config.optim, model, captured=self.captured)
        self.scaler = torch.amp.GradScaler(enabled=config.train.precision == "fp16")
        self.figures = torch.zeros(4, dtype=torch.float64, device=self.device)
        self.watch: Watch | None = None
        self.graphs = Graphs(self._whole) if self.captured else None

    def _can_be_captured(self) -> bool:
        """Not where something waits for the GPU: some encoders and optimizers, fp16, no Triton."""
        train = self.config.train
        return (
            not self.model.encoder.waits
            and kernels.check(train.kernel, "cuda") == kernels.check("auto", "cuda") == "triton"
            and optim.can_be_captured(self.config.optim)
            and train.precision != "fp16"
            and train.accumulate == 1
            and not train.detect_anomaly
        )

    def begin(self) -> None:
        """An epoch begins."""
        self.figures[:3] = 0

    def __call__(self, batch: Batch, rate: float, update: bool = True) -> None:
        """A step on a batch with targets, at `rate` times the peak learning rate.

        Where not `update`, its gradients only are added to those that there are.
        """
        optim.apply(self.optimizer, rate)
        look = update and self.watch is not None and self.watch.next()
        if self.graphs is not None and not look:
            try:
                self.graphs.run(batch)
                return
            except CaptureError as error:
                warnings.warn(
                    f"steps are launched kernel by kernel: no CUDA graph holds them ({error})",
                    stacklevel=2,
                )
                self.graphs, self.captured = None, False
                self.optimizer.zero_grad(set_to_none=True)
        self._backward(batch)
        if update:
            self._update(look)

    def _whole(self, batch: Batch) -> None:
        self._backward(batch)
        self._update(look=False)

    def _backward(self, batch: Batch) -> None:
        """Add the gradients of one batch."""
        assert batch.targets is not None
        texts, losses = len(batch.targets), self._losses(batch)
        scaled: Tensor = self.scaler.scale(losses.sum() / self.config.train.accumulate)
        torch.autograd.backward(scaled)
        mean = losses.detach().mean().double()
        finite = mean.isfinite()
        self.figures[0] += torch.where(finite, mean, 0.0) * texts
        self.figures[1] += finite * texts

    def _losses(self, batch: Batch) -> Tensor:
        """Of each branch (n,). Texts at the batch's end that have no target do not count."""
        assert batch.targets is not None
        texts, precision = len(batch.targets), self.config.train.precision
        kind = torch.bfloat16 if precision == "bf16" else torch.float16
        with torch.autocast(self.device.type, kind, enabled=precision != "float32"):
            branches = self.model.branches(batch.tokens, batch.offsets, batch.characters)
        return torch.stack([self.loss(logits[:texts], batch.targets) for logits in branches])

    def _update(self, look: bool) -> None:
        """Clip, step, forget the gradients. Where `look`, the watch looks at it."""
        clip = self.config.optim.clip
        self.scaler.unscale_(self.optimizer)
        if self.watch and look:
            self.watch.before()
        norm = self._clip(clip) if clip else self._norm()
        finite = norm.isfinite()
        self.figures[2] += ~finite
        self.figures[3] = (self.figures[3] + 1) * ~finite
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

    def _clip(self, clip: float) -> Tensor:
        return nn.utils.clip_grad_norm_(self.model.parameters(), clip)

    def _norm(self) -> Tensor:
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def _forget_unless(self, finite: Tensor) -> None:
        """Gradients of zero on a GPU, where they are not `finite` ()."""
        if self.device.type == "cpu":
            return
        for weight in self.model.parameters():
            if weight.grad is not None:
                weight.grad.copy_(torch.where(finite, weight.grad, 0.0))

    def anomaly(self, batch: Batch) -> str | None:
        """What is not finite in the loss or the gradient of a batch, if anything; nothing is kept.

        Training mode, so dropout may decide it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with torch.autograd.set_detect_anomaly(True):
                loss = self._losses(batch).sum()
                if not loss.isfinite():
                    return f"its loss is {float(loss.detach())}"
                torch.autograd.backward(loss)
            return None if self._norm().isfinite() else "its gradient is not finite"
        except RuntimeError as error:  # autograd names the operation
            return f"its gradient is not finite: {str(error).partition(chr(10))[0]}"
        finally:
            self.optimizer.zero_grad(set_to_none=True)


class Readout:
    """Reads numbers that a GPU works out, without waiting for them."""

    def __init__(self) -> None:
        self.copy: Tensor | None = None
        self.copied: Any = None

    def latest(self, values: Tensor) -> list[float] | None:
        """`values` (n,) themselves on a CPU; else what an earlier call was given, once, or None."""
        if values.device.type == "cpu":
            return list(values.tolist())
        found = None
        if self.copy is not None and self.copied.query():
            found, self.copy = list(self.copy.tolist()), None
        if self.copy is None:
            self.copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.copy.copy_(values, non_blocking=True)
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()
        return found
