"""FlatIndex: compares every query with every vector.

A mutation only appends rows: it writes them past the end, then publishes a new `FlatView` of the arrays, the number of
rows that count, and which of those are dead. A search takes the view once and needs no lock: nothing writes again what
it reads. So searches never wait, see a mutation whole or not at all, and freezing a view copies nothing. The index
sweeps out dead rows (removed or replaced) when there are many.

Scores are the same to the last bit wherever a row is and however many queries come at once: equal vectors tie and the
lower id wins. BLAS matrix products do not give that (their last rows go through another kernel), so they only choose
candidates, with room for their rounding error, and `numpy.vecdot` decides.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar, NamedTuple, Self

import numpy as np

from index.errors import IndexClosed
from index.idset import IdSet
from index.npy_io import read_array, write_array
from index.protocol import FrozenIndex, SearchParams, Sink
from index.topk import make_padding
from index.types import Embeddings, Ids, Scores, SnapshotManifest
from index.validation import check_batch, check_ids, check_search, check_vectors, keep_last

SCORE_BLOCK = 64
"""Scores of which the first search for the best compares only the maximum."""
BATCH = 8
"""From so many queries on, one matrix product beats dot products row by row (measured at 256 dimensions)."""
BATCH_SCORES = 16 << 20
"""Bound on scores held at once, 64 MiB: a large batch on a large index is searched in parts."""
MAX_DEAD_SHARE, MIN_DEAD_ROWS = 0.25, 1024
"""Rows are swept when more than a quarter, and more than these, are dead: constant cost per mutation."""
GROWTH = 1.5
BYTES_PER_ID = 100
"""Memory of an id in the dictionary: an entry and two numbers."""
SELECTIVE_FILTER = 8
"""Where a filter allows at most one row in so many, these are copied before they are compared."""
WRITE_ROWS = 4096


NO_ROWS: Ids = np.empty(0, np.int64)


class FlatView(NamedTuple):
    """The index at one moment. Rows before `n` are never written again; those in `dead` do not count."""

    vectors: Embeddings
    ids: Ids
    n: int
    dead: Ids = NO_ROWS

    @property
    def ntotal(self) -> int:
        return self.n - len(self.dead)

    def items(self) -> Iterator[tuple[Ids, Embeddings]]:
        """All ids and their vectors, some thousands at a time."""
        yield from ((self.ids[rows], self.vectors[rows]) for rows in _live_parts(self))

    def search(self, queries: Embeddings, k: int, allowed_ids: IdSet | None = None) -> tuple[Scores, Ids]:
        """The answer of `FlatIndex.search` at this moment, to queries that the caller has checked."""
        view = self if allowed_ids is None else self.restrict_to(allowed_ids)
        scores, ids = make_padding(len(queries), k)
        found = min(k, view.ntotal)
        if not found:
            return scores, ids
        batch = max(1, BATCH_SCORES // view.n) if len(queries) >= BATCH else 1
        for start in range(0, len(queries), batch):
            part = queries[start : start + batch]
            rough, margins = _rough_scores(view, part)
            for i, query in enumerate(part):
                row = slice(start + i, start + i + 1), slice(0, found)
                scores[row], ids[row] = _select_best(view, query, rough[i], found, float(margins[i]))
        return scores, ids

    def restrict_to(self, allowed_ids: IdSet) -> FlatView:
        """The view of these ids alone. Few rows are copied together; else the others count as dead."""
        inside = allowed_ids.contains(self.ids[: self.n])
        inside[self.dead] = False
        rows = np.flatnonzero(inside)
        if len(rows) <= self.n // SELECTIVE_FILTER:
            return FlatView(self.vectors[rows], self.ids[rows], len(rows))
        return self._replace(dead=np.flatnonzero(~inside))


class FlatIndex:
    """Exact inner-product search over vectors of width `d`, in memory; implements `VectorIndex`."""

    kind = "exact"
    lazily_checked: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, d: int) -> None:
        if d < 1:
            raise ValueError(f"d is {d}, expected 1 or more")
        self.d = d
        self._lock = threading.Lock()  # held by mutations only
        self._rows: dict[int, int] = {}
        self._view: FlatView | None = FlatView(np.empty((0, d), np.float32), NO_ROWS, 0)

    @property
    def ntotal(self) -> int:
        return self.view().ntotal

    @property
    def nbytes(self) -> int:
        """Bytes of memory: rows, dead ones too, and a little for each id. Unused room takes no memory yet."""
        view = self.view()
        return view.n * (4 * self.d + 8) + view.dead.nbytes + BYTES_PER_ID * view.ntotal

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        check_batch(ids, vectors, self.d)
        last = keep_last(ids)
        if len(last) < len(ids):
            ids, vectors = ids[last], vectors[last]
        names = ids.tolist()
        with self._lock:
            view = self._make_room(len(ids))
            replaced = [self._rows[id] for id in names if id in self._rows]
            end = view.n + len(ids)
            view.vectors[view.n : end] = vectors
            view.ids[view.n : end] = ids
            self._rows.update(zip(names, range(view.n, end), strict=True))
            self._view = view._replace(n=end, dead=_extend(view.dead, replaced))

    def remove(self, ids: Ids) -> None:
        check_ids(ids)
        with self._lock:
            view = self.view()
            removed = [self._rows.pop(id) for id in ids.tolist() if id in self._rows]
            self._view = view = view._replace(dead=_extend(view.dead, removed))
            if len(view.dead) > max(MIN_DEAD_ROWS, MAX_DEAD_SHARE * view.n):
                self._move_rows(view, view.ntotal)

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best of all vectors for each of `queries` [n, d]: scores [n, k] and ids [n, k].

        Best first, equal scores by lower id, padded with -inf and -1. Of `params` only `allowed_ids` counts here.
        """
        check_search(queries, k, self.d)
        return self.view().search(queries, k, None if params is None else params.allowed_ids)

    def freeze(self) -> FrozenIndex:
        """The contents now, without copying: mutations go on while it is written."""
        view = self.view()
        shape = (view.ntotal, self.d)

        def write_ids(sink: Sink) -> None:
            write_array(sink, np.int64, shape[:1], (view.ids[rows] for rows in _live_parts(view)))

        def write_vectors(sink: Sink) -> None:
            write_array(sink, np.float32, shape, (view.vectors[rows] for rows in _live_parts(view)))

        files = {"ids.npy": write_ids, "vectors.npy": write_vectors}
        return FrozenIndex(self.kind, self.d, view.ntotal, files)

    @classmethod
    def restore(cls, manifest: SnapshotManifest, files: Mapping[str, BinaryIO]) -> Self:
        """The index that was frozen into `files`. Raises ValueError where they do not fit `manifest`."""
        if set(files) != {"ids.npy", "vectors.npy"}:
            raise ValueError(f"files {sorted(files)}")
        ids: Ids = read_array(files["ids.npy"], np.int64, (manifest.ntotal,))
        vectors: Embeddings = read_array(files["vectors.npy"], np.float32, (manifest.ntotal, manifest.d))
        check_ids(ids)
        check_vectors(vectors, manifest.d)
        index = cls(manifest.d)
        index._rows = dict(zip(ids.tolist(), range(len(ids)), strict=True))
        if len(index._rows) != len(ids):
            raise ValueError("an id twice")
        index._view = FlatView(vectors, ids, len(ids))
        return index

    def close(self) -> None:
        """Let go of the memory. Searches under way finish."""
        with self._lock:
            self._view = None
            self._rows = {}

    def view(self) -> FlatView:
        """The contents now: mutations that come later do not reach it."""
        view = self._view
        if view is None:
            raise IndexClosed("the index is closed")
        return view

    def _make_room(self, count: int) -> FlatView:
        view = self.view()
        if view.n + count <= len(view.vectors):
            return view
        return self._move_rows(view, max(view.ntotal + count, int(view.ntotal * GROWTH), MIN_DEAD_ROWS))

    def _move_rows(self, view: FlatView, capacity: int) -> FlatView:
        """Copy the live rows into new arrays; searches keep the old ones as long as they need them."""
        vectors = np.empty((capacity, self.d), np.float32)
        ids = np.empty(capacity, np.int64)
        n = 0
        for rows in _live_parts(view):
            block = view.ids[rows]
            vectors[n : n + len(block)] = view.vectors[rows]
            ids[n : n + len(block)] = block
            n += len(block)
        self._rows = dict(zip(ids[:n].tolist(), range(n), strict=True))
        self._view = view = FlatView(vectors, ids, n)
        return view


