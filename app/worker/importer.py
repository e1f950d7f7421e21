"""Takes uploaded archives and folders of pictures into the library, a few members at a time.

An upload waits as `media/.incoming/<job>-<n>` (an archive or a folder). An archive is expanded into
`<job>-<n>.members` by a decode child, and what a named source holds is listed in such a folder; then all are folders
with a manifest, whose members are moved in chunks. Each chunk is one commit that also says how far we are, so a
restart goes on where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import CancelledError, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from app.core.errors import ArchiveCorrupt, Overloaded, Rejected, SightlineError, Validation, map_os_errors
from app.core.logging import bind_log_fields
from app.core.types import ItemError, ItemStatus, NewImage, SourceSpec
from app.decode.archive import expand_archive
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.sources.base import Source, SourceContext, SourcePolicy
from app.sources.registry import SourceReader
from app.storage.attributes import ImageAttributes
from app.storage.blobs import StagedFile, remove_path
from app.storage.library import Library
from app.storage.manifest import count_lines, has_manifest, read_manifest
from app.storage.tables import jobs, precomputed_vectors, source_cache
from app.storage.tables.jobs import Upload
from app.storage.tables.source_cache import CacheEntry

log = logging.getLogger(__name__)

CHUNK = 64  # members that share one commit
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """One line of a manifest, checked: either a picture to take in or the reason why not."""

    name: str
    saved: StagedFile | None = None
    new: NewImage | None = None
    error: ItemError | None = None
    origin: tuple[str, CacheEntry] | None = None  # where it came from, and what to remember of that
    precomputed: tuple[str, bytes] | None = None  # the space and the vector that it came with


class ExpansionFailed(Exception):
    """An upload brought its decoder down, and others do not."""


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
        gathering: SourceReader | None = None,
    ) -> None:
        self._library = library
        self._database = library.database
        self._media = library.blobs
        self._pool = pool
        self._limits = limits
        self._seconds = seconds
        self._lease = lease
        self._attempts = attempts
        self._gathering = gathering or SourceReader(SourceContext(self._database, self._media, SourcePolicy()))
        self._changed = self._database.watch_commits()

    def run(self, owner: str, stopping: threading.Event) -> None:
        """Take in uploads, those of each job in fair turns, until `stopping`."""
        while not stopping.is_set():
            try:
                seen = self._changed()
                until = time.monotonic() + self._lease
                source = self._database.write(partial(jobs.claim_upload, owner=owner, until=until))
                if source is not None:
                    with bind_log_fields(job=source.job_id):
                        log.info("taking in upload %d: %s", source.n, source.name)
                        self._take_in(owner, source, stopping)
                    continue
                while self._changed() == seen and not stopping.wait(POLL_SECONDS):
                    pass
            except SightlineError as error:
                log.warning("waiting: %s", error.detail)
                stopping.wait(1.0)

    def _take_in(self, owner: str, source: Upload, stopping: threading.Event) -> None:
        try:
            with ExitStack() as stack:
                kind = self._gathering.open(spec_of_upload(source)) if source.origin else None
                if kind is not None:
                    stack.callback(kind.close)
                if self._take_all(owner, source, kind, stopping):
                    self._finish(owner, source, None)
        except ExpansionFailed as error:
            log.warning("upload %s-%d cannot be expanded: %s", source.job_id, source.n, error)
            self._database.write(lambda c: jobs.release_upload(c, owner, source, counted=True))
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

    def _take_all(self, owner: str, source: Upload, kind: Source | None, stopping: threading.Event) -> bool:
        """Take in what is left of a source, chunk by chunk; False when it is given back or no longer ours.

        After an attempt that failed, the members of a chunk are taken in one by one: the one that kills us is given up.
        """
        folder = self._folder(source, kind, stopping)
        done, position = source.imported, source.position
        rest = read_manifest(folder, position)
        if done and not position:  # begun before there were positions
            position = next(islice(rest, done - 1, None), ({}, 0))[1]
        pending = count_lines(folder, position)
        suspect = done + CHUNK if source.attempts > 1 else done
        while part := list(islice(rest, 1 if done < suspect else CHUNK)):
            position = part[-1][1]
            if done == source.imported and source.attempts > self._attempts:
                chunk = [self._given_up(part[0][0])]
            else:
                chunk = self._members(folder, kind, [line for line, _ in part], stopping)
            done, pending = done + len(chunk), pending - len(chunk)
            if not self._commit(owner, source, chunk, (done, pending, position), careful=done < suspect):
                self._forget(source)
                return False
            if pending > 0 and (stopping.is_set() or self._gives_way(source)):
                self._give_back(owner, source)
                return False
            self._gathering.clear(folder)
        return True

    def _folder(self, source: Upload, kind: Source | None, stopping: threading.Event) -> Path:
        """The folder with the manifest: first an archive is expanded, and a named source looked at, if need be."""
        upload = self._media.upload(source.job_id, source.n)
        if source.kind == "named" and kind is not None:
            with map_os_errors():
                upload.mkdir(exist_ok=True)
            if not has_manifest(upload):
                self._bounded(source)
                self._gathering.write_manifest(kind, upload, source.collection, stopping.is_set)
            return upload
        if source.kind == "folder":
            return upload
        members = upload.with_name(upload.name + ".members")
        if not has_manifest(members):
            remove_path(members)
            self._bounded(source)
            with map_os_errors():
                members.mkdir()
            self._expand(upload, members, stopping)
        return members

    def _bounded(self, source: Upload) -> None:
        if source.attempts > self._attempts:
            raise ArchiveCorrupt(f"taking it in failed {self._attempts} times")

    def _expand(self, upload: Path, members: Path, stopping: threading.Event) -> None:
        expanding = self._pool.submit(
            expand_archive,
            upload,
            members,
            self._limits,
            self._pool.picture_limits,
            seconds=self._seconds,
        )
        while not wait([expanding], POLL_SECONDS).done:
            if stopping.is_set():
                expanding.cancel()
                raise Overloaded("the worker is stopping")
        try:
            expanding.result()
        except CancelledError:
            raise ArchiveCorrupt("the archive was not read to its end") from None
        except Overloaded as error:
            if stopping.is_set():
                raise
            self._pool.prewarm()  # raises if it is the children that cannot be started
            raise ExpansionFailed(error.detail) from None

    def _members(
        self, folder: Path, kind: Source | None, part: list[dict[str, Any]], stopping: threading.Event
    ) -> list[Member]:
        if kind is not None:
            part = self._gathering.fetch(kind, folder, part, stopping.is_set)
        return [self._check(folder, line) for line in part]

    def _check(self, folder: Path, line: dict[str, Any]) -> Member:
        name = str(line["name"])
        if line.get("error"):
            return Member(name, error=ItemError(line["error"]["code"], line["error"]["detail"]))
        try:
            saved = self._media.save(folder / line["file"])
            said = ImageAttributes(
                id=line.get("id"),
                caption=line.get("caption"),
                tags=tuple(line.get("tags") or ()),
                metadata=line.get("metadata") or {},
                source=name,
            )
            origin = (line["origin"], CacheEntry(line["tag"], saved.sha256)) if line.get("tag") else None
            return Member(
                name, saved, self._library.describe(saved, said), origin=origin, precomputed=line.get("given")
            )
        except (Rejected, Validation) as error:
            return Member(name, error=ItemError(error.code, error.detail))

    def _given_up(self, line: dict[str, Any]) -> Member:
        """A member that is not looked at any more."""
        reason = f"the worker died {self._attempts} times while it took this in"
        return Member(str(line["name"]), error=ItemError("image_corrupt", reason))

    def _gives_way(self, source: Upload) -> bool:
        return self._database.read(lambda c: jobs.must_yield(c, source))

    def _commit(
        self, owner: str, source: Upload, chunk: list[Member], far: tuple[int, int, int], *, careful: bool
    ) -> bool:
        """Take the members in, and note how far that is; False when the source is no longer ours."""

        def work(c: apsw.Connection) -> bool:
            if not jobs.holds_upload(c, owner, source):
                return False
            for member in chunk:
                self._insert(c, source, member)
            jobs.record_progress(c, source, *far, careful=careful)
            return True

        return self._database.write(work)

    def _insert(self, c: apsw.Connection, source: Upload, member: Member) -> None:
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
            source_cache.store(c, *member.origin)
        if member.precomputed is not None and not added.duplicate:
            precomputed_vectors.store(c, added.image.key, *member.precomputed)
        status = ItemStatus.DUPLICATE if added.duplicate else ItemStatus.QUEUED
        jobs.add_item(c, job, name, status, image=(added.image.key, added.image.id))

    def _finish(self, owner: str, source: Upload, error: SightlineError | None) -> None:
        """The upload is in, or can never be: say so and remove its files."""

        def work(c: apsw.Connection) -> bool:
            if not jobs.holds_upload(c, owner, source):
                return False
            if error is not None:
                reason = ItemError(error.code, error.detail)
                jobs.add_item(c, source.job_id, source.name or "upload", ItemStatus.FAILED, error=reason)
            jobs.finish_upload(c, source)
            return True

        if self._database.write(work):
            self._media.discard_upload(source.job_id, source.n)
        else:
            self._forget(source)

    def _forget(self, source: Upload) -> bool:
        """Remove the files of an upload whose job was cancelled meanwhile; another's, who has the lease now, stay."""
        cancelled = not self._database.read(lambda c: jobs.upload_exists(c, source))
        if cancelled:
            self._media.discard_upload(source.job_id, source.n)
        return cancelled

    def _give_back(self, owner: str, source: Upload) -> None:
        self._database.write(lambda c: jobs.release_upload(c, owner, source))


def spec_of_upload(source: Upload) -> SourceSpec:
    """What was asked for, as its kind knows it."""
    return SourceSpec(source.origin or "", source.name, source.options)
