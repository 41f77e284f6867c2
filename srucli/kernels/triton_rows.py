"""The gradient of looked-up rows on a GPU, compiled by Triton: float32, bfloat16, float16.

A program belongs to a place of the index and to some columns. If the row of that place was looked
up at an earlier place too, the program ends; otherwise it adds the gradients of all places with
that row, in their order. So there is no sort and there are no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from srucli.kernels import reference

# Larger batches are left to torch, which sorts from here on: every place is compared with every
# other, and one program adds all gradients of a frequent row.
MAX_PLACES = 3072
# Places that a warp compares at once, and columns that it adds.
PLACES = BLOCK = 128


@triton.jit
def _first(index, place, row, start, stop, PLACES: tl.constexpr):
    """The first place of [start, start + PLACES) after `place` and before `stop` with this row.

    `stop` if there is none.
    """
    at = start + tl.arange(0, PLACES)
    found = tl.load(index + at, (at > place) & (at < stop), -1) == row
    return tl.min(tl.where(found, at, stop))


@triton.jit
def _gradient(grad, place, places, d, live, WIDTH: tl.constexpr):
    """Columns d of the gradient at a place; zeros if there is no such place."""
    at = grad + place.to(tl.int64) * WIDTH + d
    return tl.load(at, live & (place < places), 0.0).to(tl.float32)


@triton.jit(do_not_specialize_on_alignment=["index"])  # as in `triton_walk.py`
def _sum_rows(grad, index, table, WIDTH: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr):
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    own, places = tl.program_id(0) // blocks, tl.num_programs(0) // blocks
    d = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    live = d < WIDTH
    row = tl.load(index + own)
    start, earlier = 0, own
    while (start < own) & (earlier == own):
        earlier = _first(index, -1, row, start, own, PLACES)
        start += PLACES
    if earlier == own:
        total = _gradient(grad, own, places, d, live, WIDTH)
        start = own
        while start < places:
            one = _first(index, own, row, start, places, PLACES)
            while one < places:  # four at once, as a load takes long
                two = _first(index, one, row, start, places, PLACES)
                three = _first(index, two, row, start, places, PLACES)
                four = _first(index, three, row, start, places, PLACES)
                first = _gradient(grad, one, places, d, live, WIDTH)
                second = _gradient(grad, two, places, d, live, WIDTH)
                third = _gradient(grad, three, places, d, live, WIDTH)
                fourth = _gradient(grad, four, places, d, live, WIDTH)
                total = total + first + second + third + fourth
                one = _first(index, four, row, start, places, PLACES)
            start += PLACES
        tl.store(table + row * WIDTH + d, total.to(table.dtype.element_ty), live)


def sum_rows(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """As `reference.sum_rows`."""
    places, width = grad.shape
    if not 0 < places <= MAX_PLACES:
        return reference.sum_rows(grad, index, rows)
    table = torch.zeros(rows, width, dtype=grad.dtype, device=grad.device)
    grid = (places * triton.cdiv(width, BLOCK),)
    with torch.cuda.device_of(grad):
        _sum_rows[grid](
            grad.contiguous(),
            index,
            table,
            WIDTH=width,
            PLACES=PLACES,
            BLOCK=BLOCK,
            num_warps=1,
        )
    return table
