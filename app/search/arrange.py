"""Which hits of a ranking are shown, and in which order: near-duplicates, groups, diversity, order, and feedback.

Every function takes what is known of the ranking, best first, and returns positions in it. Which positions come first
does not depend on how many are asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.core.types import AnswerWarning, Duplicate, Hit, Image, Text
from app.encoder.protocol import Embeddings
from app.storage.filters.model import Field
from app.storage.filters.values import (
    NO_VALUE,
    Order,
    Value,
    field_name,
    rank_value,
    read_value,
    sort_by_value,
)

SAME_PICTURE = 0.95  # cosine from which two pictures are nearly the same: see decision 54
WINDOW = 200  # places before a hit among which it may have its near-duplicate
DIVERSE_DEPTH = 200  # the best hits, among which diversity chooses; the others follow in their order
MAX_PLACES = 10_000  # of a ranking that a caller may ask for
MAX_ARRANGED = 2_000  # places that are looked at for near-duplicates, groups and diversity
MIN_LENGTH = 1e-6  # a shorter query has no direction
LIKED_SHARE = 0.2  # how much the mean of liked pictures counts beside words, which have length 1: decision 54
UNLIKED_SHARE = 0.1
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

    @property
    def needs_vectors(self) -> bool:
        return self.collapse or self.diversity > 0

    @property
    def min_places(self) -> int:
        """How many places of the ranking are looked at, beside those that are shown."""
        return max(WINDOW if self.collapse else 0, DIVERSE_DEPTH if self.diversity > 0 else 0)


AS_RANKED = Arrangement()


@dataclass(frozen=True, slots=True)
class Arranged:
    """The hits from the first place on, and whether more of the ranking would change none that is shown."""

    hits: list[Hit]
    is_settled: bool


def arrange(hits: Sequence[Hit], stored: Mapping[int, bytes], arrangement: Arrangement, k: int) -> Arranged:
    """Leave hits out and move them, as `arrangement` wants it.

    `hits` is the ranking from its start; `stored` has their vectors by key, where the arrangement needs them: a hit
    without one is left out.
    """
    end = arrangement.offset + k
    vectors = np.empty((0, 0), np.float32)
    if arrangement.needs_vectors:
        hits = [hit for hit in hits if _record(hit).key in stored]
    if arrangement.needs_vectors and hits:
        vectors = np.frombuffer(b"".join(stored[_record(hit).key] for hit in hits), "<f4").reshape(len(hits), -1)
    kept = collapse(vectors) if arrangement.collapse else {n: [] for n in range(len(hits))}
    order = list(kept)
    if (field := arrangement.group) is not None:
        groups = [_group(read_value(_record(hits[n]), field)) for n in order]
        order = [order[n] for n in limit_groups(groups, arrangement.group_size)]
    is_settled = len(order) >= end
    if arrangement.diversity > 0:
        head = order[:DIVERSE_DEPTH]
        is_settled = is_settled and len(head) == DIVERSE_DEPTH
        order = [*(head[n] for n in diversify(vectors[head], arrangement.diversity)), *order[DIVERSE_DEPTH:]]
    if arrangement.collapse:
        is_settled = is_settled and max(order[:end], default=0) + WINDOW < len(hits)
    return Arranged([_add_duplicates(hits, vectors, n, kept[n]) for n in order[:end]], is_settled)


def _add_duplicates(hits: Sequence[Hit], vectors: Embeddings, n: int, others: Sequence[int]) -> Hit:
    if not others:
        return hits[n]
    found = [Duplicate(hits[one].id, hits[one].score, float(vectors[n] @ vectors[one])) for one in others]
    return replace(hits[n], duplicates=found)


def _record(hit: Hit) -> Image | Text:
    record = hit.image or hit.text
    assert record is not None
    return record


def _group(value: Value | None) -> Hashable | None:
    return None if value is None else rank_value(value)


def describe(arrangement: Arrangement, shares: tuple[float, float]) -> dict[str, str | float]:
    """What was applied, without what is off; `shares` are those of liked and of unliked pictures, 0 without any."""
    applied: dict[str, str | float] = {
        "order_by": arrangement.order.text if arrangement.order else "",
        "group_by": field_name(arrangement.group) if arrangement.group else "",
        "diversity": arrangement.diversity,
        "collapse": SAME_PICTURE if arrangement.collapse else 0.0,
        "like": shares[0],
        "unlike": shares[1],
    }
    return {name: value for name, value in applied.items() if value}


def order_hits(hits: Sequence[Hit], order: Order | None) -> list[Hit]:
    """The hits that are shown, in the order of a field; equal ones stay in that of the ranking."""
    if order is None or order.field.name == "score":
        return list(hits)
    values = [read_value(_record(hit), order.field) for hit in hits]
    return [hits[n] for n in sort_by_value(values, order.is_descending)]


def warn_of_fields(hits: Sequence[Hit], arrangement: Arrangement) -> list[AnswerWarning]:
    """What is odd about the entries of metadata by which hits are ordered and grouped."""
    order = arrangement.order.field if arrangement.order else None
    found = []
    for use, field in (("order_by", order), ("group_by", arrangement.group)):
        if field is None or field.name != "metadata" or not hits:
            continue
        ranks = {rank_value(read_value(_record(hit), field))[0] for hit in hits} - {NO_VALUE}
        if not ranks:
            found.append(AnswerWarning("field_no_value", f"none of the hits has a value of {field_name(field)}", use))
        elif len(ranks) > 1 and use == "order_by":
            detail = f"{field_name(field)} has values of several types: numbers come before texts, these before flags"
            found.append(AnswerWarning("field_other_values", detail, use))
    return found


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


def feedback_shares(*, has_words: bool) -> tuple[float, float]:
    """How much the means of liked and of unliked pictures count beside a query of length 1."""
    return (LIKED_SHARE, UNLIKED_SHARE) if has_words else (LIKED_PICTURE_SHARE, UNLIKED_PICTURE_SHARE)


def apply_feedback(query: Embeddings, liked: Embeddings, unliked: Embeddings, *, has_words: bool) -> Embeddings:
    """The query moved towards the pictures that the caller likes, and away from others (Rocchio): [d], of length 1.

    Pictures count less beside words: their cosines with pictures are several times as large as those of words.
    """
    towards, away = feedback_shares(has_words=has_words)
    moved = query.astype(np.float64)
    if len(liked):
        moved = moved + towards * liked.mean(axis=0)
    if len(unliked):
        moved = moved - away * unliked.mean(axis=0)
    length = float(np.linalg.norm(moved))
    return query if length < MIN_LENGTH else np.asarray(moved / length, dtype=np.float32)
