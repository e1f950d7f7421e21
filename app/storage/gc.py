"""The garbage collector: it finds what no row names below `media/` and `thumbnails/`, and removes what is old of it.

A killed process leaves an upload that no job takes in, a picture whose row was never committed, a link that
`BlobStore.place` did not rename, or a thumbnail that a decode child was writing. Each of them may hold the pixels of a
deleted picture. So everything below the two folders is listed, whatever its name, and only what a row names is kept.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path

from app.core.errors import SightlineError, map_os_errors
from app.storage.blobs import BlobStore, remove_path
from app.storage.bucket_blobs import BucketBlobStore
from app.storage.database import Database, Work
from app.storage.object_store import ObjectMeta
from app.storage.sql import Connection, fetch_all
from app.storage.tables import work_queue

Uploads = set[tuple[str, int]]  # (job, number)

GRACE_SECONDS = 3600.0  # what is younger may belong to a request, an upload or a decode child that is still at work
YOUNG_SECONDS = 900.0  # until objects that were too young are looked for again
REMOTE_BATCH = 32  # objects that are looked for and removed in one transaction, while other writes wait
JOB_UPLOAD = re.compile(r"[0-9a-f]{32}-[0-9]+(\.members)?")
BATCH = 200  # files that one transaction looks up, or removes
FINISHED = re.compile(r"([0-9a-f]{64})((-[0-9]+)?\.(jpg|webp))?")  # a picture, or a thumbnail of some size


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file, or the folder of an upload, that no row names.

    `sha256` is that of a finished picture or thumbnail. It is None for an upload and for every other name.
    """

    path: Path
    sha256: str | None = None


def find_leftovers(database: Database, blobs: BlobStore) -> Iterator[Leftover]:
    """Everything that no row names, however young: a server that is running may be about to name or remove it."""
    yield from _find_uploads(blobs, database.read)
    yield from _find_files(database, blobs.iter_files())


def collect_garbage(
    database: Database, blobs: BlobStore, grace: float, is_closing: Callable[[], bool] = lambda: False
) -> int:
    """Remove the leftovers that have not changed for `grace` seconds; returns how many. Ends early when `is_closing`.

    Safe beside requests and workers: the transaction that makes a row also moves its file to its place, so a write
    transaction here sees both or neither.
    """
    removed = blobs.remove_copies(grace)
    for upload in _find_uploads(blobs, database.write):
        if is_older(upload.path, grace):
            remove_path(upload.path)
            removed += 1
    files = takewhile(lambda _: not is_closing(), blobs.iter_files())
    old = (one for one in _find_files(database, files) if is_older(one.path, grace))
    while batch := list(islice(old, BATCH)):
        removed += database.write(partial(_remove_unused, batch=batch))
    return removed


def remove_deleted(database: Database, blobs: BucketBlobStore, is_closing: Callable[[], bool] = lambda: False) -> None:
    """Remove the objects of pictures that were deleted here, and uploads that another machine has imported.

    Objects that are too young wait; `collect_garbage` finds those that this process forgets.
    """
    for upload in _find_uploads(blobs, database.write):
        if JOB_UPLOAD.fullmatch(upload.path.name):
            remove_path(upload.path)
    waiting = blobs.take_removable()
    young: list[str] = []
    for start in range(0, len(waiting), REMOTE_BATCH):
        some = waiting[start : start + REMOTE_BATCH]
        try:
            old = [] if is_closing() else blobs.find_old(some)
            _remove_objects(database, blobs, old)
            young += [one for one in some if one not in old]
        except SightlineError:
            blobs.give_back([*young, *waiting[start:]])
            raise
    blobs.give_back(young, YOUNG_SECONDS)


