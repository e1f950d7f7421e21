"""Brute force in numpy, and vectors to feed it: what every index is compared with."""

from __future__ import annotations

import numpy as np

from index.protocol import VectorIndex
from index.types import Embeddings, Ids, Scores


def unit(n: int, d: int, seed: int = 0) -> Embeddings:
    """Random unit vectors [n, d]; the same seed gives the same ones."""
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def numbers(*ids: int) -> Ids:
    return np.array(ids, np.int64)


def nearest(stored: dict[int, Embeddings], queries: Embeddings, k: int) -> tuple[Scores, Ids]:
    """The answer to a search: best first, equal scores by lower id, padded with -inf and -1."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    for i, query in enumerate(queries):
        ranked = sorted((-float(np.vecdot(vector, query)), id) for id, vector in stored.items())[:k]
        for j, (score, id) in enumerate(ranked):
            scores[i, j], ids[i, j] = -score, id
    return scores, ids


def assert_holds(index: VectorIndex, stored: dict[int, Embeddings]) -> None:
    """Fail unless `index` is exactly `stored`."""
    expected = nearest(stored, unit(3, index.d, 77), len(stored) + 1)
    np.testing.assert_array_equal(index.search(unit(3, index.d, 77), len(stored) + 1)[1], expected[1])
