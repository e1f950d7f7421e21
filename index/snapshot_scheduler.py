"""SnapshotScheduler: decides when to save a follower's index, and saves it on a thread beside the follower's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When to save: after `entries` (or a fifth of the index, if more), or when nothing came for `idle`.

    Never for more than `share` of the time, so a large index that changes often does not wear out its disk.
    Never for fewer than `least` entries: replaying them is quicker than writing a snapshot.
    After a failure `retry` seconds pass, then twice as many, up to `retry_last`. Times are seconds.
    """

    entries: int = 10_000
    least: int = 0
    idle: float = 5.0
    share: float = 0.02
    retry: float = 1.0
    retry_last: float = 60.0


class SnapshotScheduler:
    """Saves what `freeze(applied_seq)` captures. All methods belong to the follower's thread."""

    def __init__(
        self, freeze: Callable[[int], Callable[[], None] | None], policy: SnapshotPolicy, name: str, saved_seq: int
    ) -> None:
        self._freeze = freeze
        self._policy = policy
        self._name = name
        self._thread: threading.Thread | None = None
        self._seen_seq = saved_seq
        self._seen_at = self._not_before = time.monotonic()
        self._retry = policy.retry
        self._applied = self._saved = 0  # entries applied so far, and how many of them are in a snapshot
        self.saved_seq = saved_seq
        self.error: Exception | None = None

    def count(self, entries: int) -> None:
        """Count entries that were applied."""
        self._applied += entries

    def wants(self, applied_seq: int) -> bool:
        """Whether there is something unsaved that is worth a snapshot."""
        return applied_seq != self.saved_seq and self._applied - self._saved >= self._policy.least

    def offer(self, applied_seq: int, ntotal: int) -> None:
        """Save if it is time. Returns at once: a thread of its own writes, one at a time."""
        now = time.monotonic()
        if applied_seq != self._seen_seq:
            self._seen_seq, self._seen_at = applied_seq, now
        unsaved = applied_seq - self.saved_seq
        if not self.wants(applied_seq) or now < self._not_before or (self._thread and self._thread.is_alive()):
            return
        if unsaved < max(self._policy.entries, ntotal // 5) and now - self._seen_at < self._policy.idle:
            return
        try:
            write = self._freeze(applied_seq)
            if write is None:  # the index is on the disk already
                return
            self._thread = threading.Thread(
                target=self._save, args=(write, applied_seq, self._applied), name=f"snapshot-{self._name}", daemon=True
            )
            self._thread.start()
        except Exception as error:
            self._thread = None
            self._record_failure(error)

    def finish(self, applied_seq: int, *, save: bool) -> None:
        """Wait for the save under way, then save what is still unsaved, if `save`."""
        if self._thread:
            self._thread.join()
        if save and self.wants(applied_seq):
            try:
                write = self._freeze(applied_seq)
            except Exception as error:
                self._record_failure(error)
                return
            if write is not None:
                self._save(write, applied_seq, self._applied)

    def _save(self, write: Callable[[], None], applied_seq: int, applied: int) -> None:
        began = time.monotonic()
        try:
            write()
        except Exception as error:
            self._record_failure(error)
            return
        took = time.monotonic() - began
        self.error, self._retry = None, self._policy.retry
        self._not_before = time.monotonic() + took * (1 / self._policy.share - 1)
        self._saved, self.saved_seq = applied, applied_seq
        log.info("snapshot of %s saved at seq %d in %.2f s", self._name, applied_seq, took)

    def _record_failure(self, error: Exception) -> None:
        self.error = error
        self._not_before = time.monotonic() + self._retry
        log.warning("snapshot of %s not saved, retry in %.2g s: %s", self._name, self._retry, error)
        self._retry = min(self._retry * 2, self._policy.retry_last)
