"""The library: the one place where a picture's file and its row change together.

Moving a file into place and inserting its row happen in one write transaction, and so do the last look
for other uses and the removal of a file: SQLite's write lock, held across processes, is what keeps a
delete from taking the file of an upload that comes at the same moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apsw

from app.decode.formats import read_header
from app.decode.limits import PictureLimits
from app.description import Bounds, Description, check, check_id, check_metadata, check_text
from app.errors import BlobMissing, NotFound, QueueFull, translated
from app.filter import Filter
from app.media import Media, Saved, discard, older, sync_folder
from app.store import collections, embeddings, filters, images, jobs, steering, texts
from app.store.collections import Collection
from app.store.database import Database
from app.store.images import Added
from app.types import Contents, Image, ItemError, ItemStatus, Job, JobItem, JobState, Metadata, NewImage, Text

STEP = 500  # items of a job that one commit changes
DELETED = 100  # pictures deleted in one transaction: others' changes wait no longer than for that
EXAMPLES = 5  # pictures shown of those that would be deleted
COUNT_SECONDS = 0.5  # how old the count of waiting pictures may be


@dataclass(frozen=True, slots=True)
class Upload:
    """One received file: the sender's name for it and where it lies."""

    name: str
    path: Path
    archive: bool


class Library:
    """Pictures, texts and jobs of one data directory."""

    def __init__(
        self, database: Database, media: Media, limits: PictureLimits, max_queue: int, bounds: Bounds | None = None
    ) -> None:
        self.database = database
        self.media = media
        self.limits = limits
        self.max_queue = max_queue
        self.bounds = bounds or Bounds()
        self._counted_at = float("-inf")
        self._waiting = 0

    def incoming(self) -> Path:
        """A new, empty folder for the files of one request; `discard` it when that is answered."""
        return self.media.folder()

    def discard(self, folder: Path) -> None:
        """Remove a folder of `incoming`, and what was not taken in."""
        discard(folder)

    def add(self, collection: str, path: Path, said: Description, replace: bool = False) -> Added:
        """Take the picture at `path` (a file of an incoming folder). Returns once it cannot be lost.

        Raises Rejected when its header is not a picture's we take, IdConflict, QueueFull, StorageFull.
        """
        self.require_room()
        saved = self.media.save(path)
        new = self.describe(saved, said)
        added = self.database.write(lambda c: self.insert(c, collection, saved, new, None, replace))
        if added.replaced_sha256:
            self._drop_file(added.replaced_sha256)
        return added

    def describe(self, saved: Saved, said: Description) -> NewImage:
        """Check what is said and the header (never decodes), and put together what the row will say."""
        check(said, self.bounds)
        with open(saved.path, "rb") as file:
            header = read_header(file, self.limits)
        return NewImage(
            sha256=saved.sha256,
            format=header.format,
            bytes=saved.bytes,
            width=header.width,
            height=header.height,
            id=said.id,
            caption=said.caption,
            tags=said.tags,
            metadata=said.metadata,
            source=said.source,
        )

    def insert(
        self, c: apsw.Connection, collection: str, saved: Saved, new: NewImage, job_id: str | None, replace: bool
    ) -> Added:
        """Row and file in one transaction. A duplicate whose file was lost gets it back."""
        require_collection(c, collection)
        added = images.add(c, collection, new, job_id, replace)
        if added.replaced_sha256:
            embeddings.remove(c, "images", added.image.key)
        if not added.duplicate or not self.media.path(saved.sha256).exists():
            self.media.place(saved)
        return added

    def add_job(self, collection: str, uploads: Sequence[Upload]) -> Job:
        """Take a bulk of received files; a worker takes them in from where they lie."""
        self.require_room()
        loose = [upload for upload in uploads if not upload.archive]
        archives = [upload for upload in uploads if upload.archive]
        for upload in uploads:
            with translated(), open(upload.path, "rb") as file:
                os.fsync(file.fileno())

        def work(c: apsw.Connection) -> Job:
            require_collection(c, collection)
            id = jobs.create(c, collection, "bulk")
            for n, archive in enumerate(archives, start=1):
                jobs.add_source(c, id, n, "archive", archive.name, 0)
                with translated():
                    archive.path.replace(self.media.upload(id, n))
            if loose:
                jobs.add_source(c, id, 0, "folder", "", len(loose))
                with translated():
                    write_manifest(loose)
                    loose[0].path.parent.replace(self.media.upload(id, 0))
            sync_folder(self.media.incoming)
            job = jobs.get(c, id)
            assert job is not None
            return job

        return self.database.write(work)

    def add_urls(self, collection: str, folder: Path, count: int) -> Job:
        """Take a list of `count` URLs, the manifest in `folder`; a worker fetches them."""
        self.require_room()

        def work(c: apsw.Connection) -> Job:
            require_collection(c, collection)
            id = jobs.create(c, collection, "urls")
            jobs.add_source(c, id, 0, "folder", "", count, "urls")
            with translated():
                folder.replace(self.media.upload(id, 0))
            sync_folder(self.media.incoming)
            job = jobs.get(c, id)
            assert job is not None
            return job

        return self.database.write(work)

    def add_folder(self, collection: str, folder: Path) -> Job:
        """Take a folder of this machine, all of it or what is new; a worker reads it."""
        self.require_room()

        def work(c: apsw.Connection) -> Job:
            require_collection(c, collection)
            id = jobs.create(c, collection, "folder")
            jobs.add_source(c, id, 0, "folder", str(folder), 0, "folder")
            job = jobs.get(c, id)
            assert job is not None
            return job

        return self.database.write(work)

    def get(self, collection: str, id: str) -> Image:
        """The picture of this id."""
        image = self.database.read(lambda c: images.get(c, collection, id))
        if image is None:
            raise NotFound(f"there is no picture {id!r} in {collection!r}")
        return image

    def page(self, collection: str, limit: int, before: int | None, filter: Filter | None = None) -> list[Image]:
        """Up to `limit` pictures that `filter` lets through, newest first, with keys below `before`. Raises Timeout."""

        def work(c: apsw.Connection) -> list[Image]:
            require_collection(c, collection)
            if filter is None:
                return images.page(c, collection, limit, before)
            found = images.by_keys(c, filters.newest(c, collection, filter, limit, before))
            return [found[key] for key in sorted(found, reverse=True)]

        return self.database.read(work)

    def update(self, collection: str, id: str, change: Callable[[Image], Description]) -> Image:
        """Change caption, tags and metadata to what `change` makes of the present row."""

        def work(c: apsw.Connection) -> Image:
            image = images.get(c, collection, id)
            if image is None:
                raise NotFound(f"there is no picture {id!r} in {collection!r}")
            said = change(image)
            check(said, self.bounds)
            images.update(c, image.key, said.caption, said.tags, said.metadata)
            changed = images.get(c, collection, id)
            assert changed is not None
            return changed

        return self.database.write(work)

    def delete(self, collection: str, id: str) -> None:
        """Remove a picture: no search that begins after this returns finds it."""

        def work(c: apsw.Connection) -> str:
            image = images.get(c, collection, id)
            if image is None:
                raise NotFound(f"there is no picture {id!r} in {collection!r}")
            remove_row(c, image)
            return image.sha256

        self._drop_file(self.database.write(work))

    def matching(self, collection: str, filter: Filter) -> tuple[list[int], list[Image]]:
        """The keys of the pictures that `filter` lets through, and the newest few of them. Raises Timeout."""

        def work(c: apsw.Connection) -> tuple[list[int], list[Image]]:
            require_collection(c, collection)
            keys = filters.keys(c, collection, filter)
            found = images.by_keys(c, keys[-EXAMPLES:])
            return keys, [found[key] for key in sorted(found, reverse=True)]

        return self.database.read(work)

    def delete_matching(self, collection: str, filter: Filter, keys: Sequence[int]) -> int:
        """Remove the pictures of `keys` that `filter` lets through to this moment, a few in a transaction.

        Returns how many; each of them is found no more as soon as its transaction is through.
        """
        deleted = 0
        for start in range(0, len(keys), DELETED):
            some = keys[start : start + DELETED]

            def work(c: apsw.Connection, some: Sequence[int] = some) -> list[str]:
                gone = images.by_keys(c, filters.passing(c, collection, filter, some))
                for image in gone.values():
                    remove_row(c, image)
                return [image.sha256 for image in gone.values()]

            digests = self.database.write(work)
            deleted += len(digests)
            self._drop_files(digests)
        return deleted

    def file(self, collection: str, id: str) -> tuple[Image, Path]:
        """A picture and the path of its bytes. Raises BlobMissing when the file is gone."""
        image = self.get(collection, id)
        path = self.media.path(image.sha256)
        if not path.exists():
            raise BlobMissing("the file of this picture is missing; run `sightline verify`")
        return image, path

    def job(self, id: str) -> Job:
        """The job of this id."""
        job = self.database.read(lambda c: jobs.get(c, id))
        if job is None:
            raise NotFound(f"there is no job {id!r}")
        return job

    def cancel_job(self, id: str) -> Job:
        """End a job; one that has ended stays as it is.

        What is ready stays. Uploads that are not taken in are gone; pictures that still wait are `failed`, and
        `retry_job` takes them up again.
        """
        self.job(id)
        for n in self.database.write(lambda c: steering.cancel(c, id)):
            self.discard_upload(id, n)
        self.drop_items(id)
        return self.job(id)

    def retry_job(self, id: str) -> Job:
        """Queue the failed pictures of a job once more; those whose bytes were refused are not here."""
        self.job(id)
        after: int | None = 0
        while after is not None:
            after = self.database.write(partial(steering.retry, id=id, after=after, limit=STEP))
        return self.job(id)

    def drop_items(self, id: str) -> None:
        """Fail everything of a cancelled job that still waits."""
        while self.job(id).state is JobState.CANCELLED and self.database.write(lambda c: steering.drop(c, id, STEP)):
            pass

    def discard_upload(self, id: str, n: int) -> None:
        """Remove upload `n` of a job that nobody will take in (any more)."""
        upload = self.media.upload(id, n)
        discard(upload)
        discard(upload.with_name(upload.name + ".members"))

    def recent_jobs(self, limit: int, among: Set[str] | None = None) -> list[Job]:
        """The newest jobs first, of all collections or `among` these."""
        return self.database.read(lambda c: jobs.recent(c, limit, among))

    def job_items(self, id: str, status: ItemStatus | None, after: int, limit: int) -> list[tuple[int, JobItem]]:
        """Up to `limit` items of a job numbered past `after`, with their numbers."""
        return self.database.read(lambda c: jobs.items(c, id, status, after, limit))

    def collections(self) -> list[Contents]:
        """Every collection and what it holds, by name."""
        return self.database.read(lambda c: [contents(c, collection) for collection in collections.every(c)])

    def collection(self, name: str) -> Contents:
        """One collection and what it holds."""

        def work(c: apsw.Connection) -> Contents:
            return contents(c, require_collection(c, name))

        return self.database.read(work)

    def put_texts(
        self, collection: str, space: str, items: Sequence[tuple[str | None, str, Metadata]], vectors: Sequence[bytes]
    ) -> tuple[list[Text], int]:
        """Store texts with their vectors; returns them and the last log number."""
        for id, text, metadata in items:
            check_text("text", text, len(text))
            check_metadata(metadata, self.bounds)
            if id is not None:
                check_id(id)

        def work(c: apsw.Connection) -> tuple[list[Text], int]:
            require_collection(c, collection)
            collections.stamp(c, collection, space)
            stored = []
            seq = 0
            for (id, text, metadata), vector in zip(items, vectors, strict=True):
                row = texts.put(c, collection, id or text_id(text), text, metadata)
                seq = embeddings.add(c, collection, space, "texts", row.key, vector)
                stored.append(row)
            return stored, seq

        return self.database.write(work)

    def get_text(self, collection: str, id: str) -> Text:
        """The text of this id."""
        text = self.database.read(lambda c: texts.get(c, collection, id))
        if text is None:
            raise NotFound(f"there is no text {id!r} in {collection!r}")
        return text

    def delete_text(self, collection: str, id: str) -> None:
        """Remove a text: no search that begins after this returns finds it."""

        def work(c: apsw.Connection) -> None:
            text = texts.get(c, collection, id)
            if text is None:
                raise NotFound(f"there is no text {id!r} in {collection!r}")
            embeddings.remove(c, "texts", text.key)
            texts.delete(c, text.key)

        self.database.write(work)

    def require_room(self) -> None:
        """Raise QueueFull when too many pictures wait."""
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            self._waiting = self.database.read(images.waiting)
            self._counted_at = time.monotonic()
        if self._waiting >= self.max_queue:
            raise QueueFull(f"{self._waiting} pictures are waiting already; try again later")

    def sweep(self, grace: float, stopping: Callable[[], bool]) -> int:
        """Remove files that no row uses: a kill between linking a file and its commit leaves one.

        Files younger than `grace` seconds are kept; returns how many were removed. Ends early when `stopping`.
        """
        removed = 0
        for sha256, path in self.media.blobs():
            if stopping():
                break
            if older(path, grace) and self.database.read(partial(images.uses, sha256=sha256)) == 0:
                self._drop_file(sha256)
                removed += 1
        return removed

    def _drop_file(self, sha256: str) -> None:
        self._drop_files([sha256])

    def _drop_files(self, digests: Sequence[str]) -> None:
        """Remove the files that no row uses any more."""

        def work(c: apsw.Connection) -> None:
            for sha256 in digests:
                if images.uses(c, sha256) == 0:
                    self.media.delete(sha256)

        self.database.write(work)


