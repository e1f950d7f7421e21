"""Queries share forward passes: one thread owns the encoder and runs the waiting requests in batches.

As in text-embeddings-inference: no timer (the requests that arrive during one batch are the next); cancelled requests
are dropped; all requests of a batch get its error. No limit of its own: each thread of queries has one request here.
A patient request is a pass of its own while no other waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from app.core.errors import ModelUnavailable
from app.core.metrics import ProcessMetrics
from app.encoder.protocol import Embeddings, Encoder, Pixels
from app.encoder.query_cache import QueryCache

MAX_BATCH_ROWS = 64  # texts in one forward pass
MAX_BATCH_PICTURES = 16  # as fast as more of them, and the texts of searches wait for their end
PATIENCE = 0.5  # seconds after which a patient request gets a pass although others wait


@dataclass(slots=True)
class EncodeRequest:
    """The texts or the pictures of one caller, and the future of their vectors."""

    texts: Sequence[str] = ()
    pixels: Pixels | None = None
    answer: Future[Embeddings] = field(default_factory=Future)
    arrived: float = field(default_factory=perf_counter)
    is_patient: bool = False

    @property
    def kind(self) -> str:
        return "texts" if self.pixels is None else "images"

    def __len__(self) -> int:
        return len(self.texts) if self.pixels is None else len(self.pixels)


class Batcher:
    """The encoder of the queries. The vectors of recent texts are kept in `cache_bytes` of memory."""

    def __init__(self, encoder: Encoder, cache_bytes: int = 0, metrics: ProcessMetrics | None = None) -> None:
        self._encoder = encoder
        self._metrics = metrics or ProcessMetrics()
        self._cache = QueryCache(cache_bytes)
        self._waiting: deque[EncodeRequest] = deque()
        self._patient: deque[EncodeRequest] = deque()
        self._patient_at = 0.0  # when a patient request was last taken
        self._running = 0
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit_texts(self, texts: Sequence[str]) -> Future[Embeddings]:
        """float32 [n, d] for n texts."""
        cached = [vector for text in texts if (vector := self._cache.get(text)) is not None]
        if cached and len(cached) == len(texts):
            answer: Future[Embeddings] = Future()
            answer.set_result(np.stack(cached))
            return answer
        return self._submit(EncodeRequest(texts=texts))

    def submit_images(self, pixels: Pixels, *, is_patient: bool = False) -> Future[Embeddings]:
        """float32 [n, d] for uint8 [n, size, size, 3]. A patient request lets others go first, for PATIENCE at most."""
        return self._submit(EncodeRequest(pixels=pixels, is_patient=is_patient))

    @property
    def queue_length(self) -> int:
        """How many requests wait for their pass, or for its end."""
        return len(self._waiting) + len(self._patient) + self._running

    def is_alive(self) -> bool:
        """False if the thread has died; no request gets an answer then."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Answer the waiting requests, then stop."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _submit(self, request: EncodeRequest) -> Future[Embeddings]:
        with self._condition:
            if self._closed or not self._thread.is_alive():
                raise ModelUnavailable("the encoder has stopped")
            (self._patient if request.is_patient else self._waiting).append(request)
            self._condition.notify()
        return request.answer

    def _run(self) -> None:
        batch: list[EncodeRequest] = []
        try:
            while batch := self._next_batch():
                self._encode(batch)
        finally:
            with self._condition:
                self._closed = True
                unanswered = [*batch, *self._waiting, *self._patient]
                self._waiting.clear()
                self._patient.clear()
            for request in unanswered:
                if not request.answer.done():
                    request.answer.set_exception(ModelUnavailable("the encoder has stopped"))

    def _next_batch(self) -> list[EncodeRequest]:
        """Requests of one kind in order of arrival; empty when the batcher is closed and all are answered."""
        with self._condition:
            self._running = 0
            while True:
                while self._waiting or self._patient:
                    batch = self._take_patient() or self._take_batch()
                    if batch:
                        self._running = len(batch)
                        return batch
                if self._closed:
                    return []
                self._condition.wait()

    def _take_patient(self) -> list[EncodeRequest]:
        """One patient request, if it is its turn."""
        while self._patient:
            since = max(self._patient[0].arrived, self._patient_at)
            if self._waiting and perf_counter() - since < PATIENCE:
                break
            request = self._patient.popleft()
            if request.answer.set_running_or_notify_cancel():
                self._patient_at = perf_counter()
                return [request]
        return []

    def _take_batch(self) -> list[EncodeRequest]:
        if not self._waiting:
            return []
        is_text = self._waiting[0].pixels is None
        most = MAX_BATCH_ROWS if is_text else MAX_BATCH_PICTURES
        batch: list[EncodeRequest] = []
        rows = 0
        while self._waiting and (self._waiting[0].pixels is None) == is_text:
            if batch and rows + len(self._waiting[0]) > most:
                break
            request = self._waiting.popleft()
            if request.answer.set_running_or_notify_cancel():
                batch.append(request)
                rows += len(request)
        return batch

    def _encode(self, batch: list[EncodeRequest]) -> None:
        started = perf_counter()
        for request in batch:
            if request.is_patient:
                continue
            self._metrics.encoder_waits.labels(request.kind).observe(started - request.arrived)
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
        self._metrics.observe_encoder_pass(batch[0].kind, len(vectors), perf_counter() - started)
        start = 0
        for request in batch:
            rows = vectors[start : start + len(request)]
            for text, vector in zip(request.texts, rows, strict=False):
                self._cache.put(text, vector)
            request.answer.set_result(rows)
            start += len(request)
