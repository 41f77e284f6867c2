"""`SRU`: a replacement for torch's `nn.LSTM` or `nn.GRU`.

Weights and equations are in `sru.py`. This module converts between torch's layouts (a padded batch,
one text, a `PackedSequence`) and the ragged rows that the layers read.
"""

from __future__ import annotations

from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import PackedSequence

from srucli.model.sru import SRUStack


def _text_by_text(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a packed batch's order, by time step, to an order by text.

    batch_sizes (L,): how many texts reach each step. Returns the new row of each row (N,), and the
    texts' offsets (B+1,).
    """
    step = torch.arange(batch_sizes.numel()).repeat_interleave(batch_sizes)
    first = batch_sizes.cumsum(0) - batch_sizes
    text = torch.arange(step.numel()) - first[step]
    offsets = pad(torch.bincount(text).cumsum(0), (1, 0))
    return offsets[text] + step, offsets


class SRU(nn.Module):
    """Simple Recurrent Units (Lei et al. 2018, arXiv 1709.02755) with the interface of `nn.LSTM`.

    Arguments have the same meaning as in `nn.LSTM`. `activation` is the function g of the state,
    "identity" or "tanh"; `highway_bias` is the initial bias of the reset gate, which also
    determines alpha, the scale of the highway's input; `rescale=False` sets alpha to 1. There is
    no `bias` (the gates need theirs) and no `proj_size`. `dropout` applies to g(c) in every layer
    but the last, with one mask per text; `nn.LSTM` drops outputs, with a mask for every step.

    As `nn.GRU`, it has one state instead of two: it returns (output, c_n). The state is not the
    output of the last step, which has passed the reset gate and the highway.

    In float16 or bfloat16, weights and outputs have that dtype, but the recurrence uses float32.
    Raises ValueError for sizes below 1, dropout outside [0, 1), and an unknown activation.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        activation: str = "identity",
        highway_bias: float = 0.0,
        rescale: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError("input_size, hidden_size and num_layers must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}, it must be at least 0 and below 1")
        if activation not in ("identity", "tanh"):
            raise ValueError(f"activation is {activation!r}, it must be 'identity' or 'tanh'")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.directions = 2 if bidirectional else 1
        self.activation, self.highway_bias, self.rescale = activation, highway_bias, rescale
        self.stack = SRUStack(
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            activation=activation,
            highway_bias=highway_bias,
            rescale=rescale,
            dropout=dropout,
        )
        self.to(device=device, dtype=dtype)

    def extra_repr(self) -> str:
        """Return the sizes, and the arguments that differ from their defaults."""
        parts = []
        for name, parameter in signature(SRU).parameters.items():
            value = getattr(self, name, parameter.default)
            if parameter.default is parameter.empty:
                parts.append(str(value))
            elif value != parameter.default:
                parts.append(f"{name}={value!r}")
        return ", ".join(parts)

    def forward(
        self, input: Tensor | PackedSequence, c_0: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run the layers over texts, from the states c_0; return outputs and last states c_n.

        input: (L, B, input_size), or (B, L, input_size) with batch_first; (L, input_size) for one
        text without a batch dimension; or a PackedSequence of B texts.
        c_0: (num_layers * directions, B, hidden_size), without B if input has none; default zeros.
        With a PackedSequence, the order of c_0 and c_n is that of the texts before packing.
        Returns output, as input but with directions * hidden_size features (a PackedSequence has
        the same batch sizes and indices), and c_n, as c_0. Raises ValueError for other shapes or a
        tuple of states, and outside autocast for a dtype other than the weights'.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, c_0)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"input has {input.dim()} dimensions; it must have 3, or 2 for one text"
            )
        if input.dim() == 2:
            output, c_n = self._padded(input.unsqueeze(0), self._initial(c_0, None))
            return output.squeeze(0), c_n.squeeze(1)
        texts = input if self.batch_first else input.transpose(0, 1)
        output, c_n = self._padded(texts, self._initial(c_0, texts.shape[0]))
        # Contiguous as that of nn.LSTM, so that `view` works on it.
        return (output if self.batch_first else output.transpose(0, 1).contiguous()), c_n

    def _padded(self, texts: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        """texts (B, L, input_size), initial as in `_run` -> output (B, L, D), c_n."""
        batch, length, size = texts.shape
        offsets = torch.arange(batch + 1, device=texts.device) * length
        h, c_n = self._run(texts.reshape(batch * length, size), offsets, initial)
        return h.reshape(batch, length, self.stack.output_size), c_n

    def _packed(self, input: PackedSequence, c_0: Tensor | None) -> tuple[PackedSequence, Tensor]:
        places, offsets = _text_by_text(input.batch_sizes)
        device = input.data.device
        rows = input.data.index_select(0, places.argsort().to(device))
        initial = self._initial(c_0, offsets.numel() - 1)
        if initial is not None and input.sorted_indices is not None:
            initial = initial.index_select(1, input.sorted_indices)
        h, c_n = self._run(rows, offsets.to(device), initial)
        if input.unsorted_indices is not None:
            c_n = c_n.index_select(1, input.unsorted_indices)
        output = h.index_select(0, places.to(device))
        return input._replace(data=output), c_n

    def _initial(self, c_0: Tensor | None, batch: int | None) -> Tensor | None:
        """Return c_0 as (num_layers, B, D); `batch` is None if input has no batch dimension."""
        if c_0 is None:
            return None
        if not isinstance(c_0, Tensor):
            raise ValueError(
                "an SRU has one state, as nn.GRU has: pass c_0 as one tensor, not a tuple"
            )
        sizes = () if batch is None else (batch,)
        shape = (self.num_layers * self.directions, *sizes, self.hidden_size)
        if c_0.shape != shape:
            names = f"(num_layers * directions, {'batch, ' if sizes else ''}hidden_size)"
            raise ValueError(f"c_0 is {tuple(c_0.shape)}, it must be {shape}: {names}")
        texts = 1 if batch is None else batch
        split = c_0.reshape(self.num_layers, self.directions, texts, self.hidden_size)
        return split.transpose(1, 2).reshape(self.num_layers, texts, self.stack.output_size)

    def _run(self, rows: Tensor, offsets: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        """rows (N, input_size), offsets (B+1,), initial (num_layers, B, D) -> h (N, D), c_n."""
        if rows.shape[1] != self.input_size:
            raise ValueError(f"input has {rows.shape[1]} features, it must have {self.input_size}")
        dtype = next(self.parameters()).dtype
        if rows.dtype != dtype and not torch.is_autocast_enabled(rows.device.type):
            raise ValueError(
                f"input is {rows.dtype} and the weights are {dtype}; convert one of them with .to()"
            )
        h, states = self.stack.all_states(rows, offsets, initial)
        split = [last.view(-1, self.directions, self.hidden_size) for last in states]
        c_n = torch.stack(split).transpose(1, 2).flatten(0, 1)
        return h.to(rows.dtype), c_n.to(rows.dtype)
