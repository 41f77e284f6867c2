"""Training steps replayed as CUDA graphs, one for each shape of a batch.

A step on a small model is a few hundred kernels of some microseconds each, and launching them one
by one takes longer than running them. A graph launches all of them at once, but always on the same
tensors. So a batch is copied into tensors of its own shape rounded up, and after its texts come
FILLERS more that hold whatever tokens were there before: the step must not look at what the model
makes of those. Nothing here waits for the GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch

from srucli.data.batch import Batch

# Several, so that none of them is much longer than a text.
FILLERS = 4
MIN_SIZE = 64


class CaptureError(RuntimeError):
    """A step cannot be captured here, and why; nothing of it was done."""


class Shape(NamedTuple):
    """Texts, tokens and characters of a batch, the last two rounded up."""

    texts: int
    tokens: int
    characters: int


def rounded(count: int) -> int:
    """`count` rounded up to one of four sizes between powers of two, so by less than a quarter.

    >>> [rounded(count) for count in (0, 64, 65, 128, 129, 1000)]
    [64, 64, 80, 128, 160, 1024]
    """
    unit = max(MIN_SIZE // 4, 1 << max((count - 1).bit_length() - 3, 0))
    return max(MIN_SIZE, -(-count // unit) * unit)


def shape_of(batch: Batch) -> Shape:
    """The shape that holds a batch whose characters are known, and a space for each filler."""
    assert batch.characters is not None
    return Shape(batch.texts, rounded(batch.tokens.numel()), rounded(batch.characters + FILLERS))


class Inputs:
    """Tensors of a shape that one batch after the other is copied into."""

    def __init__(self, shape: Shape, like: Batch) -> None:
        """`like` is a batch of that shape, for dtypes and device."""
        assert like.targets is not None
        self.shape = shape
        self.tokens = like.tokens.new_zeros(shape.tokens)
        self.offsets = torch.empty_like(like.offsets)
        self.targets = torch.empty_like(like.targets)
        self.shares = torch.arange(1, FILLERS + 1, device=like.tokens.device)

    def fill(self, batch: Batch) -> None:
        """Copy a batch's texts to the beginning."""
        assert batch.targets is not None
        self.tokens[: batch.tokens.numel()].copy_(batch.tokens, non_blocking=True)
        self.offsets.copy_(batch.offsets, non_blocking=True)
        self.targets.copy_(batch.targets, non_blocking=True)

    def batch(self) -> Batch:
        """The texts of the batch and their targets, and after them fillers, which have none."""
        end = self.offsets[-1:]
        fillers = end + (self.shape.tokens - end) * self.shares // FILLERS
        offsets = torch.cat((self.offsets, fillers))
        return Batch(self.tokens, offsets, self.targets, self.shape.characters)


class Graphs:
    """Runs `step` on batches: as it is the first time a shape comes, from then on as a graph.

    `step` reads a batch of `Inputs` and changes tensors that are there to stay; it must not wait
    for the GPU, nor keep anything that it made. Graphs share one memory pool, which they may
    because none of them needs what another one left there.
    """

    def __init__(self, step: Callable[[Batch], None]) -> None:
        self.step = step
        self.inputs: dict[Shape, Inputs] = {}
        self.graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, batch: Batch) -> None:
        """One step on a batch on the GPU, whose characters are known. Raises CaptureError."""
        shape = shape_of(batch)
        if shape not in self.inputs:
            self.inputs[shape] = Inputs(shape, batch)
            self.inputs[shape].fill(batch)
            self._warm_up(self.inputs[shape])
            return
        self.inputs[shape].fill(batch)
        if shape not in self.graphs:
            self.graphs[shape] = self._captured(self.inputs[shape])
        self.graphs[shape].replay()

    def _warm_up(self, inputs: Inputs) -> None:
        """The first step of a shape: kernels get compiled, libraries take their memory."""
        now = torch.cuda.current_stream()
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            self.step(inputs.batch())
        now.wait_stream(self.stream)

    def _captured(self, inputs: Inputs) -> torch.cuda.CUDAGraph:
        return capture(lambda: self.step(inputs.batch()), self.stream, self.pool)


def capture(
    run: Callable[[], object], stream: torch.cuda.Stream, pool: Any
) -> torch.cuda.CUDAGraph:
    """Return a CUDA graph of what `run` launches; it has run before on `stream`.

    `pool` is a `torch.cuda.graph_pool_handle`. Raises CaptureError, after which everything can be
    launched as before.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with _no_collection(), torch.cuda.graph(graph, pool=pool, stream=stream):
            run()
        return graph
    except RuntimeError as error:
        why = str(error.__context__ or error).partition("\n")[0]
    # Not within `except`: the exception's frames hold the tensors that `run` made.
    del graph
    torch.cuda.set_stream(before)
    _end_failed_capture(stream, pool)
    raise CaptureError(why)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting an older graph, whose end would end a capture that goes on."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _end_failed_capture(stream: torch.cuda.Stream, pool: Any) -> None:
    """Undo what torch leaves behind where a capture fails.

    Up to torch 2.11 at least the allocator goes on to serve from the pool, and the random number
    generator to refuse everything that is not captured, until another capture succeeds.
    """
    with suppress(RuntimeError):  # raised where the pool is closed already
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    gc.collect()
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream):
        torch.zeros(1, device="cuda")