def require_collection(c: apsw.Connection, name: str) -> Collection:
    """The collection. Raises NotFound unless it exists."""
    collection = collections.get(c, name)
    if collection is None:
        raise NotFound(f"there is no collection {name!r}")
    return collection


def remove_row(c: apsw.Connection, image: Image) -> None:
    """Remove a picture's row, its vector, and its place in a job."""
    embeddings.remove(c, "images", image.key)
    jobs.item_failed(c, image.key, ItemError("not_found", "deleted before it was processed"))
    images.delete(c, image.key)


def contents(c: apsw.Connection, collection: Collection) -> Contents:
    """What a collection holds."""
    space = embeddings.space(c, collection.space) if collection.space else None
    pictures = sum(images.counts(c, collection.name).values())
    name = collection.name
    return Contents(name, collection.description, pictures, texts.count(c, name), space, collection.created_at)


def text_id(text: str) -> str:
    """The id of a text whose sender gave none: the same words get the same id."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_manifest(uploads: Sequence[Upload]) -> None:
    """List loose pictures the way an expanded archive is listed, durably."""
    folder = uploads[0].path.parent
    with open(folder / "manifest.jsonl", "w", encoding="utf-8") as file:
        for n, upload in enumerate(uploads):
            file.write(json.dumps({"n": n, "name": upload.name, "file": upload.path.name}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
