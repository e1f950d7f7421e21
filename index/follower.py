"""Follower: keeps an index equal to the log it is derived from, on a thread of its own or on a driver's.

It sleeps, asks a cheap `changed` whether the database moved, reads what is new, folds a batch to the last
entry of each id, applies it, and only then says so in `applied_seq`. What fails is tried again for ever, more
and more rarely, and shown in `error`; an entry that can never be applied is skipped and counted. Snapshots
are frozen on this thread, the one that mutates, so that contents and `applied_seq` always belong together;
they are written on another, so that a slow disk does not keep what was removed in the answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np

from index.errors import InvalidId, InvalidLog, InvalidVector
from index.protocol import VectorIndex
from index.snapshot_scheduler import SnapshotPolicy, SnapshotScheduler
from index.types import Embeddings, Ids, LogEntry, Op
from index.validation import has_unit_length

log = logging.getLogger(__name__)

ReadLog = Callable[[int, int], Sequence[LogEntry]]
Maintain = Callable[[ReadLog, int], bool]

BATCH_ENTRIES = 4096
"""Entries read at once; at 512 dimensions 8 MiB."""
POLL_GROWTH = 1.05
"""Each look in vain lengthens the wait so much: it stays near a twentieth of the time it has been quiet."""
RETRY_FIRST, RETRY_LAST = 0.05, 2.0
MAINTAIN_SECONDS = 0.5  # seconds between two looks at an index that has upkeep of its own
SAVE_CHECK_SECONDS = 1.0
"""Seconds between two looks whether it is time to save."""


class Follower:
    """Applies a log to `index`, in order, from the entry after `applied_seq` on.

    `read(after_seq, limit)` returns up to `limit` entries with seq > after_seq, rising; gaps are fine.
    `changed()` returns a number that differs once the log may have grown (SQLite's `PRAGMA data_version` on a
    connection that does not write; without it the log is read at every poll). Both are called on the
    follower's thread only. `head()` returns the log's last seq, on the thread that asks for `lag`.
    `poll` and `poll_idle` are seconds between two looks, just after a change and when long idle.
    `start` gives it a thread; without one somebody else calls `step` (see `index.follower_loop`), one thread at a time,
    and `wake` is called where a thread would have been woken.
    `freeze(applied_seq)` captures the index and returns the function that saves it (see `open_index`).
    `tend(read, applied_seq)`, called on the follower's thread after each look, does a short piece of the index's
    own upkeep and returns whether there is more to do at once; what it raises is tried again like the rest.

    Nothing else may mutate the index.
    """

    def __init__(
        self,
        index: VectorIndex,
        read: ReadLog,
        *,
        head: Callable[[], int],
        applied_seq: int = 0,
        name: str = "index",
        changed: Callable[[], int] | None = None,
        freeze: Callable[[int], Callable[[], None] | None] | None = None,
        tend: Maintain | None = None,
        policy: SnapshotPolicy | None = None,
        poll: float = 0.005,
        poll_idle: float = 0.05,
        wake: Callable[[], None] | None = None,
        batch: int = BATCH_ENTRIES,
    ) -> None:
        self._index = index
        self._read = read
        self._head = head
        self._changed = changed
        self._tend = tend
        self._poll, self._poll_idle = poll, poll_idle
        self._delay, self._retry = poll, RETRY_FIRST
        self._tell = wake
        self._batch = batch
        self._name = name
        self._applied_seq = applied_seq
        self._saver = SnapshotScheduler(freeze, policy or SnapshotPolicy(), name, applied_seq) if freeze else None
        self._version: int | None = None
        self._skipped = 0
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._moved = threading.Condition()  # guards applied_seq and the end of the thread
        self._closing = False
        self._saving = True  # at the end
        self._more = False  # to be applied, after as many batches as were asked for
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"follower-{name}", daemon=True)

    @property
    def applied_seq(self) -> int:
        """The last log entry that is in the index; searches begun after reading it see its effect."""
        return self._applied_seq

    @property
    def lag(self) -> int:
        """How far the log is ahead, counted in sequence numbers. Raises what `head` raises."""
        return max(0, self._head() - self._applied_seq)

    @property
    def error(self) -> BaseException | None:
        """What keeps the log from being applied now, or what killed the thread."""
        return self._error

    @property
    def skipped(self) -> int:
        """How many entries could not be applied and never will be: wrong width, not finite, not unit."""
        return self._skipped

    @property
    def saved_seq(self) -> int:
        """The last log entry in a snapshot that is safely on disk; the start's, before the first save."""
        return self._saver.saved_seq if self._saver else 0

    @property
    def save_error(self) -> BaseException | None:
        """Why the last snapshot could not be saved; None after one that could."""
        return self._saver.error if self._saver else None

    def alive(self) -> bool:
        """Whether it follows. Still True while it retries something that fails: look at `error`."""
        return not self._ended and (self._tell is not None or self._thread.is_alive())

    def start(self) -> None:
        """Begin to follow. Once only."""
        self._thread.start()

    def notify(self) -> None:
        """Look at the log now, without waiting for the next poll. Cheap, from any thread."""
        self._wake.set()
        if self._tell is not None:
            self._tell()

    def wait_for(self, seq: int, timeout: float) -> bool:
        """Whether entry `seq` is applied, after `timeout` seconds at most; at once if the thread ended."""
        if self._applied_seq < seq:
            self.notify()
        with self._moved:
            self._moved.wait_for(lambda: self._applied_seq >= seq or self._ended, timeout)
            return self._applied_seq >= seq

    def close(self, *, save: bool = True) -> None:
        """Stop, save what is unsaved unless told not to, join the thread. May be called again. The index stays open.

        Without a thread of its own: after this, `step` must not be called any more.
        """
        self._saving = save
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        elif not self._ended:
            self._run()

    def _run(self) -> None:
        try:
            self._follow()
            if self._saver and self._saving:
                self._saver.finish(self._applied_seq)
            elif self._saver:
                self._saver.abandon()
        except BaseException as error:
            # Not an Exception (those are retried), or a bug of ours: say so and let readiness turn red.
            self._error = error
            log.critical("follower %s died at seq %d", self._name, self._applied_seq, exc_info=True)
        finally:
            with self._moved:
                self._ended = True
                self._moved.notify_all()

    def _follow(self) -> None:
        while not self._closing:
            if self.step() != 0.0:
                self._pause(self._delay)

    def step(self, batches: int | None = None) -> float | None:
        """Apply what there is, or so many batches of it, and save if it is time.

        Returns after how many seconds to come again though nothing is new, None for never. Never raises an
        Exception: what fails is tried again.
        """
        try:
            moved = self._step(batches)
            more = self._tend is not None and self._tend(self._read, self._applied_seq)
        except Exception as error:
            if self._error is None or self._retry >= RETRY_LAST:
                log.warning("follower %s: retry in %.2g s", self._name, self._retry, exc_info=True)
            self._error = error
            self._delay = self._retry
            self._retry = min(self._retry * 2, RETRY_LAST)
            return self._delay
        self._delay = self._poll if moved or self._error else min(self._delay * POLL_GROWTH, self._poll_idle)
        self._error, self._retry = None, RETRY_FIRST
        if self._saver:
            self._saver.offer(self._applied_seq, self._index.ntotal)
        if self._more or more:
            return 0.0
        if self._tend is not None:
            return MAINTAIN_SECONDS
        return SAVE_CHECK_SECONDS if self._saver and self._saver.wants(self._applied_seq) else None

    def _pause(self, seconds: float) -> None:
        # Asked again here because _step may have cleared the wake-up that close() sent.
        if not self._closing:
            self._wake.wait(seconds)

    def _step(self, batches: int | None = None) -> bool:
        """Apply what there is, or so many batches of it; whether there was something."""
        # Cleared and asked before the log is read: what is committed meanwhile shows at the next look.
        notified = self._wake.is_set()
        self._wake.clear()
        version = self._changed() if self._changed else None
        if not notified and version is not None and version == self._version:
            return False
        self._version = None  # until the log has been read to its end
        self._more = moved = False
        while not self._closing:
            if batches == 0:
                self._more = True
                return moved
            batches = None if batches is None else batches - 1
            entries = self._read(self._applied_seq, self._batch)
            if entries:
                self._apply(entries)
                moved = True
            if len(entries) < self._batch:
                break
            if self._saver:  # a long rebuild is saved on its way
                self._saver.offer(self._applied_seq, self._index.ntotal)
        self._version = version
        return moved

    def _apply(self, entries: Sequence[LogEntry]) -> None:
        seqs = np.fromiter((entry.seq for entry in entries), np.int64, len(entries))
        if seqs[0] <= self._applied_seq or (np.diff(seqs) <= 0).any():
            raise InvalidLog(f"seq {seqs.min()} to {seqs.max()}, after {self._applied_seq}, are not rising")
        good = self._sound(entries)
        last = {entry.id: entry for entry in good}
        removed = [entry.id for entry in last.values() if entry.op is Op.REMOVE]
        added = [(entry.id, entry.vector) for entry in last.values() if entry.op is Op.ADD]
        # Removals first: what was deleted should be gone soonest.
        if removed:
            self._index.remove(np.array(removed, np.int64))
        vectors = [vector for _, vector in added if vector is not None]
        if vectors:
            self._add(np.array([id for id, _ in added], np.int64), np.stack(vectors))
        self._skipped += len(entries) - len(good)
        if self._saver:
            self._saver.count(len(entries))
        with self._moved:
            self._applied_seq = int(seqs[-1])
            self._moved.notify_all()

    def _add(self, ids: Ids, vectors: Embeddings) -> None:
        try:
            self._index.add(ids, vectors)
        except (InvalidVector, InvalidId):
            # This index is stricter than we are: find the ones it means.
            for i in range(len(ids)):
                try:
                    self._index.add(ids[i : i + 1], vectors[i : i + 1])
                except (InvalidVector, InvalidId) as error:
                    self._skipped += 1
                    log.error("follower %s: id %d is skipped: %s", self._name, ids[i], error)

    def _sound(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """The entries that can be applied. One that cannot leaves what its id had before."""
        d = self._index.d
        shaped = [entry for entry in entries if _is_shaped(entry, d)]
        vectors = [entry.vector for entry in shaped if entry.vector is not None]
        units = iter(has_unit_length(np.stack(vectors)).tolist() if vectors else [])
        good = [entry for entry in shaped if entry.vector is None or next(units)]
        if len(good) < len(entries):
            kept = {entry.seq for entry in good}
            bad = [entry.seq for entry in entries if entry.seq not in kept]
            log.error("follower %s: %d entries are skipped, seq %s", self._name, len(bad), bad[:10])
        return good


def _is_shaped(entry: LogEntry, d: int) -> bool:
    if not 0 <= entry.id < 2**63:
        return False
    if entry.op is Op.REMOVE:
        return entry.vector is None
    vector = entry.vector
    return entry.op is Op.ADD and _is_vector(vector, d)


def _is_vector(vector: object, d: int) -> bool:
    return isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.shape == (d,)
