"""A cache of the vectors of recent text queries: people page through, reload and share searches."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
OVERHEAD = 300  # bytes of an entry besides its vector and its text, measured with tracemalloc


class QueryCache:
    """Drops the least recently used entries above `limit` bytes; 0 caches nothing. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._vectors: OrderedDict[str, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> Vector | None:
        """float32 [d], or None."""
        with self._lock:
            vector = self._vectors.get(text)
            if vector is not None:
                self._vectors.move_to_end(text)
            return vector

    def put(self, text: str, vector: Vector) -> None:
        """Keep a copy of float32 [d]; the array that it is part of may be freed."""
        with self._lock:
            if text in self._vectors:
                return
            self._vectors[text] = vector.copy()
            self._bytes += _size(text, vector)
            while self._bytes > self._limit:
                dropped, old = self._vectors.popitem(last=False)
                self._bytes -= _size(dropped, old)

    def __len__(self) -> int:
        return len(self._vectors)


def _size(text: str, vector: Vector) -> int:
    return int(vector.nbytes) + 4 * len(text) + OVERHEAD
