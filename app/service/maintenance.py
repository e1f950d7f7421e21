"""Background maintenance of a server: it collects garbage, forgets old jobs, and deletes collections in small steps."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import Validation, map_os_errors
from app.core.types import DEFAULT_COLLECTION
from app.service.snapshots import list_folders
from app.storage.gc import GRACE_SECONDS
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.membership import SINGLE_SERVER, Duty, Membership
from app.storage.tables import collections

log = logging.getLogger(__name__)

GC_SECONDS = 24 * 3600.0
REMOVE_SECONDS = 10.0  # between two looks for deleted pictures of a bucket
PRUNE_SECONDS = 3600.0  # between two looks for old jobs
ROWS = 100  # of each kind, and pictures with their files, that one commit deletes
RETRY_SECONDS = 5.0  # after a first failure; longer after each further one
COMMIT_PAUSE_SECONDS = 0.002  # between two commits, so that others get the write lock
DELETE_WAIT_SECONDS = 2.0  # how long a request waits for the last row of the collection that it deletes


def make_backoff() -> Backoff:
    return Backoff(RETRY_SECONDS, 12 * RETRY_SECONDS)


class MaintenanceLoop:
    """Two threads: one collects garbage at the start and once a day, one forgets jobs that ended `job_days` ago.

    Where pictures are in a bucket, a third removes the objects of deleted ones.
    """

    def __init__(
        self, library: Library, job_service: JobService, job_days: float, membership: Membership = SINGLE_SERVER
    ) -> None:
        self._library = library
        self._job_service = job_service
        self._job_days = job_days
        self._sweep_at = 0.0  # when the cache of a bucket is looked through next
        failing = "files that nothing uses are not removed"
        self._garbage = BackgroundLoop(
            "gc", membership.only_leader(Duty.GARBAGE, self._collect_garbage), failing, make_backoff()
        )
        failing = "old jobs are not forgotten"
        self._pruning = BackgroundLoop(
            "prune-jobs", membership.only_leader(Duty.JOBS, self._prune_jobs), failing, make_backoff()
        )
        failing = "deleted pictures are not removed from the bucket"
        self._removing = BackgroundLoop("remove-deleted", self._remove_deleted, failing, make_backoff())

    def start(self) -> None:
        self._garbage.start()
        self._pruning.start()
        if self._library.blobs.is_remote:
            self._removing.start()

    def close(self) -> None:
        self._garbage.close()
        self._pruning.close()
        self._removing.close()

    def faults(self) -> list[str]:
        return [loop.fault for loop in (self._garbage, self._pruning, self._removing) if loop.fault]

    def _collect_garbage(self) -> float:
        """Finish cancellations that a kill interrupted, then remove uploads of no job and files of no picture."""
        self._job_service.finish_cancellations()
        if self._library.blobs.is_remote:
            removed = self._library.collect_objects(self._garbage.is_closing)
        else:
            removed = self._library.collect_garbage(GRACE_SECONDS, self._garbage.is_closing)
        if removed:
            log.info("removed %d files that nothing uses", removed)
        return GC_SECONDS

    def _remove_deleted(self) -> float:
        """Remove the objects of deleted pictures, and now and then what the cache of this machine need not keep."""
        self._library.remove_deleted(self._removing.is_closing)
        if time.monotonic() >= self._sweep_at:
            self._library.collect_garbage(GRACE_SECONDS, self._removing.is_closing)
            self._sweep_at = time.monotonic() + GRACE_SECONDS
        return REMOVE_SECONDS

    def _prune_jobs(self) -> float:
        self._job_service.delete_old(self._job_days, self._pruning.is_closing)
        return PRUNE_SECONDS


def require_deletable(name: str) -> None:
    """Raise Validation for the default collection."""
    if name == DEFAULT_COLLECTION:
        raise Validation(f"the collection {name!r} is always there; delete its pictures and texts instead")


class CollectionDeleter(BackgroundLoop):
    """Deletes collections, and the vectors of spaces that nothing uses any more.

    A request takes the name of a collection away at once; a thread then deletes rows and files in small commits, and
    finds after a kill what is still to be deleted. `close_indexes` returns when no index of a label is open; the
    snapshots lie in `snapshots`. While `is_retiring`, searches in a space that nothing else uses may be under way.

    Of a cluster, one server deletes rows and files. The others close their own indexes of the collection.
    """

    def __init__(
        self,
        library: Library,
        snapshots: Path,
        close_indexes: Callable[[str], None],
        is_retiring: Callable[[], bool] = lambda: False,
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        self._closed_labels: set[str] = set()  # whose indexes this server has closed for another one
        self._is_retiring = is_retiring
        self._library = library
        self._snapshots = snapshots
        self._close_indexes = close_indexes
        self._condition = threading.Condition()
        self._deleting: set[str] = set()  # labels that requests wait for
        failing = "rows and files of deleted collections are still there"
        step = membership.only_leader(Duty.DELETIONS, self._delete_pending, self._follow_deletions)
        super().__init__("delete-collections", step, failing, make_backoff())

    def close(self) -> None:
        """End after the commit that is under way."""
        super().close()
        with self._condition:
            self._condition.notify_all()

    def delete(self, name: str, wait: float = DELETE_WAIT_SECONDS) -> None:
        """Delete a collection: nobody finds anything of it when this returns.

        Waits up to `wait` seconds for its last row. Raises NotFound, and Validation for the default collection.
        """
        require_deletable(name)
        label = self._library.begin_deletion(name)
        with self._condition:
            self._deleting.add(label)
            self.wake()
            self._condition.wait_for(lambda: label not in self._deleting or self.is_closing(), wait)

    def _delete_pending(self) -> None:
        for label in self._library.list_deletions():
            self._delete_contents(label)
        self._remove_unused_snapshots()
        self._library.drop_ended_space()
        while not self.is_closing() and not self._is_retiring() and self._library.delete_unused_vectors(ROWS):
            self.pause(COMMIT_PAUSE_SECONDS)

    def _follow_deletions(self) -> None:
        """Close the indexes of collections that another server deletes, and tell requests which are deleted."""
        with self._condition:
            awaited = set(self._deleting)  # before the look: a deletion that begins after it is not missing from it
        pending = set(self._library.list_deletions())
        for label in pending - self._closed_labels:
            self._close_indexes(label)
        ended = self._closed_labels - pending
        self._closed_labels = pending
        if ended:
            self._remove_unused_snapshots()
        with self._condition:
            self._deleting -= awaited - pending
            self._condition.notify_all()

    def _delete_contents(self, label: str) -> None:
        """Delete all rows and files of a label; returns early when the loop is closed."""
        self._close_indexes(label)
        while not self.is_closing() and self._library.delete_batch(label, ROWS):
            self.pause(COMMIT_PAUSE_SECONDS)
        if self.is_closing():
            return
        for folder in list_folders(self._snapshots):
            with map_os_errors(), suppress(FileNotFoundError):
                shutil.rmtree(folder / label)
        self._library.finish_deletion(label)
        log.info("the collection %s is deleted", collections.name_from_label(label))
        with self._condition:
            self._deleting.discard(label)
            self._condition.notify_all()

    def _remove_unused_snapshots(self) -> None:
        known = self._library.list_labels()
        for folder in list_folders(self._snapshots):
            for path in folder.glob(f"*{collections.LABEL_SEPARATOR}*"):
                if path.name not in known:
                    shutil.rmtree(path, ignore_errors=True)
