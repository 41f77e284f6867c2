"""The classifier: embedding, encoder, pooling, head and n-gram branches, over ragged batches.

A new encoder is one class and one row of ENCODERS. An encoder maps embedded pieces x (N, E) and
offsets (B+1,) to states (N, D) and last states (B, D), and says D as `output_size`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srucli.errors import UsageError, did_you_mean
from srucli.kernels import gemm
from srucli.kernels.hashing import hashed_ngrams, places, text_of_rows
from srucli.kernels.ngrams import ngram_sums
from srucli.kernels.pool import ragged_pool
from srucli.model.sru import SRULayer, SRUStack
from srucli.tokenizer.truncation import MAX_TEXT_TOKENS, Limits

if TYPE_CHECKING:
    from srucli.config import ModelConfig, TrainConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}
# Embeddings begin small, so that what training adds outweighs the noise they begin with: on TREC
# 86.5% instead of 83.6% with torch's 1.0 (two folds of the training set).
EMBEDDING_STD = 0.1
# The largest table of products that is worth its memory.
TABLE_BYTES = 256 * 2**20
SPACE = 0x2581  # as SentencePiece writes it
# The characters of every piece as one row of codes, and its offsets (vocab_size + 1,).
Spelling = tuple[NDArray[np.int64], NDArray[np.int64]]


class Tabulated(nn.Module):
    """A module that predicts from a table of products of weights, and forgets it to train."""

    product: Tensor | None = None

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`."""
        if mode:
            self.product = None
        return super().train(mode)


class Encoder(nn.Module):
    """Reads x (N, E), tokens (N,), offsets (B+1,); gives states (N, D) and last states (B, D).

    `waits` tells whether it waits for numbers that a GPU works out: no CUDA graph can hold it then.
    `activations` are the numbers that training keeps for each token, as measured on a CPU, and
    `longest` the tokens beyond which one text takes too long.
    """

    output_size: int
    activations: int
    longest = MAX_TEXT_TOKENS
    waits = False


