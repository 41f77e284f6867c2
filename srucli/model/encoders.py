"""The encoders: embedded tokens of ragged batches to states.

A new encoder is one class and one row of ENCODERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from srucli.kernels import gemm
from srucli.kernels.hashing import hashed_ngrams, places, text_of_rows
from srucli.kernels.rows import take_rows
from srucli.model.embedding import Tabulated, embedding_table
from srucli.model.sru import SRULayer, SRUStack
from srucli.tokenizer.truncation import MAX_TEXT_TOKENS

if TYPE_CHECKING:
    from srucli.config import ModelConfig

# The largest table of products that is worth its memory, in bytes.
TABLE_BYTES = 256 * 2**20
# Settings of recurrent encoders. Others have no last states to pool.
RECURRENT = frozenset({"model.hidden", "model.layers", "model.bidirectional", "model.pooling"})


class Encoder(nn.Module):
    """The base class of encoders.

    settings: the settings that not all encoders have; model.pooling if it has last states.
    waits: whether it waits for numbers that a GPU computes; CUDA graphs cannot capture it then.
    max_tokens: the length beyond which one text takes too long.
    output_size: D, the width of states.
    activations: how many numbers training stores per token, as measured on a CPU.
    product: what `tabulate` has made, if anything.
    """

    settings: ClassVar[frozenset[str]]
    waits: ClassVar[bool] = False
    max_tokens: ClassVar[int] = MAX_TEXT_TOKENS
    output_size: int
    activations: int
    product: Tensor | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(
        self, vectors: Tensor, index: Tensor, tokens: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode tokens (N,), offsets (B + 1,), whose vectors are rows `index` (N,) of (M, E).

        Returns states (N, D) and last states (B, D), zeros from an encoder without them.
        """
        return self.encode(take_rows(vectors, index), tokens, offsets)

    def encode(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, for vectors x (N, E) of the tokens."""
        raise NotImplementedError

    def tabulate(self, embedding: Tensor) -> None:
        """Prepare for many predictions with this embedding (V, E), if that makes them faster."""


class SRUEncoder(Tabulated, Encoder):
    """The stack of SRU layers. `product`: the first layer's, of every token of the vocabulary."""

    settings = RECURRENT | {"model.activation", "model.highway_bias", "train.kernel"}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.stack = SRUStack(
            config.embedding_size,
            config.hidden,
            config.layers,
            bidirectional=config.bidirectional,
            activation=config.activation,
            highway_bias=config.highway_bias,
            dropout=config.dropout_rate,
        )
        self.output_size = self.stack.output_size
        # The planes of u, h, c and a gradient in each layer, and the embedding with its dropout.
        own_highway = config.embedding_size != self.output_size
        self.activations = (6 * config.layers + own_highway) * self.output_size
        self.activations += 2 * config.embedding_size

    def forward(
        self, vectors: Tensor, index: Tensor, tokens: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Encoder.forward`; on a CPU, tokens that share a vector share its product."""
        if vectors.device.type != "cpu":
            return super().forward(vectors, index, tokens, offsets)
        states, last = self.stack.all_states(vectors, offsets, index=index, product=self.product)
        return states, last[-1]

    def encode(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """As `Encoder.encode`."""
        states, last = self.stack.all_states(x, offsets)
        return states, last[-1]

    def tabulate(self, embedding: Tensor) -> None:
        """Multiply the embedding (V, E) by the first layer's weights, if the product is small."""
        first = self.stack.layers[0]
        assert isinstance(first, SRULayer)
        rows = first.weight.shape[0]
        if embedding.shape[0] * rows * embedding.element_size() <= TABLE_BYTES:
            self.product = gemm.product(embedding, first.weight)


class RecurrentEncoder(Encoder):
    """The base class of torch's recurrent layers over packed sequences, for comparisons."""

    settings = RECURRENT
    waits = True
    kind: ClassVar[type[nn.LSTM | nn.GRU]]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.output_size = config.hidden * (2 if config.bidirectional else 1)
        self.activations = 16 * config.layers * self.output_size
        self.net = self.kind(
            config.embedding_size,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout_rate if config.layers > 1 else 0.0,
        )

    def encode(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """As `Encoder.encode`; an empty text is read as one zero vector."""
        packed, rows = _packed(x, offsets)
        states, last = self.net(packed)
        last = last[0] if isinstance(last, tuple) else last
        top = last[-2:] if self.net.bidirectional else last[-1:]
        return states.data.index_select(0, rows), torch.cat(tuple(top), dim=-1)


def _packed(x: Tensor, offsets: Tensor) -> tuple[nn.utils.rnn.PackedSequence, Tensor]:
    """Return texts (N, E) as torch's recurrent layers read them, and each row's place there (N,).

    There is no padding on the way: one long text among short ones would make the batch huge.
    """
    text, place = places(offsets, x.shape[0])
    order = offsets.diff().argsort(descending=True, stable=True)
    rank = order.argsort()
    sizes = torch.bincount(place, minlength=1)
    sizes[0] = rank.numel()  # empty texts too
    rows = (sizes.cumsum(0) - sizes).index_select(0, place) + rank.index_select(0, text)
    data = x.new_zeros(int(sizes.sum()), x.shape[1]).index_copy(0, rows, x)
    return nn.utils.rnn.PackedSequence(data, sizes.cpu(), order, rank), rows


class LSTMEncoder(RecurrentEncoder):
    """torch's LSTM."""

    kind = nn.LSTM


class GRUEncoder(RecurrentEncoder):
    """torch's GRU. Its time is quadratic in the length: 6 s for 2,000 tokens, 81 s for 8,000."""

    kind = nn.GRU
    max_tokens = 1_024


class CNNEncoder(Encoder):
    """Convolutions of several widths over the tokens (Kim 2014, arXiv 1408.5882).

    All texts are one sequence, with zeros between them.
    """

    settings = frozenset({"model.hidden", "model.kernel_sizes"})

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.widths = config.kernel_sizes
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.hidden, width) for width in config.kernel_sizes
        )
        self.output_size = config.hidden * len(config.kernel_sizes)
        self.activations = 8 * self.output_size

    def encode(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """As `Encoder.encode`."""
        texts, gap = offsets.numel() - 1, max(self.widths) // 2 + 1
        at = torch.arange(x.shape[0], device=x.device)
        at += (text_of_rows(offsets, x.shape[0]) + 1) * gap
        row = x.new_zeros(x.shape[0] + (texts + 1) * gap, x.shape[1]).index_copy(0, at, x)
        maps = []
        for width, convolution in zip(self.widths, self.convolutions, strict=True):
            around = ((width - 1) // 2, width // 2)
            maps.append(torch.relu(convolution(nn.functional.pad(row.T, around))))
        states = torch.cat(maps, dim=0).T.index_select(0, at)
        return states, states.new_zeros(texts, self.output_size)


class BagEncoder(Encoder):
    """Embeddings of tokens and hashed n-grams, to be averaged (fastText, arXiv 1607.01759)."""

    settings = frozenset({"model.bag_ngrams", "model.bag_buckets"})

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.ngram, self.buckets = config.bag_ngrams, config.bag_buckets
        self.table = embedding_table(self.buckets, config.embedding_size)
        self.output_size = config.embedding_size
        self.activations = (self.ngram + 3) * config.embedding_size

    def encode(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """As `Encoder.encode`: a token's vector plus those of the n-grams that end there."""
        grams = hashed_ngrams(tokens, offsets, self.ngram, self.buckets)[:, 1:]
        present = (grams >= 0).unsqueeze(2)
        states = x + (self.table(grams.clamp(min=0)) * present).sum(dim=1)
        return states, states.new_zeros(offsets.numel() - 1, self.output_size)


ENCODERS: Mapping[str, type[Encoder]] = {
    "sru": SRUEncoder,
    "lstm": LSTMEncoder,
    "gru": GRUEncoder,
    "cnn": CNNEncoder,
    "bag": BagEncoder,
}
