"""Build what unit tests of the service need: rows, stored pictures, encoders with faults."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.core.types import EmbeddingSpace, Image, ItemStatus, Job, Lease, NewImage
from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings, Pixels
from app.storage.attributes import ImageAttributes
from app.storage.catalogue import catalogue_of
from app.storage.database import Database, Work
from app.storage.idempotency import ResponseSlot
from app.storage.jobs import DEFAULT_OPTIONS, JobOptions, JobService, ReceivedFile
from app.storage.library import Library
from app.storage.membership import Membership
from app.storage.sql import Connection, Row, fetch_all
from app.storage.tables import embeddings, images, jobs, queue_depth, work_queue
from app.storage.tables.images import AddResult

SPACE = EmbeddingSpace("small", "0" * 64, 4, "1" * 64)
FINGERPRINT = SPACE.fingerprint
VECTOR = np.array([1, 0, 0, 0], "<f4").tobytes()
COLLECTION = "default"
LOG_TABLES = ("embeddings", "log_marks")


def never_stop() -> bool:
    """For calls that take a stop condition."""
    return False


def new(n: int = 0, id: str | None = None, **said: Any) -> NewImage:
    """A picture to insert; each number has its own bytes."""
    return NewImage(sha256=sha256(n), format="png", bytes=10 + n, width=4, height=3, id=id, **said)


def sha256(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def insert(database: Database, n: int = 0, id: str | None = None, job: str | None = None, **said: Any) -> Image:
    """Insert a row into `images`, without a file."""
    return database.write(lambda c: images.add(c, COLLECTION, new(n, id, **said), job, False)).image


def image_of(database: Database, id: str) -> Image:
    found = database.read(lambda c: images.get(c, COLLECTION, id))
    assert found is not None
    return found


def claim(database: Database, owner: str = "a", limit: int = 10, seconds: float = 1e12) -> list[Lease]:
    """Claim pictures as the worker `owner`."""
    return database.write(lambda c: work_queue.claim_images(c, owner, seconds, limit))


def add_upload(database: Database, job: str, n: int = 1, kind: str = "archive", pending: int = 0) -> None:
    """Upload `n` of a job, without a file."""
    database.write(lambda c: work_queue.add_upload(c, job, n, kind, f"{n}.zip", pending))


def claim_upload(database: Database, owner: str = "a") -> work_queue.Upload | None:
    """The upload that a worker called `owner` gets."""
    return database.write(lambda c: work_queue.claim_upload(c, owner, 1e12))


def count_waiting(database: Database) -> int:
    """The pictures that are not done, with the members of uploads that are not imported."""
    return database.read(queue_depth.read_depth).items


def finish(database: Database, lease: Lease, vector: bytes = VECTOR) -> int | None:
    """Finish a picture as a worker does."""

    def work(c: Any) -> int | None:
        embeddings.save_space(c, SPACE)
        return work_queue.finish_image(c, lease, FINGERPRINT, vector, 4, 3, False)

    return database.write(work)


def new_job(database: Database, pictures: Sequence[int] = ()) -> str:
    """Create a job with these pictures queued as its items; returns its id."""

    def work(c: Any) -> str:
        id = jobs.create(c, COLLECTION, "bulk")
        for n in pictures:
            image = images.add(c, COLLECTION, new(n), id, False).image
            jobs.add_item(c, id, f"{n}.png", ItemStatus.QUEUED, image=(image.key, image.id))
        return id

    return database.write(work)


def job_of(database: Database, id: str) -> Job:
    job = database.read(lambda c: jobs.get(c, id))
    assert job is not None
    return job


def add(
    library: Library,
    content: bytes,
    *,
    replace: bool = False,
    collection: str = COLLECTION,
    slot: ResponseSlot | None = None,
    **said: Any,
) -> AddResult:
    """Upload one picture."""
    folder = library.create_upload_dir()
    try:
        path = folder / "picture"
        path.write_bytes(content)
        return library.add(collection, path, ImageAttributes(**said), replace, slot)
    finally:
        library.delete_upload_dir(folder)


def add_bulk(
    library: Library,
    files: Sequence[tuple[str, bytes]],
    archives: Sequence[tuple[str, bytes]] = (),
    collection: str = COLLECTION,
    options: JobOptions = DEFAULT_OPTIONS,
) -> Job:
    """Upload a bulk of loose files and archives."""
    folder = library.create_upload_dir()
    try:
        uploads = []
        for n, (name, content) in enumerate([*files, *archives]):
            path = folder / f"{n:06d}"
            path.write_bytes(content)
            uploads.append(ReceivedFile(name, path, archive=n >= len(files)))
        return JobService(library).add_files(collection, uploads, options)
    finally:
        library.delete_upload_dir(folder)


class FaultyEncoder(DummyEncoder):
    """Sees colours. Pictures that are mostly of palette colour `bad` make it raise, or return vectors of `gives`."""

    def __init__(self, bad: int, *, gives: float | None = None) -> None:
        super().__init__()
        self.bad = bad
        self.gives = gives
        self.calls: list[int] = []

    def encode_images(self, pixels: Pixels) -> Embeddings:
        self.calls.append(len(pixels))
        vectors = super().encode_images(pixels)
        struck = vectors[:, : len(vectors[0]) - 48].argmax(axis=1) == self.bad
        if struck.any() and self.gives is None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        vectors[struck] = self.gives
        return vectors


class Switched(Membership):
    """A server of a cluster that leads while somebody lets it."""

    is_cluster = True
    poll_seconds = 0.05

    def __init__(self) -> None:
        self.is_leader = True

    def leads(self, duty: str) -> bool:
        return self.is_leader


def save_log(database: Database) -> dict[str, list[Row]]:
    """The rows of the log, for `restore_log`."""
    return database.read(lambda c: {table: fetch_all(c, "SELECT * FROM " + table) for table in LOG_TABLES})


def restore_log(database: Database, saved: dict[str, list[Row]], work: Work[None] = lambda c: None) -> None:
    """Let the log have lost what came since, with the numbers that it gave; do more in the same transaction."""

    def restore(c: Connection) -> None:
        for table, rows in saved.items():
            c.execute("DELETE FROM " + table)
            for row in rows:
                c.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        catalogue_of(database).set_numbers(c, {"embeddings": max(row[0] for row in saved["embeddings"])})
        work(c)

    database.write(restore)
