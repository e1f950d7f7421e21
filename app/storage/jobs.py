"""The jobs of a library: how they begin, and the operations on them. Workers do the work."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from app.core.clock import days_from_now
from app.core.errors import InProgress, NotFound, Validation, map_os_errors
from app.core.files import fsync_dir
from app.core.types import AnswerWarning, ItemStatus, Job, JobItem, JobState, Priority, SourceSpec
from app.decode.left_out import LeftOut
from app.decode.sidecars import (
    MAX_SIDECAR_BYTES,
    SidecarFields,
    match_sidecar_paths,
    merge_sidecars,
    parse_sidecar,
    sidecar_extension,
)
from app.storage.idempotency import ResponseSlot
from app.storage.library import Library
from app.storage.manifest import write_manifest
from app.storage.sql import Connection
from app.storage.tables import collections, job_control, jobs, tasks, work_queue
from app.storage.tables.job_control import LostItem

log = logging.getLogger(__name__)

STEP = 500  # items of a job that one commit changes
MAX_LOST = 10_000  # items of one upload whose bytes are brought again
PAUSE_SECONDS = 0.002  # between two commits that delete, so that other processes get the write lock


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file of a request, in an incoming folder. `name` is the sender's name for it, `fields` what was said of it."""

    name: str
    path: Path
    archive: bool
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The priority of a new job, and the slot in which the transaction that creates the job records it.

    `job`: the id of a job that the uploads are added to, in place of a new one. `left_out`: what the sender left out.
    """

    priority: Priority = Priority.NORMAL
    slot: ResponseSlot | None = None
    job: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


DEFAULT_OPTIONS = JobOptions()


class JobService:
    def __init__(self, library: Library) -> None:
        self._library = library

    def add_files(self, collection: str, files: Sequence[ReceivedFile], options: JobOptions = DEFAULT_OPTIONS) -> Job:
        """Make a job of received files, which are moved to where a worker imports them, or add them to a job.

        Raises NotFound, Validation, QueueFull.
        """
        loose = [file for file in files if not file.archive]
        items: list[dict[str, Any]] = []
        archives = [file for file in files if file.archive]
        sizes = {}
        for received in files:
            with map_os_errors(), open(received.path, "rb") as file:
                os.fsync(file.fileno())
                sizes[received.path] = os.fstat(file.fileno()).st_size
        if loose:
            items = list_loose_items(loose)
            write_manifest(loose[0].path.parent, items)

        def keep(id: str, first: int) -> None:
            for n, archive in enumerate(archives, start=first + 1):
                self._library.blobs.keep_upload(id, n, archive.path)
            if loose:
                self._library.blobs.keep_upload(id, first, loose[0].path.parent, {one.path.name for one in archives})

        def fill(c: Connection, id: str, first: int) -> None:
            for n, archive in enumerate(archives, start=first + 1):
                work_queue.add_upload(c, id, n, "archive", archive.name, 0, size=sizes[archive.path])
                with map_os_errors():
                    archive.path.replace(self._library.blobs.upload_path(id, n))
            if loose:
                size = sum(sizes[file.path] for file in loose)
                work_queue.add_upload(c, id, first, "folder", "", len(items), size=size)
                with map_os_errors():
                    loose[0].path.parent.replace(self._library.blobs.upload_path(id, first))
            fsync_dir(self._library.blobs.incoming)

        return self._begin(collection, "bulk", fill, options, keep)

    def add_urls(self, collection: str, folder: Path, count: int, options: JobOptions = DEFAULT_OPTIONS) -> Job:
        """Make a job of `count` URLs, the manifest in `folder`, or add them to a job; a worker fetches them.

        Raises NotFound, Validation, QueueFull.
        """

        def fill(c: Connection, id: str, first: int) -> None:
            work_queue.add_upload(c, id, first, "folder", "", count, "urls")
            with map_os_errors():
                folder.replace(self._library.blobs.upload_path(id, first))
            fsync_dir(self._library.blobs.incoming)

        def keep(id: str, first: int) -> None:
            self._library.blobs.keep_upload(id, first, folder)

        return self._begin(collection, "urls", fill, options, keep)

    def add_source(self, collection: str, spec: SourceSpec, options: JobOptions = DEFAULT_OPTIONS) -> Job:
        """Make a job of a source, or add it to a job; a worker finds out what the source holds.

        Raises NotFound, Validation, QueueFull.
        """

        def fill(c: Connection, id: str, first: int) -> None:
            work_queue.add_upload(c, id, first, "named", spec.place, 0, spec.kind, spec.options)

        return self._begin(collection, spec.kind, fill, options)

    def add_task(
        self, collection: str, kind: str, parameters: Mapping[str, Any], slot: ResponseSlot | None = None
    ) -> Job:
        """Make a job that the server itself does (see `app.service.tasks`). Raises NotFound.

        Raises InProgress while a job of the same kind and collection has not ended.
        """

        def work(c: Connection) -> Job:
            collections.require(c, collection)
            if (other := tasks.find_unfinished(c, collection, kind)) is not None:
                raise InProgress(f"the job {other} does this already; wait for its end, or cancel it")
            job = jobs.get(c, tasks.create(c, collection, kind, parameters))
            assert job is not None
            if slot is not None:
                slot.record(c, job)
            return job

        job = self._library.database.write(work)
        log.info("job accepted", extra={"job": job.id, "kind": kind, "collection": collection})
        return job

    def _begin(
        self,
        collection: str,
        kind: str,
        fill: Callable[[Connection, str, int], None],
        options: JobOptions,
        keep: Callable[[str, int], None] = lambda *_: None,
    ) -> Job:
        """Create a job, or let one go on, and add the uploads of `fill` to it, in one transaction.

        `fill` and `keep`, which is called before it, number the uploads from their last argument on.
        """
        self._library.require_queue_capacity()
        self._library.database.read(lambda c: collections.require(c, collection))
        id = options.job or jobs.new_id()
        first = time.time_ns() if options.job else 0  # unlike all before: the files of an ended upload go later
        keep(id, first)

        def work(c: Connection) -> Job:
            collections.require(c, collection)
            if options.job is None:
                jobs.create(c, collection, kind, options.priority, id)
            else:
                require_open_job(c, id, collection)
                job_control.reopen(c, id)
            fill(c, id, first)
            if options.left_out:
                jobs.add_left_out(c, id, LeftOut(Counter(options.left_out)))
            job = jobs.get(c, id)
            assert job is not None
            if options.slot is not None:
                options.slot.record(c, job)
            return job

        job = self._library.database.write(work)
        log.info("job accepted", extra={"job": job.id, "kind": kind, "collection": collection})
        return job

    def get(self, id: str) -> Job:
        """Raises NotFound."""
        job = self._library.database.read(lambda c: jobs.get(c, id))
        if job is None:
            raise NotFound(f"there is no job {id!r}")
        return job

    def pause(self, id: str) -> Job:
        """Begin nothing more of a job, also after restarts; workers finish what they hold. An ended job stays so."""
        self.get(id)
        self._library.database.write(lambda c: work_queue.pause_job(c, id))
        return self.get(id)

    def resume(self, id: str) -> Job:
        """Let a paused job go on; another stays as it is."""
        self.get(id)
        self._library.database.write(lambda c: job_control.resume(c, id))
        return self.get(id)

    def cancel(self, id: str) -> Job:
        """End a job; one that has ended stays as it is.

        Pictures that are ready stay. Uploads that are not imported are deleted; pictures that wait become `failed`, and
        `retry` queues them again.
        """
        self.get(id)
        for n in self._library.database.write(lambda c: job_control.cancel(c, id)):
            self._library.blobs.delete_upload(id, n)
        self.fail_waiting_items(id)
        return self.get(id)

    def retry(self, id: str) -> Job:
        """Queue the failed items of a job again: pictures whose bytes are stored, and those whose bytes never came.

        A warning of the answer says how many stay failed. A task that did not succeed begins anew. Raises NotFound,
        QueueFull.
        """
        if self.get(id).is_task:
            self._library.database.write(lambda c: tasks.retry(c, id))
            return self.get(id)
        self._library.require_queue_capacity()
        after: int | None = 0
        while after is not None:
            after = self._library.database.write(partial(job_control.retry, id=id, after=after, limit=STEP))
        while lost := self._library.database.read(lambda c: job_control.list_lost(c, id, MAX_LOST)):
            self._fetch_again(id, lost)
        job = self.get(id)
        if not job.failed:
            return job
        detail = f"{job.failed:,} failed items stay: their bytes were refused, and would be again"
        return replace(job, warnings=(*job.warnings, AnswerWarning("not_retried", detail)))

    def _fetch_again(self, id: str, lost: Sequence[LostItem]) -> None:
        """Make an upload of items whose bytes never came, for each source that they are of."""
        for spec, some in groupby(lost, lambda item: item.spec):
            items = list(some)
            folder = self._library.create_upload_dir()
            n = time.time_ns()  # unlike all before: the files of an ended upload go later
            try:
                write_manifest(folder, (item.line for item in items))
                self._library.blobs.keep_upload(id, n, folder)
                add = partial(self._add_lost, id=id, n=n, spec=spec, items=items, folder=folder)
                self._library.database.write(add)
            finally:
                self._library.delete_upload_dir(folder)

    def _add_lost(
        self, c: Connection, id: str, n: int, spec: SourceSpec, items: Sequence[LostItem], folder: Path
    ) -> None:
        if not job_control.take_lost(c, id, items):
            return  # another request did
        kind = "folder" if spec.kind == "urls" else "named"
        work_queue.add_upload(c, id, n, kind, spec.place, len(items), spec.kind, spec.options)
        with map_os_errors():
            folder.replace(self._library.blobs.upload_path(id, n))
        fsync_dir(self._library.blobs.incoming)

    def fail_waiting_items(self, id: str) -> None:
        """Fail the items of a cancelled job that still wait."""
        while self.get(id).state is JobState.CANCELLED and self._library.database.write(
            lambda c: job_control.fail_waiting_items(c, id, STEP)
        ):
            pass

    def finish_cancellations(self) -> None:
        """Fail the waiting items of jobs whose cancellation a kill interrupted."""
        for id in self._library.database.read(job_control.list_unfinished_cancellations):
            self.fail_waiting_items(id)

    def delete_old(self, days: float, should_stop: Callable[[], bool]) -> None:
        """Delete the jobs that ended so many days ago; 0 keeps all."""
        if days:
            count = self.delete_ended(days_from_now(-days), should_stop)
            if count:
                log.info("deleted %d jobs that ended more than %g days ago", count, days)

    def delete_ended(self, before: str, should_stop: Callable[[], bool]) -> int:
        """Delete the jobs that ended before a moment (RFC 3339), a few items in a commit; returns how many."""
        count = 0
        read, write = self._library.database.read, self._library.database.write
        while not should_stop() and (ended := read(lambda c: job_control.list_ended(c, before, STEP))):
            for id in ended:
                step = partial(job_control.delete_ended, id=id, before=before, limit=STEP)
                while not should_stop() and write(step):
                    time.sleep(PAUSE_SECONDS)
            count += len(ended)
        return count

    def list_recent(
        self,
        limit: int,
        among: Set[str] | None = None,
        collection: str | None = None,
        state: JobState | None = None,
    ) -> list[Job]:
        """The newest jobs first: of one collection, of those in `among`, or of all, also of deleted ones."""

        def work(c: Connection) -> list[Job]:
            if collection is not None:
                collections.require(c, collection)
            return jobs.list_recent(c, limit, among if collection is None else {collection}, state)

        return self._library.database.read(work)

    def list_items(
        self, id: str, status: ItemStatus | None, after: int, limit: int, *, warned: bool = False
    ) -> list[tuple[int, JobItem]]:
        """Up to `limit` items of a job numbered past `after`, with their numbers; `warned`: with warnings only."""
        return self._library.database.read(lambda c: jobs.list_items(c, id, status, after, limit, warned=warned))


def list_loose_items(files: Sequence[ReceivedFile]) -> list[dict[str, Any]]:
    """The lines of a manifest for files of a request: its pictures, each with the fields of the sidecars that came."""
    beside = {file.name: file.path for file in files if sidecar_extension(file.name)}
    pictures = [file.name for file in files if file.name not in beside]
    matched = match_sidecar_paths(pictures, beside)
    used = {name for names in matched.values() for name in names}
    items = []
    for n, file in enumerate(one for one in files if one.name not in used):
        read = [_read_sidecar(name, beside[name]) for name in matched.get(file.name, ())]
        items.append({"n": n, "name": file.name, "file": file.path.name, **merge_sidecars(read), **file.fields})
    return items


def _read_sidecar(name: str, path: Path) -> tuple[str, SidecarFields]:
    extension = sidecar_extension(name) or ""
    with map_os_errors(), open(path, "rb") as file:
        data = file.read(MAX_SIDECAR_BYTES[extension] + 1)
    return extension, parse_sidecar(extension, data, name.rpartition("/")[2])


def require_open_job(c: Connection, id: str, collection: str) -> None:
    """Check that uploads can be added to a job. Raises NotFound, Validation."""
    job = jobs.get(c, id)
    if job is None or job.collection != collection:
        raise NotFound(f"there is no job {id!r} in the collection {collection!r}")
    if job.state is JobState.CANCELLED:
        raise Validation(f"the job {id} was cancelled; nothing can be added to it")
