"""An encoder that several threads of a worker use, one at a time: what runs it is not made for two."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from app.core.types import EmbeddingSpace, Preprocessing
from app.encoder.protocol import Embeddings, Encoder, Pixels


class SharedEncoder:
    """Who comes while another encodes waits."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self.space: EmbeddingSpace = encoder.space
        self.preprocessing: Preprocessing = encoder.preprocessing
        self.temperature: float = encoder.temperature
        self.device: str = encoder.device
        self.runtime: str = encoder.runtime

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """As the encoder does."""
        with self._lock:
            return self._encoder.encode_images(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """As the encoder does."""
        with self._lock:
            return self._encoder.encode_texts(texts)
