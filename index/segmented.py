"""LiveIndex: a sealed base, what came since, and what is gone.

Vectors that came since the base was built lie in the tail, an exact index in memory. What was removed or
replaced is dead in the base: one bit a row. A search takes one moment of all three, asks base and tail, and
merges. As in `exact`, a mutation publishes a new moment and a search needs no lock.

While there is no base everything is in the tail: an exact index of whole vectors, right to the last bit. With a
base, vectors are rounded to half precision, in the tail as in the base, so that no score moves when a vector
goes from one into the other: a score is the inner product of the query with the rounded vector (off by at most
2^-11 of the query's length), and equal scores are ordered by the lower id.

A new base is built elsewhere, from the log. `mark` begins to remember which ids change; a base that holds the log
up to any entry written after that replaces the old one by `rebase`: the tail keeps what was remembered.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.errors import IndexClosed
from index.flat import FlatIndex, FlatView
from index.float16 import round_to_float16
from index.idset import Bitmap, IdSet
from index.protocol import FrozenIndex, SearchParams
from index.sealed_segment import AllowedRows, SealedSegment
from index.topk import merge_top_k
from index.types import Embeddings, Ids, Scores
from index.validation import check_ids, check_queries, check_vectors

MAX_SEARCH_EFFORT = 16


@dataclass(frozen=True, slots=True)
class SegmentedStats:
    """What a live index consists of now. Without a base everything is tail."""

    kind: str
    ntotal: int
    base: int
    tail: int
    tombstones: int
    probes: int | None
    rerank: int | None
    effort: int
    recall: float | None
    """What was found when the base was built; see `base.Facts`."""


@dataclass(frozen=True, slots=True)
class RebuildPolicy:
    """When a new base is worth its building.

    Up to `least` vectors none is: comparing them all is as quick. Else when the tail is longer than `tail` or
    `tail_share` of all, whichever is more; after `quiet` seconds without a change these are `calm` and
    `calm_share`. Dead rows count from `dead_share` of the base on. Each new base is larger than the one before by
    a share, so the work of growing to n is a multiple of building n once, about 1 / `tail_share`.
    """

    least: int = 50_000
    tail: int = 20_000
    tail_share: float = 1 / 16
    calm: int = 2_000
    calm_share: float = 1 / 128
    dead_share: float = 0.2
    quiet: float = 60.0

    def due(self, facts: SegmentedStats, still: float) -> bool:
        """Whether to build, `still` seconds after the last change."""
        if not facts.base:
            return facts.ntotal > self.least
        few, share = (self.calm, self.calm_share) if still >= self.quiet else (self.tail, self.tail_share)
        if facts.ntotal and facts.tail > max(few, share * facts.ntotal):
            return True
        return facts.ntotal > 0 and facts.tombstones > max(few, self.dead_share * facts.base)


class _Moment(NamedTuple):
    """The index at one moment. `alive` has a bit for each row of the base."""

    base: SealedSegment | None
    alive: Bitmap
    dead: int
    tail: FlatView

    @property
    def ntotal(self) -> int:
        return (self.base.n - self.dead if self.base else 0) + self.tail.ntotal


class SegmentedIndex:
    """A base with a tail; implements `VectorIndex`. Closing it gives the base's files back with the last search."""

    def __init__(self, d: int, base: SealedSegment | None = None, tail: FlatIndex | None = None) -> None:
        self._d = d
        self._lock = threading.Lock()  # held by mutations only
        self._tail = tail or FlatIndex(d)
        self._marked: set[int] | None = None
        self._effort = 0
        self._changed = time.monotonic()
        self._moment: _Moment | None = _begin(base, self._tail)

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
        """Bytes of memory: the tail, and of the base what is not mapped."""
        moment = self._current()
        return self._tail.nbytes + moment.alive.nbytes + (moment.base.nbytes if moment.base else 0)

    @property
    def effort(self) -> int:
        """How often the probes and the depth that a search is done with were doubled; 0: as calibrated."""
        return self._effort

    def set_effort(self, effort: int) -> None:
        """Search with 2^`effort` times the calibrated probes and depth, up to all there are."""
        self._effort = min(max(effort, 0), MAX_SEARCH_EFFORT)

    @property
    def exact(self) -> bool:
        """Whether every vector is compared now, because there is no base. Can be asked of a closed one, too."""
        moment = self._moment
        return moment is None or moment.base is None

    @property
    def base(self) -> SealedSegment | None:
        """The base that answers now."""
        return self._current().base

    @property
    def kind(self) -> str:
        """What searches it now: "exact", or "base+tail"."""
        return self.facts().kind

    def facts(self) -> SegmentedStats:
        """What it consists of."""
        moment, effort = self._current(), self._effort
        base = moment.base
        if base is None:
            return SegmentedStats("exact", moment.ntotal, 0, moment.tail.ntotal, 0, None, None, effort, None)
        return SegmentedStats(
            "base+tail",
            moment.ntotal,
            base.n,
            moment.tail.ntotal,
            moment.dead,
            min(base.facts.lists, base.facts.probes << effort),
            min(base.n, base.facts.rerank << effort),
            effort,
            base.facts.recall,
        )

    def still(self) -> float:
        """Seconds since the last change."""
        return time.monotonic() - self._changed

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        """Store `vectors` [n, d] under `ids` [n]; a known id is replaced, of one id twice the last counts.

        Raises InvalidVector or InvalidId, and then stores nothing.
        """
        check_ids(ids)
        check_vectors(vectors, self._d)
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        with self._lock:
            moment = self._current()
            self._tail.add(ids, vectors if moment.base is None else round_to_float16(vectors))
            self._publish(moment, ids)

    def remove(self, ids: Ids) -> None:
        """Forget `ids` [n]; unknown ones are ignored. No search begun after this returns finds them."""
        check_ids(ids)
        with self._lock:
            moment = self._current()
            self._tail.remove(ids)
            self._publish(moment, ids)

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d]: scores [n, k] and ids [n, k]; see `VectorIndex.search`.

        With a base these are the best as far as the effort of the search shows, all of them with `exact`.
        Raises BaseDamaged when the disk gives other vectors than were written.
        """
        check_queries(queries, self._d)
        if k < 0:
            raise ValueError(f"k is {k}, expected 0 or more")
        moment, params = self._current(), params or SearchParams()
        recent = moment.tail.search(queries, k, params.among)
        base = moment.base
        if base is None or not k or not len(queries):
            return recent
        allowed = _allowed(moment, params.among)
        if params.exact:
            return merge_top_k(base.exact(queries, k, allowed), recent)
        probes = params.probes or base.facts.probes << self._effort
        rerank = params.rerank or base.facts.rerank << self._effort
        found = base.search(queries, k, min(probes, base.facts.lists), min(rerank, base.n), allowed)
        return merge_top_k(found, recent)

    def freeze(self) -> FrozenIndex | None:
        """The contents now, while there is no base; the base is kept already, and the log has the rest."""
        moment = self._current()
        return self._tail.freeze() if moment.base is None else None

    def mark(self) -> None:
        """Begin to remember which ids change."""
        with self._lock:
            self._current()
            self._marked = set()

    def unmark(self) -> None:
        """Remember no longer: no new base comes."""
        with self._lock:
            self._marked = None

    def rebase(self, base: SealedSegment) -> None:
        """Go on with `base`, which holds what the log held at some moment since `mark`, and what changed since then.

        No search sees a mixture. Raises RuntimeError without `mark`.
        """
        with self._lock:
            moment = self._current()
            if self._marked is None:
                raise RuntimeError("rebase without mark")
            marked = np.fromiter(self._marked, np.int64, len(self._marked))
            tail = FlatIndex(self._d)
            for ids, vectors in moment.tail.items():
                # An id that the new base lacks stays here, whatever the reason.
                kept = np.isin(ids, marked) | ~np.isin(ids, base.known(ids))
                tail.add(ids[kept], round_to_float16(vectors[kept]))
            self._tail, self._marked = tail, None
            self._moment = _without(_begin(base, tail), marked, tail.view())

    def close(self) -> None:
        """Let go of memory and files. Searches under way finish."""
        with self._lock:
            self._moment = None
            self._marked = None
            self._tail.close()

    def _current(self) -> _Moment:
        moment = self._moment
        if moment is None:
            raise IndexClosed("the index is closed")
        return moment

    def _publish(self, moment: _Moment, changed: Ids) -> None:
        if self._marked is not None:
            self._marked.update(changed.tolist())
        self._changed = time.monotonic()
        self._moment = _without(moment, changed, self._tail.view())


def _begin(base: SealedSegment | None, tail: FlatIndex) -> _Moment:
    """All rows of `base` alive."""
    alive = np.packbits(np.ones(base.n if base else 0, np.bool_), bitorder="little")
    return _Moment(base, alive, 0, tail.view())


def _without(moment: _Moment, changed: Ids, tail: FlatView) -> _Moment:
    """The moment in which the rows of `changed` are dead and the tail is another."""
    if moment.base is None:
        return moment._replace(tail=tail)
    rows = np.unique(moment.base.rows(changed))
    bits = np.left_shift(1, rows & 7).astype(np.uint8)
    dying = (moment.alive[rows >> 3] & bits) != 0
    if not dying.any():
        return moment._replace(tail=tail)
    alive = moment.alive.copy()
    np.bitwise_and.at(alive, rows[dying] >> 3, ~bits[dying])
    return moment._replace(alive=alive, dead=moment.dead + int(dying.sum()), tail=tail)


def _allowed(moment: _Moment, among: IdSet | None) -> AllowedRows | None:
    """The rows of the base that a search may find; None: all of them."""
    if moment.base is None or (among is None and not moment.dead):
        return None
    if among is None:
        return AllowedRows(moment.alive, moment.base.n - moment.dead)
    bits = moment.base.among(among) & moment.alive
    return AllowedRows(bits, int(np.bitwise_count(bits).sum(dtype=np.int64)))
