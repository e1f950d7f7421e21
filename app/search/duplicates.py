"""Which pictures are duplicates of each other: pairs by perceptual hashes and by vectors, and groups of pairs.

`exact` pairs have nearly the same hash: one picture encoded, resized or recoloured. `near` pairs have near vectors, and
hashes that do not contradict. Hashes alone miss a cropped picture; vectors alone take all pictures of a kind that the
model does not know for one. docs/decisions/0055 has the figures behind the thresholds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

DuplicateKind = Literal["exact", "near"]

DEFAULT_THRESHOLDS: Mapping[DuplicateKind, float] = {"exact": 10.0, "near": 0.2}
MAX_THRESHOLDS: Mapping[DuplicateKind, float] = {"exact": 16.0, "near": 0.3}
"""Pairs up to these are stored: bits of 64 that differ, and 1 - cosine."""
EXACT_SKETCH, NEAR_SKETCH = 0.30, 0.40  # how far the colours of a pair may differ, in contrasts of a picture
FLAT = 0.7  # the contrast of a sketch, up to 1, below which a picture is nearly empty: a page of some lines
FLAT_BITS, FLAT_SKETCH = 4, 0.12  # of such pictures, and the latter in contrasts of the flatter one
NEAR_BITS = 22  # of 64: half of them differ between unrelated pictures
NEIGHBOURS = 32  # of each picture, by its vector
MAX_PAIRS = 256  # of a picture with earlier ones, by their hashes
COLUMNS = 1 << 16  # hashes that a block is compared with at once
BITS_BYTES = 8  # of a hash; then comes its sketch
SKETCH_BYTES, SKETCH_SCALE = 48, 32.0

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Hashes:
    """The perceptual hashes of n pictures: uint64 [n], int8 [n, 48], and bool [n]: whether a picture has one."""

    bits: npt.NDArray[np.uint64]
    sketches: npt.NDArray[np.int8]
    known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.bits)


@dataclass(frozen=True, slots=True)
class Group:
    """Duplicates: the best picture, and the distance of each of the others to it, the nearest first."""

    best: int
    others: Sequence[tuple[int, float]]


def unpack_hashes(stored: Sequence[bytes | None]) -> Hashes:
    """The hashes as the database has them; empty and None are those of a picture without one."""
    size = BITS_BYTES + SKETCH_BYTES
    known = np.array([bool(one) for one in stored], np.bool_)
    table = np.frombuffer(b"".join(one or bytes(size) for one in stored), np.uint8).reshape(len(stored), size)
    bits = table[:, :BITS_BYTES].copy().view("<u8")[:, 0]
    return Hashes(bits, table[:, BITS_BYTES:].copy().view(np.int8), known)


def join_hashes(parts: Sequence[Hashes]) -> Hashes:
    parts = parts or [unpack_hashes([])]
    bits, sketches, known = ([getattr(one, name) for one in parts] for name in ("bits", "sketches", "known"))
    return Hashes(np.concatenate(bits), np.concatenate(sketches), np.concatenate(known))


def _find_similar_bits(hashes: Hashes, start: int, stop: int) -> tuple[Rows, Rows]:
    """Pairs (row, earlier row) of the rows from `start` to `stop` whose bits differ by few."""
    most = int(MAX_THRESHOLDS["exact"])
    found: list[tuple[Rows, Rows]] = []
    for first in range(0, stop, COLUMNS):
        last = min(first + COLUMNS, stop)
        differing = np.bitwise_count(hashes.bits[start:stop, None] ^ hashes.bits[None, first:last])
        rows, columns = np.nonzero(differing <= most)
        found.append((rows + start, columns + first))
    rows, earlier = (np.concatenate(parts).astype(np.int64) for parts in zip(*found, strict=True))
    kept = (earlier < rows) & hashes.known[rows] & hashes.known[earlier]
    return _limit_pairs(hashes, rows[kept], earlier[kept])


def _limit_pairs(hashes: Hashes, rows: Rows, earlier: Rows) -> tuple[Rows, Rows]:
    """At most MAX_PAIRS of each row: the nearest, and any of those that are equally near.

    If these were the first ones, all of 10,000 equal pictures would be paired with the same few.
    """
    if len(rows) == 0 or np.bincount(rows - rows.min()).max() <= MAX_PAIRS:
        return rows, earlier
    distance = count_bits(hashes, rows, earlier) + np.random.default_rng(0).random(len(rows))
    order = np.lexsort((distance, rows))
    rows, earlier = rows[order], earlier[order]
    firsts = np.concatenate(([0], np.flatnonzero(np.diff(rows)) + 1))
    rank = np.arange(len(rows)) - np.repeat(firsts, np.diff(np.append(firsts, len(rows))))
    return rows[rank < MAX_PAIRS], earlier[rank < MAX_PAIRS]


def count_bits(hashes: Hashes, first: Rows, second: Rows) -> npt.NDArray[np.uint8]:
    """How many bits of 64 differ in each pair."""
    return np.asarray(np.bitwise_count(hashes.bits[first] ^ hashes.bits[second]))


def measure_colours(hashes: Hashes, first: Rows, second: Rows) -> npt.NDArray[np.float32]:
    """How far the sketches of each pair are apart: root mean square, 1 is the contrast of a picture."""
    apart = hashes.sketches[first].astype(np.float32) - hashes.sketches[second]
    return np.asarray(np.sqrt((apart * apart).mean(axis=1)) / np.float32(SKETCH_SCALE))


def measure_contrasts(hashes: Hashes, rows: Rows) -> npt.NDArray[np.float32]:
    """How much the sketches have of the contrast to which they are scaled; an empty page has little of it."""
    sketches = hashes.sketches[rows].astype(np.float32)
    return np.asarray(np.sqrt((sketches * sketches).mean(axis=1)) / np.float32(SKETCH_SCALE))


def find_candidates(
    hashes: Hashes, start: int, stop: int, own: Rows, scores: Scores, neighbours: Rows
) -> tuple[Rows, Rows]:
    """Pairs (later row, earlier row) of the rows from `start` to `stop` that may be duplicates.

    `own` [n] are the rows whose nearest `neighbours` [n, k] (-1: none) were searched, with their `scores` [n, k].
    """
    near = (scores >= 1 - MAX_THRESHOLDS["near"]) & (neighbours >= 0) & (neighbours != own[:, None])
    rows, others = np.broadcast_to(own[:, None], near.shape)[near], neighbours[near]
    found = np.stack([np.maximum(rows, others), np.minimum(rows, others)])
    pairs = np.unique(np.concatenate([found, np.stack(_find_similar_bits(hashes, start, stop))], axis=1), axis=1)
    return pairs[0], pairs[1]


def judge_pairs(hashes: Hashes, first: Rows, second: Rows) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """The bits of each pair that may be `exact`, -1 for the others; and whether it may be `near`, by its hashes."""
    bits = count_bits(hashes, first, second).astype(np.int64)
    colours = measure_colours(hashes, first, second)
    known = hashes.known[first] & hashes.known[second]
    exact = known & (bits <= MAX_THRESHOLDS["exact"]) & (colours <= EXACT_SKETCH)
    contrast = np.minimum(measure_contrasts(hashes, first), measure_contrasts(hashes, second))
    exact &= (contrast >= FLAT) | ((bits <= FLAT_BITS) & (colours <= FLAT_SKETCH * contrast))
    near = known & (bits <= NEAR_BITS) & (colours <= NEAR_SKETCH)
    return np.where(exact, bits, -1), near


def group_pairs(pairs: Iterable[tuple[int, int, float]], best_first: Iterable[int]) -> list[Group]:
    """Groups of pictures, each within the threshold of the best of its group.

    `best_first` are the pictures in the order in which they are to be kept. Each takes its neighbours that no better
    one has: so a chain, whose ends have nothing in common, gives no group.
    """
    neighbours: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for a, b, distance in pairs:
        neighbours[a].append((distance, b))
        neighbours[b].append((distance, a))
    left = dict.fromkeys(best_first)
    order, groups = list(left), []
    for best in order:
        if best not in left:
            continue
        del left[best]
        others = [(key, distance) for distance, key in sorted(neighbours[best]) if key in left]
        for key, _ in others:
            del left[key]
        if others:
            groups.append(Group(best, others))
    return groups
