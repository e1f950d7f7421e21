"""Bulks: many pictures at once, taken in by a job, and what a person may do to it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import apsw

from app.core.clock import format_rfc3339
from app.core.errors import NotFound, SightlineError, map_os_errors
from app.core.types import ItemStatus, Job, JobItem, JobState, Priority, SourceSpec
from app.storage.blobs import sync_folder
from app.storage.library import Library, require_collection
from app.storage.manifest import write_manifest
from app.storage.tables import job_control, jobs, work_queue

log = logging.getLogger(__name__)

STEP = 500  # items of a job that one commit changes
PAUSE_SECONDS = 0.002  # between two commits that forget, so that others get the write lock


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """One received file: the sender's name for it and where it lies."""

    name: str
    path: Path
    archive: bool


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job begins: its priority, and what is to be kept in the transaction that makes it."""

    priority: Priority = Priority.NORMAL
    note: Callable[[apsw.Connection, Job], None] | None = None


DEFAULT_OPTIONS = JobOptions()


class JobService:
    """The jobs of one library."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def add(self, collection: str, uploads: Sequence[ReceivedFile], begun: JobOptions = DEFAULT_OPTIONS) -> Job:
        """Take a bulk of received files; a worker takes them in from where they lie."""
        loose = [upload for upload in uploads if not upload.archive]
        archives = [upload for upload in uploads if upload.archive]
        sizes = {}
        for upload in uploads:
            with map_os_errors(), open(upload.path, "rb") as file:
                os.fsync(file.fileno())
                sizes[upload.path] = os.fstat(file.fileno()).st_size

        def fill(c: apsw.Connection, id: str) -> None:
            for n, archive in enumerate(archives, start=1):
                work_queue.add_upload(c, id, n, "archive", archive.name, 0, size=sizes[archive.path])
                with map_os_errors():
                    archive.path.replace(self._library.blobs.upload(id, n))
            if loose:
                size = sum(sizes[upload.path] for upload in loose)
                work_queue.add_upload(c, id, 0, "folder", "", len(loose), size=size)
                folder = loose[0].path.parent
                items = ({"n": n, "name": one.name, "file": one.path.name} for n, one in enumerate(loose))
                write_manifest(folder, items)
                with map_os_errors():
                    folder.replace(self._library.blobs.upload(id, 0))
            sync_folder(self._library.blobs.incoming)

        return self._begin(collection, "bulk", fill, begun)

    def add_urls(self, collection: str, folder: Path, count: int, begun: JobOptions = DEFAULT_OPTIONS) -> Job:
        """Take a list of `count` URLs, the manifest in `folder`; a worker fetches them."""

        def fill(c: apsw.Connection, id: str) -> None:
            work_queue.add_upload(c, id, 0, "folder", "", count, "urls")
            with map_os_errors():
                folder.replace(self._library.blobs.upload(id, 0))
            sync_folder(self._library.blobs.incoming)

        return self._begin(collection, "urls", fill, begun)

    def add_source(self, collection: str, asked: SourceSpec, begun: JobOptions = DEFAULT_OPTIONS) -> Job:
        """Take what a source holds; a worker finds out what that is."""

        def fill(c: apsw.Connection, id: str) -> None:
            work_queue.add_upload(c, id, 0, "named", asked.place, 0, asked.kind, asked.options)

        return self._begin(collection, asked.kind, fill, begun)

    def _begin(
        self, collection: str, kind: str, fill: Callable[[apsw.Connection, str], None], begun: JobOptions
    ) -> Job:
        """A new job with the sources that `fill` gives it, in one transaction. Raises NotFound, QueueFull."""
        self._library.require_queue_capacity()

        def work(c: apsw.Connection) -> Job:
            require_collection(c, collection)
            id = jobs.create(c, collection, kind, begun.priority)
            fill(c, id)
            job = jobs.get(c, id)
            assert job is not None
            if begun.note is not None:
                begun.note(c, job)
            return job

        job = self._library.database.write(work)
        log.info("job accepted", extra={"job": job.id, "kind": kind, "collection": collection})
        return job

    def get(self, id: str) -> Job:
        """The job of this id."""
        job = self._library.database.read(lambda c: jobs.get(c, id))
        if job is None:
            raise NotFound(f"there is no job {id!r}")
        return job

    def pause(self, id: str) -> Job:
        """Begin nothing more of a job, over restarts too; what is at work is finished. One that has ended stays so."""
        self.get(id)
        self._library.database.write(lambda c: job_control.pause(c, id))
        return self.get(id)

    def resume(self, id: str) -> Job:
        """Go on with a paused job; another stays as it is."""
        self.get(id)
        self._library.database.write(lambda c: job_control.resume(c, id))
        return self.get(id)

    def cancel(self, id: str) -> Job:
        """End a job; one that has ended stays as it is.

        What is ready stays. Uploads that are not taken in are gone; pictures that still wait are `failed`, and
        `retry` takes them up again.
        """
        self.get(id)
        for n in self._library.database.write(lambda c: job_control.cancel(c, id)):
            self._library.blobs.discard_upload(id, n)
        self.drop_items(id)
        return self.get(id)

    def retry(self, id: str) -> Job:
        """Queue the failed pictures of a job once more; those whose bytes were refused are not here.

        Raises QueueFull.
        """
        self.get(id)
        self._library.require_queue_capacity()
        after: int | None = 0
        while after is not None:
            after = self._library.database.write(partial(job_control.retry, id=id, after=after, limit=STEP))
        return self.get(id)

    def drop_items(self, id: str) -> None:
        """Fail everything of a cancelled job that still waits."""
        while self.get(id).state is JobState.CANCELLED and self._library.database.write(
            lambda c: job_control.fail_waiting_items(c, id, STEP)
        ):
            pass

    def forget(self, days: float, stopping: Callable[[], bool]) -> None:
        """Forget the jobs that ended so many days ago; 0 keeps them all. A disk that is full now is not later."""
        try:
            gone = self.prune(format_rfc3339(datetime.now(UTC) - timedelta(days=days)), stopping) if days else 0
            if gone:
                log.info("forgot %d jobs that ended more than %g days ago", gone, days)
        except SightlineError as error:
            log.warning("old jobs are not forgotten yet: %s", error.detail)

    def prune(self, before: str, stopping: Callable[[], bool]) -> int:
        """Forget the jobs that ended before a moment (RFC 3339), a few items in a commit; returns how many."""
        gone = 0
        while not stopping() and (
            ended := self._library.database.read(lambda c: job_control.list_ended(c, before, STEP))
        ):
            for id in ended:
                step = partial(job_control.delete_ended, id=id, before=before, limit=STEP)
                while not stopping() and self._library.database.write(step):
                    time.sleep(PAUSE_SECONDS)
            gone += len(ended)
        return gone

    def recent(self, limit: int, among: Set[str] | None = None, collection: str | None = None) -> list[Job]:
        """The newest jobs first: of one collection, of all, those of dropped ones too, or `among` these."""

        def work(c: apsw.Connection) -> list[Job]:
            if collection is not None:
                require_collection(c, collection)
            return jobs.list_recent(c, limit, among if collection is None else {collection})

        return self._library.database.read(work)

    def items(self, id: str, status: ItemStatus | None, after: int, limit: int) -> list[tuple[int, JobItem]]:
        """Up to `limit` items of a job numbered past `after`, with their numbers."""
        return self._library.database.read(lambda c: jobs.list_items(c, id, status, after, limit))
