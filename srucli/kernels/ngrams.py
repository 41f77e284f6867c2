"""The sums of the rows of a table that the hashed n-grams of ragged texts choose.

On a CPU an operator over Numba's loops, elsewhere torch's own functions; both choose the same rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from srucli.kernels.backends import fastest
from srucli.kernels.hashing import hashed_ngrams


@torch.library.custom_op("srucli::ngram_sums", mutates_args=(), device_types="cpu")
def _ngram_sums(
    table: Tensor, symbols: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    from srucli.kernels import cpu_ngrams

    return cpu_ngrams.ngram_sums(table, symbols, offsets, longest)


@_ngram_sums.register_fake
def _(table: Tensor, symbols: Tensor, offsets: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    sums = table.new_empty(offsets.shape[0] - 1, table.shape[1])
    return sums, symbols.new_empty(symbols.shape[0], longest, dtype=torch.int32)


@torch.library.custom_op("srucli::ngram_sums_backward", mutates_args=(), device_types="cpu")
def _ngram_sums_backward(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    from srucli.kernels import cpu_ngrams

    return cpu_ngrams.ngram_sums_backward(grad, grams, offsets, buckets)


@_ngram_sums_backward.register_fake
def _(grad: Tensor, grams: Tensor, offsets: Tensor, buckets: int) -> Tensor:
    return grad.new_empty(buckets, grad.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    table, _, offsets, _ = inputs
    ctx.buckets = table.shape[0]
    ctx.save_for_backward(output[1], offsets)


def _gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    return _ngram_sums_backward(grad, *ctx.saved_tensors, ctx.buckets), None, None, None


_ngram_sums.register_autograd(_gradient, setup_context=_save)


def _torch_sums(table: Tensor, symbols: Tensor, offsets: Tensor, longest: int) -> Tensor:
    flat = hashed_ngrams(symbols, offsets, longest, table.shape[0]).flatten()
    present = (flat >= 0).to(table.dtype)
    return embedding_bag(
        flat.clamp(min=0),
        table,
        offsets[:-1] * longest,
        mode="sum",
        per_sample_weights=present,
    )


def ngram_sums(table: Tensor, symbols: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """The sums of the table's rows over all 1- to n-grams of each text's symbols (B, W).

    table (buckets, W), symbols (N,) int64 from 0, offsets (B+1,) int64; n is `longest`.
    """
    if fastest(table.device.type, table.dtype) == "cpu":
        sums: Tensor = _ngram_sums(table, symbols, offsets, longest)[0]
        return sums
    return _torch_sums(table, symbols, offsets, longest)
