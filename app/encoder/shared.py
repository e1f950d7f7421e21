"""An encoder for several threads of a worker, which use it one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from app.core.types import EmbeddingSpace, Preprocessing
from app.encoder.protocol import Embeddings, Encoder, Pixels


class SharedEncoder:
    """A thread waits while another one encodes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self.space: EmbeddingSpace = encoder.space
        self.preprocessing: Preprocessing = encoder.preprocessing
        self.temperature: float = encoder.temperature
        self.device: str = encoder.device
        self.runtime: str = encoder.runtime
        self.max_tokens: int | None = encoder.max_tokens

    def count_words_read(self, text: str) -> int | None:
        return self._encoder.count_words_read(text)

    def encode_images(self, pixels: Pixels) -> Embeddings:
        with self._lock:
            return self._encoder.encode_images(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        with self._lock:
            return self._encoder.encode_texts(texts)
