"""SegmentedIndex: a sealed segment, a growing segment, and which rows of the sealed one are dead.

Vectors that came after the sealed segment was built are in the growing one, a flat index in memory. What was removed or
replaced since is dead in the sealed segment: one bit a row. A search takes one view of all three, asks both segments
and merges the answers. As in `flat`, a mutation publishes a new view, and a search needs no lock.

Without a sealed segment everything is in the growing one: a flat index of whole vectors, right to the last bit. With
one, vectors are rounded to half precision in both, so that no score moves when a vector goes from one into the other:
a score is the inner product of the query with the rounded vector (off by at most 2^-11 of the query's length), and the
lower id comes first among equal scores.

Another process builds a new sealed segment, from the log. `begin_rebuild` starts to record which ids change; a segment
that holds the log up to any entry written after that replaces the old one by `replace_segment`: the growing segment
keeps what was recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.errors import IndexClosed
from index.flat import FlatIndex, FlatView
from index.float16 import round_to_float16
from index.idset import Bitmap, IdSet
from index.protocol import Effort, FrozenIndex, SearchParams
from index.sealed_segment import EFFORTS, SEGMENT_FORMAT, AllowedRows, Depth, SealedSegment
from index.topk import merge_top_k
from index.types import Embeddings, Ids, Scores
from index.validation import check_batch, check_search

MAX_SEARCH_EFFORT = 16


@dataclass(frozen=True, slots=True)
class SegmentedStats:
    """What a segmented index consists of now: vectors in each segment, dead rows, and how it is searched.

    The recall of a depth is what calibration measured, without the search effort.
    """

    kind: str
    ntotal: int
    sealed: int
    growing: int
    tombstones: int
    depths: Mapping[Effort, Depth]
    search_effort: int
    is_outdated: bool = False  # whether the sealed segment is of an older format

    @property
    def nprobe(self) -> int | None:
        return self.depths["normal"].nprobe if self.depths else None

    @property
    def refine_k(self) -> int | None:
        return self.depths["normal"].refine_k if self.depths else None


@dataclass(frozen=True, slots=True)
class RebuildPolicy:
    """When a new sealed segment is worth building.

    Never up to `least` vectors: comparing them all is as quick. Else when the growing segment is longer than `growing`
    or `growing_share` of all, whichever is more; after `quiet` seconds without a change these are `quiet_growing` and
    `quiet_share`, and a sealed segment of an older format is replaced. Dead rows count from `dead_share` of the sealed
    segment on. Each new segment is larger than the one before by a share, so the work of growing to n is a multiple of
    building n once, about 1 / `growing_share`.
    """

    least: int = 50_000
    growing: int = 20_000
    growing_share: float = 1 / 16
    quiet_growing: int = 2_000
    quiet_share: float = 1 / 128
    dead_share: float = 0.2
    quiet: float = 60.0

    def is_due(self, stats: SegmentedStats, unchanged: float) -> bool:
        """Whether to build, `unchanged` seconds after the last change."""
        if not stats.sealed:
            return stats.ntotal > self.least
        few, share = (
            (self.quiet_growing, self.quiet_share) if unchanged >= self.quiet else (self.growing, self.growing_share)
        )
        if stats.ntotal and stats.growing > max(few, share * stats.ntotal):
            return True
        if stats.is_outdated and unchanged >= self.quiet:
            return True
        return stats.ntotal > 0 and stats.tombstones > max(few, self.dead_share * stats.sealed)


class _View(NamedTuple):
    """The index at one moment. `alive` has a bit for each row of the sealed segment."""

    sealed: SealedSegment | None
    alive: Bitmap
    dead: int
    growing: FlatView

    @property
    def ntotal(self) -> int:
        return (self.sealed.n - self.dead if self.sealed else 0) + self.growing.ntotal


class SegmentedIndex:
    """A sealed and a growing segment; implements `VectorIndex`. Its files close with the last search."""

    def __init__(self, d: int, sealed: SealedSegment | None = None, growing: FlatIndex | None = None) -> None:
        self.d = d
        self._lock = threading.Lock()  # held by mutations only
        self._growing = growing or FlatIndex(d)
        self._recorded: set[int] | None = None
        self.search_effort = 0  # how often nprobe and refine_k of a search are doubled; 0: as calibrated
        self._changed_at = time.monotonic()
        self._view: _View | None = _make_view(sealed, self._growing)

    @property
    def ntotal(self) -> int:
        return self._current().ntotal

    @property
    def nbytes(self) -> int:
        """Bytes of memory: the growing segment, and of the sealed one what is not mapped."""
        view = self._current()
        return self._growing.nbytes + view.alive.nbytes + (view.sealed.nbytes if view.sealed else 0)

    def set_search_effort(self, effort: int) -> None:
        """Search with 2^`effort` times the calibrated nprobe and refine_k, up to all there are."""
        self.search_effort = min(max(effort, 0), MAX_SEARCH_EFFORT)

    @property
    def exact(self) -> bool:
        """Whether every vector is compared now, because there is no sealed segment. A closed index answers, too."""
        view = self._view
        return view is None or view.sealed is None

    @property
    def sealed(self) -> SealedSegment | None:
        """The sealed segment that answers now."""
        return self._current().sealed

    @property
    def kind(self) -> str:
        """What searches it now: "exact", or "base+tail" for a sealed and a growing segment."""
        return self.stats().kind

    def stats(self) -> SegmentedStats:
        view, effort = self._current(), self.search_effort
        sealed, growing = view.sealed, view.growing.ntotal
        if sealed is None:
            return SegmentedStats("exact", view.ntotal, 0, growing, 0, {}, effort)
        params = sealed.params
        depths: dict[Effort, Depth] = {}
        for name in EFFORTS:
            depth = params.get_depth(name)
            nprobe, refine_k = min(params.nlist, depth.nprobe << effort), min(sealed.n, depth.refine_k << effort)
            depths[name] = Depth(nprobe, refine_k, depth.recall)
        return SegmentedStats(
            "base+tail", view.ntotal, sealed.n, growing, view.dead, depths, effort, params.format < SEGMENT_FORMAT
        )

    def seconds_unchanged(self) -> float:
        """Seconds since the last change."""
        return time.monotonic() - self._changed_at

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        check_batch(ids, vectors, self.d)
        with self._lock:
            view = self._current()
            self._growing.add(ids, vectors if view.sealed is None else round_to_float16(vectors))
            self._publish(view, ids)

    def remove(self, ids: Ids) -> None:
        with self._lock:
            view = self._current()
            self._growing.remove(ids)
            self._publish(view, ids)

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d]: scores [n, k] and ids [n, k]; see `VectorIndex.search`.

        With a sealed segment these are the best as far as the search effort shows, all of them with `exact`.
        Raises SegmentDamaged when the disk gives other vectors than were written.
        """
        check_search(queries, k, self.d)
        view, params = self._current(), params or SearchParams()
        recent = view.growing.search(queries, k, params.allowed_ids)
        sealed = view.sealed
        if sealed is None or not k or not len(queries):
            return recent
        allowed = _allowed_rows(view, sealed, params.allowed_ids)
        if params.exact:
            return merge_top_k(sealed.search_exact(queries, k, allowed), recent)
        depth = sealed.params.get_depth(params.effort)
        nprobe = params.nprobe or depth.nprobe << self.search_effort
        refine_k = params.refine_k or depth.refine_k << self.search_effort
        older = sealed.search(queries, k, min(nprobe, sealed.params.nlist), min(refine_k, sealed.n), allowed)
        return merge_top_k(older, recent)

    def freeze(self) -> FrozenIndex | None:
        """The contents now, while there is no sealed segment; that is on the disk already, and the log has the rest."""
        return self._growing.freeze() if self._current().sealed is None else None

    def begin_rebuild(self) -> None:
        """Start to record which ids change."""
        with self._lock:
            self._current()
            self._recorded = set()

    def end_rebuild(self) -> None:
        """Record no more: no new segment comes."""
        with self._lock:
            self._recorded = None

    def replace_segment(self, sealed: SealedSegment) -> None:
        """Go on with `sealed`, which holds the log up to some moment since `begin_rebuild`, and what changed since.

        No search sees a mixture. Raises RuntimeError without `begin_rebuild`.
        """
        with self._lock:
            view = self._current()
            if self._recorded is None:
                raise RuntimeError("replace_segment without begin_rebuild")
            changed = np.fromiter(self._recorded, np.int64, len(self._recorded))
            growing = FlatIndex(self.d)
            for ids, vectors in view.growing.items():
                # An id that the new segment lacks stays here, whatever the reason.
                kept = np.isin(ids, changed) | ~np.isin(ids, sealed.find_known(ids))
                growing.add(ids[kept], round_to_float16(vectors[kept]))
            self._growing, self._recorded = growing, None
            self._view = _kill_rows(_make_view(sealed, growing), changed, growing.view())

    def close(self) -> None:
        """Let go of memory and files. Searches under way finish."""
        with self._lock:
            self._view = None
            self._recorded = None
            self._growing.close()

    def _current(self) -> _View:
        view = self._view
        if view is None:
            raise IndexClosed("the index is closed")
        return view

    def _publish(self, view: _View, changed: Ids) -> None:
        if self._recorded is not None:
            self._recorded.update(changed.tolist())
        self._changed_at = time.monotonic()
        self._view = _kill_rows(view, changed, self._growing.view())


