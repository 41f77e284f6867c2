"""From texts to ragged batches: the token store, the order of an epoch, and the batch itself.

There is no padding: a batch is one row of N pieces and B+1 offsets. Batches hold texts of like
length, so that CPU threads and GPU warps finish together, in an order that differs every epoch.
A GPU gets many batches in one copy, and hands them out as parts of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srucli.tokenizer.truncation import Limits, Tally

if TYPE_CHECKING:
    from srucli.tokenizer.model import Tokenizer

# Texts that are sorted by length together, in batches: enough for like lengths, few enough that
# the composition of batches stays random.
POOL_BATCHES = 50
# Pieces that go to a GPU in one copy: many steps' worth, and 8 MiB.
UPLOAD_TOKENS = 2**20


@dataclass(frozen=True, eq=False)
class Batch:
    """tokens (N,) int64, offsets (B+1,) int64, targets (B,) int64 or (B, C) float32, or None.

    characters is how many the texts are spelt with, and a space for each, where that is known.
    part is what the encoder reads, where that is not all: rows of tokens (M,), offsets (B+1,).
    """

    tokens: Tensor
    offsets: Tensor
    targets: Tensor | None
    characters: int | None = None
    part: tuple[Tensor, Tensor] | None = None

    @property
    def texts(self) -> int:
        """B."""
        return self.offsets.numel() - 1

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        targets = None if self.targets is None else self.targets.to(device, non_blocking=True)
        return Batch(
            self.tokens.to(device, non_blocking=True),
            self.offsets.to(device, non_blocking=True),
            targets,
            self.characters,
            self.part_on(device),
        )

    def part_on(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """`part` on another device."""
        if self.part is None:
            return None
        rows, offsets = self.part
        return rows.to(device, non_blocking=True), offsets.to(device, non_blocking=True)


class TokenStore:
    """The pieces of many texts as one row, and the texts' targets.

    ids (N,) int32, offsets (B+1,) int64, targets (B,) int64 or (B, C) float32; lengths (B,) are the
    texts' tokens. `tally` counts the texts that are not here whole, and holds the encoder's limit.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        targets: NDArray[np.int64] | NDArray[np.float32] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.ids, self.offsets, self.targets = ids, offsets, targets
        self.lengths = np.diff(offsets)
        self.tally = tally or Tally(len(self.lengths))

    @classmethod
    def encode(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        targets: NDArray[np.int64] | NDArray[np.float32] | None = None,
        *,
        limits: Limits,
        subword_dropout: float = 0.0,
        seed: int = 0,
    ) -> TokenStore:
        """Encode texts, each cut at its limit."""
        ids, offsets = tokenizer.encode(texts, subword_dropout, seed)
        lengths = np.diff(offsets)
        unknown = np.flatnonzero(ids == tokenizer.unknown)
        tally = Tally(
            texts=len(lengths),
            cut=int((lengths > limits.text).sum()),
            encoded_in_part=int((np.minimum(lengths, limits.text) > limits.encoder).sum()),
            unknown_characters=len(np.unique(np.searchsorted(offsets, unknown, side="right"))),
            unknown_tokens=len(unknown),
            without_tokens=int((lengths == 0).sum()),
            limits=limits,
        )
        if tally.cut:
            place = np.arange(ids.size) - np.repeat(offsets[:-1], lengths)
            ids = ids[place < limits.text]
            offsets = np.concatenate(([0], np.cumsum(np.minimum(lengths, limits.text))))
        return cls(ids, offsets, targets, tally)

    def batch(self, texts: NDArray[np.int64]) -> Batch:
        """The batch of these texts (numbers from 0), in this order."""
        starts, lengths = self.offsets[texts], self.lengths[texts]
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        targets = None if self.targets is None else torch.from_numpy(self.targets[texts])
        tokens = torch.from_numpy(self.ids[rows].astype(np.int64))
        part = self._part(offsets, lengths)
        return Batch(tokens, torch.from_numpy(offsets), targets, part=part)

    def _part(
        self, offsets: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor] | None:
        """The first and the last half of what the encoder reads of a text that is too long."""
        most = self.tally.limits.encoder
        if not len(lengths) or lengths.max() <= most:
            return None
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        left = np.repeat(lengths, lengths) - place
        kept = np.flatnonzero((place < most - most // 2) | (left <= most // 2))
        bounds = np.concatenate(([0], np.cumsum(np.minimum(lengths, most))))
        return torch.from_numpy(kept), torch.from_numpy(bounds)


def order(
    lengths: NDArray[np.int64], batch_size: int, batch_tokens: int, seed: tuple[int, ...] | None
) -> list[NDArray[np.int64]]:
    """The texts of each batch: at most `batch_size`, and `batch_tokens` pieces (or one text).

    lengths (B,) in pieces. With a seed the texts are shuffled, sorted by length within pools of
    POOL_BATCHES batches, cut into batches, and the batches shuffled.
    """
    if seed is None:
        return list(_cut(np.argsort(lengths, kind="stable"), lengths, batch_size, batch_tokens))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    pool = batch_size * POOL_BATCHES
    for start in range(0, len(shuffled), pool):
        texts = shuffled[start : start + pool]
        texts = texts[np.argsort(lengths[texts], kind="stable")]
        batches.extend(_cut(texts, lengths, batch_size, batch_tokens))
    return [batches[number] for number in generator.permutation(len(batches))]


def _cut(
    texts: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int, batch_tokens: int
) -> Iterator[NDArray[np.int64]]:
    ends = np.cumsum(lengths[texts])
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        fits = int(np.searchsorted(ends, before + batch_tokens, side="right"))
        stop = max(min(start + batch_size, fits), start + 1)
        yield texts[start:stop]
        start = stop


def uploaded(
    batches: Iterable[Batch], device: torch.device, spelled: NDArray[np.int64]
) -> Iterator[Batch]:
    """The batches on the device, their characters counted, so that nobody ever waits for it.

    They go in groups of about UPLOAD_TOKENS from page-locked memory, a group while the GPU still
    computes on the one before. spelled (vocab_size,) is the number of each piece's characters. On a
    CPU the batches are left as they are.
    """
    if device.type == "cpu":
        yield from batches
        return
    group: list[Batch] = []
    tokens = 0
    for batch in batches:
        group.append(batch)
        tokens += batch.tokens.numel()
        if tokens >= UPLOAD_TOKENS:
            yield from upload(group, device, spelled)
            group, tokens = [], 0
    if group:
        yield from upload(group, device, spelled)


def upload(
    batches: Sequence[Batch], device: torch.device, spelled: NDArray[np.int64]
) -> Iterator[Batch]:
    """A group of batches with targets as parts of three tensors on the device."""
    parts = [(batch.tokens, batch.offsets, batch.targets) for batch in batches]
    columns = [_split_on(device, column) for column in zip(*parts, strict=True)]
    for batch, (tokens, offsets, targets) in zip(batches, zip(*columns, strict=True), strict=True):
        characters = int(spelled[batch.tokens.numpy()].sum()) + batch.texts
        yield Batch(tokens, offsets, targets, characters, batch.part_on(device))


def _split_on(device: torch.device, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors joined, copied to the device, and taken apart there."""
    joined = torch.cat(tuple(rows))
    if device.type == "cuda":
        joined = joined.pin_memory()
    return torch.split(joined.to(device, non_blocking=True), [len(part) for part in rows])
