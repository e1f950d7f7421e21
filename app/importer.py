"""Takes uploaded archives and folders of pictures into the library, a few members at a time.

An upload waits as `media/.incoming/<job>-<n>` (an archive or a folder). An archive is expanded into
`<job>-<n>.members` by a decode child; then both are a folder with a manifest, whose members are moved in
chunks. Each chunk is one commit that also says how far we are, so a restart goes on where it was.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.description import Description
from app.errors import ArchiveCorrupt, Rejected, SightlineError, Validation, translated
from app.gathering import Gathering
from app.library import Library
from app.logs import about
from app.media import Saved, discard
from app.store import jobs, origins
from app.store.jobs import Source
from app.store.origins import Known
from app.types import ItemError, ItemStatus, NewImage

log = logging.getLogger(__name__)

CHUNK = 64  # members that share one commit
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """One line of a manifest, checked: either a picture to take in or the reason why not."""

    name: str
    saved: Saved | None = None
    new: NewImage | None = None
    error: ItemError | None = None
    origin: tuple[str, Known] | None = None  # where it came from, and what to remember of that


class Importer:
    """Runs in a thread of its own beside the worker's batches."""

    def __init__(
        self,
        library: Library,
        pool: DecodePool,
        limits: ArchiveLimits,
        seconds: float,
        lease: float,
        attempts: int,
        gathering: Gathering | None = None,
    ) -> None:
        self._library = library
        self._database = library.database
        self._media = library.media
        self._pool = pool
        self._limits = limits
        self._seconds = seconds
        self._lease = lease
        self._attempts = attempts
        self._gathering = gathering or Gathering(self._database, self._media, None)
        self._changed = self._database.watch()

    def run(self, owner: str, stopping: threading.Event) -> None:
        """Take in uploads, oldest first, until `stopping`."""
        while not stopping.is_set():
            try:
                seen = self._changed()
                until = time.monotonic() + self._lease
                source = self._database.write(partial(jobs.claim_source, owner=owner, until=until))
                if source is not None:
                    with about(job=source.job_id):
                        log.info("taking in upload %d: %s", source.n, source.name)
                        self._take_in(owner, source, stopping)
                    continue
                while self._changed() == seen and not stopping.wait(POLL_SECONDS):
                    pass
            except SightlineError as error:
                log.warning("waiting: %s", error.detail)
                stopping.wait(1.0)

    def _take_in(self, owner: str, source: Source, stopping: threading.Event) -> None:
        try:
            if source.attempts > self._attempts:
                raise ArchiveCorrupt(f"taking it in failed {self._attempts} times")
            folder = self._folder(source)
            total = sum(1 for _ in lines(folder))
            rest = islice(lines(folder), source.imported, None)
            done = source.imported
            while part := list(islice(rest, CHUNK)):
                chunk = self._members(source, folder, part, stopping)
                done += len(chunk)
                if not self._commit(owner, source, chunk, done, total - done):
                    self._forget(source)
                    return
                if stopping.is_set() and done < total:
                    self._give_back(owner, source)
                    return
                self._gathering.done(folder)
            self._finish(owner, source, None)
        except SightlineError as error:
            if error.retryable:  # a full disk, say: the upload stays, and is tried again
                self._give_back(owner, source)
                raise
            self._finish(owner, source, error)
        except Exception:
            if self._forget(source):  # its files went away under our hands
                return
            log.exception("upload %s-%d cannot be taken in", source.job_id, source.n)
            self._finish(owner, source, ArchiveCorrupt("the upload cannot be read"))

    def _folder(self, source: Source) -> Path:
        """The folder of members, expanding the archive first if that has not been done."""
        upload = self._media.upload(source.job_id, source.n)
        if source.origin == "folder":
            with translated():
                upload.mkdir(exist_ok=True)
            if not (upload / "manifest.jsonl").exists():
                self._gathering.scan(upload, source.name, source.collection)
            return upload
        if source.kind == "folder":
            return upload
        members = upload.with_name(upload.name + ".members")
        if not (members / "manifest.jsonl").exists():
            discard(members)
            with translated():
                members.mkdir()
            try:
                self._pool.expand(upload, members, self._limits, self._seconds).result()
            except CancelledError:
                raise ArchiveCorrupt("the archive was not read to its end") from None
        return members

    def _members(
        self, source: Source, folder: Path, part: list[dict[str, Any]], stopping: threading.Event
    ) -> list[Member]:
        if source.origin is not None:
            part = self._gathering.bring(folder, part, stopping.is_set)
        return [self._check(folder, line) for line in part]

    def _check(self, folder: Path, line: dict[str, Any]) -> Member:
        name = str(line["name"])
        if line.get("error"):
            return Member(name, error=ItemError(line["error"]["code"], line["error"]["detail"]))
        try:
            saved = self._media.save(folder / line["file"])
            said = Description(
                id=line.get("id"),
                caption=line.get("caption"),
                tags=tuple(line.get("tags") or ()),
                metadata=line.get("metadata") or {},
                source=name,
            )
            origin = (line["origin"], Known(line["tag"], saved.sha256)) if line.get("tag") else None
            return Member(name, saved, self._library.describe(saved, said), origin=origin)
        except (Rejected, Validation) as error:
            return Member(name, error=ItemError(error.code, error.detail))

    def _commit(self, owner: str, source: Source, chunk: list[Member], done: int, pending: int) -> bool:
        """Take the members in; False when the upload is no longer ours."""

        def work(c: apsw.Connection) -> bool:
            if not jobs.holds_source(c, owner, source):
                return False
            for member in chunk:
                self._insert(c, source, member)
            jobs.progress(c, source, done, pending)
            return True

        return self._database.write(work)

    def _insert(self, c: apsw.Connection, source: Source, member: Member) -> None:
        job, name = source.job_id, member.name
        if member.saved is None or member.new is None:
            jobs.add_item(c, job, name, ItemStatus.FAILED, error=member.error)
            return
        try:
            added = self._library.insert(c, source.collection, member.saved, member.new, job, replace=False)
        except SightlineError as error:
            if error.retryable:
                raise
            jobs.add_item(c, job, name, ItemStatus.FAILED, error=ItemError(error.code, error.detail))
            return
        if member.origin is not None:
            origins.keep(c, *member.origin)
        status = ItemStatus.DUPLICATE if added.duplicate else ItemStatus.QUEUED
        jobs.add_item(c, job, name, status, image=(added.image.key, added.image.id))

    def _finish(self, owner: str, source: Source, error: SightlineError | None) -> None:
        """The upload is in, or can never be: say so and remove its files."""

        def work(c: apsw.Connection) -> bool:
            if not jobs.holds_source(c, owner, source):
                return False
            if error is not None:
                reason = ItemError(error.code, error.detail)
                jobs.add_item(c, source.job_id, source.name or "upload", ItemStatus.FAILED, error=reason)
            jobs.finish_source(c, source)
            return True

        if self._database.write(work):
            self._media.discard_upload(source.job_id, source.n)
        else:
            self._forget(source)

    def _forget(self, source: Source) -> bool:
        """Remove the files of an upload whose job was cancelled meanwhile; another's, who has the lease now, stay."""
        cancelled = not self._database.read(lambda c: jobs.has_source(c, source))
        if cancelled:
            self._media.discard_upload(source.job_id, source.n)
        return cancelled

    def _give_back(self, owner: str, source: Source) -> None:
        self._database.write(lambda c: jobs.release_source(c, owner, source))


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a folder's manifest."""
    with open(folder / "manifest.jsonl", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