def _extend(dead: Ids, rows: list[int]) -> Ids:
    return np.concatenate([dead, np.array(rows, np.int64)]) if rows else dead


def _live_parts(view: FlatView) -> Iterator[Ids | slice]:
    """The live rows, a few thousand at a time, so that nothing copies all of them at once."""
    if not len(view.dead):
        yield from (slice(i, min(i + WRITE_ROWS, view.n)) for i in range(0, view.n, WRITE_ROWS))
        return
    live = np.delete(np.arange(view.n), view.dead)
    yield from (live[i : i + WRITE_ROWS] for i in range(0, len(live), WRITE_ROWS))


def _rough_scores(view: FlatView, queries: Embeddings) -> tuple[Scores, Scores]:
    """Scores [q, n rounded up to whole blocks], -inf where no row lives, and how far off [q] they may be."""
    padded = -(-view.n // SCORE_BLOCK) * SCORE_BLOCK
    rough = np.empty((len(queries), padded), np.float32)
    rough[:, view.n :] = -np.inf
    rows = view.vectors[: view.n]
    margins = np.zeros(len(queries), np.float32)
    if len(queries) == 1:
        # Not a matrix product: those start BLAS threads, and one query is bound by memory anyway.
        np.vecdot(rows, queries[0], out=rough[0, : view.n])
    else:
        np.matmul(queries, rows.T, out=rough[:, : view.n])
        # |computed - true| <= d u |x| |q| for a dot product in any order, u = 2^-24 (Higham, Accuracy and
        # Stability of Numerical Algorithms, 3.1). Two sums differ by twice that, two rows by twice again.
        lengths = np.linalg.norm(queries, axis=1)
        margins = (1.1 * 4 * (queries.shape[1] + 2) * 2.0**-24 * lengths).astype(np.float32)
    if len(view.dead):
        rough[:, view.dead] = -np.inf
    return rough, margins


def _select_best(view: FlatView, query: Embeddings, rough: Scores, k: int, margin: float) -> tuple[Scores, Ids]:
    """The `k` best live rows for `query` [d], k at most ntotal: scores [k] and ids [k]."""
    # k blocks whose maxima reach a bound hold k scores that reach it, so no answer lies below the bound.
    maxima = rough.reshape(-1, SCORE_BLOCK).max(axis=1)
    few = maxima if len(maxima) >= k else rough
    bound = np.partition(few, len(few) - k)[len(few) - k] - np.float32(margin)
    rows = np.flatnonzero(rough >= bound)
    if bound == -np.inf:  # the live rows lie in fewer than k blocks
        rows = np.flatnonzero(rough > -np.inf)
    if not margin:
        scores = rough[rows]
    elif len(rows) < view.n // SELECTIVE_FILTER:
        scores = np.vecdot(view.vectors[rows], query)
    else:  # many near-equal vectors: do not copy them all
        scores = np.vecdot(view.vectors[: view.n], query)[rows]
    ids = view.ids[rows]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]
