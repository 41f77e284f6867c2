"""Sums of the rows of a table that the hashed n-grams of ragged texts select.

On a CPU Numba computes them, elsewhere torch; both select the same rows.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import embedding_bag

from srucli.kernels.backends import fastest
from srucli.kernels.hashing import hashed_ngrams


def _torch_sums(table: Tensor, symbols: Tensor, offsets: Tensor, longest: int) -> Tensor:
    grams = hashed_ngrams(symbols, offsets, longest, table.shape[0]).flatten()
    present = (grams >= 0).to(table.dtype)
    starts = offsets[:-1] * longest
    return embedding_bag(grams.clamp(min=0), table, starts, mode="sum", per_sample_weights=present)


def ngram_sums(table: Tensor, symbols: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """Return the sums of the table's rows over all 1- to n-grams of each text's symbols (B, W).

    table (buckets, W), symbols (N,) int64 from 0, offsets (B+1,) int64; n is `longest`.
    """
    if fastest(table.device.type, table.dtype) != "cpu":
        return _torch_sums(table, symbols, offsets, longest)
    from srucli.kernels import cpu_ngrams

    sums: Tensor = cpu_ngrams.ngram_sums(table, symbols, offsets, longest)[0]
    return sums
