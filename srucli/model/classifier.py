"""The network: embedding, encoder, pooling and head, over ragged batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srucli.kernels.rows import take_rows
from srucli.model.blend import prior
from srucli.model.dropout import Dropout
from srucli.model.embedding import embedding_table
from srucli.model.encoders import ENCODERS
from srucli.model.pooling import Pooling
from srucli.tokenizer.truncation import Limits

if TYPE_CHECKING:
    from srucli.config import ModelConfig, TrainConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}


def _head(config: ModelConfig, size: int, classes: int) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(size, classes)
    return nn.Sequential(
        nn.Linear(size, config.head_hidden),
        ACTIVATIONS[config.head_activation](),
        Dropout(config.dropout_rate),
        nn.Linear(config.head_hidden, classes),
    )


class Classifier(nn.Module):
    """Tokens to logits of `classes` classes, C.

    `blend` (1,) or (2,) has the weight of the logits, and of the scores of the linear model of
    n-grams if there is one (`srucli/ngrams`): the prior's, until they are fitted.
    """

    blend: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int, classes: int) -> None:
        super().__init__()
        self.word_dropout = config.word_dropout
        self.embedding = embedding_table(vocab_size, config.embedding_size)
        self.encoder = ENCODERS[config.encoder](config)
        self.pooling = Pooling(config.pooling, self.encoder.output_size)
        self.head = _head(config, self.pooling.output_size, classes)
        self.dropout = Dropout(config.dropout_rate)
        self.ngrams = config.ngrams
        self.register_buffer("blend", torch.tensor(prior(linear=config.ngrams)))

    @torch.no_grad()
    def tabulate(self) -> None:
        """Compute products of weights once, for many predictions; `train()` drops them."""
        self.encoder.tabulate(self.embedding.weight)

    def _vectors(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors (M, E), after dropout, and the row of each of the tokens (N,) in them.

        Equal tokens of a batch share a vector and its dropout mask, so that the encoder need not
        compute the same from it twice. On a GPU, which would have to be waited for to find equal
        tokens, the vectors are those of the whole vocabulary.
        """
        if tokens.device.type != "cpu" or self.encoder.product is not None:
            return self.dropout(self.embedding.weight), tokens
        distinct, index = torch.unique(tokens, return_inverse=True)
        return self.dropout(self.embedding(distinct)), index

    def _states(self, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's states (N, D) and last states (B, D) of the tokens (N,)."""
        vectors, index = self._vectors(tokens)
        if self.training and self.word_dropout:
            x = take_rows(vectors, index)
            vectors = x * (torch.rand(x.shape[0], 1, device=x.device) >= self.word_dropout)
            index = torch.arange(x.shape[0], device=x.device)
        states, last = self.encoder(vectors, index, tokens, offsets)
        return states, last

    @property
    def width(self) -> int:
        """An upper bound of the numbers that are stored per token."""
        return self.encoder.activations + 4 * self.embedding.embedding_dim

    def limits(self, settings: TrainConfig) -> Limits:
        """Return how many tokens of a text are read."""
        return Limits.of(settings, self.encoder.activations, self.encoder.max_tokens, self.ngrams)

    def forward(
        self, tokens: Tensor, offsets: Tensor, part: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """tokens (N,) int64, offsets (B+1,) int64 -> logits (B, C).

        part: what the encoder reads, as in `Batch`; default everything.
        """
        rows, bounds = (None, offsets) if part is None else part
        encoded = tokens if rows is None else tokens.index_select(0, rows)
        states, last = self._states(encoded, bounds)
        pooled = self.pooling(states.float(), last.float(), bounds)
        logits: Tensor = self.head(self.dropout(pooled)).float()
        return logits


# The setting that the size of a tensor depends on most, by the beginning of its name.
SIZED_BY = {
    "embedding.": "embedding_size",
    "encoder.table.": "bag_buckets",
    "head.0.": "head_hidden",
    "": "hidden",
}


def sets_size(config: ModelConfig, weights: Mapping[str, Tensor]) -> str:
    """Return the setting that the largest tensor of a `state_dict` depends on, and its value."""
    largest = max(weights, key=lambda name: weights[name].numel())
    setting = next(key for start, key in SIZED_BY.items() if largest.startswith(start))
    return f"model.{setting} (now {getattr(config, setting):,})"


class _NoInitialization(TorchFunctionMode):
    """Skips random initialization, for which torch imports half of itself on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        initial = getattr(func, "__module__", "") == nn.init.__name__
        if initial or func in (Tensor.normal_, Tensor.uniform_):
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def uninitialized(config: ModelConfig, vocab_size: int, classes: int) -> Classifier:
    """Return a classifier whose weights must be loaded, without drawing random numbers."""
    with _NoInitialization():
        return Classifier(config, vocab_size, classes)


def shapes(config: ModelConfig, vocab_size: int, classes: int) -> dict[str, Tensor]:
    """Return the tensors of a classifier's `state_dict` on the meta device, without memory."""
    with torch.device("meta"):
        return dict(uninitialized(config, vocab_size, classes).state_dict())
