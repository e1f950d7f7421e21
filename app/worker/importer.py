"""Imports uploads into the library: archives, folders of pictures, lists of URLs and named sources.

An upload waits as `media/.incoming/<job>-<n>` (an archive, a video or a folder). A decode child expands an archive or
a video into `<job>-<n>.members`; for a named source the importer writes a list into such a folder. After that every
upload is a folder with a manifest, and the importer moves its members in chunks. One commit holds a chunk and the
position in the manifest behind it, so that a restart goes on there.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import (
    ArchiveCorrupt,
    IdConflict,
    ImageTooLarge,
    Overloaded,
    Rejected,
    SightlineError,
    UnsupportedMediaType,
    Validation,
    map_os_errors,
)
from app.core.files import NotBeneath, beneath, open_beneath
from app.core.logging import bind_log_fields
from app.core.types import AnswerWarning, ItemError, ItemStatus, NewImage, SourceSpec
from app.decode.archive import expand_archive
from app.decode.left_out import LEFT_OUT_FILE, LeftOut
from app.decode.limits import ArchiveLimits, VideoLimits
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFolder
from app.sources.base import Source, SourceContext, SourceItem, SourcePolicy
from app.sources.registry import SourceReader
from app.sources.stop_signal import ShouldStop
from app.storage.attributes import ImageAttributes, fit_attributes
from app.storage.blobs import StagedFile, remove_path
from app.storage.camera_data import read_sidecar_data
from app.storage.database import Database
from app.storage.library import AddResult, Library
from app.storage.manifest import count_lines, has_manifest, read_manifest
from app.storage.sql import Connection
from app.storage.tables import job_control, jobs, precomputed_vectors, source_cache, videos, work_queue
from app.storage.tables.source_cache import CacheEntry
from app.storage.tables.work_queue import Upload
from app.worker.video_import import Frame, VideoImporter, VideoMember, as_video_error, read_frame, save_frame

log = logging.getLogger(__name__)

CHUNK = 64  # members that share one commit
POLL_SECONDS = 0.1
LOOK_SECONDS = 0.3  # between two looks whether the job is still there
RETRYABLE = ("url_unreachable", "url_not_allowed")  # codes of items whose bytes never came
ID_TAKEN = "id {} belongs to other bytes; give it another id, or none (of a table: --column id=)"


@dataclass(frozen=True, slots=True)
class Member:
    """One line of a manifest, checked: either a picture to import or the reason why not."""

    name: str
    saved: StagedFile | None = None
    new: NewImage | None = None
    error: ItemError | None = None
    origin: tuple[str, CacheEntry] | None = None  # its URL or path, and what the source cache keeps of it
    precomputed: tuple[str, bytes] | None = None  # the space and the vector that came with it
    warnings: tuple[AnswerWarning, ...] = ()
    retry: str | None = None  # how to bring its bytes, which did not come
    frame: Frame | None = None  # of a video
    video: VideoMember | None = None  # in place of a picture


class ExpansionFailed(Exception):
    """An archive or a video ended its decode child, while other children start."""


class VideoKnown(Exception):
    """The frames of a video are in the collection already."""


class Importer:
    """Imports one upload after another, in the fair order of the work queue. Used by one thread of a worker.

    With `patience`, it gives up an archive or a source that it has read for so many seconds while uploads of other jobs
    wait, and leaves it to an importer that has no such bound.
    """

    def __init__(
        self,
        library: Library,
        pool: DecodePool,
        limits: ArchiveLimits,
        archive_seconds: float,
        lease_seconds: float,
        max_attempts: int,
        sources: SourceReader | None = None,
        patience: float = math.inf,
        video_limits: VideoLimits | None = None,
    ) -> None:
        self._library = library
        self._database = library.database
        self._blobs = library.blobs
        self._pool = pool
        self._limits = limits
        self._archive_seconds = archive_seconds
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._sources = sources or SourceReader(SourceContext(self._database, self._blobs, SourcePolicy()))
        self._count_commits = self._database.watch_commits()
        self._videos = VideoImporter(library.blobs, video_limits or VideoLimits(), library.limits)
        self._patience = patience
        self._given_up: set[tuple[str, int]] = set()  # uploads for an importer with more patience
        self._idle_at = -1  # the number of the commit after which no upload waited

    def import_next(self, owner: str, should_stop: ShouldStop) -> float:
        """Import the next upload, until another job's turn; returns after how many seconds to call again.

        Raises a SightlineError when the machine is at fault, a full disk for example; the upload waits again then.
        """
        commit = self._count_commits()
        if commit == self._idle_at:
            return POLL_SECONDS
        if self._given_up:
            self._given_up &= self._database.read(work_queue.list_uploads)
        upload = self._database.write(
            partial(work_queue.claim_upload, owner=owner, seconds=self._lease_seconds, avoided=self._given_up)
        )
        if upload is None:
            self._idle_at = commit
            return POLL_SECONDS
        with bind_log_fields(job=upload.job_id):
            log.info("importing upload %d: %s", upload.n, upload.name or upload.kind)
            self._import(upload, should_stop)
        return 0.0

    def _import(self, upload: Upload, should_stop: ShouldStop) -> None:
        watch = _Watch(self._database, upload, should_stop, self._patience, self._given_up)
        try:
            with ExitStack() as stack:
                source = self._sources.open(spec_of_upload(upload)) if upload.source_kind else None
                if source is not None:
                    stack.callback(source.close)
                if self._import_members(upload, source, watch):
                    self._finish(upload, None)
        except VideoKnown:
            self._finish(upload, None, is_duplicate=True)
        except ExpansionFailed as error:
            log.warning("upload %s-%d cannot be expanded: %s", upload.job_id, upload.n, error)
            self._database.write(lambda c: work_queue.release_upload(c, upload, count_attempt=True))
        except SightlineError as error:
            if not error.retryable:
                self._finish(upload, error)
                return
            if watch.is_out_of_patience:
                log.info("upload %s-%d takes long: another importer goes on with it", upload.job_id, upload.n)
                self._given_up.add((upload.job_id, upload.n))
            self._release(upload)
            if not watch():
                raise
        except Exception:
            if self._discard_if_cancelled(upload):  # which removed the files while they were read
                return
            log.exception("upload %s-%d cannot be imported", upload.job_id, upload.n)
            self._finish(upload, ArchiveCorrupt("the upload cannot be read"))

    def _import_members(self, upload: Upload, source: Source | None, watch: _Watch) -> bool:
        """Import the rest of an upload, chunk by chunk; False when the lease was given back or lost.

        After an attempt that failed, the members of one chunk are imported one by one, to find the one that ends the
        worker.
        """
        began = time.monotonic()
        if upload.video is not None and not has_manifest(self._members_path(upload)):
            upload = replace(upload, imported=0, position=0)  # reading it again may choose other frames
        with watch.with_patience():
            try:
                folder = self._prepare_folder(upload, source, watch)
            finally:
                if seconds := int(time.monotonic() - began):
                    self._database.write(lambda c: work_queue.charge_reading(c, upload, seconds))
        done, position = upload.imported, upload.position
        lines = read_manifest(folder, position)
        if done and not position:  # an older version began it and kept no position
            position = next(islice(lines, done - 1, None), ({}, 0))[1]
        pending = count_lines(folder, position)
        suspect = done + CHUNK if upload.attempts > 1 else done
        while part := list(islice(lines, 1 if done < suspect else CHUNK)):
            position = part[-1][1]
            if done == upload.imported and upload.attempts > self._max_attempts:
                chunk = [self._give_up_member(part[0][0])]
            else:
                chunk = self._stage_members(upload, folder, source, [line for line, _ in part], watch)
            done, pending = done + len(chunk), pending - len(chunk)
            if not self._commit(upload, chunk, (done, pending, position), careful=done < suspect):
                self._discard_if_cancelled(upload)
                return False
            if pending > 0 and (watch() or self._database.read(lambda c: work_queue.must_yield(c, upload))):
                self._release(upload)
                return False
            self._sources.clear(folder)
        return True

    def _prepare_folder(self, upload: Upload, source: Source | None, watch: _Watch) -> Path:
        """The folder with the manifest. Expands an archive or a video, or lists a named source, if no attempt has."""
        path = self._blobs.upload_path(upload.job_id, upload.n)
        self._blobs.fetch_upload(upload.job_id, upload.n)
        if upload.kind == "named" and source is not None:
            with map_os_errors():
                path.mkdir(exist_ok=True)
            if not has_manifest(path):
                self._check_attempts(upload)
                self._sources.write_manifest(source, path, upload.collection, watch)
                self._blobs.keep_upload(upload.job_id, upload.n, path)
            return path
        if upload.kind == "folder":
            return path
        members = self._members_path(upload)
        if not has_manifest(members):
            remove_path(members)
            self._check_attempts(upload)
            with map_os_errors():
                members.mkdir()
            if upload.video is not None:
                self._expand_video(upload, path, members, watch)
            else:
                limits = self._pool.picture_limits
                task = (expand_archive, path, OutputFolder(members), self._limits, limits)
                self._expand(task, self._archive_seconds, watch)
        return members

    def _members_path(self, upload: Upload) -> Path:
        path = self._blobs.upload_path(upload.job_id, upload.n)
        return path.with_name(path.name + ".members")

    def _expand_video(self, upload: Upload, path: Path, members: Path, watch: _Watch) -> None:
        """Write the frames of a video. Raises VideoKnown if they came with another upload."""
        if self._database.read(lambda c: self._videos.is_known(c, upload)):
            raise VideoKnown
        try:
            self._expand(self._videos.make_task(upload, path, members), self._videos.limits.seconds, watch)
        except ArchiveCorrupt as error:
            raise as_video_error(error) from None

    def _check_attempts(self, upload: Upload) -> None:
        if upload.attempts > self._max_attempts:
            raise ArchiveCorrupt(f"importing it failed {self._max_attempts} times")

    def _expand(self, task: tuple[Any, ...], seconds: float, watch: _Watch) -> None:
        """Run a task that expands; kills the child when the worker stops, the job is gone, or others wait too long."""
        expanding = self._pool.submit(*task, seconds=seconds)
        while not wait([expanding], POLL_SECONDS).done:
            if watch():
                expanding.cancel()
                raise Overloaded("the worker is stopping")
        try:
            expanding.result()
        except CancelledError:
            raise ArchiveCorrupt("the archive was not read to its end") from None
        except Overloaded as error:
            if watch():
                raise
            self._pool.prewarm()  # raises when no child can be started: then the archive is not at fault
            raise ExpansionFailed(error.detail) from None

    def _stage_members(
        self, upload: Upload, folder: Path, source: Source | None, lines: Sequence[SourceItem], should_stop: ShouldStop
    ) -> list[Member]:
        if upload.video is not None:
            lines = [self._videos.describe(upload, line) for line in lines]
        if source is None:
            return [self._stage_member(folder, line) for line in lines]
        came = self._sources.fetch(source, folder, lines, should_stop)
        spec = spec_of_upload(upload)
        return [
            replace(self._stage_member(folder, line), retry=job_control.format_lost(spec, before))
            if line.get("error") and not before.get("error") and line["error"]["code"] in RETRYABLE
            else self._stage_member(folder, line)
            for before, line in zip(lines, came, strict=True)
        ]

    def _stage_member(self, folder: Path, line: SourceItem) -> Member:
        """Check a line of the manifest and its file, and write the file to the disk for good (fsync)."""
        name = str(line["name"])
        if line.get("error"):
            return Member(name, error=ItemError(line["error"]["code"], line["error"]["detail"]))
        try:
            path = beneath(folder, line["file"])  # a decode child wrote the line
            if not path.is_file():
                raise NotBeneath("this is no plain file")
            saved = self._blobs.stage(path)
            said = ImageAttributes(
                id=line.get("id"),
                caption=line.get("caption"),
                tags=tuple(line.get("tags") or ()),
                metadata=line.get("metadata") or {},
                source=line.get("source") or name,
                camera_data=read_sidecar_data(line.get("camera_data")),
            )
            attributes, warnings = fit_attributes(said, self._library.metadata_limits)
            warnings = [*(AnswerWarning(**one) for one in line.get("warnings") or ()), *warnings]
            origin = (line["origin"], CacheEntry(line["tag"], saved.sha256)) if line.get("tag") else None
            try:
                new = self._library.prepare_image(saved, attributes)
            except (UnsupportedMediaType, ImageTooLarge):
                video = self._videos.stage(name, saved, attributes, tuple(warnings))
                if video is None:
                    raise
                return Member(name, origin=origin, video=video)
            given, frame = line.get("given"), read_frame(line)
            return Member(name, saved, new, origin=origin, precomputed=given, warnings=tuple(warnings), frame=frame)
        except (Rejected, Validation) as error:
            return Member(name, error=ItemError(error.code, error.detail))

    def _give_up_member(self, line: SourceItem) -> Member:
        reason = f"the worker died {self._max_attempts} times while it imported this"
        return Member(str(line["name"]), error=ItemError("image_corrupt", reason))

    def _commit(self, upload: Upload, chunk: list[Member], progress: tuple[int, int, int], *, careful: bool) -> bool:
        """Insert a chunk and record the progress (imported, pending, position); False when the lease was lost."""
        staged = [member.saved for member in chunk if member.saved is not None and member.new is not None]
        if upload.video is not None and (kept := self._videos.find_kept(upload)) is not None:
            staged.append(kept)
        self._blobs.put(staged)
        for member in chunk:
            if member.video is not None:
                self._blobs.keep_upload(upload.job_id, member.video.n, member.video.saved.path)

        def work(c: Connection) -> bool:
            if not work_queue.holds_upload(c, upload):
                return False
            self._blobs.confirm(staged)
            if upload.video is not None:
                self._videos.save(c, upload, self._members_path(upload))
            for member in chunk:
                self._insert(c, upload, member)
            work_queue.record_progress(c, upload, *progress, careful=careful)
            return True

        return self._database.write(work)

    def _insert(self, c: Connection, upload: Upload, member: Member) -> None:
        job, name = upload.job_id, member.name
        if member.video is not None:
            self._videos.add(c, upload, member.video)
            if member.origin is not None:
                source_cache.store(c, *member.origin)
            return
        if member.saved is None or member.new is None:
            jobs.add_item(c, job, name, ItemStatus.FAILED, error=member.error, retry=member.retry)
            return
        try:
            added = self._library.insert(c, upload.collection, member.saved, member.new, job, replace=False)
        except SightlineError as error:
            if error.retryable:
                raise
            detail = ID_TAKEN.format(member.new.id) if isinstance(error, IdConflict) else error.detail
            jobs.add_item(c, job, name, ItemStatus.FAILED, error=ItemError(error.code, detail))
            return
        if member.origin is not None:
            source_cache.store(c, *member.origin)
        if member.frame is not None:
            save_frame(c, added.image.key, member.frame)
        if member.precomputed is not None and not added.duplicate:
            precomputed_vectors.store(c, added.image.key, *member.precomputed)
        status = ItemStatus.DUPLICATE if added.duplicate else ItemStatus.QUEUED
        warnings = [*member.warnings, *added.warnings, *describe_duplicate(added)]
        jobs.add_item(c, job, name, status, image=(added.image.key, added.image.id), warnings=warnings)

    def _finish(self, upload: Upload, error: SightlineError | None, *, is_duplicate: bool = False) -> None:
        """End an upload that is imported, or for which `error` says why it never will be, and remove its files."""
        left_out = self._read_left_out(upload) if error is None else LeftOut()

        def work(c: Connection) -> bool:
            if not work_queue.holds_upload(c, upload):
                return False
            if error is not None:
                reason = ItemError(error.code, error.detail)
                jobs.add_item(c, upload.job_id, upload.name or "upload", ItemStatus.FAILED, error=reason)
            elif is_duplicate:
                jobs.add_item(c, upload.job_id, upload.name, ItemStatus.DUPLICATE)
            elif upload.video is not None:
                videos.complete(c, upload.collection, upload.video["sha256"])
            if left_out:
                jobs.add_left_out(c, upload.job_id, left_out)
            work_queue.finish_upload(c, upload)
            return True

        if self._database.write(work):
            self._blobs.delete_upload(upload.job_id, upload.n)
        else:
            self._discard_if_cancelled(upload)

    def _read_left_out(self, upload: Upload) -> LeftOut:
        path = self._blobs.upload_path(upload.job_id, upload.n)
        folder = self._members_path(upload) if upload.kind == "archive" else path
        try:
            with open_beneath(folder, LEFT_OUT_FILE) as file:
                return LeftOut.from_json(json.load(file))
        except FileNotFoundError:
            return LeftOut()

    def _discard_if_cancelled(self, upload: Upload) -> bool:
        """Remove the files of an upload whose job was cancelled; another worker that has the lease needs them."""
        cancelled = not self._database.read(lambda c: work_queue.upload_exists(c, upload))
        if cancelled:
            self._blobs.delete_upload(upload.job_id, upload.n)
        return cancelled

    def _release(self, upload: Upload) -> None:
        self._database.write(lambda c: work_queue.release_upload(c, upload))
        self._discard_if_cancelled(upload)


class _Watch:
    """Says of an upload that is being read whether to stop: the worker stops, the job is gone, or others wait too long.

    It is a ShouldStop.
    """

    def __init__(
        self,
        database: Database,
        upload: Upload,
        should_stop: ShouldStop,
        patience: float,
        avoided: Collection[tuple[str, int]],
    ) -> None:
        """Uploads that are `avoided` do not count among those that wait."""
        self._avoided = avoided
        self._database, self._upload, self._should_stop = database, upload, should_stop
        self._patience = patience
        self._deadline = math.inf
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._is_gone = False
        self.is_out_of_patience = False

    def __call__(self) -> bool:
        if time.monotonic() >= self._look_at and not self._is_gone:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._is_gone = not self._database.read(lambda c: work_queue.upload_exists(c, self._upload))
            if time.monotonic() >= self._deadline:
                job, avoided = self._upload.job_id, self._avoided
                self.is_out_of_patience = self._database.read(lambda c: work_queue.has_waiting_upload(c, job, avoided))
        return self._is_gone or self.is_out_of_patience or self._should_stop()

    @contextmanager
    def with_patience(self) -> Iterator[None]:
        """Stop, within the block, when its patience has ended while uploads of other jobs wait."""
        self._deadline = time.monotonic() + self._patience
        yield
        self._deadline = math.inf


def describe_duplicate(added: AddResult) -> list[AnswerWarning]:
    """What became of the attributes of a picture that was there already."""
    warnings = []
    for code, names, what in (
        ("filled", added.filled, "the picture was there already without {}, which it has now"),
        ("kept", added.kept, "the picture was there already with another {}, which it keeps"),
    ):
        if names:
            listed = ", ".join(names)
            warnings.append(AnswerWarning(code, what.format(listed), listed))
    return warnings


def spec_of_upload(upload: Upload) -> SourceSpec:
    """The source as the request named it."""
    return SourceSpec(upload.source_kind or "", upload.name, upload.options)
