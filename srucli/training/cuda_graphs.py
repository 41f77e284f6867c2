"""Training steps replayed as CUDA graphs, one for each shape of a batch.

A step of a small model is a few hundred kernels of some microseconds each, and launching them one
by one takes longer than running them. A graph launches them all at once, but always on the same
tensors. So a batch is copied into tensors whose size is rounded up. After its texts come FILLERS
texts of leftover tokens, whose outputs the step must ignore. Nothing here waits for the GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch

from srucli.data.batch import Batch

# Several, so that no filler is much longer than a text.
FILLERS = 4
MIN_SIZE = 64


class CaptureError(RuntimeError):
    """A step cannot be captured; nothing of it was done. The message is the reason."""


class Shape(NamedTuple):
    """The numbers of texts and of tokens of a batch, the latter rounded up."""

    texts: int
    tokens: int


def rounded(count: int) -> int:
    """Round up by less than a quarter, to one of four sizes between two powers of two.

    >>> [rounded(count) for count in (0, 64, 65, 128, 129, 1000)]
    [64, 64, 80, 128, 160, 1024]
    """
    unit = max(MIN_SIZE // 4, 1 << max((count - 1).bit_length() - 3, 0))
    return max(MIN_SIZE, -(-count // unit) * unit)


def shape_of(batch: Batch) -> Shape:
    """Return the shape for a batch."""
    return Shape(batch.texts, rounded(batch.tokens.numel()))


class Inputs:
    """Tensors of a fixed shape, into which one batch after the other is copied."""

    def __init__(self, shape: Shape, like: Batch) -> None:
        """Take dtypes and device from `like`, a batch of that shape."""
        assert like.targets is not None
        self.shape = shape
        self.tokens = like.tokens.new_zeros(shape.tokens)
        self.offsets = torch.empty_like(like.offsets)
        self.targets = torch.empty_like(like.targets)
        self.weights = None if like.weights is None else torch.empty_like(like.weights)
        self.shares = torch.arange(1, FILLERS + 1, device=like.tokens.device)

    def fill(self, batch: Batch) -> None:
        """Copy a batch to the beginning of the tensors."""
        assert batch.targets is not None
        self.tokens[: batch.tokens.numel()].copy_(batch.tokens, non_blocking=True)
        self.offsets.copy_(batch.offsets, non_blocking=True)
        self.targets.copy_(batch.targets, non_blocking=True)
        if self.weights is not None and batch.weights is not None:
            self.weights.copy_(batch.weights, non_blocking=True)

    def batch(self) -> Batch:
        """Return the batch, followed by fillers, which have no targets."""
        end = self.offsets[-1:]
        fillers = end + (self.shape.tokens - end) * self.shares // FILLERS
        offsets = torch.cat((self.offsets, fillers))
        return Batch(self.tokens, offsets, self.targets, weights=self.weights)


class Graphs:
    """Runs `step` on batches: directly for the first batch of a shape, then as a graph.

    Both ways give the same bits, since kernels and fillers are the same. `step` reads a batch of
    `Inputs` and changes tensors in place; it must not wait for the GPU nor keep tensors that it
    made. The graphs share one memory pool, as none keeps anything in it.
    """

    def __init__(self, step: Callable[[Batch], None]) -> None:
        self.step = step
        self.inputs: dict[Shape, Inputs] = {}
        self.graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, batch: Batch, instead: Callable[[Batch], None] | None = None) -> None:
        """Run a step on a batch on the GPU. Raises CaptureError.

        With `instead`, run that directly.
        """
        shape = shape_of(batch)
        is_new = shape not in self.inputs
        if is_new:
            self.inputs[shape] = Inputs(shape, batch)
        inputs = self.inputs[shape]
        inputs.fill(batch)
        if is_new or instead:
            self._launch(instead or self.step, inputs)
            return
        if shape not in self.graphs:
            self.graphs[shape] = capture(lambda: self.step(inputs.batch()), self.stream, self.pool)
        self.graphs[shape].replay()

    def _launch(self, step: Callable[[Batch], None], inputs: Inputs) -> None:
        """Run a step directly; in the first one kernels get compiled, libraries allocate memory."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            step(inputs.batch())
        current.wait_stream(self.stream)


def capture(
    run: Callable[[], object], stream: torch.cuda.Stream, pool: Any, *, keep_graph: bool = False
) -> torch.cuda.CUDAGraph:
    """Return a CUDA graph of what `run` launches. It must have run before on `stream`.

    `pool` is a `torch.cuda.graph_pool_handle`; with `keep_graph`, the graph can be inspected.
    Raises CaptureError; kernels can be launched then.
    """
    graph, before = torch.cuda.CUDAGraph(keep_graph=keep_graph), torch.cuda.current_stream()
    try:
        with _no_collection(), torch.cuda.graph(graph, pool=pool, stream=stream):
            run()
        return graph
    except RuntimeError as error:
        why = str(error.__context__ or error).partition("\n")[0]
    # Not within `except`, because the exception's frames hold the tensors that `run` made.
    del graph
    torch.cuda.set_stream(before)
    _end_failed_capture(stream, pool)
    raise CaptureError(why)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting an older graph, which would end a capture in progress."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _end_failed_capture(stream: torch.cuda.Stream, pool: Any) -> None:
    """Undo what torch leaves behind after a failed capture.

    At least up to torch 2.11 the allocator keeps allocating from the pool, and the random number
    generator refuses everything that is not captured, until another capture succeeds.
    """
    with suppress(RuntimeError):  # raised if the pool is closed already
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    gc.collect()
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream):
        torch.zeros(1, device="cuda")
