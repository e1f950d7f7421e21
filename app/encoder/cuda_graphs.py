"""Run pictures through a GPU in batches of a few fixed sizes, each captured as a CUDA graph.

A GPU computes a small batch faster than Python can launch its hundreds of kernels; a graph launches all of them at
once. A graph has one size, so a batch is padded to the next size and its result is cut. While the GPU computes one part
of a large batch, the next part is copied, through pinned memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.encoder.protocol import Embeddings, Pixels

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]
BATCH_SIZES = (1, 4, 16, 32, 64, 128)  # pictures in a batch; above 16, padding at most doubles the work
WARM_UPS = 3  # passes before a capture, in which the libraries choose kernels and allocate memory


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows `start` to `stop`, which run in a batch of `size`."""

    start: int
    stop: int
    size: int

    def __len__(self) -> int:
        return self.stop - self.start


def split_rows(n: int, sizes: Sequence[int]) -> Iterator[RowRange]:
    """Split `n` rows into batches of the largest of `sizes` (ascending), the rest in the smallest that holds it."""
    start = 0
    while start < n:
        size = next((size for size in sizes if size >= n - start), sizes[-1])
        yield RowRange(start, min(n, start + size), size)
        start += size


class TransferBuffer:
    """The buffers of one part. There are two: one is filled while the GPU computes the other."""

    def __init__(self, backend: Any, device: torch.device, rows: int, shape: tuple[int, ...], d: int) -> None:
        pinned = device.type == "cuda"
        self.pixels = torch.zeros((rows, *shape), dtype=torch.uint8, pin_memory=pinned)
        self.on_device = torch.zeros((rows, *shape), dtype=torch.uint8, device=device)
        self.result = torch.zeros((rows, d), dtype=torch.float32, pin_memory=pinned)
        self.done = backend.Event()
        self.span: RowRange | None = None

    def finish(self, results: Embeddings) -> None:
        """Wait for the part that is computed, if there is one, and copy its rows into `results`."""
        if (span := self.span) is not None:
            self.span = None
            self.done.synchronize()
            results[span.start : span.stop] = self.result[: len(span)].numpy()


class CudaGraphRunner:
    """Runs `forward`, uint8 [n, *shape] to float32 [n, d] on `device`, over any number of rows.

    For one thread at a time. On a CPU, which only tests use, the same steps run without pinned memory, streams and
    graphs. If the memory of the GPU does not suffice for the largest size, that size is given up for good.
    """

    def __init__(
        self, forward: Forward, shape: tuple[int, ...], d: int, device: str, sizes: Sequence[int] = BATCH_SIZES
    ) -> None:
        self.sizes = tuple(sizes)
        self._forward, self._shape, self._d = forward, shape, d
        self._device = torch.device(device)
        self._backend: Any = torch.get_device_module(self._device)
        self._buffers: tuple[TransferBuffer, ...] = ()
        self._launches: dict[int, Forward] = {}
        self._pool: Any = None

    def __call__(self, rows: Pixels) -> Embeddings:
        with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
            while True:
                try:
                    return self._run(rows)
                except torch.OutOfMemoryError:
                    if len(self.sizes) == 1:
                        raise
                    self._shrink()

    def _run(self, rows: Pixels) -> Embeddings:
        if not self._buffers:
            self._copy_stream = self._backend.Stream()
            make = (self._backend, self._device, self.sizes[-1], self._shape, self._d)
            self._buffers = (TransferBuffer(*make), TransferBuffer(*make))
            self._copy_stream.wait_stream(self._backend.current_stream())  # it still fills their memory with zeros
        results = np.empty((len(rows), self._d), dtype=np.float32)
        for turn, span in enumerate(split_rows(len(rows), self.sizes)):
            buffer = self._buffers[turn % 2]
            buffer.finish(results)
            self._start(buffer, span, rows)
        for buffer in self._buffers:
            buffer.finish(results)
        return results

    def _start(self, buffer: TransferBuffer, span: RowRange, rows: Pixels) -> None:
        """Queue the copy of a part to the device, its computation and the copy back, without waiting."""
        n = len(span)
        np.copyto(buffer.pixels[:n].numpy(), rows[span.start : span.stop])
        with self._backend.stream(self._copy_stream):
            buffer.on_device[:n].copy_(buffer.pixels[:n], non_blocking=True)
        self._backend.current_stream().wait_stream(self._copy_stream)
        result = self._launch(span.size)(buffer.on_device[: span.size])
        buffer.result[:n].copy_(result[:n], non_blocking=True)
        buffer.done.record()
        buffer.span = span

    def _launch(self, size: int) -> Forward:
        """`forward` for batches of one size; a graph if the device and the model allow it."""
        if size not in self._launches:
            self._launches[size] = self._forward
            if self._device.type == "cuda":
                try:
                    self._launches[size] = self._capture(size)
                except torch.OutOfMemoryError:
                    del self._launches[size]
                    raise
                except RuntimeError as error:
                    log.warning("batches of %d run without a CUDA graph: %s", size, str(error).partition("\n")[0])
        return self._launches[size]

    def _capture(self, size: int) -> Forward:
        """Capture the graph of one size. All graphs share one pool of memory: no two run at once, and the result of
        one is copied out before the next starts."""
        rows = torch.zeros((size, *self._shape), dtype=torch.uint8, device=self._device)
        current, side = self._backend.current_stream(), self._backend.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._forward(rows)
        current.wait_stream(side)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = self._forward(rows)

        def launch(pixels: Tensor) -> Tensor:
            rows.copy_(pixels)
            graph.replay()
            return result

        return launch

    def _shrink(self) -> None:
        """Give up the largest size and its buffers."""
        self._backend.synchronize()
        self._launches.pop(self.sizes[-1], None)
        self.sizes = self.sizes[:-1]
        self._buffers = ()
        log.warning("the memory of the GPU holds batches of at most %d pictures of this model", self.sizes[-1])
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
