"""Reconciler: finds and mends what a remote engine has otherwise than the log says.

A pass reads the log from its start, a block at a time, and compares digests: what the engine lacks or has
otherwise is given to it again, what was removed is removed again. Then the counts must agree; where the engine
has more, its ids are walked through and those that the log does not know are removed. A pass is made after each
start, after each new connection, when the counts or the place in the log differ, and once a day. It is cut into
short steps on the follower's thread, between which new entries are applied.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from index.errors import RemoteEmptied
from index.idset import MAX_ID
from index.milvus import MilvusIndex
from index.milvus_collection import ID_BLOCK, hash_vectors
from index.types import LogEntry, Op

log = logging.getLogger(__name__)

BLOCK_ENTRIES = 4096
"""Entries compared in one step."""
CHECK_SECONDS, PASS_SECONDS = 10.0, 86_400.0

Read = Callable[[int, int], Sequence[LogEntry]]


class Reconciler:
    """Keeps the contents of `index` equal to the log. All methods belong to the follower's thread.

    The log must have one entry for an id at most, its newest. It needs a byte for each id up to the largest: ids
    are numbered through, as a database numbers its rows.
    """

    def __init__(self, index: MilvusIndex, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._name = name
        self._clock = clock
        self._epoch = index.epoch
        # Nobody else can reach a Milvus Lite in this process, and it counts by walking through its rows.
        self._every = math.inf if index.alone else CHECK_SECONDS
        self._checked = self._passed = clock()
        self._pass: _Pass | None = _Pass(index)

    def tend(self, read: Read, applied_seq: int) -> bool:
        """One step, if one is due; whether there is more to do at once. Raises EngineUnavailable."""
        now = self._clock()
        try:
            # Also while others say that it is away: then this raises, and the follower goes on asking.
            if self._index.away or now - self._checked >= self._every or self._index.epoch != self._epoch:
                self._check(now)
            if self._pass is None:
                return False
            if not self._pass.step(read):
                return True
            self._index.keep(applied_seq)
        except RemoteEmptied:
            self._checked = -math.inf  # look at once what is there
            raise
        self._index.whole = True
        if mended := self._pass.mended:
            log.warning("%s was not as the log says: %d vectors put or removed again", self._name, mended)
        self._pass, self._passed = None, now
        return False

    def _check(self, now: float) -> None:
        epoch = self._index.epoch
        intact = self._index.intact()
        if not intact:
            self._index.whole = False
            log.warning("%s: the engine does not have what was put there; searches wait until it has", self._name)
            self._index.open()
        due = now - self._passed >= PASS_SECONDS or not self._index.whole
        if not intact or epoch != self._epoch or (due and self._pass is None):
            self._pass = _Pass(self._index)
        self._epoch, self._checked = epoch, now


class _Pass:
    """One comparison of everything."""

    def __init__(self, index: MilvusIndex) -> None:
        self._index = index
        self._after = 0
        self._live = np.zeros(ID_BLOCK, np.bool_)
        self._walk: int | None = None
        self.mended = 0

    def step(self, read: Read) -> bool:
        """Go on by a block; whether that was the last. Entries may be ahead of those that were applied: no harm."""
        entries = read(self._after, BLOCK_ENTRIES)
        if entries:
            self._compare(entries)
            self._after = entries[-1].seq
            if len(entries) == BLOCK_ENTRIES:
                return False
        return self._index.recount() == np.count_nonzero(self._live) or self._expel()

    def _compare(self, entries: Sequence[LogEntry]) -> None:
        """Make the engine have what these entries say. An id has no newer entry than the last one here."""
        last = {entry.id: entry for entry in entries if 0 <= entry.id <= MAX_ID}
        ids = np.fromiter(last, np.int64, len(last))
        has = self._index.table.digests(ids) if len(ids) else {}
        added = [entry for entry in last.values() if entry.op is Op.ADD and _fits(entry, self._index.d)]
        removed = np.array([entry.id for entry in last.values() if entry.op is Op.REMOVE], np.int64)
        self._room(int(ids.max(initial=0)))
        if added:
            vectors = np.stack([entry.vector for entry in added if entry.vector is not None])
            wanted = hash_vectors(vectors)
            numbers = np.array([entry.id for entry in added], np.int64)
            self._live[numbers] = True
            wrong = np.array(
                [has.get(id) != digest for id, digest in zip(numbers.tolist(), wanted.tolist(), strict=True)]
            )
            if wrong.any():
                self._index.add(numbers[wrong], vectors[wrong])
                self.mended += int(wrong.sum())
        self._live[removed] = False
        still = np.array([id for id in removed.tolist() if id in has], np.int64)
        if len(still):
            self._index.remove(still)
            self.mended += len(still)

    def _expel(self) -> bool:
        """Look for rows that the log does not know, a block of ids at a time; whether that was the last."""
        top = len(self._live)
        low = self._walk or 0
        if low < top:
            found = self._index.table.between(low, low + ID_BLOCK)
            foreign = found[~self._live[np.minimum(found, top - 1)] | (found >= top)]
            self._walk = low + ID_BLOCK
        else:
            foreign = self._index.table.outside(low)
            if not len(foreign):
                return True
        if len(foreign):
            self._index.expel(foreign)
            self.mended += len(foreign)
        return False

    def _room(self, largest: int) -> None:
        if largest >= len(self._live):
            grown = np.zeros(-(-2 * (largest + 1) // ID_BLOCK) * ID_BLOCK, np.bool_)
            grown[: len(self._live)] = self._live
            self._live = grown


def _fits(entry: LogEntry, d: int) -> bool:
    return entry.vector is not None and entry.vector.shape == (d,)
