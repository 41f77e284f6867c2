"""SRU layers and stacks over ragged batches: parameters, initialization, directions, dropout."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from srucli.kernels.sru import sru_layer
from srucli.model.dropout import dropout_mask


class SRULayer(nn.Module):
    """One SRU layer (Lei et al. 2018, arXiv 1709.02755) with one or two directions.

    `weight` (k D, input_size) gives all planes of all directions in one GEMM. D is hidden times the
    directions; k is 3 if input_size equals D, and else 4 (the highway has a matrix of its own).
    Without `rescale`, alpha is 1: the highway's input is not scaled.
    """

    def __init__(
        self,
        input_size: int,
        hidden: int,
        *,
        bidirectional: bool = True,
        activation: str = "identity",
        highway_bias: float = 0.0,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.kernel: str = "auto"
        self.directions = 2 if bidirectional else 1
        self.output_size = hidden * self.directions
        self.planes = 3 if input_size == self.output_size else 4
        self.tanh = activation == "tanh"
        self.highway_bias = highway_bias
        self.alpha = math.sqrt(1 + 2 * math.exp(highway_bias)) if rescale else 1.0
        self.weight = nn.Parameter(torch.empty(self.planes * self.output_size, input_size))
        self.v = nn.Parameter(torch.empty(2, self.output_size))
        self.bias = nn.Parameter(torch.empty(2, self.output_size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize as in section 3.2 of the paper: variance 1/d_in, half of it for the gates."""
        bound = math.sqrt(3 / self.weight.shape[1])
        self.weight.uniform_(-bound, bound)
        planes = self.weight.view(self.planes, self.output_size, -1)
        planes[1:3] *= math.sqrt(0.5)
        if self.planes == 4:
            planes[3] *= self.alpha
        bound = math.sqrt(3 / self.output_size)
        self.v.uniform_(-bound, bound).mul_(math.sqrt(0.5))
        self.bias[0] = 0.0
        self.bias[1] = self.highway_bias

    def forward(
        self,
        x: Tensor,
        offsets: Tensor,
        mask: Tensor | None = None,
        initial: Tensor | None = None,
        index: Tensor | None = None,
        product: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x (N, input_size), offsets (B+1,), mask (B, D) -> h (N, D), last states (B, D).

        initial (B, D): states before the first token; default zeros. index (N,), product (M, k D):
        as in `sru_layer`. h has x's dtype; states are at least float32.
        """
        return sru_layer(
            x,
            self.weight,
            self.v,
            self.bias,
            offsets,
            index=index,
            product=product,
            directions=self.directions,
            initial=initial,
            mask=mask,
            tanh=self.tanh,
            alpha=self.alpha,
            kernel=self.kernel,
        )


def use_kernel(model: nn.Module, kernel: str) -> None:
    """Make every SRU layer in the model run on this back end. It is not part of the weights."""
    for module in model.modules():
        if isinstance(module, SRULayer):
            module.kernel = kernel


class SRUStack(nn.Module):
    """SRU layers on top of each other; between them, dropout of g(c) with one mask per text.

    options: those of `SRULayer`.
    """

    def __init__(
        self, input_size: int, hidden: int, layers: int, *, dropout: float = 0.0, **options: Any
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = SRULayer(input_size, hidden, **options)
            self.layers.append(layer)
            input_size = layer.output_size
        self.output_size = input_size

    def all_states(
        self,
        x: Tensor,
        offsets: Tensor,
        initial: Tensor | None = None,
        index: Tensor | None = None,
        product: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, with the last states (B, D) of every layer, the lowest first.

        initial (layers, B, D): states before the first token; default zeros. index (N,), product
        (M, k D): of the lowest layer, as in `sru_layer`.
        """
        texts = offsets.numel() - 1
        states = []
        for number, layer in enumerate(self.layers):
            mask = None
            if self.training and self.dropout and number + 1 < len(self.layers):
                mask = dropout_mask(x, (texts, self.output_size), self.dropout)
            before = None if initial is None else initial[number]
            x, last = layer(x, offsets, mask, before, index, product)
            index = product = None
            states.append(last)
        return x, states

    def forward(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, input_size), offsets (B+1,) -> the top layer's h (N, D), last states (B, D)."""
        x, states = self.all_states(x, offsets)
        return x, states[-1]
