"""Golden vectors: the vectors of a few fixed inputs, which show whether a model still computes the same.

A changed weights file has another digest, and is another space. A digest cannot show that a library tokenizes, resizes
or computes differently after an upgrade; these vectors can.
"""

from __future__ import annotations

import numpy as np

from app.encoder.protocol import Embeddings, Encoder, Pixels

GOLDEN_TEXTS = ("a red car", "  Two CATS next to a cake; it's 7 o'clock.  ", "笑脸 и кот", "x")
GOLDEN_COUNT = 2 + len(GOLDEN_TEXTS)  # vectors, those of the pictures first
MIN_COSINE = 0.99  # bf16 on one processor and fp16 on another stay well above it, another tokenizer does not


def make_golden_pictures(size: int) -> Pixels:
    """uint8 [2, size, size, 3]: a gradient and a chessboard, the same on every machine."""
    line = np.arange(size, dtype=np.int64)
    across, down = np.meshgrid(line * 255 // max(size - 1, 1), line * 255 // max(size - 1, 1))
    smooth = np.stack([across, down, 255 - across], axis=-1)
    cell = max(size // 8, 1)
    board = ((line[:, None] // cell + line[None, :] // cell) % 2)[..., None] * np.array([220, 40, 90])
    return np.stack([smooth, board]).astype(np.uint8)


def encode_golden(encoder: Encoder, *, texts: bool = True) -> Embeddings:
    """float32 [GOLDEN_COUNT, d]; [2, d] without `texts`."""
    pictures = encoder.encode_images(make_golden_pictures(encoder.preprocessing.size))
    return np.concatenate([pictures, encoder.encode_texts(GOLDEN_TEXTS)]) if texts else pictures


def is_same_model(now: Embeddings, before: Embeddings) -> bool:
    """Whether one model made both."""
    return now.shape == before.shape and bool(((now * before).sum(axis=1) >= MIN_COSINE).all())
