"""The model `colours`: an encoder without weights that sees colours and knows their names.

It loads at once and without torch, for a first try and for tests that restart the service a hundred times.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from app.core.types import EmbeddingSpace, Preprocessing
from app.encoder.protocol import Embeddings, Pixels, normalise

PALETTE: dict[tuple[str, ...], tuple[int, int, int]] = {
    ("red", "红", "红色"): (220, 30, 30),
    ("orange", "橙", "橙色"): (245, 140, 20),
    ("yellow", "黄", "黄色"): (245, 225, 40),
    ("green", "绿", "绿色"): (30, 150, 50),
    ("cyan", "青", "青色"): (40, 200, 210),
    ("blue", "蓝", "蓝色"): (30, 60, 220),
    ("purple", "violet", "紫", "紫色"): (130, 40, 170),
    ("pink", "粉", "粉色"): (250, 150, 190),
    ("brown", "棕", "棕色"): (120, 70, 30),
    ("black", "黑", "黑色"): (10, 10, 10),
    ("grey", "gray", "灰", "灰色"): (128, 128, 128),
    ("white", "白", "白色"): (250, 250, 250),
}
CELLS = 4  # the vector holds the mean colour of CELLS × CELLS cells, so that pictures of the same colours differ
SIZE = 32


class DummyEncoder:
    """d = 60: the shares of 12 named colours, and 48 weak values for the colours of the cells."""

    device = "cpu"
    runtime = "numpy"
    temperature = 20.0
    logit_bias: float | None = None
    max_tokens: int | None = None

    def __init__(self) -> None:
        self.preprocessing = Preprocessing(size=SIZE, resize="squash", interpolation="bilinear")
        self._names = {name: n for n, names in enumerate(PALETTE) for name in names}
        self._words = re.compile("|".join(sorted(map(re.escape, self._names), key=len, reverse=True)))
        self._palette = np.array(list(PALETTE.values()), dtype=np.float32)
        d = len(PALETTE) + 3 * CELLS * CELLS
        weights = hashlib.sha256(repr(PALETTE).encode()).hexdigest()
        self.space = EmbeddingSpace("colours", weights, d, self.preprocessing.digest)

    def count_words_read(self, text: str) -> int | None:
        return None

    def count_tokens(self, texts: Sequence[str]) -> int:
        """It has no tokens: their words."""
        return sum(len(text.split()) for text in texts)

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, 32, 32, 3] to float32 [n, 60], rows of length 1."""
        n = len(pixels)
        values = pixels.astype(np.float32)
        distance = ((values[:, :, :, None, :] - self._palette) ** 2).sum(axis=-1)
        nearest = distance.argmin(axis=-1).reshape(n, -1)
        shares = np.stack([np.bincount(row, minlength=len(PALETTE)) for row in nearest]) / nearest.shape[1]
        cell = SIZE // CELLS
        cells = values.reshape(n, CELLS, cell, CELLS, cell, 3).mean(axis=(2, 4)).reshape(n, -1) / 255 - 0.5
        return normalise(np.concatenate([shares, 0.05 * cells], axis=1))

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, 60]: a share for each colour that a text names; without one, a faint grey."""
        vectors = np.zeros((len(texts), self.space.d), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            named = [self._names[word] for word in self._words.findall(text.lower())]
            for n in named:
                row[n] += 1.0
            if not named:
                seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                row[len(PALETTE) :] = np.resize(np.frombuffer(seed, np.uint8), self.space.d - len(PALETTE)) / 255 - 0.5
                row[self._names["grey"]] = 0.5
        return normalise(vectors)
