"""Follower: keeps an index equal to the log from which it is derived.

A step reads what is new in the log, folds each batch to the last entry of each id, applies it, and only then moves
`applied_seq`. The follower repeats what fails for ever, more and more rarely, and shows it in `error`; it skips and
counts an entry that can never be applied. Where the log is not the one any more that it has followed, it stops. The
thread that steps the follower also freezes the index for a snapshot, so contents and `applied_seq` always belong
together; another thread writes the snapshot, so a slow disk does not keep removed vectors in the answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np

from index.errors import InvalidId, InvalidLog, InvalidVector, LogReplaced
from index.protocol import LogReader, OpenedIndex
from index.snapshot_scheduler import SnapshotPolicy, SnapshotScheduler
from index.types import Embeddings, Ids, LogEntry, Op
from index.validation import has_unit_length

log = logging.getLogger(__name__)

BATCH_ENTRIES = 4096
"""Entries read at once; at 512 dimensions 8 MiB."""
BATCHES_PER_STEP = 4
"""So much of one log at a time, then it is the others' turn."""
RETRY_FIRST, RETRY_LAST = 0.05, 2.0
MAINTAIN_SECONDS = 0.5
"""Seconds between two steps of an index that needs maintenance."""
WATCH_SECONDS = 0.2
"""Seconds between two looks how far another process is."""
SAVE_CHECK_SECONDS = 1.0
"""Seconds between two checks whether it is time to save."""


