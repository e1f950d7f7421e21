"""The protocol of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.core.types import EmbeddingSpace, Preprocessing

Pixels = npt.NDArray[np.uint8]
Embeddings = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Maps pictures and texts into one space, in which the cosine tells how well they match.

    `temperature` is the factor on the cosines before the softmax of zero-shot classification, the learnt
    `exp(logit_scale)` of the model. `logit_bias` is what a model adds that was trained to say of each pair alone
    whether it fits (SigLIP): `sigmoid(temperature * cosine + logit_bias)`; None of every other model. `device` and
    `runtime` tell people where it runs, by which library, and why.
    `max_tokens` is how many tokens of a text it reads; None reads all of it.
    """

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def temperature(self) -> float: ...

    @property
    def logit_bias(self) -> float | None: ...

    @property
    def device(self) -> str: ...

    @property
    def runtime(self) -> str: ...

    @property
    def max_tokens(self) -> int | None: ...

    def count_words_read(self, text: str) -> int | None:
        """How many words of a text that is longer than `max_tokens` it reads; None if it reads all of it."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> int:
        """How many tokens of the texts it reads, in all."""
        ...

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, size, size, 3] (RGB) to float32 [n, d], rows of length 1."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, d], rows of length 1."""
        ...


def check_vectors(vectors: Embeddings) -> Embeddings:
    """Return the vectors. Raises ValueError unless every row is finite and of length 1."""
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.isfinite(lengths)) or np.any(np.abs(lengths - 1) > 1e-2):
        raise ValueError("the encoder returned a vector that is not finite or has no length")
    return vectors


def normalise(vectors: npt.NDArray[np.floating]) -> Embeddings:
    """Scale rows to length 1; returns float32 [n, d]."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)
