"""Removes in a thread of its own what killed processes left behind, once, and old jobs, now and then."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.errors import Validation, describe_error, map_os_errors
from app.core.types import DEFAULT_COLLECTION
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.tables import collection_deletion, collections, job_control, work_queue

log = logging.getLogger(__name__)

GRACE = 3600.0  # seconds that what nobody uses is left alone
PRUNE_SECONDS = 3600.0  # between two looks for old jobs


class MaintenanceLoop:
    """The one that sweeps, of a server. Jobs that ended `job_days` ago are forgotten; 0 keeps them all."""

    def __init__(self, library: Library, bulks: JobService, job_days: float) -> None:
        self._library = library
        self._bulks = bulks
        self._job_days = job_days
        self._faults: dict[str, str] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def close(self) -> None:
        """End after what is under way."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def faults(self) -> list[str]:
        """What it could not do, and tries again at the next start or later."""
        return list(self._faults.values())

    def _run(self) -> None:
        try:
            self._sweep()
        except Exception as error:  # nothing may end this thread
            self._told("left", f"what killed processes left is not swept away: {describe_error(error)}")
        while True:
            try:
                self._bulks.forget(self._job_days, self._closing.is_set)
                self._faults.pop("jobs", None)
            except Exception as error:
                self._told("jobs", f"old jobs are not forgotten: {describe_error(error)}")
            if self._closing.wait(PRUNE_SECONDS):
                return

    def _sweep(self) -> None:
        """Jobs half cancelled, uploads of no job, files of no picture."""
        database = self._library.database
        for id in database.read(job_control.list_unfinished_cancellations):
            self._bulks.drop_items(id)
        waiting = database.read(work_queue.list_uploads)
        names = {f"{job}-{n}{suffix}" for job, n in waiting for suffix in ("", ".members")}
        removed = self._library.blobs.sweep(names, GRACE)
        removed += self._library.sweep(GRACE, self._closing.is_set)
        if removed:
            log.info("removed %d files that nothing uses", removed)

    def _told(self, what: str, fault: str) -> None:
        self._faults[what] = fault
        log.warning("%s", fault, exc_info=True)


ROWS = 100  # of each kind, and pictures with their files, that one commit removes
RETRY_SECONDS = 5.0
PAUSE_SECONDS = 0.002  # between two commits, so that others get the write lock


class CollectionDeleter:
    """The one that sweeps, of a server. `forget` returns when the indexes of a label are closed; its
    snapshots lie in `snapshots`."""

    def __init__(self, library: Library, snapshots: Path, forget: Callable[[str], None]) -> None:
        self._library = library
        self._snapshots = snapshots
        self._forget = forget
        self._moved = threading.Condition()
        self._asked = True  # whether to look for what is going; a kill may have left some
        self._closing = False
        self._sweeping: set[str] = set()
        self.fault: str | None = None  # why it does not get on; it goes on trying
        self._thread = threading.Thread(target=self._run, name="dropper", daemon=True)

    def start(self) -> None:
        """Begin with what is left from before."""
        self._thread.start()

    def close(self) -> None:
        """End after the commit that is under way."""
        with self._moved:
            self._closing = True
            self._moved.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def drop(self, name: str, wait: float) -> None:
        """Drop a collection: nobody finds anything of it when this returns.

        That is when nothing is left of it, or after `wait` seconds. Raises NotFound, and Validation for the one that
        is always there.
        """
        if name == DEFAULT_COLLECTION:
            raise Validation(f"the collection {name!r} is always there; delete its pictures and texts instead")
        label, uploads = self._library.database.write(lambda c: collection_deletion.begin(c, name))
        for job, n in uploads:
            self._library.blobs.discard_upload(job, n)
        with self._moved:
            self._sweeping.add(label)
            self._asked = True
            self._moved.notify_all()
            self._moved.wait_for(lambda: label not in self._sweeping or self._closing, wait)

    def _run(self) -> None:
        while True:
            with self._moved:
                self._moved.wait_for(lambda: self._asked or self._closing)
                if self._closing:
                    return
                self._asked = False
            try:
                for label in self._library.database.read(collection_deletion.list_pending):
                    self._sweep(label)
                self._tidy()
                self.fault = None
            except Exception as error:  # a full disk, say: nobody sees what is left meanwhile
                self.fault = f"dropped collections are not swept away yet: {describe_error(error)}"
                log.warning("%s", self.fault, exc_info=True)
                with self._moved:
                    self._moved.wait_for(lambda: self._closing, RETRY_SECONDS)
                    self._asked = True

    def _sweep(self, label: str) -> None:
        """Remove everything of one label; ends early when we are closing."""
        self._forget(label)
        unused = self._library.blobs.delete
        while not self._closing and self._library.database.write(
            lambda c: collection_deletion.delete_batch(c, label, ROWS, unused)
        ):
            with self._moved:
                self._moved.wait_for(lambda: self._closing, PAUSE_SECONDS)
        if self._closing:
            return
        with map_os_errors(), suppress(FileNotFoundError):
            shutil.rmtree(self._snapshots / label)
        self._library.database.write(lambda c: collection_deletion.finish(c, label))
        log.info("the dropped collection %s is swept away", collections.name_from_label(label))
        with self._moved:
            self._sweeping.discard(label)
            self._moved.notify_all()

    def _tidy(self) -> None:
        """Remove snapshots that belong to no collection."""
        if not self._snapshots.is_dir():
            return
        folders = {folder.name for folder in self._snapshots.iterdir() if collections.LABEL_SEPARATOR in folder.name}
        for label in folders - {one.label for one in self._library.database.read(collections.list_all)}:
            shutil.rmtree(self._snapshots / label, ignore_errors=True)
