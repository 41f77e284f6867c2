"""How a program of the Triton kernels walks over a text: its place, its block, and its loads.

One program is one warp. It walks over some units of one direction of one text, token by token,
while the next tokens are loaded into shared memory, since a load takes longer than a step. (Loads
into registers do not help: the compiler moves them to where the values are used.)
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

# Tokens in one group of loads, and groups that are being loaded or used.
STEPS = 4
STAGES = 4


# A batch's offsets are often a part of a larger tensor. If it mattered whether they begin at a
# multiple of 16 bytes, each kernel would be compiled twice.
kernel = triton.jit(do_not_specialize_on_alignment=["offsets"])


def _block(texts: int, units: int, directions: int, like: Tensor) -> int:
    """Return the units of one program: 16 bytes per thread if that keeps all of a GPU busy.

    And if all rows begin at multiples of 16 bytes: otherwise a thread makes several loads, and the
    backward pass spills registers in a small dtype. Else 4 bytes, the smallest asynchronous copy:
    an odd number of units in a small dtype is copied synchronously, and waits for each group of
    loads. Results do not depend on it.
    """
    size = like.element_size()
    busy = texts * units * directions >= 2**17
    wide = busy and units * size >= 512 and units * size % 16 == 0
    return (512 if wide else 128) // size


def launch(texts: int, units: int, directions: int, like: Tensor) -> tuple[tuple[int], Any]:
    """Return the grid, and the settings that all kernels share."""
    block = _block(texts, units, directions, like)
    settings: dict[str, Any] = {"UNITS": units, "DIRECTIONS": directions, "BLOCK": block}
    settings |= {"num_warps": 1, "enable_fp_fusion": False}
    return (texts * directions * triton.cdiv(units, block),), settings


@triton.jit
def place(
    offsets, BACK: tl.constexpr, UNITS: tl.constexpr, DIRECTIONS: tl.constexpr, BLOCK: tl.constexpr
):
    """Return what this program walks over; with BACK, it starts at the end.

    These are the text, the columns (BLOCK,), which of them exist, the row of the walk's first
    token, the rows from one token to the next (1 or -1), and the number of tokens.
    """
    blocks: tl.constexpr = (UNITS + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    text = (program // (DIRECTIONS * blocks)).to(tl.int64)
    direction = program // blocks % DIRECTIONS
    unit = program % blocks * BLOCK + tl.arange(0, BLOCK)
    start, stop = tl.load(offsets + text), tl.load(offsets + text + 1)
    way = 2 * direction - 1 if BACK else 1 - 2 * direction
    row = tl.where(way > 0, start, stop - 1)
    return text, direction * UNITS + unit, unit < UNITS, row, way, (stop - start).to(tl.int32)
