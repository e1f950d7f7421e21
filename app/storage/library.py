"""The library: the one place where a picture's file and its row change together.

One write transaction moves a file into place and inserts its row; another looks for rows with the bytes of a file
and removes the file. SQLite's write lock holds across processes, so a delete never takes the file of an upload that
arrives at the same moment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from app.core.errors import BlobMissing, NotFound, QueueFull, map_os_errors
from app.core.types import (
    AnswerWarning,
    CameraData,
    CollectionInfo,
    EmbeddingSpace,
    Image,
    ItemError,
    Metadata,
    NewImage,
    Text,
)
from app.decode.headers import PictureHeader, read_header
from app.decode.limits import PictureLimits
from app.storage import gc
from app.storage.attributes import (
    ImageAttributes,
    MetadataLimits,
    check_attributes,
    check_id,
    check_metadata,
    check_text,
)
from app.storage.blobs import BlobStore, StagedFile, remove_path
from app.storage.bucket_blobs import BucketBlobStore
from app.storage.camera_data import CameraDataPolicy, record_camera_data
from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.model import Filter
from app.storage.filters.values import Order, Place, select_ordered
from app.storage.idempotency import ResponseSlot
from app.storage.sql import Connection, fetch_number
from app.storage.tables import (
    collection_deletion,
    collections,
    embeddings,
    images,
    jobs,
    label_sets,
    next_space,
    queue_depth,
    texts,
    videos,
)
from app.storage.tables.collections import Collection
from app.storage.tables.images import AddResult as AddResult

log = logging.getLogger(__name__)

DELETE_BATCH = 100  # pictures deleted in one transaction: other writes wait no longer than for that
COUNT_ANYTHING = (
    "SELECT EXISTS (SELECT 1 FROM images) OR EXISTS (SELECT 1 FROM texts) OR EXISTS (SELECT 1 FROM jobs)"
    " OR EXISTS (SELECT 1 FROM keys)"
)
MAX_EXAMPLES = 5  # pictures that `find_matching` returns, of those that match


class Library:
    """Pictures, texts and collections of one data directory. (`app.storage.jobs`: its jobs.)"""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        limits: PictureLimits,
        max_queue: int,
        metadata_limits: MetadataLimits | None = None,
        max_queue_bytes: int = 1 << 62,
        camera_policy: CameraDataPolicy | None = None,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.limits = limits
        self.max_queue = max_queue
        self.metadata_limits = metadata_limits or MetadataLimits()
        self.max_queue_bytes = max_queue_bytes
        self.camera_policy = camera_policy or CameraDataPolicy()

    def close(self) -> None:
        """Finish the writes that were submitted, then close the database."""
        self.database.close()
        self.blobs.close()

    def create_upload_dir(self) -> Path:
        """A new, empty folder for the files of one request. The caller removes it with `delete_upload_dir`."""
        return self.blobs.create_upload_dir()

    def delete_upload_dir(self, folder: Path) -> None:
        """Remove a folder of `create_upload_dir` with the files that are still in it."""
        remove_path(folder)

    def add(
        self,
        collection: str,
        path: Path,
        attributes: ImageAttributes,
        replace: bool = False,
        slot: ResponseSlot | None = None,
    ) -> AddResult:
        """Add the picture at `path`, a file of an upload folder. When this returns, the picture survives a power cut.

        `slot` gets the result in the same transaction. Raises Rejected when the header is not that of a picture,
        IdConflict, QueueFull, StorageFull.
        """
        self.require_queue_capacity()
        staged = self.blobs.stage(path)
        new = self.prepare_image(staged, attributes)
        self.blobs.put([staged])

        def work(c: Connection) -> AddResult:
            self.blobs.confirm([staged])
            added = self.insert(c, collection, staged, new, None, replace)
            if slot is not None:
                slot.record(c, added)
            return added

        added = self.database.write(work)
        if added.replaced_sha256:
            self._delete_files([added.replaced_sha256])
        log.debug("accepted", extra={"picture": added.image.id, "collection": collection})
        return added

    def prepare_image(self, staged: StagedFile, attributes: ImageAttributes) -> NewImage:
        """Check what is attributes and the header (never decodes), and put together what the row will say."""
        check_attributes(attributes, self.metadata_limits)
        with open(staged.path, "rb") as file:
            header = read_header(file, self.limits)
        return NewImage(
            sha256=staged.sha256,
            format=header.format,
            bytes=staged.bytes,
            width=header.width,
            height=header.height,
            id=attributes.id,
            caption=attributes.caption,
            tags=attributes.tags,
            metadata=attributes.metadata,
            source=attributes.source,
            warnings=warn_of_pages(header),
            camera_data=self.camera_policy.apply(attributes.camera_data),
        )

    def insert(
        self, c: Connection, collection: str, staged: StagedFile, new: NewImage, job_id: str | None, replace: bool
    ) -> AddResult:
        """Insert the row and place the file, after `BlobStore.put` and `confirm`.

        A duplicate whose file was lost or altered gets it back.
        """
        collections.require(c, collection)
        added = dataclasses.replace(images.add(c, collection, new, job_id, replace), warnings=new.warnings)
        if added.replaced_sha256:
            embeddings.remove(c, "images", added.image.key)
        self.blobs.place(staged, is_new=not added.duplicate)
        return added

    def find_known(self, collection: str, digests: Sequence[str]) -> dict[str, list[str]]:
        """Those of the SHA-256 whose pictures or videos are stored, in their order: a client need not send them.

        The value is what of `caption`, `tags` and `metadata` the picture lacks.
        """

        def work(c: Connection) -> tuple[dict[str, list[str]], set[str]]:
            collections.require(c, collection)
            return images.filter_stored(c, collection, digests), videos.filter_complete(c, collection, digests)

        held, watched = self.database.read(work)
        known = self.blobs.find_existing(held) | watched
        return {digest: held.get(digest, []) for digest in digests if digest in known}

    def get(self, collection: str, id: str) -> Image:
        return self.database.read(lambda c: require_image(c, collection, id))

    def find_by_key(self, collection: str, key: int) -> Image | None:
        """The picture with this key, if it is in the collection."""
        image = self.database.read(lambda c: images.get_by_keys(c, [key])).get(key)
        return image if image is not None and image.collection == collection else None

    def list_images(self, collection: str, limit: int, before: int | None, filter: Filter | None = None) -> list[Image]:
        """Up to `limit` pictures that `filter` lets through, newest first, with keys below `before`. Raises Timeout."""

        def work(c: Connection) -> list[Image]:
            collections.require(c, collection)
            if filter is None:
                return images.list_page(c, collection, limit, before)
            found = images.get_by_keys(c, sql.select_newest(c, collection, filter, limit, before))
            return [found[key] for key in sorted(found, reverse=True)]

        return self.database.read(work)

    def list_ordered(
        self, collection: str, limit: int, order: Order, after: Place | None, filter: Filter | None = None
    ) -> list[tuple[Place, Image]]:
        """Up to `limit` pictures that `filter` lets through, in this order, with their places. Raises Timeout."""

        def work(c: Connection) -> list[tuple[Place, Image]]:
            collections.require(c, collection)
            places = select_ordered(c, collection, filter, order, limit, after)
            found = images.get_by_keys(c, [place.key for place in places])
            return [(place, found[place.key]) for place in places]

        return self.database.read(work)

    def record_camera_data(self, c: Connection, key: int, data: CameraData, *, again: bool = False) -> None:
        """Write the camera data of a picture's bytes into its row, and what does not fit as warnings to its items."""
        warnings = record_camera_data(c, key, data, self.camera_policy, self.metadata_limits, again=again)
        if warnings:
            jobs.warn_items(c, key, warnings)

    def get_vectors(self, found: Sequence[Image]) -> dict[int, list[float]]:
        """The vectors of pictures by their keys; those without one are absent."""
        vectors = self.database.read(lambda c: embeddings.get_vectors(c, "images", [image.key for image in found]))
        return {key: unpack_vector(packed) for key, packed in vectors.items()}

    def get_vector(self, collection: str, id: str) -> tuple[Image, list[float], EmbeddingSpace]:
        """A picture with its vector, and the space of its collection. Raises NotFound."""

        def work(c: Connection) -> tuple[Image, bytes | None, EmbeddingSpace | None]:
            image = require_image(c, collection, id)
            space = collections.require(c, collection).space
            vector = embeddings.get_vectors(c, "images", [image.key]).get(image.key)
            return image, vector, embeddings.get_space(c, space) if space else None

        image, vector, space = self.database.read(work)
        if vector is None or space is None:
            raise NotFound(f"the picture {id!r} has no vector (yet)")
        return image, unpack_vector(vector), space

    def count_images(self, collection: str, filter: Filter | None = None) -> int:
        """How many pictures `filter` lets through. Raises Timeout."""

        def work(c: Connection) -> int:
            collections.require(c, collection)
            if filter is None:
                return sum(images.count_by_status(c, collection).values())
            return len(sql.select_keys(c, collection, filter))

        return self.database.read(work)

    def explain_filter(self, collection: str, filter: Filter) -> list[AnswerWarning]:
        """Why `filter` may let through fewer rows than meant. Raises Timeout."""
        return self.database.read(lambda c: sql.explain_filter(c, collection, filter))

    def update(
        self,
        collection: str,
        id: str,
        change: Callable[[Image], ImageAttributes],
        drops: Sequence[str] = (),
        rejected: Sequence[str] | None = None,
    ) -> Image:
        """Change caption, tags and metadata to what `change` makes of the present row, and empty the columns `drops` of
        what it carries. `rejected` are the auto-tags that it must not get; None leaves those."""

        def work(c: Connection) -> Image:
            image = require_image(c, collection, id)
            attributes = change(image)
            check_attributes(attributes, self.metadata_limits)
            images.update(c, image.key, attributes.caption, attributes.tags, attributes.metadata)
            images.set_carried(c, image.key, dict.fromkeys(drops))
            if rejected is not None:
                label_sets.reject(c, image.key, rejected)
            return require_image(c, collection, id)

        return self.database.write(work)

    def delete(self, collection: str, id: str) -> None:
        """Delete a picture: no search that begins after this returns finds it."""

        def work(c: Connection) -> str:
            image = require_image(c, collection, id)
            delete_row(c, image.key)
            return image.sha256

        self._delete_files([self.database.write(work)])

    def find_matching(self, collection: str, filter: Filter) -> tuple[list[int], list[Image]]:
        """The keys of the pictures that `filter` lets through, and the newest few of them. Raises Timeout."""

        def work(c: Connection) -> tuple[list[int], list[Image]]:
            collections.require(c, collection)
            keys = sql.select_keys(c, collection, filter)
            found = images.get_by_keys(c, keys[-MAX_EXAMPLES:])
            return keys, [found[key] for key in sorted(found, reverse=True)]

        return self.database.read(work)

    def delete_matching(self, collection: str, filter: Filter, keys: Sequence[int]) -> int:
        """Delete those of the pictures `keys` that `filter` still lets through, a few in each transaction.

        Returns how many. No search that begins after the transaction of a picture finds it.
        """
        deleted = 0
        for start in range(0, len(keys), DELETE_BATCH):
            some = keys[start : start + DELETE_BATCH]

            def work(c: Connection, some: Sequence[int] = some) -> list[str]:
                gone = images.get_by_keys(c, sql.select_passing(c, collection, filter, some))
                for image in gone.values():
                    delete_row(c, image.key)
                return [image.sha256 for image in gone.values()]

            digests = self.database.write(work)
            deleted += len(digests)
            self._delete_files(digests)
        return deleted

    def open_file(self, collection: str, id: str) -> tuple[Image, BinaryIO]:
        """A picture and its open file, which keeps its bytes when the picture is replaced or deleted meanwhile.

        Raises NotFound, and BlobMissing when the file is gone or has other bytes.
        """

        def work(c: Connection) -> tuple[Image, BinaryIO]:
            image = require_image(c, collection, id)
            return image, self.blobs.open(image.sha256)

        try:
            image = self.get(collection, id)
            file = self.blobs.open(image.sha256)
        except BlobMissing:  # or replaced or deleted since its row was read: nothing is while we hold the write lock
            if self.blobs.is_remote and self.get(collection, id).sha256 == image.sha256:
                raise  # its objects stay for a while
            image, file = self.database.write(work)
        with map_os_errors():
            is_intact = self.blobs.is_intact_file(file, image.sha256)
        if not is_intact:
            file.close()
            log.warning("the file of a picture was altered", extra={"picture": id, "collection": collection})
            raise BlobMissing("the file of this picture was altered; run `sightline verify`")
        return image, file

    def sign_file(self, collection: str, id: str) -> str | None:
        """A URL of the bucket under which the picture's bytes are for a short time; None where there is no bucket."""
        return self.blobs.sign(self.get(collection, id).sha256)

    def check_file(self, collection: str, id: str) -> Image:
        """A picture whose bytes are there and right; those in a bucket are not looked at. Raises as `open_file`."""
        if self.blobs.is_remote:
            return self.get(collection, id)
        image, file = self.open_file(collection, id)
        file.close()
        return image

    def thumbnail_path(self, image: Image) -> Path:
        """Where the thumbnail of the usual size lies, or would lie."""
        return self.blobs.thumbnail_path(image.sha256, image.format)

    def list_collections(self) -> list[CollectionInfo]:
        """Every collection with its counts, by name."""
        return self.database.read(lambda c: [load_contents(c, collection) for collection in collections.list_all(c)])

    def get_collection(self, name: str) -> CollectionInfo:

        return self.database.read(lambda c: load_contents(c, collections.require(c, name)))

    def create_collection(self, name: str, description: str) -> CollectionInfo:
        """A new, empty collection. Raises IdConflict when there is one of this name."""
        return self.database.write(lambda c: load_contents(c, collections.create(c, name, description)))

    def update_collection(self, name: str, description: str) -> CollectionInfo:
        """Change the description of a collection."""

        def work(c: Connection) -> CollectionInfo:
            changed = collections.set_description(c, name, description)
            return load_contents(c, changed or collections.require(c, name))

        return self.database.write(work)

    def count(self, name: str) -> tuple[dict[str, int], int]:
        """How many pictures of a collection have each status, and how many texts it has. Raises NotFound."""

        def work(c: Connection) -> tuple[dict[str, int], int]:
            collections.require(c, name)
            return images.count_by_status(c, name), texts.count(c, name)

        return self.database.read(work)

    def is_empty(self) -> bool:
        """Whether nobody has put anything in: no picture, text, job, collection or key."""
        return self.database.read(lambda c: fetch_number(c, COUNT_ANYTHING) == 0 and len(collections.list_all(c)) == 1)

    def begin_deletion(self, name: str) -> str:
        """Take the name of a collection away, so that no request finds it; returns its label. Raises NotFound."""
        label, uploads = self.database.write(lambda c: collection_deletion.begin(c, name))
        for job_id, n in uploads:
            self.blobs.delete_upload(job_id, n)
        return label

    def list_deletions(self) -> list[str]:
        """The labels of the collections whose rows are still to be deleted."""
        return self.database.read(collection_deletion.list_pending)

    def delete_batch(self, label: str, limit: int) -> bool:
        """Delete up to `limit` rows of each kind, and the files that no row uses then; False when none are left."""
        return self.database.write(lambda c: collection_deletion.delete_batch(c, label, limit, self.blobs.delete))

    def finish_deletion(self, label: str) -> None:
        self.database.write(lambda c: collection_deletion.finish(c, label))

    def drop_ended_space(self) -> None:
        """Forget the space that was filled for a job that has ended."""
        if self.database.read(next_space.get) is not None:
            self.database.write(next_space.drop_ended)

    def delete_unused_vectors(self, limit: int) -> bool:
        """Delete up to `limit` vectors of spaces that nothing uses; False when none are left."""
        return self.database.read(next_space.has_unused) and self.database.write(
            lambda c: next_space.delete_unused(c, limit) > 0
        )

    def list_labels(self) -> set[str]:
        """The labels of all collections that have a name."""
        return {one.label for one in self.database.read(collections.list_all)}

    def put_texts(
        self,
        collection: str,
        space: str,
        items: Sequence[tuple[str | None, str, Metadata]],
        vectors: Sequence[bytes],
        slot: ResponseSlot | None = None,
        truncated: Sequence[bool] | None = None,
    ) -> tuple[list[Text], int]:
        """Store texts with their vectors; returns them and the last log number. `slot` gets the texts.

        `truncated` tells of each whether the model read only its beginning.
        """
        for id, text, metadata in items:
            check_text("text", text, len(text))
            check_metadata(metadata, self.metadata_limits)
            if id is not None:
                check_id(id)

        def work(c: Connection) -> tuple[list[Text], int]:
            label = collections.require(c, collection).label
            collections.assign_space(c, label, space)
            stored = []
            seq = 0
            cuts: Sequence[bool | None] = truncated or [None] * len(items)
            for (id, text, metadata), vector, cut in zip(items, vectors, cuts, strict=True):
                row = texts.put(c, collection, id or default_text_id(text), text, metadata, cut)
                embeddings.remove(c, "texts", row.key)  # also from the space that fills beside this one
                seq = embeddings.add(c, label, space, "texts", row.key, vector)
                stored.append(row)
            if slot is not None:
                slot.record(c, stored)
            return stored, seq

        return self.database.write(work)

    def get_text(self, collection: str, id: str) -> Text:
        return self.database.read(lambda c: require_text(c, collection, id))

    def list_texts(self, collection: str, limit: int, before: int | None) -> list[Text]:
        """Up to `limit` texts, newest first, with keys below `before`."""

        def work(c: Connection) -> list[Text]:
            collections.require(c, collection)
            return texts.list_page(c, collection, limit, before)

        return self.database.read(work)

    def delete_text(self, collection: str, id: str) -> None:
        """Delete a text: no search that begins after this returns finds it."""

        def work(c: Connection) -> None:
            text = require_text(c, collection, id)
            embeddings.remove(c, "texts", text.key)
            texts.delete(c, text.key)

        self.database.write(work)

    def require_queue_capacity(self) -> None:
        """Raise QueueFull when too many pictures wait, or too many bytes."""
        why_full = self.database.read(queue_depth.read_depth).why_full(self.max_queue, self.max_queue_bytes)
        if why_full is not None:
            raise QueueFull(f"{why_full}; try again later")

    def collect_garbage(self, grace: float, is_closing: Callable[[], bool]) -> int:
        """Remove files that no row uses and that have not changed for `grace` seconds; returns how many."""
        return gc.collect_garbage(self.database, self.blobs, grace, is_closing)

    def collect_objects(self, is_closing: Callable[[], bool]) -> int:
        """Remove the objects of a bucket that no row names; returns how many. Only one server of a cluster may."""
        if isinstance(self.blobs, BucketBlobStore):
            return gc.collect_objects(self.database, self.blobs, is_closing)
        return 0

    def remove_deleted(self, is_closing: Callable[[], bool]) -> None:
        """Remove the objects of deleted pictures from the bucket, as far as they are old enough."""
        if isinstance(self.blobs, BucketBlobStore):
            gc.remove_deleted(self.database, self.blobs, is_closing)

    def delete_unused_files(self, digests: Iterable[str]) -> None:
        """Remove those of these files and their thumbnails that no row uses: the thumbnail of a picture that somebody
        deleted while a worker decoded it."""
        candidates = set(digests)
        unused = self.database.read(lambda c: [one for one in candidates if images.count_uses(c, one) == 0])
        if unused:
            self._delete_files(unused)

    def _delete_files(self, digests: Sequence[str]) -> None:
        """Remove those of these files and their thumbnails that no row uses any more."""

        def work(c: Connection) -> None:
            for sha256 in digests:
                if images.count_uses(c, sha256) == 0:
                    self.blobs.delete(sha256)

        self.database.write(work)


