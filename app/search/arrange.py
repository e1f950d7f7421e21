"""Which hits of a ranking are shown, and in which order: near-duplicates, groups, diversity, order, and feedback.

Every function takes what is known of the ranking, best first, and returns positions in it. Which positions come first
does not depend on how many are asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from app.encoder.protocol import Embeddings
from app.storage.filters.model import Field
from app.storage.filters.values import Order

SAME_PICTURE = 0.97  # cosine from which two pictures are nearly the same
WINDOW = 200  # places before a hit among which it may have its near-duplicate
DIVERSE_DEPTH = 200  # the best hits, among which diversity chooses; the others follow in their order
MAX_PLACES = 10_000  # of a ranking that a caller may ask for
LIKED_SHARE = 0.3  # how much the mean of liked pictures counts beside words, which have length 1
UNLIKED_SHARE = 0.15
LIKED_PICTURE_SHARE = 0.75  # beside a picture: their cosines are of the same size
UNLIKED_PICTURE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What a caller wants of a ranking: the places from `offset` on, of these groups, in this order, with facets."""

    offset: int = 0
    order: Order | None = None
    group: Field | None = None
    group_size: int = 1
    diversity: float = 0.0
    collapse: bool = False
    facets: tuple[Field, ...] = ()
    facet_size: int = 10

    @property
    def is_selective(self) -> bool:
        """Whether hits are left out or moved, so that the ranking is needed from its start."""
        return self.collapse or self.group is not None or self.diversity > 0


def collapse(vectors: Embeddings, threshold: float = SAME_PICTURE) -> dict[int, list[int]]:
    """The hits that stay, in their order, each with its near-duplicates, which do not.

    `vectors` are those of the hits, [n, d] of length 1. A hit goes to the first of those that stay among the WINDOW
    places before it whose cosine with it is `threshold` or more.
    """
    kept: dict[int, list[int]] = {}
    for start in range(0, len(vectors), WINDOW):
        block = slice(max(0, start - WINDOW), start + WINDOW)
        for n, row in enumerate(vectors[start : start + WINDOW] @ vectors[block].T >= threshold, start):
            near = (int(one) + block.start for one in np.flatnonzero(row[: n - block.start]))
            first = next((one for one in near if one in kept and one >= n - WINDOW), None)
            if first is None:
                kept[n] = []
            else:
                kept[first].append(n)
    return kept


def limit_groups(groups: Sequence[Hashable | None], size: int) -> list[int]:
    """The positions of the first `size` hits of each group; what has no group (None) stays."""
    counts: dict[Hashable, int] = {}
    kept = []
    for n, group in enumerate(groups):
        if group is not None:
            counts[group] = counts.get(group, 0) + 1
        if group is None or counts[group] <= size:
            kept.append(n)
    return kept


def diversify(vectors: Embeddings, diversity: float) -> list[int]:
    """The positions by maximal marginal relevance: each next one fits, and is unlike those before it.

    `vectors` [n, d] of length 1 are those of the first hits. Relevance falls evenly with the place, from 1 to 0: so it
    does not matter by which scores hits are ranked. Likeness is 0 for the mean of all pairs, and 1 for the same.
    """
    count = len(vectors)
    if count < 3 or diversity <= 0:
        return list(range(count))
    cosines = np.asarray(vectors @ vectors.T, np.float64)
    mean = (cosines.sum() - np.trace(cosines)) / (count * (count - 1))
    likeness = (cosines - mean) / max(1.0 - mean, 1e-6)
    relevance = np.linspace(1.0, 0.0, count)
    chosen = [0]
    nearest = likeness[0].copy()  # to those that are chosen
    nearest[0] = np.inf
    while len(chosen) < count:
        worth = (1.0 - diversity) * relevance - diversity * nearest
        best = int(np.argmax(worth))  # the first of equal ones
        chosen.append(best)
        nearest = np.maximum(nearest, likeness[best])
        nearest[best] = np.inf
    return chosen


def apply_feedback(query: Embeddings, liked: Embeddings, unliked: Embeddings, *, has_words: bool) -> Embeddings:
    """The query moved towards the pictures that the caller likes, and away from others (Rocchio): [d], of length 1.

    Pictures count less beside words: their cosines with pictures are several times as large as those of words.
    """
    towards = LIKED_SHARE if has_words else LIKED_PICTURE_SHARE
    away = UNLIKED_SHARE if has_words else UNLIKED_PICTURE_SHARE
    moved = query.astype(np.float64)
    if len(liked):
        moved = moved + towards * liked.mean(axis=0)
    if len(unliked):
        moved = moved - away * unliked.mean(axis=0)
    return np.asarray(moved / np.linalg.norm(moved), dtype=np.float32)
