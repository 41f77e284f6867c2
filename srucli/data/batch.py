"""Ragged batches: what a batch is, which texts share one, and the transfer to a GPU.

There is no padding: a batch is one row of N tokens and B+1 offsets. Its texts have similar lengths,
so that CPU threads and GPU warps finish together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
# Texts are sorted by length within pools of so many batches: enough for similar lengths, few enough
# that which texts share a batch stays random.
POOL_BATCHES = 50
# Tokens that go to a GPU in one copy: 8 MiB, enough for many steps.
UPLOAD_TOKENS = 2**20


@dataclass(frozen=True, eq=False)
class Batch:
    """tokens (N,) int64, offsets (B+1,) int64, targets (B,) int64 or (B, C) float32, or None.

    part: what the encoder reads, if that is not all: indices of tokens (M,) and offsets (B+1,).
    weights (B,) float32: of the examples in the loss; None if all are 1.
    """

    tokens: Tensor
    offsets: Tensor
    targets: Tensor | None
    part: tuple[Tensor, Tensor] | None = None
    weights: Tensor | None = None

    @property
    def texts(self) -> int:
        """The number of texts, B."""
        return self.offsets.numel() - 1

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        targets, weights = (
            None if each is None else _move(each, device) for each in (self.targets, self.weights)
        )
        tokens, offsets = _move(self.tokens, device), _move(self.offsets, device)
        return Batch(tokens, offsets, targets, self.part_on(device), weights)

    def part_on(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return `part` on another device."""
        return self.part and (_move(self.part[0], device), _move(self.part[1], device))


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


def order(
    lengths: Ints, batch_size: int, batch_tokens: int, seed: tuple[int, ...] | None
) -> list[Ints]:
    """Return the numbers of the texts in each batch, given their lengths (B,) in tokens.

    A batch has at most `batch_size` texts, and `batch_tokens` tokens or one text. With a seed,
    texts are shuffled and sorted by length within pools of POOL_BATCHES batches, and batches
    shuffled.
    """
    if seed is None:
        return list(_cut(np.argsort(lengths, kind="stable"), lengths, batch_size, batch_tokens))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(lengths))
    batches: list[Ints] = []
    pool = batch_size * POOL_BATCHES
    for start in range(0, len(shuffled), pool):
        texts = shuffled[start : start + pool]
        texts = texts[np.argsort(lengths[texts], kind="stable")]
        batches.extend(_cut(texts, lengths, batch_size, batch_tokens))
    return [batches[number] for number in generator.permutation(len(batches))]


def _cut(texts: Ints, lengths: Ints, batch_size: int, batch_tokens: int) -> Iterator[Ints]:
    ends = np.cumsum(lengths[texts])
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        fits = int(np.searchsorted(ends, before + batch_tokens, side="right"))
        stop = max(min(start + batch_size, fits), start + 1)
        yield texts[start:stop]
        start = stop


def uploaded(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches on the device; on a CPU, unchanged.

    Batches are copied in groups of about UPLOAD_TOKENS from page-locked memory while the GPU
    computes on earlier ones.
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
            yield from upload(group, device)
            group, tokens = [], 0
    if group:
        yield from upload(group, device)


def upload(batches: Sequence[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield a group of batches as parts of tensors on the device.

    All have targets or none, and so with weights.
    """
    tokens = _split_on(device, [batch.tokens for batch in batches])
    offsets = _split_on(device, [batch.offsets for batch in batches])
    targets = _split_if_given(device, [batch.targets for batch in batches])
    weights = _split_if_given(device, [batch.weights for batch in batches])
    for batch, own, ends, wanted, counts in zip(
        batches, tokens, offsets, targets, weights, strict=True
    ):
        yield Batch(own, ends, wanted, batch.part_on(device), counts)


def _split_if_given(device: torch.device, rows: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    given = [each for each in rows if each is not None]
    return _split_on(device, given) if given else rows


def _split_on(device: torch.device, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    joined = torch.cat(tuple(rows))
    if device.type == "cuda":
        joined = joined.pin_memory()
    return torch.split(_move(joined, device), [len(part) for part in rows])
