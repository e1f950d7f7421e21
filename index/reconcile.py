"""Reconciler: finds and repairs what Milvus has otherwise than the log says.

A pass reads the log from its start, a block at a time, and compares digests: it puts again what Milvus lacks or has
otherwise, and removes again what was removed. Then the counts must agree; where Milvus has more, the pass walks through
its ids and removes orphans, which the log does not know. A pass follows each start, each new connection, and any
difference of the counts or of the checkpoint; besides, there is one a day. It consists of short steps on the follower's
thread, between which the follower applies new entries.
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
from index.protocol import LogReader
from index.types import LogEntry, Op

log = logging.getLogger(__name__)

BLOCK_ENTRIES = 4096
"""Entries that one step compares."""
CHECK_SECONDS, PASS_SECONDS = 10.0, 86_400.0


class Reconciler:
    """Keeps the contents of `index` equal to the log. All methods belong to the follower's thread.

    The log must have at most one entry for an id, its newest. A pass takes a byte for each id up to the largest: ids
    are consecutive, as a database numbers its rows.
    """

    def __init__(self, index: MilvusIndex, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._name = name
        self._clock = clock
        self._epoch = index.client.epoch
        # No other process can reach a Milvus Lite, and it counts by walking through its rows.
        self._every = math.inf if index.client.address.is_lite else CHECK_SECONDS
        self._checked = self._passed = clock()
        self._pass: _Pass | None = _Pass(index)

    def maintain(self, entries: LogReader, applied_seq: int) -> bool:
        """One step, if one is due; whether there is more to do at once. Raises RemoteUnavailable."""
        now = self._clock()
        try:
            # Also while Milvus is away: then this raises, and the follower repeats it.
            if (
                self._index.client.is_away
                or now - self._checked >= self._every
                or self._index.client.epoch != self._epoch
            ):
                self._check(now)
            if self._pass is None:
                return False
            if not self._pass.step(entries):
                return True
            self._index.write_checkpoint(applied_seq)
        except RemoteEmptied:
            self._checked = -math.inf  # check at once what is there
            raise
        self._index.is_complete = True
        if repaired := self._pass.repaired:
            log.warning("%s differed from the log: put or removed %d vectors again", self._name, repaired)
        self._pass, self._passed = None, now
        return False

    def _check(self, now: float) -> None:
        epoch = self._index.client.epoch
        intact = self._index.check_contents()
        if not intact:
            self._index.is_complete = False
            log.warning("%s: Milvus lacks vectors that were put there; searches wait until it has them", self._name)
            self._index.open()
        due = now - self._passed >= PASS_SECONDS or not self._index.is_complete
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
        self.repaired = 0

    def step(self, log: LogReader) -> bool:
        """Compare one more block; whether that was the last. Entries that are not applied yet do no harm."""
        entries = log.read(self._after, BLOCK_ENTRIES)
        if entries:
            self._compare(entries)
            self._after = entries[-1].seq
            if len(entries) == BLOCK_ENTRIES:
                return False
        return self._index.recount() == np.count_nonzero(self._live) or self._remove_orphans()

    def _compare(self, entries: Sequence[LogEntry]) -> None:
        """Make Milvus have what these entries say. An id has no newer entry than the last one here."""
        last = {entry.id: entry for entry in entries if 0 <= entry.id <= MAX_ID}
        ids = np.fromiter(last, np.int64, len(last))
        has = self._index.collection.read_digests(ids) if len(ids) else {}
        shape = (self._index.d,)
        added = [
            one for one in last.values() if one.op is Op.ADD and one.vector is not None and one.vector.shape == shape
        ]
        removed = np.array([entry.id for entry in last.values() if entry.op is Op.REMOVE], np.int64)
        self._grow(int(ids.max(initial=0)))
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
                self.repaired += int(wrong.sum())
        self._live[removed] = False
        still = np.array([id for id in removed.tolist() if id in has], np.int64)
        if len(still):
            self._index.remove(still)
            self.repaired += len(still)

    def _remove_orphans(self) -> bool:
        """Remove rows that the log does not know, a block of ids at a time; whether that was the last."""
        top = len(self._live)
        low = self._walk or 0
        if low < top:
            found = self._index.collection.list_ids(low, low + ID_BLOCK)
            orphans = found[~self._live[np.minimum(found, top - 1)] | (found >= top)]
            self._walk = low + ID_BLOCK
        else:
            orphans = self._index.collection.list_ids_outside(low)
            if not len(orphans):
                return True
        if len(orphans):
            self._index.remove_orphans(orphans)
            self.repaired += len(orphans)
        return False

    def _grow(self, largest: int) -> None:
        if largest >= len(self._live):
            grown = np.zeros(-(-2 * (largest + 1) // ID_BLOCK) * ID_BLOCK, np.bool_)
            grown[: len(self._live)] = self._live
            self._live = grown