def require_image(c: Connection, collection: str, id: str) -> Image:
    """The picture of this id. Raises NotFound."""
    image = images.get(c, collection, id)
    if image is None:
        collections.require(c, collection)
        raise NotFound(f"there is no picture {id!r} in {collection!r}")
    return image


def require_text(c: Connection, collection: str, id: str) -> Text:
    """The text of this id. Raises NotFound."""
    text = texts.get(c, collection, id)
    if text is None:
        collections.require(c, collection)
        raise NotFound(f"there is no text {id!r} in {collection!r}")
    return text


def unpack_vector(packed: bytes) -> list[float]:
    """The numbers of a stored vector, each with the digits that a float32 has."""
    import numpy as np  # only here: commands on keys need no numpy

    return [float(str(one)) for one in np.frombuffer(packed, "<f4")]


def delete_row(c: Connection, key: int) -> None:
    """Remove a picture's row and its vector; an item of a job that waits for it fails."""
    embeddings.remove(c, "images", key)
    jobs.fail_items(c, key, ItemError("not_found", "deleted before it was processed"))
    images.delete(c, key)


def load_contents(c: Connection, collection: Collection) -> CollectionInfo:
    """A collection with its counts and its space."""
    space = embeddings.get_space(c, collection.space) if collection.space else None
    pictures = sum(images.count_by_status(c, collection.name).values())
    name = collection.name
    counts = (pictures, texts.count(c, name))
    return CollectionInfo(name, collection.description, *counts, space, collection.created_at, collection.head)


def warn_of_pages(header: PictureHeader) -> tuple[AnswerWarning, ...]:
    """A warning about the pages of a file that are left out."""
    if header.pages == 1:
        return ()
    detail = f"the file has {header.pages:,} pages; the first is the picture, the others are left out"
    return (AnswerWarning("more_pages", detail),)


def default_text_id(text: str) -> str:
    """The id of a text that came without one: the same words get the same id."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