class RecurrentEncoder(Encoder):
    """torch's LSTM or GRU over packed sequences, to compare with."""

    waits = True

    def __init__(self, kind: type[nn.LSTM | nn.GRU], config: ModelConfig) -> None:
        super().__init__()
        self.output_size = config.hidden * (2 if config.bidirectional else 1)
        self.activations = 16 * config.layers * self.output_size
        if kind is nn.GRU:
            # torch's needs time that grows with the square: 81 s for 8,000 tokens, 6 for 2,000.
            self.longest = 1_024
        self.net = kind(
            config.embedding_size,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout_rate if config.layers > 1 else 0.0,
        )

    def forward(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """An empty text is read as one zero vector."""
        packed, rows = _packed(x, offsets)
        states, last = self.net(packed)
        last = last[0] if isinstance(last, tuple) else last
        top = last[-2:] if self.net.bidirectional else last[-1:]
        return states.data.index_select(0, rows), torch.cat(tuple(top), dim=-1)


def _packed(x: Tensor, offsets: Tensor) -> tuple[nn.utils.rnn.PackedSequence, Tensor]:
    """Texts (N, E) as torch's recurrent layers read them, and where each row stands there (N,).

    No rectangle is filled on the way: one long text among short ones would make it huge.
    """
    text, place = places(offsets, x.shape[0])
    order = offsets.diff().argsort(descending=True, stable=True)
    rank = order.argsort()
    sizes = torch.bincount(place, minlength=1)
    sizes[0] = rank.numel()  # empty texts too
    rows = (sizes.cumsum(0) - sizes).index_select(0, place) + rank.index_select(0, text)
    data = x.new_zeros(int(sizes.sum()), x.shape[1]).index_copy(0, rows, x)
    return nn.utils.rnn.PackedSequence(data, sizes.cpu(), order, rank), rows


class CNNEncoder(Encoder):
    """Convolutions of several widths over the pieces (Kim 2014, arXiv 1408.5882).

    The texts stand in one row with zeros between them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.widths = config.kernel_sizes
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.hidden, width) for width in config.kernel_sizes
        )
        self.output_size = config.hidden * len(config.kernel_sizes)
        self.activations = 8 * self.output_size

    def forward(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """There is no last state in a convolution: zeros stand for it."""
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
    """Embeddings of pieces and hashed n-grams, to be averaged (fastText, arXiv 1607.01759)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ngram, self.buckets = config.wide_ngrams, config.wide_buckets
        self.table = nn.Embedding(self.buckets, config.embedding_size)
        nn.init.normal_(self.table.weight, std=EMBEDDING_STD)
        self.output_size = config.embedding_size
        self.activations = (self.ngram + 3) * config.embedding_size

    def forward(self, x: Tensor, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """A token's state is its vector plus those of the n-grams that end there."""
        grams = hashed_ngrams(tokens, offsets, self.ngram, self.buckets)[:, 1:]
        present = (grams >= 0).unsqueeze(2)
        states = x + (self.table(grams.clamp(min=0)) * present).sum(dim=1)
        return states, states.new_zeros(offsets.numel() - 1, self.output_size)


class SRUEncoder(Tabulated, Encoder):
    """The stack of SRU layers. Where there is a product, it is the first layer's of each piece."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
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
        # Planes of u, h, c and a gradient in each layer, and the embedding with its dropout.
        own_highway = config.embedding_size != self.output_size
        self.activations = (6 * config.layers + own_highway) * self.output_size
        self.activations += 2 * config.embedding_size

    def forward(
        self, x: Tensor, tokens: Tensor, offsets: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """index (N,): the rows of x that are the tokens', where x is not (N, E) but (M, E)."""
        product = None if index is None else self.product
        states, last = self.stack.all_states(x, offsets, index=index, product=product)
        return states, last[-1]

    def shares(self, tokens: Tensor) -> bool:
        """Whether equal tokens should share a product: not where finding them costs more."""
        return self.product is not None or tokens.device.type == "cpu"

    def rows(self, embedding: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors to multiply, each once, and the rows among them that are the tokens' (N,).

        All of the embedding (V, E) where there is a product, else those of the distinct tokens.
        """
        if self.product is not None:
            return embedding, tokens
        distinct, index = torch.unique(tokens, return_inverse=True)
        return nn.functional.embedding(distinct, embedding), index

    def tabulate(self, embedding: Tensor) -> None:
        """Multiply every piece's vector (V, E) by the first layer's weights, if that is not big."""
        first = self.stack.layers[0]
        assert isinstance(first, SRULayer)
        rows = first.weight.shape[0]
        if embedding.shape[0] * rows * embedding.element_size() <= TABLE_BYTES:
            self.product = gemm.product(embedding, first.weight)


ENCODERS: dict[str, Callable[[ModelConfig], Encoder]] = {
    "sru": SRUEncoder,
    "lstm": lambda config: RecurrentEncoder(nn.LSTM, config),
    "gru": lambda config: RecurrentEncoder(nn.GRU, config),
    "cnn": CNNEncoder,
    "bag": BagEncoder,
}


def check(config: ModelConfig) -> None:
    """Raise UsageError for an encoder that is not in the table, or pooling that it cannot give."""
    if config.encoder not in ENCODERS:
        hint = did_you_mean(config.encoder, list(ENCODERS))
        raise UsageError(f"model.encoder: unknown encoder '{config.encoder}'{hint}")


class Pooling(nn.Module):
    """Turns the states of a text into one vector: any of last, mean, max, attention, joined."""

    def __init__(self, kinds: tuple[str, ...], size: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.score = nn.Linear(size, 1, bias=False) if "attention" in kinds else None
        self.output_size = size * len(kinds)

    def _attend(self, states: Tensor, offsets: Tensor) -> Tensor:
        assert self.score is not None
        text = text_of_rows(offsets, states.shape[0])
        scores = self.score(torch.tanh(states))
        highest, _ = ragged_pool(scores.detach(), offsets)
        weights = (scores - highest.index_select(0, text)).exp()
        empty = states.new_zeros(offsets.numel() - 1, states.shape[1])
        total = empty[:, :1].index_add(0, text, weights)
        return empty.index_add(0, text, states * weights) / total.clamp(min=1e-20)

    def forward(self, states: Tensor, last: Tensor, offsets: Tensor) -> Tensor:
        """states (N, D), last (B, D) -> (B, output_size); zeros for a text without pieces."""
        largest, mean = ragged_pool(states, offsets)
        parts = {"last": last, "max": largest, "mean": mean}
        if self.score is not None:
            parts["attention"] = self._attend(states, offsets)
        return torch.cat([parts[kind] for kind in self.kinds], dim=1)


def _head(config: ModelConfig, size: int, classes: int) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(size, classes)
    return nn.Sequential(
        nn.Linear(size, config.head_hidden),
        ACTIVATIONS[config.head_activation](),
        nn.Dropout(config.dropout_rate),
        nn.Linear(config.head_hidden, classes),
    )


class NgramBranch(Tabulated):
    """Logits from hashed n-grams of symbols: what a linear model sees, at a table's low rank.

    Where there is a product, it holds the logits that each row of the table adds.
    """

    def __init__(self, longest: int, buckets: int, size: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.longest = longest
        self.table = nn.Embedding(buckets, size)
        nn.init.normal_(self.table.weight, std=EMBEDDING_STD)
        self.head = nn.Linear(size, classes, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, symbols: Tensor, offsets: Tensor) -> Tensor:
        """symbols (N,), offsets (B+1,) -> logits (B, C)."""
        scale = (offsets.diff() * self.longest).clamp(min=1).rsqrt().unsqueeze(1)
        if self.product is not None:
            return ngram_sums(self.product, symbols, offsets, self.longest) * scale
        sums = ngram_sums(self.table.weight, symbols, offsets, self.longest) * scale
        logits: Tensor = self.head(self.dropout(sums))
        return logits

    def tabulate(self) -> None:
        """Multiply the table by the head where that makes it narrower."""
        if self.head.out_features < self.head.in_features:
            self.product = self.head(self.table.weight)


class Speller(nn.Module):
    """Turns pieces into the characters that they are spelt with, however a text was cut.

    A space comes after a text's last piece, so that n-grams tell the end of a word there too.
    """

    codes: Tensor
    starts: Tensor

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        codes, starts = map(torch.from_numpy, spelling)
        codes, starts = (
            torch.cat((codes, codes.new_tensor([SPACE]))),
            torch.cat((starts, starts[-1:] + 1)),
        )
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("starts", starts, persistent=False)

    def forward(
        self, tokens: Tensor, offsets: Tensor, characters: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """tokens (N,), offsets (B+1,) -> characters (M,) and the texts' offsets in them (B+1,).

        `characters` is M where that is known, so that a GPU need not be asked for it. The last
        texts give up what M is too small for, or the last text gets what it is too large for.
        """
        space, texts = self.starts.numel() - 2, offsets.numel() - 1
        text, place = places(offsets, tokens.numel())
        offsets = offsets + torch.arange(texts + 1, device=tokens.device)
        tokens = tokens.new_full((tokens.numel() + texts,), space).index_put(
            (offsets.index_select(0, text) + place,), tokens
        )
        lengths = self.starts.diff().index_select(0, tokens)
        ends = nn.functional.pad(lengths.cumsum(0), (1, 0))
        shift = self.starts.index_select(0, tokens) - ends[:-1]
        if characters is None:
            characters = int(ends[-1])
        else:
            ends = nn.functional.pad(ends[:-1].clamp(max=characters), (0, 1), value=characters)
        at = torch.arange(characters, device=tokens.device)
        at += shift.repeat_interleave(ends.diff(), output_size=characters)
        codes = self.codes.index_select(0, at.clamp(max=self.codes.numel() - 1))
        return codes, ends.index_select(0, offsets)


class Classifier(nn.Module):
    """Pieces to logits: `spelling` has as many pieces as the vocabulary, `classes` is C.

    `blend` (n,) is how much each branch counts: all alike, until it is fitted to dev texts.
    """

    blend: Tensor

    def __init__(self, config: ModelConfig, spelling: Spelling, classes: int) -> None:
        super().__init__()
        check(config)
        self.word_dropout = config.word_dropout
        self.embedding = nn.Embedding(len(spelling[1]) - 1, config.embedding_size)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
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
            # A table as wide as there are classes can be any linear model of its n-grams.
            width = config.character_size or min(max(classes, 32), 64)
            sizes = config.character_ngrams, config.character_buckets, width
            self.characters = NgramBranch(*sizes, dropout, classes)
        self.dropout = nn.Dropout(dropout)
        count = 1 + config.wide + config.characters
        self.register_buffer("blend", torch.full((count,), 1 / count))

    @torch.no_grad()
    def tabulate(self) -> None:
        """Prepare for many predictions: products of weights are made once, until `train()`."""
        if isinstance(self.encoder, SRUEncoder):
            self.encoder.tabulate(self.embedding.weight)
        for branch in (self.wide, self.characters):
            if branch is not None:
                branch.tabulate()

    def _states(self, tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of the tokens (N,): states (N, D), last states (B, D)."""
        drops = self.training and (self.dropout.p > 0 or self.word_dropout > 0)
        if isinstance(self.encoder, SRUEncoder) and not drops and self.encoder.shares(tokens):
            x, index = self.encoder.rows(self.embedding.weight, tokens)
            states, last = self.encoder(x, tokens, offsets, index)
            return states, last
        x = self.dropout(self.embedding(tokens))
        if self.training and self.word_dropout:
            x = x * (torch.rand(x.shape[0], 1, device=x.device) >= self.word_dropout)
        states, last = self.encoder(x, tokens, offsets)
        return states, last

    def limits(self, settings: TrainConfig) -> Limits:
        """How much of a text is read."""
        ngrams = self.wide is not None or self.characters is not None
        return Limits.of(settings, self.encoder.activations, self.encoder.longest, ngrams)

    def branches(
        self,
        tokens: Tensor,
        offsets: Tensor,
        characters: int | None = None,
        part: tuple[Tensor, Tensor] | None = None,
    ) -> list[Tensor]:
        """Logits (B, C) of what the encoder read, and of the n-gram branches that there are.

        `characters` is how many the texts are spelt with, where that is known, as in `Speller`.
        `part` is what the encoder reads, as in `Batch`; all where it is None.
        Each is to be trained by a loss of its own: trained through their sum, the faster learner
        leaves the others nothing to learn, and on small sets they are worse together than alone.
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


class _Undrawn(TorchFunctionMode):
    """Leaves out random initial values: on the meta device torch imports half of itself for one."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        initial = getattr(func, "__module__", "") == nn.init.__name__
        if initial or func in (Tensor.normal_, Tensor.uniform_):
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def shapes(config: ModelConfig, vocab_size: int, classes: int) -> dict[str, Tensor]:
    """Tensors without memory, on the meta device, like those in a classifier's `state_dict`."""
    spelling = np.zeros(0, np.int64), np.zeros(vocab_size + 1, np.int64)
    with torch.device("meta"), _Undrawn():
        return dict(Classifier(config, spelling, classes).state_dict())
