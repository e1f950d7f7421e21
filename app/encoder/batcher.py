"""Queries share forward passes: one thread owns the encoder, callers wait at its door.

The way text-embeddings-inference does it: a permit or an immediate refusal, no timer (what has arrived
while one batch ran is the next batch), cancelled callers dropped, a failure told to everyone it concerns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from app.core.errors import ModelUnavailable, Overloaded
from app.core.metrics import ProcessMetrics
from app.encoder.protocol import Embeddings, Encoder, Pixels
from app.encoder.query_cache import QueryCache

MAX_BATCH_ROWS = 64  # texts or pictures in one forward pass


@dataclass(slots=True)
class EncodeRequest:
    """What one caller wants encoded."""

    texts: Sequence[str] = ()
    pixels: Pixels | None = None
    answer: Future[Embeddings] = field(default_factory=Future)
    came: float = field(default_factory=perf_counter)

    @property
    def kind(self) -> str:
        """Of what it is, as it is counted."""
        return "texts" if self.pixels is None else "images"

    def __len__(self) -> int:
        return len(self.texts) if self.pixels is None else len(self.pixels)


class Batcher:
    """The encoder of the queries. `permits` bounds how many callers may wait, `remembered` how many bytes of recent
    texts are kept."""

    def __init__(
        self, encoder: Encoder, permits: int, remembered: int = 0, metrics: ProcessMetrics | None = None
    ) -> None:
        self._encoder = encoder
        self._metrics = metrics or ProcessMetrics()
        self._recent = QueryCache(remembered)
        self._permits = permits
        self._waiting: deque[EncodeRequest] = deque()
        self._running = 0
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def texts(self, texts: Sequence[str]) -> Future[Embeddings]:
        """float32 [n, d] for n texts. Raises Overloaded at once when too many wait."""
        known = [vector for text in texts if (vector := self._recent.get(text)) is not None]
        if known and len(known) == len(texts):
            answer: Future[Embeddings] = Future()
            answer.set_result(np.stack(known))
            return answer
        return self._submit(EncodeRequest(texts=texts))

    def images(self, pixels: Pixels) -> Future[Embeddings]:
        """float32 [n, d] for uint8 [n, size, size, 3]. Raises Overloaded at once when too many wait."""
        return self._submit(EncodeRequest(pixels=pixels))

    @property
    def waiting(self) -> int:
        """How many callers wait for their pass, or for its end."""
        return len(self._waiting) + self._running

    def alive(self) -> bool:
        """False when its thread has died: nothing will ever be answered."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Answer those who wait, then stop."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _submit(self, request: EncodeRequest) -> Future[Embeddings]:
        with self._condition:
            if self._closed or not self._thread.is_alive():
                raise ModelUnavailable("the encoder has stopped")
            if len(self._waiting) + self._running >= self._permits:
                raise Overloaded("too many queries are waiting; try again in a moment")
            self._waiting.append(request)
            self._condition.notify()
        return request.answer

    def _run(self) -> None:
        batch: list[EncodeRequest] = []
        try:
            while batch := self._next():
                self._answer(batch)
        finally:
            with self._condition:
                self._closed = True
                stranded = [*batch, *self._waiting]
                self._waiting.clear()
            for request in stranded:
                if not request.answer.done():
                    request.answer.set_exception(ModelUnavailable("the encoder has stopped"))

    def _next(self) -> list[EncodeRequest]:
        """The next batch: of one kind, in order of arrival; empty when closed and done."""
        with self._condition:
            self._running = 0
            while True:
                while self._waiting:
                    batch = self._take()
                    if batch:
                        self._running = len(batch)
                        return batch
                if self._closed:
                    return []
                self._condition.wait()

    def _take(self) -> list[EncodeRequest]:
        kind = self._waiting[0].pixels is None
        batch: list[EncodeRequest] = []
        rows = 0
        while self._waiting and (self._waiting[0].pixels is None) == kind:
            if batch and rows + len(self._waiting[0]) > MAX_BATCH_ROWS:
                break
            request = self._waiting.popleft()
            if request.answer.set_running_or_notify_cancel():
                batch.append(request)
                rows += len(request)
        return batch

    def _answer(self, batch: list[EncodeRequest]) -> None:
        began = perf_counter()
        for request in batch:
            self._metrics.observe_encoder_wait(request.kind, began - request.came)
        try:
            if batch[0].pixels is None:
                vectors = self._encoder.encode_texts([text for request in batch for text in request.texts])
            else:
                vectors = self._encoder.encode_images(
                    np.concatenate([request.pixels for request in batch if request.pixels is not None])
                )
        except Exception as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        self._metrics.observe_encoder_pass(batch[0].kind, len(vectors), perf_counter() - began)
        start = 0
        for request in batch:
            mine = vectors[start : start + len(request)]
            for text, vector in zip(request.texts, mine, strict=False):
                self._recent.put(text, vector)
            request.answer.set_result(mine)
            start += len(request)