def collect_objects(database: Database, blobs: BucketBlobStore, is_closing: Callable[[], bool] = lambda: False) -> int:
    """Remove the objects of a bucket that no row names, and that no upload under way can have written.

    Other names than ours stay: a store writes objects whole or not at all. Only the leader of a cluster calls this.
    """
    removed = 0
    for batch in find_unused_objects(database, blobs):
        if is_closing():
            break
        old = [one for one in batch if blobs.is_old(one)]
        digests = {match[1] for one in old if (match := FINISHED.fullmatch(one.name))}
        _remove_objects(database, blobs, sorted(digests))
        uploads = [one.key for one in old if not FINISHED.fullmatch(one.name)]
        blobs.bucket.delete(uploads)
        removed += len(old)
    return removed


def find_unused_objects(database: Database, blobs: BucketBlobStore) -> Iterator[list[ObjectMeta]]:
    """The objects of a bucket that no row names, however young, a page at a time."""
    for page in blobs.bucket.list_pages("incoming/"):
        names = {f"{job}-{n}" for job, n in database.read(work_queue.list_uploads)}  # after the listing, as for folders
        yield [one for one in page if one.name.removesuffix(".tar") not in names]
    for folder in ("media/", "thumbnails/"):
        for page in blobs.bucket.list_pages(folder):
            named = [(one, match[1]) for one in page if (match := FINISHED.fullmatch(one.name))]
            used = database.read(partial(_select_used, digests=[digest for _, digest in named]))
            yield [one for one, digest in named if digest not in used]


def _remove_objects(database: Database, blobs: BucketBlobStore, digests: Sequence[str]) -> None:
    """Remove the objects of those digests that no row has, and their thumbnails. A few in each transaction."""
    for start in range(0, len(digests), REMOTE_BATCH):
        some = digests[start : start + REMOTE_BATCH]

        def work(c: Connection, some: Sequence[str] = some) -> list[str]:
            used = _select_used(c, some)
            unused = [one for one in some if one not in used]
            blobs.remove_old(unused)
            return unused

        blobs.remove_thumbnails(database.write(work))


def is_older(path: Path, seconds: float) -> bool:
    """Whether a file, or a folder with all that it holds, has not changed for `seconds`; False when it is gone."""
    try:
        changed = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except FileNotFoundError:
        return False
    return time.time() - changed >= seconds


def _find_uploads(blobs: BlobStore, run: Callable[[Work[Uploads]], Uploads]) -> list[Leftover]:
    """The uploads that no job waits for. With `run` a write, one whose job is being made is not among them."""
    listed = list(blobs.incoming.iterdir())  # before the rows: a row that is made later names what is listed later
    names = {f"{job}-{n}{suffix}" for job, n in run(work_queue.list_uploads) for suffix in ("", ".members")}
    return [Leftover(path) for path in listed if path.name not in names]


def _find_files(database: Database, files: Iterator[Path]) -> Iterator[Leftover]:
    named = ((path, FINISHED.fullmatch(path.name)) for path in files)
    while batch := [Leftover(path, match[1] if match else None) for path, match in islice(named, BATCH)]:
        yield from database.read(partial(_select_unused, batch=batch))


def _select_unused(c: Connection, batch: list[Leftover]) -> list[Leftover]:
    """Those of the batch that no row names."""
    used = _select_used(c, [one.sha256 for one in batch])
    return [one for one in batch if one.sha256 not in used]


def _select_used(c: Connection, digests: Sequence[str | None]) -> set[str]:
    """Those of the digests that a row names."""
    named = "SELECT sha256 FROM images WHERE sha256 IN (SELECT value FROM json_each(?1))"
    named += " UNION SELECT sha256 FROM videos WHERE kept = 1 AND sha256 IN (SELECT value FROM json_each(?1))"
    return {row[0] for row in fetch_all(c, named, (json.dumps(digests),))}


def _remove_unused(c: Connection, batch: list[Leftover]) -> int:
    """Remove those of the batch that no row names by now; returns how many."""
    unused = _select_unused(c, batch)
    with map_os_errors():
        for one in unused:
            one.path.unlink(missing_ok=True)
    return len(unused)
