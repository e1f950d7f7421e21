"""The library: the one place where a picture's file and its row change together.

Moving a file into place and inserting its row happen in one write transaction, and so do the last look
for other uses and the removal of a file: SQLite's write lock, held across processes, is what keeps a
delete from taking the file of an upload that comes at the same moment.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import apsw

from app.core.errors import BlobMissing, NotFound, QueueFull
from app.core.types import CollectionInfo, Image, ItemError, Metadata, NewImage, Text
from app.decode.headers import read_header
from app.decode.limits import PictureLimits
from app.storage.attributes import (
    ImageAttributes,
    MetadataLimits,
    check_attributes,
    check_id,
    check_metadata,
    check_text,
)
from app.storage.blobs import BlobStore, StagedFile, is_older, remove_path
from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.model import Filter
from app.storage.tables import collections, embeddings, images, jobs, queue_depth, texts
from app.storage.tables.collections import Collection
from app.storage.tables.images import Added as Added

log = logging.getLogger(__name__)

DELETE_BATCH = 100  # pictures deleted in one transaction: others' changes wait no longer than for that
MAX_EXAMPLES = 5  # pictures shown of those that would be deleted


class Library:
    """Pictures, texts and collections of one data directory. (`app.storage.jobs`: its jobs.)"""

    def __init__(
        self,
        database: Database,
        media: BlobStore,
        limits: PictureLimits,
        max_queue: int,
        bounds: MetadataLimits | None = None,
        max_queue_bytes: int = 1 << 62,
    ) -> None:
        self.database = database
        self.blobs = media
        self.limits = limits
        self.max_queue = max_queue
        self.bounds = bounds or MetadataLimits()
        self.max_queue_bytes = max_queue_bytes

    def incoming(self) -> Path:
        """A new, empty folder for the files of one request; `discard` it when that is answered."""
        return self.blobs.folder()

    def discard(self, folder: Path) -> None:
        """Remove a folder of `incoming`, and what was not taken in."""
        remove_path(folder)

    def add(
        self,
        collection: str,
        path: Path,
        said: ImageAttributes,
        replace: bool = False,
        note: Callable[[apsw.Connection, Added], None] | None = None,
    ) -> Added:
        """Take the picture at `path` (a file of an incoming folder). Returns once it cannot be lost.

        `note` is called in the same transaction. Raises Rejected when its header is not a picture's we take,
        IdConflict, QueueFull, StorageFull.
        """
        self.require_queue_capacity()
        saved = self.blobs.save(path)
        new = self.describe(saved, said)

        def work(c: apsw.Connection) -> Added:
            added = self.insert(c, collection, saved, new, None, replace)
            if note is not None:
                note(c, added)
            return added

        added = self.database.write(work)
        if added.replaced_sha256:
            self._drop_file(added.replaced_sha256)
        log.debug("accepted", extra={"picture": added.image.id, "collection": collection})
        return added

    def describe(self, saved: StagedFile, said: ImageAttributes) -> NewImage:
        """Check what is said and the header (never decodes), and put together what the row will say."""
        check_attributes(said, self.bounds)
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
        self, c: apsw.Connection, collection: str, saved: StagedFile, new: NewImage, job_id: str | None, replace: bool
    ) -> Added:
        """Row and file in one transaction. A duplicate whose file was lost or altered gets it back."""
        require_collection(c, collection)
        added = images.add(c, collection, new, job_id, replace)
        if added.replaced_sha256:
            embeddings.remove(c, "images", added.image.key)
        if not added.duplicate or not self.blobs.whole(saved.sha256):
            self.blobs.place(saved)
        return added

    def known(self, collection: str, digests: Sequence[str]) -> list[str]:
        """Those of the SHA-256 whose bytes are here, in their order: they need not be sent."""

        def work(c: apsw.Connection) -> set[str]:
            require_collection(c, collection)
            return images.filter_stored(c, collection, digests)

        held = self.database.read(work)
        return [digest for digest in digests if digest in held and self.blobs.path(digest).exists()]

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
                return images.list_page(c, collection, limit, before)
            found = images.get_by_keys(c, sql.select_newest(c, collection, filter, limit, before))
            return [found[key] for key in sorted(found, reverse=True)]

        return self.database.read(work)

    def update(self, collection: str, id: str, change: Callable[[Image], ImageAttributes]) -> Image:
        """Change caption, tags and metadata to what `change` makes of the present row."""

        def work(c: apsw.Connection) -> Image:
            image = images.get(c, collection, id)
            if image is None:
                raise NotFound(f"there is no picture {id!r} in {collection!r}")
            said = change(image)
            check_attributes(said, self.bounds)
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
            delete_row(c, image)
            return image.sha256

        self._drop_file(self.database.write(work))

    def matching(self, collection: str, filter: Filter) -> tuple[list[int], list[Image]]:
        """The keys of the pictures that `filter` lets through, and the newest few of them. Raises Timeout."""

        def work(c: apsw.Connection) -> tuple[list[int], list[Image]]:
            require_collection(c, collection)
            keys = sql.select_keys(c, collection, filter)
            found = images.get_by_keys(c, keys[-MAX_EXAMPLES:])
            return keys, [found[key] for key in sorted(found, reverse=True)]

        return self.database.read(work)

    def delete_matching(self, collection: str, filter: Filter, keys: Sequence[int]) -> int:
        """Remove the pictures of `keys` that `filter` lets through to this moment, a few in a transaction.

        Returns how many; each of them is found no more as soon as its transaction is through.
        """
        deleted = 0
        for start in range(0, len(keys), DELETE_BATCH):
            some = keys[start : start + DELETE_BATCH]

            def work(c: apsw.Connection, some: Sequence[int] = some) -> list[str]:
                gone = images.get_by_keys(c, sql.select_passing(c, collection, filter, some))
                for image in gone.values():
                    delete_row(c, image)
                return [image.sha256 for image in gone.values()]

            digests = self.database.write(work)
            deleted += len(digests)
            self._drop_files(digests)
        return deleted

    def file(self, collection: str, id: str) -> tuple[Image, Path]:
        """A picture and the path of its bytes. Raises BlobMissing when it is gone or has other bytes."""
        image = self.get(collection, id)
        path = self.blobs.path(image.sha256)
        if not path.exists():
            raise BlobMissing("the file of this picture is missing; run `sightline verify`")
        if not self.blobs.whole(image.sha256):
            log.warning("the file of a picture was altered", extra={"picture": id, "collection": collection})
            raise BlobMissing("the file of this picture was altered; run `sightline verify`")
        return image, path

    def collections(self) -> list[CollectionInfo]:
        """Every collection and what it holds, by name."""
        return self.database.read(lambda c: [load_contents(c, collection) for collection in collections.list_all(c)])

    def collection(self, name: str) -> CollectionInfo:
        """One collection and what it holds."""

        def work(c: apsw.Connection) -> CollectionInfo:
            return load_contents(c, require_collection(c, name))

        return self.database.read(work)

    def make_collection(self, name: str, description: str) -> CollectionInfo:
        """A new, empty collection. Raises IdConflict when there is one of this name."""
        return self.database.write(lambda c: load_contents(c, collections.create(c, name, description)))

    def update_collection(self, name: str, description: str) -> CollectionInfo:
        """Change what is said of a collection."""

        def work(c: apsw.Connection) -> CollectionInfo:
            changed = collections.set_description(c, name, description)
            if changed is None:
                raise NotFound(f"there is no collection {name!r}")
            return load_contents(c, changed)

        return self.database.write(work)

    def put_texts(
        self,
        collection: str,
        space: str,
        items: Sequence[tuple[str | None, str, Metadata]],
        vectors: Sequence[bytes],
        note: Callable[[apsw.Connection, list[Text]], None] | None = None,
    ) -> tuple[list[Text], int]:
        """Store texts with their vectors; returns them and the last log number. `note` shares the transaction."""
        for id, text, metadata in items:
            check_text("text", text, len(text))
            check_metadata(metadata, self.bounds)
            if id is not None:
                check_id(id)

        def work(c: apsw.Connection) -> tuple[list[Text], int]:
            label = require_collection(c, collection).label
            collections.assign_space(c, label, space)
            stored = []
            seq = 0
            for (id, text, metadata), vector in zip(items, vectors, strict=True):
                row = texts.put(c, collection, id or text_id(text), text, metadata)
                seq = embeddings.add(c, label, space, "texts", row.key, vector)
                stored.append(row)
            if note is not None:
                note(c, stored)
            return stored, seq

        return self.database.write(work)

    def get_text(self, collection: str, id: str) -> Text:
        """The text of this id."""
        text = self.database.read(lambda c: texts.get(c, collection, id))
        if text is None:
            raise NotFound(f"there is no text {id!r} in {collection!r}")
        return text

    def list_texts(self, collection: str, limit: int, before: int | None) -> list[Text]:
        """Up to `limit` texts, newest first, with keys below `before`."""

        def work(c: apsw.Connection) -> list[Text]:
            require_collection(c, collection)
            return texts.list_page(c, collection, limit, before)

        return self.database.read(work)

    def delete_text(self, collection: str, id: str) -> None:
        """Remove a text: no search that begins after this returns finds it."""

        def work(c: apsw.Connection) -> None:
            text = texts.get(c, collection, id)
            if text is None:
                raise NotFound(f"there is no text {id!r} in {collection!r}")
            embeddings.remove(c, "texts", text.key)
            texts.delete(c, text.key)

        self.database.write(work)

    def require_queue_capacity(self) -> None:
        """Raise QueueFull when too many pictures wait, or too many bytes."""
        why_full = self.database.read(queue_depth.read_depth).why_full(self.max_queue, self.max_queue_bytes)
        if why_full is not None:
            raise QueueFull(f"{why_full}; try again later")

    def sweep(self, grace: float, stopping: Callable[[], bool]) -> int:
        """Remove files that no row uses, and thumbnails of none: a kill before a commit leaves them.

        Files younger than `grace` seconds are kept; returns how many were removed. Ends early when `stopping`.
        """
        removed = 0
        for sha256, path in self.blobs.iter_files():
            if stopping():
                break
            if is_older(path, grace) and self.database.read(partial(images.count_uses, sha256=sha256)) == 0:
                self._drop_file(sha256)
                removed += 1
        for sha256 in set(self.blobs.iter_stray_thumbnails()) if not stopping() else ():
            self._drop_file(sha256)
        return removed

    def delete_unused_files(self, digests: Iterable[str]) -> None:
        """Remove those of these files, and thumbnails, that no row uses: what was encoded while it was deleted."""
        known = set(digests)
        for digest in self.database.read(lambda c: {one for one in known if images.count_uses(c, one) == 0}):
            self._drop_file(digest)

    def _drop_file(self, sha256: str) -> None:
        self._drop_files([sha256])

    def _drop_files(self, digests: Sequence[str]) -> None:
        """Remove the files that no row uses any more."""

        def work(c: apsw.Connection) -> None:
            for sha256 in digests:
                if images.count_uses(c, sha256) == 0:
                    self.blobs.delete(sha256)

        self.database.write(work)


def require_collection(c: apsw.Connection, name: str) -> Collection:
    """The collection. Raises NotFound unless it exists."""
    collection = collections.get(c, name)
    if collection is None:
        raise NotFound(f"there is no collection {name!r}")
    return collection


def delete_row(c: apsw.Connection, image: Image) -> None:
    """Remove a picture's row, its vector, and its place in a job."""
    embeddings.remove(c, "images", image.key)
    jobs.fail_items(c, image.key, ItemError("not_found", "deleted before it was processed"))
    images.delete(c, image.key)


def load_contents(c: apsw.Connection, collection: Collection) -> CollectionInfo:
    """What a collection holds."""
    space = embeddings.get_space(c, collection.space) if collection.space else None
    pictures = sum(images.count_by_status(c, collection.name).values())
    name = collection.name
    return CollectionInfo(name, collection.description, pictures, texts.count(c, name), space, collection.created_at)


def text_id(text: str) -> str:
    """The id of a text whose sender gave none: the same words get the same id."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
