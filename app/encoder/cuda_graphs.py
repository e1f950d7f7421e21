"""Pictures through a GPU: a few fixed sizes of a batch, one launch for each, copies beside the computing.

A GPU computes a small batch faster than Python can launch its hundreds of kernels, so each size is captured once as
a CUDA graph. A graph is of one size: a batch is padded up to the next, and the answer cut. Of a large one, the next
part is copied, by way of pinned memory, while the GPU computes the part before.
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
BATCH_SIZES = (1, 4, 16, 32, 64, 128)  # pictures in a batch; beyond a few, padding less than doubles the work
WARM_UPS = 3  # passes before a capture, in which the libraries choose their kernels and take their memory


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows `start` to `stop`, run in a batch of `size`."""

    start: int
    stop: int
    size: int

    def __len__(self) -> int:
        return self.stop - self.start


def split_rows(n: int, sizes: Sequence[int]) -> Iterator[RowRange]:
    """`n` rows in batches of the largest of `sizes` (ascending), the rest in the least that holds it."""
    start = 0
    while start < n:
        size = next((size for size in sizes if size >= n - start), sizes[-1])
        yield RowRange(start, min(n, start + size), size)
        start += size


class TransferBuffer:
    """Buffers of one part under way. There are two: one is filled while the GPU works on the other."""

    def __init__(self, system: Any, device: torch.device, rows: int, shape: tuple[int, ...], d: int) -> None:
        pinned = device.type == "cuda"
        self.pixels = torch.zeros((rows, *shape), dtype=torch.uint8, pin_memory=pinned)
        self.there = torch.zeros((rows, *shape), dtype=torch.uint8, device=device)
        self.answer = torch.zeros((rows, d), dtype=torch.float32, pin_memory=pinned)
        self.done = system.Event()
        self.span: RowRange | None = None

    def finish(self, answers: Embeddings) -> None:
        """Wait for the part under way, if there is one, and put its rows where they belong."""
        if (span := self.span) is not None:
            self.span = None
            self.done.synchronize()
            answers[span.start : span.stop] = self.answer[: len(span)].numpy()


class CudaGraphRunner:
    """Runs `forward`, uint8 [n, *shape] to float32 [n, d] on `device`, over any number of rows.

    For one thread at a time. On a CPU, where it serves tests alone, the same steps are run without pinned memory,
    streams and graphs. When memory does not suffice for a size, the next smaller is the largest from then on.
    """

    def __init__(
        self, forward: Forward, shape: tuple[int, ...], d: int, device: str, sizes: Sequence[int] = BATCH_SIZES
    ) -> None:
        self.sizes = tuple(sizes)
        self._forward, self._shape, self._d = forward, shape, d
        self._device = torch.device(device)
        self._system: Any = torch.get_device_module(self._device)
        self._slots: tuple[TransferBuffer, ...] = ()
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
        if not self._slots:
            self._copies = self._system.Stream()
            make = (self._system, self._device, self.sizes[-1], self._shape, self._d)
            self._slots = (TransferBuffer(*make), TransferBuffer(*make))
            self._copies.wait_stream(self._system.current_stream())  # which still fills their memory with zeros
        answers = np.empty((len(rows), self._d), dtype=np.float32)
        for turn, span in enumerate(split_rows(len(rows), self.sizes)):
            slot = self._slots[turn % 2]
            slot.finish(answers)
            self._begin(slot, span, rows)
        for slot in self._slots:
            slot.finish(answers)
        return answers

    def _begin(self, slot: TransferBuffer, span: RowRange, rows: Pixels) -> None:
        """Copy a part there, and queue its computing and its answer's way back; nothing is waited for."""
        n = len(span)
        np.copyto(slot.pixels[:n].numpy(), rows[span.start : span.stop])
        with self._system.stream(self._copies):
            slot.there[:n].copy_(slot.pixels[:n], non_blocking=True)
        self._system.current_stream().wait_stream(self._copies)
        answer = self._launch(span.size)(slot.there[: span.size])
        slot.answer[:n].copy_(answer[:n], non_blocking=True)
        slot.done.record()
        slot.span = span

    def _launch(self, size: int) -> Forward:
        """`forward` for batches of one size; as a graph if the device and the model can."""
        if size not in self._launches:
            self._launches[size] = self._forward
            if self._device.type == "cuda":
                try:
                    self._launches[size] = self._captured(size)
                except torch.OutOfMemoryError:
                    del self._launches[size]
                    raise
                except RuntimeError as error:
                    log.warning("batches of %d run without a CUDA graph: %s", size, str(error).partition("\n")[0])
        return self._launches[size]

    def _captured(self, size: int) -> Forward:
        """The graph of one size. All share one pool of memory: never do two run at once, and what one leaves there
        is copied away before the next begins."""
        rows = torch.zeros((size, *self._shape), dtype=torch.uint8, device=self._device)
        here, aside = self._system.current_stream(), self._system.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self._forward(rows)
        here.wait_stream(aside)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            answer = self._forward(rows)

        def launch(there: Tensor) -> Tensor:
            rows.copy_(there)
            graph.replay()
            return answer

        return launch

    def _shrink(self) -> None:
        """Give up the largest size and all that was made for it."""
        self._system.synchronize()
        self._launches.pop(self.sizes[-1], None)
        self.sizes = self.sizes[:-1]
        self._slots = ()
        log.warning("the GPU's memory holds no larger batch than %d pictures of this model", self.sizes[-1])
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
