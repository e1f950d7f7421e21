from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings, Pixels
from app.encoder.shared import SharedEncoder


class Counting(DummyEncoder):
    """Notes how many were encoding at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.second = threading.Event()

    def encode_images(self, pixels: Pixels) -> Embeddings:
        self.now += 1
        self.most = max(self.most, self.now)
        self.second.wait(0.01)  # for who would come in between
        self.now -= 1
        return super().encode_images(pixels)


def test_threads_encode_one_at_a_time_and_get_what_the_encoder_gives() -> None:
    inner = Counting()
    shared = SharedEncoder(inner)
    pixels = np.zeros((1, inner.preprocessing.size, inner.preprocessing.size, 3), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(shared.encode_images, [pixels] * 4))
    assert inner.most == 1
    assert all(np.array_equal(one, inner.encode_images(pixels)) for one in vectors)
    assert np.array_equal(shared.encode_texts(["red"]), inner.encode_texts(["red"]))
    assert (shared.space, shared.preprocessing, shared.runtime) == (inner.space, inner.preprocessing, inner.runtime)
