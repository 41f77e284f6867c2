"""The classifier: embedding, encoder, pooling, head and n-gram branches, over ragged batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srucli.model.dropout import Dropout
from srucli.model.embedding import embedding_table
from srucli.model.encoders import ENCODERS
from srucli.model.ngrams import NgramBranch, Speller, Spelling
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
    """Tokens to logits; `spelling` is that of the vocabulary, `classes` is C.

    `blend` (n,) has the weights of the branches: equal, until they are fitted to validation data.
    `spelled` (vocab_size,) is the number of characters of each token.
    """

    blend: Tensor

    def __init__(self, config: ModelConfig, spelling: Spelling, classes: int) -> None:
        super().__init__()
        self.spelled = np.diff(spelling[1])
        self.word_dropout = config.word_dropout
        self.embedding = embedding_table(len(spelling[1]) - 1, config.embedding_size)
        self.encoder = ENCODERS[config.encoder](config)
        self.pooling = Pooling(config.pooling, self.encoder.output_size)
        self.head = _head(config, self.pooling.output_size, classes)
        dropout = config.dropout_rate
        self.wide = self.characters = None
        if config.wide:
            sizes = config.wide_ngrams, config.wide_buckets, config.wide_size
            self.wide = NgramBranch(*sizes, dropout, classes)
        if config.characters:
            self.speller = Speller(spelling)
            # A table with a column per class can represent any linear model of its n-grams.
            width = config.character_size or min(max(classes, 32), 64)
            sizes = config.character_ngrams, config.character_buckets, width
            self.characters = NgramBranch(*sizes, dropout, classes)
        self.dropout = Dropout(dropout)
        count = 1 + config.wide + config.characters
        self.register_buffer("blend", torch.full((count,), 1 / count))

    @torch.no_grad()
    def tabulate(self) -> None:
        """Compute products of weights once, for many predictions; `train()` drops them."""
        self.encoder.tabulate(self.embedding.weight)
        for branch in (self.wide, self.characters):
            if branch is not None:
                branch.tabulate()

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
            x = nn.functional.embedding(index, vectors)
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
        ngrams = self.wide is not None or self.characters is not None
        return Limits.of(settings, self.encoder.activations, self.encoder.max_tokens, ngrams)

    def branches(
        self,
        tokens: Tensor,
        offsets: Tensor,
        characters: int | None = None,
        part: tuple[Tensor, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the logits (B, C) of the encoder's branch and of the n-gram branches.

        characters: their number in all texts, if it is known, as in `Speller`.
        part: what the encoder reads, as in `Batch`; default everything.
        Each branch needs a loss of its own. If they are trained through their sum, the fastest
        learner leaves nothing for the others to learn, and on small sets the sum is worse than
        a single branch.
        """
        rows, bounds = (None, offsets) if part is None else part
        encoded = tokens if rows is None else tokens.index_select(0, rows)
        states, last = self._states(encoded, bounds)
        pooled = self.pooling(states.float(), last.float(), bounds)
        branches = [self.head(self.dropout(pooled))]
        if self.wide is not None:
            branches.append(self.wide(tokens, offsets))
        if self.characters is not None:
            branches.append(self.characters(*self.speller(tokens, offsets, characters)))
        return [logits.float() for logits in branches]

    def forward(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        """tokens (N,) int64, offsets (B+1,) int64 -> logits (B, C): the branches', blended."""
        branches = torch.stack(self.branches(tokens, offsets))
        logits: Tensor = torch.tensordot(self.blend, branches, dims=1)
        return logits


# The setting that the size of a tensor depends on most, by the beginning of its name.
SIZED_BY = {
    "embedding.": "embedding_size",
    "encoder.table.": "wide_buckets",
    "wide.": "wide_buckets",
    "characters.": "character_buckets",
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


def uninitialized(config: ModelConfig, spelling: Spelling, classes: int) -> Classifier:
    """Return a classifier whose weights must be loaded, without drawing random numbers."""
    with _NoInitialization():
        return Classifier(config, spelling, classes)


def shapes(config: ModelConfig, vocab_size: int, classes: int) -> dict[str, Tensor]:
    """Return the tensors of a classifier's `state_dict` on the meta device, without memory."""
    spelling = np.zeros(0, np.int64), np.zeros(vocab_size + 1, np.int64)
    with torch.device("meta"):
        return dict(uninitialized(config, spelling, classes).state_dict())
