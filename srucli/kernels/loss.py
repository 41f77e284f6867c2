"""Smoothed cross-entropy as an operator whose forward pass computes the gradient, too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from srucli.kernels.backends import backend_for
from srucli.kernels.operator import operator


def _fake(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float, kernel: str
) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape[0]), torch.empty_like(logits)


@operator("cross_entropy", _fake)
def _cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float, kernel: str
) -> tuple[Tensor, Tensor]:
    module = import_module(backend_for(kernel, logits).loss)
    losses, grad = module.cross_entropy(logits, targets, weights, smoothing)
    return losses, grad


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


@once_differentiable
def _gradient(ctx: Any, grad_losses: Tensor, _: None) -> tuple[Any, ...]:
    (grad,) = ctx.saved_tensors
    return grad_losses.unsqueeze(1) * grad, None, None, None, None


torch.library.register_autograd("srucli::cross_entropy", _gradient, setup_context=_save)


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float, kernel: str = "auto"
) -> Tensor:
    """Return the weighted losses (B,) of logits (B, C); gradients reach these.

    With log p the log-softmax of a text's logits and s the smoothing (Szegedy et al. 2016, arXiv
    1512.00567, section 7), the loss is -w (1 - s) log p(target) - w s mean of log p over classes.
    targets (B,) int64; w is the weight (C,) of the target's class. Raises UsageError for a kernel
    that cannot run here.
    """
    losses: Tensor = _cross_entropy(logits, targets, weights, smoothing, kernel)[0]
    return losses
