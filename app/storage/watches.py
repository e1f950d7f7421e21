"""Watched folders: applies what became of their files to the pictures of a collection.

The reader of the folder, the server or `sightline watch` elsewhere, finds out what has changed and sends it here.
Every change is idempotent, and the row of a file changes in the transaction that changes its picture: after a kill at
any moment, a comparison of the folder with these rows finds what is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from app.core.errors import NotFound, Overloaded, Rejected, SightlineError, Validation
from app.core.types import CameraData, Image, ItemError, ItemStatus, JobState, NewImage
from app.decode.camera_data import camera_data_of, camera_data_to_json
from app.storage.attributes import ImageAttributes, fit_attributes
from app.storage.blobs import StagedFile
from app.storage.camera_data import read_sidecar_data
from app.storage.library import AddResult, Library, delete_row
from app.storage.sql import Connection
from app.storage.tables import images, jobs, watches
from app.storage.tables.watches import DISPLACED, MAX_WATCHES
from app.storage.tables.watches import Watch as Watch
from app.storage.tables.watches import WatchedFile as WatchedFile
from app.storage.tables.watches import WatchReport as WatchReport
from app.storage.tables.watches import split_path as split_path

log = logging.getLogger(__name__)

JOB_KIND = "watch"
JOB_PICTURES = 8  # pictures of one call that become a job, so that uploads by hand need not wait for them
FORGET_BATCH = 1_000  # files of a watch that one commit forgets
MAX_PATH_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class FileChange:
    """What became of one file of a watched folder.

    `put`: the file at `path` has these bytes now, new or changed, or only its time or what lies beside it has changed.
    `move`: the file at `before` has another path now, and is the same otherwise. `delete`: there is no file any more.
    `fields` is what the files beside it say; None if that has not changed. With an `error` it cannot become a picture.
    """

    kind: Literal["put", "move", "delete"]
    path: str
    before: str = ""
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    sha256: str = ""
    beside: str = ""
    is_mounted: bool = False
    fields: Mapping[str, Any] | None = None
    error: ItemError | None = None

    def to_file(self, error: ItemError | None = None) -> WatchedFile:
        """The file that it puts."""
        folder, name = split_path(self.path)
        stat = (folder, name, self.size, self.mtime_ns, self.inode, self.sha256, self.beside, self.is_mounted)
        return WatchedFile(*stat, self.fields or {}, error=self.error or error)

    def to_moved(self, file: WatchedFile) -> WatchedFile:
        """The file that it moves, at its new path."""
        folder, name = split_path(self.path)
        stat = {"size": self.size, "mtime_ns": self.mtime_ns, "inode": self.inode, "is_mounted": self.is_mounted}
        return replace(file, folder=folder, name=name, **stat)  # type: ignore[arg-type]

    def with_fields(self, fields: Mapping[str, Any]) -> FileChange:
        return replace(self, fields=fields)


@dataclass(slots=True)
class ChangesResult:
    """What came of changes. `wanted` are the paths whose bytes the server needs."""

    added: int = 0
    replaced: int = 0
    moved: int = 0
    deleted: int = 0
    wanted: list[str] = field(default_factory=list)
    failed: dict[str, ItemError] = field(default_factory=dict)

    def merge(self, other: ChangesResult) -> None:
        """Add what came of further changes."""
        self.added += other.added
        self.replaced += other.replaced
        self.moved += other.moved
        self.deleted += other.deleted
        self.failed |= other.failed

    @property
    def has_changed(self) -> bool:
        return self.added + self.replaced + self.moved + self.deleted > 0


class WatchStore:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._database = library.database

    def create(self, collection: str, kind: str, place: str, title: str, options: Mapping[str, Any]) -> Watch:
        """A new watch, or the one that there is, with these options. Raises NotFound, Validation."""

        def work(c: Connection) -> Watch:
            others = [one for one in watches.list_all(c) if one.collection == collection]
            if len(others) >= MAX_WATCHES and all((one.kind, one.place) != (kind, place) for one in others):
                raise Validation(f"a collection may have {MAX_WATCHES} watched folders")
            return watches.create(c, collection, kind, place, title, options)

        return self._database.write(work)

    def get(self, id: str) -> Watch:
        """Raises NotFound."""
        watch = self._database.read(lambda c: watches.get(c, id))
        if watch is None:
            raise NotFound(f"there is no watched folder {id!r}")
        return watch

    def list_all(self) -> list[Watch]:
        return self._database.read(watches.list_all)

    def set_paused(self, id: str, *, paused: bool) -> Watch:
        watch = self.get(id)
        self._database.write(lambda c: watches.set_paused(c, watch.n, paused=paused))
        return self.get(id)

    def ask_for_scan(self, watch: Watch) -> None:
        """Let the server that reads the folder look at every file of it soon."""
        self._database.write(lambda c: watches.ask_for_scan(c, watch.n))

    def list_asked_scans(self) -> list[str]:
        """The ids of the watched folders for which `ask_for_scan` was called."""
        return self._database.read(watches.list_asked_scans)

    def forget_asked_scans(self, ids: Sequence[str]) -> None:
        if ids:
            self._database.write(lambda c: watches.forget_asked_scans(c, ids))

    def confirm(self, id: str) -> Watch:
        """Allow the deletions that are held. Raises NotFound."""
        watch = self.get(id)
        self._database.write(lambda c: watches.set_confirmed(c, watch.n, confirmed=True))
        return self.get(id)

    def delete(self, id: str) -> None:
        """Forget a watch; its pictures stay. Raises NotFound."""
        watch = self.get(id)
        self._database.write(lambda c: watches.delete(c, watch.n))
        while self._database.write(lambda c: watches.delete_unused_files(c, FORGET_BATCH)):
            pass

    def report(self, watch: Watch, said: WatchReport) -> None:
        self._database.write(lambda c: watches.report(c, watch.n, said))

    def list_files(self, watch: Watch, folder: str) -> list[WatchedFile]:
        return self._database.read(lambda c: watches.list_files(c, watch.n, folder))

    def list_folders(self, watch: Watch) -> list[str]:
        return self._database.read(lambda c: watches.list_folders(c, watch.n))

    def list_page(
        self, watch: Watch, after: tuple[str, str], limit: int, *, failed: bool = False
    ) -> tuple[list[WatchedFile], dict[int, Image]]:
        """A page of files, and their pictures by key."""

        def work(c: Connection) -> tuple[list[WatchedFile], dict[int, Image]]:
            found = watches.list_page(c, watch.n, after, limit, failed=failed)
            return found, images.get_by_keys(c, [one.image_key for one in found if one.image_key is not None])

        return self._database.read(work)

    def find_by_inode(self, watch: Watch, inode: int) -> list[WatchedFile]:
        return self._database.read(lambda c: watches.find_by_inode(c, watch.n, inode))

    def find_by_sha256(self, watch: Watch, sha256: str) -> list[WatchedFile]:
        return self._database.read(lambda c: watches.find_by_sha256(c, watch.n, sha256))

    def apply(
        self, id: str, changes: Sequence[FileChange], received: Mapping[str, Path] | None = None
    ) -> ChangesResult:
        """Apply changes in one transaction. `received` has files of an upload folder with the bytes, by the paths.

        The result names the files whose bytes are needed; send their changes again, with the bytes. Raises NotFound,
        QueueFull, StorageFull.
        """
        watch = self.get(id)
        if received:
            self._library.require_queue_capacity()
        changes = [self._fit(change) for change in changes]
        files = {name: self._library.blobs.stage(path) for name, path in (received or {}).items()}
        prepared = {
            change.path: self._prepare(watch, change, files[change.path])
            for change in changes
            if change.kind == "put" and change.error is None and change.path in files
        }
        blobs, new = self._library.blobs, [files[name] for name, one in prepared.items() if isinstance(one, NewImage)]
        blobs.put(new)
        stored = blobs.find_existing({one.sha256 for one in changes if one.kind == "put" and one.path not in files})

        def work(c: Connection) -> _Batch:
            blobs.confirm(new)
            return _Batch(c, self._library, watch, files, prepared, stored).apply(changes)

        batch = self._database.write(work)
        if batch.unused:
            self._library.delete_unused_files(batch.unused)
        return batch.result

    def _fit(self, change: FileChange) -> FileChange:
        """The change with fields that can be stored. Raises Validation for paths that are none."""
        known, new = (change.path, "") if change.kind == "delete" else (change.before, change.path)
        is_absolute = new.startswith("/") or (known.startswith("/") and not known.startswith(DISPLACED))
        for path in (known, new):
            if is_absolute or len(path) > MAX_PATH_CHARS or "\0" in path:
                raise Validation("a path is relative to the watched folder, and has at most 4,096 characters")
        if not change.fields:
            return change
        said = ImageAttributes(
            id=change.fields.get("id"),
            caption=change.fields.get("caption"),
            tags=tuple(change.fields.get("tags") or ()),
            metadata=change.fields.get("metadata") or {},
        )
        fit, _ = fit_attributes(said, self._library.metadata_limits)
        carried = read_sidecar_data(change.fields.get("camera_data"))
        fields = {
            "id": fit.id,
            "caption": fit.caption,
            "tags": list(fit.tags),
            "metadata": dict(fit.metadata),
            "camera_data": camera_data_to_json(carried) if carried else None,
        }
        return replace(change, fields={name: value for name, value in fields.items() if value})

    def _prepare(self, watch: Watch, change: FileChange, staged: StagedFile) -> NewImage | ItemError:
        """The row of a picture, or why its file is none."""
        said = change.fields or {}
        attributes = ImageAttributes(
            id=said.get("id"),
            caption=said.get("caption"),
            tags=tuple(said.get("tags", ())),
            metadata=said.get("metadata", {}),
            source=name_source(watch, change.path),
            camera_data=read_sidecar_data(said.get("camera_data")),
        )
        try:
            return self._library.prepare_image(staged, attributes)
        except (Rejected, Validation) as error:
            return ItemError(error.code, error.detail)


def name_source(watch: Watch, path: str) -> str:
    """The `source` of a picture, as an import of the folder names it."""
    return f"{watch.title}/{path}"


def displace(file: WatchedFile) -> WatchedFile:
    """A file whose path another one takes, where it is kept until it is found elsewhere, or deleted."""
    return replace(file, folder=DISPLACED, name=f"{file.inode}:{file.mtime_ns}:{quote(file.path, safe='')}")


def path_before(file: WatchedFile) -> str:
    """The path of a file; the one that it had, if another file has taken that."""
    return file.path if file.folder != DISPLACED else unquote(file.name.split(":", 2)[2])


class _Batch:
    """Changes that one transaction applies."""

    def __init__(
        self,
        c: Connection,
        library: Library,
        watch: Watch,
        staged: Mapping[str, StagedFile],
        prepared: Mapping[str, NewImage | ItemError],
        stored: Set[str],
    ) -> None:
        """`stored` are the digests of bytes that are stored, of those that changes name and `staged` does not have."""
        self._stored = stored
        self._c = c
        self._library = library
        self._watch = watch
        self._staged = staged
        self._prepared = prepared
        self._job: str | None = None
        self.result = ChangesResult()
        self.unused: list[str] = []  # digests of files that perhaps no row uses any more

    def apply(self, changes: Sequence[FileChange]) -> _Batch:
        watch = watches.get(self._c, self._watch.id)
        if watch is None:
            raise NotFound(f"there is no watched folder {self._watch.id!r}")
        if watch.paused:
            raise Overloaded("this watched folder is paused; resume it")
        self._job = self._find_job(watch)
        self._move([change for change in changes if change.kind == "move"])
        for change in changes:
            if change.kind == "put":
                self._put(change)
        for change in changes:
            if change.kind == "delete":
                self._delete(change.path)
        if self._job is not None:
            jobs.finish_if_complete(self._c, self._job)
        if self.result.has_changed:
            watches.mark_changed(self._c, watch.n)
        return self

    def _find_job(self, watch: Watch) -> str | None:
        """The job of new pictures: the one that the watch began, while it runs, or a new one for many."""
        new = sum(isinstance(one, NewImage) for one in self._prepared.values())
        if not new:
            return None
        held = jobs.get(self._c, watch.job_id) if watch.job_id else None
        if held is not None and held.state in (JobState.QUEUED, JobState.RUNNING):
            return held.id
        if new < JOB_PICTURES:
            return None
        id = jobs.create(self._c, watch.collection, JOB_KIND)
        jobs.set_name(self._c, id, watch.title)
        watches.set_job(self._c, watch.n, id)
        return id

    def _move(self, changes: Sequence[FileChange]) -> None:
        """Give files their new paths, all at once: two may have changed places."""
        moved = [(change, watches.get_file(self._c, self._watch.n, change.before)) for change in changes]
        for change, file in moved:
            if file is not None:
                watches.delete_file(self._c, self._watch.n, file.folder, file.name)
            elif (held := watches.get_file(self._c, self._watch.n, change.path)) is None or (
                (held.size, held.mtime_ns, held.inode) != (change.size, change.mtime_ns, change.inode)
            ):
                self.result.wanted.append(change.path)  # nobody knows the file that moved: it is new
        for change, file in moved:
            if file is not None:
                if (other := watches.get_file(self._c, self._watch.n, change.path)) is not None:
                    watches.delete_file(self._c, self._watch.n, other.folder, other.name)
                    watches.put_file(self._c, self._watch.n, displace(other))
                watches.put_file(self._c, self._watch.n, change.to_moved(file))
                self._rename(file, change.path)
                self.result.moved += 1

    def _rename(self, file: WatchedFile, path: str) -> None:
        """Let the picture name its new path, if it named the old one."""
        if file.image_key is not None:
            before, after = name_source(self._watch, path_before(file)), name_source(self._watch, path)
            images.rename(self._c, file.image_key, before, after)

    def _put(self, change: FileChange) -> None:
        c, n = self._c, self._watch.n
        old = watches.get_file(c, n, change.path)
        error = change.error or self._prepared.get(change.path)
        if isinstance(error, ItemError):
            self._fail(change, old, error)
            return
        staged = self._staged.get(change.path)
        sha256 = staged.sha256 if staged else change.sha256
        change = replace(change, sha256=sha256)
        if old is not None and old.sha256 == sha256 and old.error is None:
            self._touch(change, old)
            return
        same = images.get_by_sha256(c, self._watch.collection, sha256)
        if same is not None and staged is None and sha256 in self._stored:
            self._join(change, old, same)
        elif staged is None:
            self.result.wanted.append(change.path)
        else:
            self._store(change, old, staged)

    def _touch(self, change: FileChange, old: WatchedFile) -> None:
        """The same bytes: only the time, or what lies beside the file, has changed."""
        said = old.said if change.fields is None else change.fields
        if change.fields is not None and old.image_key is not None:
            self._describe(old.image_key, old.said, said)
        kept = replace(change.to_file(), said=said, image_key=old.image_key, is_ours=old.is_ours)
        watches.put_file(self._c, self._watch.n, kept)

    def _join(self, change: FileChange, old: WatchedFile | None, same: Image) -> None:
        """The bytes are a picture already: the file is one more path of it."""
        if change.fields:
            self._describe(
                same.key, {}, {name: value for name, value in change.fields.items() if not getattr(same, name, None)}
            )
        is_ours = self._is_ours(same, change.path)
        watches.put_file(self._c, self._watch.n, replace(change.to_file(), image_key=same.key, is_ours=is_ours))
        self.result.added += 1
        if old is not None and old.image_key != same.key:
            self._release(old)

    def _store(self, change: FileChange, old: WatchedFile | None, staged: StagedFile) -> None:
        """Add a picture, or replace the bytes of the one that only this path had, which keeps its id and attributes."""
        new = self._prepared[change.path]
        assert isinstance(new, NewImage)
        kept = self._find_replaced(old)
        if old is not None and kept is not None:
            said = merge_fields(kept, old.said, old.said if change.fields is None else change.fields)
            if change.fields is None:
                said["camera_data"] = self._read_camera_data(old.said)
            new = replace(new, id=kept.id, source=kept.source, **said)
        try:
            added = self._library.insert(self._c, self._watch.collection, staged, new, self._job, kept is not None)
        except SightlineError as error:
            if error.retryable:
                raise
            self._fail(change, old, ItemError(error.code, error.detail))
            return
        is_ours = not added.duplicate or self._is_ours(added.image, change.path)
        fields = change.fields if change.fields is not None else (old.said if old else {})
        file = replace(change.to_file(), said=fields, image_key=added.image.key, is_ours=is_ours)
        watches.put_file(self._c, self._watch.n, file)
        self._count(change, added)
        if added.replaced_sha256:
            self.unused.append(added.replaced_sha256)
        if old is not None and old.image_key != added.image.key:
            self._release(old)

    def _count(self, change: FileChange, added: AddResult) -> None:
        self.result.replaced += added.replaced_sha256 is not None
        self.result.added += added.replaced_sha256 is None
        if self._job is not None:
            status = ItemStatus.DUPLICATE if added.duplicate else ItemStatus.QUEUED
            name = name_source(self._watch, change.path)
            jobs.add_item(self._c, self._job, name, status, image=(added.image.key, added.image.id))

    def _fail(self, change: FileChange, old: WatchedFile | None, error: ItemError) -> None:
        watches.put_file(self._c, self._watch.n, replace(change.to_file(), error=error))
        self.result.failed[change.path] = error
        if self._job is not None:
            jobs.add_item(self._c, self._job, name_source(self._watch, change.path), ItemStatus.FAILED, error=error)
        if old is not None:
            self._release(old)

    def _delete(self, path: str) -> None:
        file = watches.get_file(self._c, self._watch.n, path)
        if file is not None:
            watches.delete_file(self._c, self._watch.n, file.folder, file.name)
            self._release(file)
            self.result.deleted += 1

    def _find_replaced(self, old: WatchedFile | None) -> Image | None:
        """The picture whose bytes may change: this watch brought it, and it has no other path."""
        if old is None or old.image_key is None or not old.is_ours:
            return None
        if len(watches.find_by_picture(self._c, old.image_key)) > 1:
            return None
        return images.get_by_keys(self._c, [old.image_key]).get(old.image_key)

    def _is_ours(self, image: Image, path: str) -> bool:
        """Whether watching brought this picture, or an import of the same folder under the same name did."""
        others = watches.find_by_picture(self._c, image.key)
        return any(is_ours for _, is_ours in others) or image.source == name_source(self._watch, path)

    def _release(self, file: WatchedFile) -> None:
        """Delete the picture of a file that is gone, if watching brought it and no other file is the same picture.

        A picture that stays names another of its files.
        """
        if file.image_key is None:
            return
        if (other := watches.find_name_of_picture(self._c, file.image_key)) is not None:
            before = name_source(self._watch, path_before(file))
            images.rename(self._c, file.image_key, before, "/".join(other))
        if not file.is_ours or not self._watch.mirrors_deletions or watches.find_by_picture(self._c, file.image_key):
            return
        image = images.get_by_keys(self._c, [file.image_key]).get(file.image_key)
        if image is not None:
            delete_row(self._c, image.key)
            self.unused.append(image.sha256)

    def _describe(self, key: int, said: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        image = images.get_by_keys(self._c, [key]).get(key)
        if image is not None:
            merged = merge_fields(image, said, fields)
            images.update(self._c, key, merged["caption"], merged["tags"], merged["metadata"])
            images.fill_camera_data(self._c, key, camera_data_of(image), self._read_camera_data(fields))

    def _read_camera_data(self, fields: Mapping[str, Any]) -> CameraData | None:
        return self._library.camera_policy.apply(read_sidecar_data(fields.get("camera_data")))


def merge_fields(image: Image, said: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Caption, tags and metadata when the files beside a picture say `fields` now, and said `said` before.

    What they say counts; what they said and no longer say goes, unless somebody has changed it meanwhile.
    """
    merged: dict[str, Any] = {}
    has = {"caption": image.caption, "tags": list(image.tags), "metadata": dict(image.metadata)}
    for name, present in has.items():
        if fields.get(name):
            merged[name] = fields[name]
        elif said.get(name) and said[name] == present:
            merged[name] = {"caption": None, "tags": [], "metadata": {}}[name]
        else:
            merged[name] = present
    return merged | {"tags": tuple(merged["tags"])}