class Follower:
    """Applies `entries` to the index, in order, from the entry after `opened.applied_seq` on.

    Somebody calls `step` again and again, one thread at a time: usually a `FollowerLoop`. Nothing else may mutate the
    index. `on_notify` is called by `notify`; the loop sets it, so that it steps a follower that somebody waits for.
    """

    def __init__(
        self,
        opened: OpenedIndex,
        entries: LogReader,
        name: str,
        policy: SnapshotPolicy | None = None,
        batch: int = BATCH_ENTRIES,
        may_write: Callable[[], bool] = lambda: True,
        on_outdated: Callable[[], None] = lambda: None,
    ) -> None:
        """While not `may_write()`, another process applies the log to this index, which is elsewhere: this follower
        only takes over how far that is. Calls `on_outdated` when it stops for good."""
        self._may_write = may_write
        self._watch = opened.watch
        self._index = opened.index
        self._log = entries
        entries.mark = opened.mark
        self._on_outdated = on_outdated
        # Whether the log has entries other than those that are in the index: then close this, and open it anew.
        self.is_outdated = False
        self._name = name
        self._batch = batch
        self._maintain = opened.maintain
        # The last log entry that is in the index; searches begun after reading it see its effect.
        self.applied_seq = opened.applied_seq
        freeze = opened.freeze
        self._scheduler = (
            SnapshotScheduler(
                lambda seq: freeze(seq, entries.mark), policy or SnapshotPolicy(), name, opened.applied_seq
            )
            if freeze
            else None
        )
        self._retry = RETRY_FIRST
        self.skipped = 0  # entries that never can be applied: wrong width, not finite, not of unit length
        self.error: Exception | None = None  # what keeps the log from being applied now
        self._closed = False
        self._moved = threading.Condition()  # guards applied_seq and closed
        self.on_notify: Callable[[], None] | None = None

    @property
    def lag(self) -> int:
        """How far the log is ahead, counted in sequence numbers. Raises what reading the log raises."""
        return max(0, self._log.last_seq() - self.applied_seq)

    @property
    def saved_seq(self) -> int:
        """The last log entry in a snapshot that is safely on disk; before the first save, where the follower began."""
        return self._scheduler.saved_seq if self._scheduler else 0

    @property
    def save_error(self) -> Exception | None:
        """Why the last snapshot could not be saved; None after one that could."""
        return self._scheduler.error if self._scheduler else None

    def notify(self) -> None:
        """Ask for a step now. Cheap, from any thread."""
        if self.on_notify is not None:
            self.on_notify()

    def has_applied(self, seq: int) -> bool:
        """Whether entry `seq` is applied."""
        return self.applied_seq >= seq and not self.is_outdated

    def wait_until_applied(self, seq: int, timeout: float) -> bool:
        """Whether entry `seq` is applied, after `timeout` seconds at most; at once after `close`."""
        if not self.has_applied(seq):
            self.notify()
        with self._moved:
            self._moved.wait_for(lambda: self.has_applied(seq) or self._closed, timeout)
            return self.has_applied(seq)

    def close(self, *, save: bool = True) -> None:
        """Save what is unsaved, unless `save` is false. Never call it during a step. The index stays open."""
        with self._moved:
            if self._closed:
                return
            self._closed = True
            self._moved.notify_all()
        if self._scheduler:
            self._scheduler.finish(self.applied_seq, save=save and not self.is_outdated)

    def step(self) -> float | None:
        """Apply some batches of what is new, and begin to save if it is time.

        Returns after how many seconds to call again even if the log has not grown: 0 where more is left, None for
        never. Raises no Exception: the next step repeats what failed.
        """
        if self.is_outdated:
            return None
        try:
            if self._watch is not None and not self._may_write():
                self._move(self._watch())
                self.error, self._retry = None, RETRY_FIRST
                return WATCH_SECONDS
            more = self._apply_batches()
            if self._maintain is not None and self._maintain(self._log, self.applied_seq):
                more = True
        except LogReplaced as error:
            log.warning("follower %s: the log is not the one that it has followed to %d", self._name, self.applied_seq)
            self.error, self.is_outdated = error, True
            self._on_outdated()
            return None
        except Exception as error:
            pause = self._retry
            if self.error is None or pause >= RETRY_LAST:
                log.warning("follower %s: retry in %.2g s", self._name, pause, exc_info=True)
            self.error = error
            self._retry = min(pause * 2, RETRY_LAST)
            return pause
        self.error, self._retry = None, RETRY_FIRST
        if self._scheduler:
            self._scheduler.offer(self.applied_seq, self._index.ntotal)
        if more:
            return 0.0
        if self._maintain is not None:
            return MAINTAIN_SECONDS
        return SAVE_CHECK_SECONDS if self._scheduler and self._scheduler.wants(self.applied_seq) else None

    def _apply_batches(self) -> bool:
        """Apply up to BATCHES_PER_STEP batches; whether more may be left."""
        for _ in range(BATCHES_PER_STEP):
            entries = self._log.read(self.applied_seq, self._batch)
            if entries:
                self._apply(entries)
            if len(entries) < self._batch:
                return False
        return True

    def _apply(self, entries: Sequence[LogEntry]) -> None:
        seqs = np.fromiter((entry.seq for entry in entries), np.int64, len(entries))
        if seqs[0] <= self.applied_seq or (np.diff(seqs) <= 0).any():
            raise InvalidLog(f"seq {seqs.min()} to {seqs.max()}, after {self.applied_seq}, are not rising")
        valid = self._drop_invalid(entries)
        last = {entry.id: entry for entry in valid}
        removed = [entry.id for entry in last.values() if entry.op is Op.REMOVE]
        added = [(entry.id, entry.vector) for entry in last.values() if entry.op is Op.ADD]
        # Removals first: what was deleted should be gone soonest.
        if removed:
            self._index.remove(np.array(removed, np.int64))
        vectors = [vector for _, vector in added if vector is not None]
        if vectors:
            self._add(np.array([id for id, _ in added], np.int64), np.stack(vectors))
        self.skipped += len(entries) - len(valid)
        if self._scheduler:
            self._scheduler.count(len(entries))
        self._move(int(seqs[-1]))

    def _move(self, seq: int) -> None:
        with self._moved:
            self.applied_seq = seq
            self._moved.notify_all()

    def _add(self, ids: Ids, vectors: Embeddings) -> None:
        try:
            self._index.add(ids, vectors)
        except (InvalidVector, InvalidId):
            # This index is stricter than the follower: add one by one, and skip those that it refuses.
            for i in range(len(ids)):
                try:
                    self._index.add(ids[i : i + 1], vectors[i : i + 1])
                except (InvalidVector, InvalidId) as error:
                    self.skipped += 1
                    log.error("follower %s: id %d is skipped: %s", self._name, ids[i], error)

    def _drop_invalid(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """The entries that can be applied. One that cannot leaves what its id had before."""
        d = self._index.d
        shaped = [entry for entry in entries if _is_well_formed(entry, d)]
        vectors = [entry.vector for entry in shaped if entry.vector is not None]
        units = iter(has_unit_length(np.stack(vectors)).tolist() if vectors else [])
        valid = [entry for entry in shaped if entry.vector is None or next(units)]
        if len(valid) < len(entries):
            kept = {entry.seq for entry in valid}
            bad = [entry.seq for entry in entries if entry.seq not in kept]
            log.error("follower %s: %d entries are skipped, seq %s", self._name, len(bad), bad[:10])
        return valid


def _is_well_formed(entry: LogEntry, d: int) -> bool:
    if not 0 <= entry.id < 2**63:
        return False
    if entry.op is Op.REMOVE:
        return entry.vector is None
    vector: object = entry.vector
    return entry.op is Op.ADD and isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.shape == (d,)