def _make_view(sealed: SealedSegment | None, growing: FlatIndex) -> _View:
    """All rows of `sealed` alive."""
    alive = np.packbits(np.ones(sealed.n if sealed else 0, np.bool_), bitorder="little")
    return _View(sealed, alive, 0, growing.view())


def _kill_rows(view: _View, changed: Ids, growing: FlatView) -> _View:
    """The view in which the sealed rows of `changed` are dead and the growing segment is another."""
    if view.sealed is None:
        return view._replace(growing=growing)
    rows = np.unique(view.sealed.find_rows(changed))
    bits = np.left_shift(1, rows & 7).astype(np.uint8)
    dying = (view.alive[rows >> 3] & bits) != 0
    if not dying.any():
        return view._replace(growing=growing)
    alive = view.alive.copy()
    np.bitwise_and.at(alive, rows[dying] >> 3, ~bits[dying])
    return view._replace(alive=alive, dead=view.dead + int(dying.sum()), growing=growing)


def _allowed_rows(view: _View, sealed: SealedSegment, allowed_ids: IdSet | None) -> AllowedRows | None:
    """The rows of the sealed segment that a search may find; None: all of them."""
    if allowed_ids is None:
        return AllowedRows(view.alive, sealed.n - view.dead) if view.dead else None
    bits = sealed.map_to_rows(allowed_ids) & view.alive
    return AllowedRows(bits, int(np.bitwise_count(bits).sum(dtype=np.int64)))
