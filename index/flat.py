"""ExactIndex: every query is compared with every vector.

The rows are only ever appended to. A mutation writes rows past the end, then publishes a new `View`: the
arrays, how many rows count, and which of those are dead. A search takes the view once and needs no lock: what
it reads is never written again. So searches wait for nobody, a mutation is seen whole or not at all, and a
snapshot of a moment costs nothing. Dead rows (removed or replaced) are swept out when there are many.

Scores are the same to the last bit wherever a row lies and however many queries come at once: equal vectors
tie and the lower id wins. BLAS matrix products do not give that (their last rows go through another kernel),
so they only nominate candidates, with room for their rounding error, and `numpy.vecdot` decides.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from index.errors import IndexClosed
from index.idset import IdSet
from index.npy_io import read_array, write_array
from index.protocol import FrozenIndex, SearchParams, Sink
from index.types import Embeddings, Ids, Scores, SnapshotManifest
from index.validation import check_ids, check_queries, check_vectors

SCORE_BLOCK = 64
"""Scores whose maximum stands for all of them in the first look for the best."""
BATCH = 8
"""From so many queries on, one matrix product beats dot products row by row (measured at 256 dimensions)."""
BATCH_SCORES = 16 << 20
"""Bound on scores held at once, 64 MiB: a big batch on a big index is searched in parts."""
MAX_DEAD_SHARE, MIN_DEAD_ROWS = 0.25, 1024
"""Rows are swept when more than a quarter, and more than these, are dead: constant cost per mutation."""
GROWTH = 1.5
BYTES_PER_ID = 100
"""What the dictionary keeps for an id: an entry and two numbers."""
SELECTIVE_FILTER = 8
"""A selection of at most one row in so many is copied before it is compared."""
WRITE_ROWS = 4096


class FlatView(NamedTuple):
    """The index at one moment. Rows before `n` are never written again; those in `dead` do not count."""

    vectors: Embeddings
    ids: Ids
    n: int
    dead: Ids

    @property
    def ntotal(self) -> int:
        return self.n - len(self.dead)

    def live(self) -> Ids:
        alive = np.ones(self.n, np.bool_)
        alive[self.dead] = False
        return np.flatnonzero(alive)

    def items(self) -> Iterator[tuple[Ids, Embeddings]]:
        """All ids and their vectors, some thousands at a time."""
        yield from ((self.ids[rows], self.vectors[rows]) for rows in _parts(self))

    def search(self, queries: Embeddings, k: int, among: IdSet | None = None) -> tuple[Scores, Ids]:
        """The answer of `ExactIndex.search` at this moment. The queries are checked already."""
        view = self if among is None else self.only(among)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        found = min(k, view.ntotal)
        if not found:
            return scores, ids
        batch = max(1, BATCH_SCORES // view.n) if len(queries) >= BATCH else 1
        for start in range(0, len(queries), batch):
            part = queries[start : start + batch]
            rough, margins = _rough_scores(view, part)
            for i, query in enumerate(part):
                row = slice(start + i, start + i + 1), slice(0, found)
                scores[row], ids[row] = _best(view, query, rough[i], found, float(margins[i]))
        return scores, ids

    def only(self, among: IdSet) -> FlatView:
        """The view in which no other ids live. Few rows are copied together; else the others count as dead."""
        inside = among.contains(self.ids[: self.n])
        inside[self.dead] = False
        rows = np.flatnonzero(inside)
        if len(rows) <= self.n // SELECTIVE_FILTER:
            return FlatView(self.vectors[rows], self.ids[rows], len(rows), np.empty(0, np.int64))
        return self._replace(dead=np.flatnonzero(~inside))


class FlatIndex:
    """Exact inner-product search over vectors of width `d`, in memory. Implements `Freezable`."""

    kind = "exact"

    def __init__(self, d: int) -> None:
        if d < 1:
            raise ValueError(f"d is {d}, expected 1 or more")
        self._d = d
        self._lock = threading.Lock()  # held by mutations only
        self._rows: dict[int, int] = {}
        self._view: FlatView | None = _empty(d)

    @property
    def d(self) -> int:
        """The width of a vector."""
        return self._d

    @property
    def ntotal(self) -> int:
        """How many ids are inside."""
        return self._current().ntotal

    @property
    def nbytes(self) -> int:
        """Bytes of memory: rows, dead ones too, and a little for each id. Room to grow takes none until it is used."""
        view = self._current()
        return view.n * (4 * self._d + 8) + view.dead.nbytes + BYTES_PER_ID * view.ntotal

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        """Store `vectors` [n, d] under `ids` [n]; a known id is replaced, of one id twice the last counts.

        Raises InvalidVector or InvalidId, and then stores nothing.
        """
        check_ids(ids)
        check_vectors(vectors, self._d)
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        last = dict(zip(ids.tolist(), range(len(ids)), strict=True))
        if len(last) < len(ids):
            pick = np.fromiter(last.values(), np.int64, len(last))
            ids, vectors = ids[pick], vectors[pick]
        with self._lock:
            view = self._with_room(len(ids))
            replaced = [self._rows[id] for id in last if id in self._rows]
            end = view.n + len(ids)
            view.vectors[view.n : end] = vectors
            view.ids[view.n : end] = ids
            self._rows.update(zip(last, range(view.n, end), strict=True))
            self._view = view._replace(n=end, dead=_extended(view.dead, replaced))

    def remove(self, ids: Ids) -> None:
        """Forget `ids` [n]; unknown ones are ignored. No search begun after this returns finds them."""
        check_ids(ids)
        with self._lock:
            view = self._current()
            removed = [self._rows.pop(id) for id in ids.tolist() if id in self._rows]
            self._view = view = view._replace(dead=_extended(view.dead, removed))
            if len(view.dead) > max(MIN_DEAD_ROWS, MAX_DEAD_SHARE * view.n):
                self._move(view, view.ntotal)

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best of all vectors for each of `queries` [n, d]: scores [n, k] and ids [n, k].

        Best first, equal scores by lower id, padded with -inf and -1. Of `params` only `among` counts here.
        """
        check_queries(queries, self._d)
        if k < 0:
            raise ValueError(f"k is {k}, expected 0 or more")
        return self._current().search(queries, k, None if params is None else params.among)

    def view(self) -> FlatView:
        """The contents now: mutations that come later do not reach it."""
        return self._current()

    def freeze(self) -> FrozenIndex:
        """The contents now, without copying: mutations go on while it is written."""
        view = self._current()
        shape = (view.ntotal, self._d)

        def write_ids(sink: Sink) -> None:
            write_array(sink, np.int64, shape[:1], (view.ids[rows] for rows in _parts(view)))

        def write_vectors(sink: Sink) -> None:
            write_array(sink, np.float32, shape, (view.vectors[rows] for rows in _parts(view)))

        files = {"ids.npy": write_ids, "vectors.npy": write_vectors}
        return FrozenIndex(self.kind, self._d, view.ntotal, files)

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
        index._view = FlatView(vectors, ids, len(ids), np.empty(0, np.int64))
        return index

    def close(self) -> None:
        """Let go of the memory. Searches under way finish."""
        with self._lock:
            self._view = None
            self._rows = {}

    def _current(self) -> FlatView:
        view = self._view
        if view is None:
            raise IndexClosed("the index is closed")
        return view

    def _with_room(self, count: int) -> FlatView:
        view = self._current()
        if view.n + count <= len(view.vectors):
            return view
        return self._move(view, max(view.ntotal + count, int(view.ntotal * GROWTH), MIN_DEAD_ROWS))

    def _move(self, view: FlatView, capacity: int) -> FlatView:
        """Copy the live rows into new arrays; searches keep the old ones as long as they need them."""
        vectors = np.empty((capacity, self._d), np.float32)
        ids = np.empty(capacity, np.int64)
        n = 0
        for rows in _parts(view):
            block = view.ids[rows]
            vectors[n : n + len(block)] = view.vectors[rows]
            ids[n : n + len(block)] = block
            n += len(block)
        self._rows = dict(zip(ids[:n].tolist(), range(n), strict=True))
        self._view = view = FlatView(vectors, ids, n, np.empty(0, np.int64))
        return view


def _empty(d: int) -> FlatView:
    return FlatView(np.empty((0, d), np.float32), np.empty(0, np.int64), 0, np.empty(0, np.int64))


def _extended(dead: Ids, rows: list[int]) -> Ids:
    return np.concatenate([dead, np.array(rows, np.int64)]) if rows else dead


def _parts(view: FlatView) -> Iterator[Ids | slice]:
    """The live rows, a few thousand at a time, so that no copy of everything is ever made."""
    if not len(view.dead):
        yield from (slice(i, min(i + WRITE_ROWS, view.n)) for i in range(0, view.n, WRITE_ROWS))
        return
    live = view.live()
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


def _best(view: FlatView, query: Embeddings, rough: Scores, k: int, margin: float) -> tuple[Scores, Ids]:
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
