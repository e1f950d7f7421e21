"""The best of many scores; the lower id comes first among equal ones."""

from __future__ import annotations

import numpy as np

from index.types import Ids, Scores

PARTITION_FACTOR = 4
"""From so many scores for each wanted one on, a partition leaves out the low ones before the rest is sorted."""


def select_top_k(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    """The `k` highest of `scores` [n] with their `ids` [n], best first, or all of them where there are fewer."""
    if k and len(scores) > PARTITION_FACTOR * k:
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        scores, ids = scores[kept], ids[kept]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]


def make_padding(count: int, k: int) -> tuple[Scores, Ids]:
    """An answer to `count` queries that holds nothing yet: -inf and -1."""
    return np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)


def merge_top_k(first: tuple[Scores, Ids], second: tuple[Scores, Ids]) -> tuple[Scores, Ids]:
    """Two answers [n, k] about different ids as one."""
    k = first[0].shape[1]
    scores = np.concatenate([first[0], second[0]], axis=1)
    ids = np.concatenate([first[1], second[1]], axis=1)
    # Padding comes last, whatever its id: nothing else is -inf.
    order = np.lexsort((ids, -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
