"""`sightline verify`: do files, rows and log agree? It only reads, and may run beside a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from app.core.errors import StartupError
from app.storage.address import open_database
from app.storage.backup import Track, track_nothing
from app.storage.blobs import BlobStore
from app.storage.bucket_blobs import BucketBlobStore, media_key
from app.storage.database import Database
from app.storage.gc import GRACE_SECONDS, find_leftovers, find_unused_objects, is_older
from app.storage.object_store import AT_ONCE
from app.storage.sql import Connection, fetch_all
from app.storage.tables import heads, installation

Fault = tuple[str, str, str]  # what, where, why
REMEDIES = {
    "database": "stop the server and keep this directory; restore the last backup into another one"
    " (`sightline restore BACKUP --data-dir NEW`) and serve that",
    "blob_missing": "upload the same file again, or copy it to its place from a backup, where it has the same path;"
    " delete the picture if neither can be done. Searches find it meanwhile",
    "blob_altered": "as for one that is missing; the server never serves the altered file, and an upload of the"
    " original bytes replaces it",
    "orphan": "harmless; a server removes it when it starts, and once a day, if it is older than an hour",
    "head": "take it off (`PUT /v1/collections/NAME/head` with null) and teach the collection again",
    "no vector": "`sightline reembed` encodes everything anew; until then it is not found",
    "no row": "harmless, the answers leave it out; `sightline reembed` removes it",
}


def find_faults(data_dir: Path, track: Track = track_nothing, blobs: BlobStore | None = None) -> list[Fault]:
    """Every fault of a data directory, whose pictures `blobs` has. Raises StartupError where there is none."""
    if not (data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {data_dir}")
    with closing(open_database(data_dir / "sightline.db")) as database:
        return check_all(database, blobs or BlobStore(data_dir), track)


def check_all(database: Database, blobs: BlobStore, track: Track = track_nothing) -> list[Fault]:
    """Every fault of a database and its files."""
    faults = [("database", "sightline.db", why) for why in database.check()]
    if isinstance(blobs, BucketBlobStore):
        faults += find_object_faults(database, blobs, track)
        faults += find_unused(database, blobs)
    else:
        faults += find_file_faults(database, blobs, track)
        faults += find_orphans(database, blobs)
    faults += database.read(lambda c: [("head", name, why) for name, why in heads.find_faults(c)])
    return faults + database.read(lambda c: list(find_log_faults(c)))


def list_files(database: Database) -> list[tuple[str, str]]:
    """The digests of all pictures and videos whose bytes are kept, with their names."""
    named = " JOIN collections o ON o.label = collection WHERE name IS NOT NULL"  # without: it is being deleted
    sql = (
        "SELECT sha256, name || '/' || id FROM images" + named + " UNION ALL"
        " SELECT sha256, name || '/video ' || sha256 FROM videos" + named + " AND kept = 1"
    )
    return [(sha256, name) for sha256, name in database.read(lambda c: fetch_all(c, sql))]


def find_object_faults(database: Database, blobs: BucketBlobStore, track: Track) -> Iterator[Fault]:
    """As `find_file_faults`, of a bucket: every object is read, some at a time."""
    blobs.require_owner(database.read(installation.get_id))
    files = list_files(database)
    batches = [files[start : start + AT_ONCE] for start in range(0, len(files), AT_ONCE)]
    for batch in track(batches, "checking files"):
        right = blobs.bucket.run_all(blobs.has_digest, [sha256 for sha256, _ in batch])
        wrong = [one for one, is_right in zip(batch, right, strict=True) if not is_right]
        existing = blobs.find_existing([sha256 for sha256, _ in wrong])
        for sha256, name in wrong:
            key = media_key(sha256)
            if sha256 in existing:
                yield "blob_altered", name, f"{key} has other bytes"
            else:
                yield "blob_missing", name, f"{key} is gone"


def find_unused(database: Database, blobs: BucketBlobStore) -> Iterator[Fault]:
    """The objects that the garbage collector removes when they are old enough."""
    for page in find_unused_objects(database, blobs):
        for one in page:
            if blobs.is_old(one):
                yield "orphan", one.key, "no picture or job uses this object"


def find_file_faults(database: Database, blobs: BlobStore, track: Track) -> Iterator[Fault]:
    """Pictures and videos whose bytes are gone or altered."""
    for sha256, name in track(list_files(database), "checking files"):
        path = blobs.path(sha256)
        place = path.relative_to(blobs.root.parent)
        if not path.exists():
            yield "blob_missing", name, f"{place} is gone"
        elif not blobs.has_digest(sha256):
            yield "blob_altered", name, f"{place} has other bytes"


def find_orphans(database: Database, blobs: BlobStore) -> Iterator[Fault]:
    """The files that the garbage collector removes; those that a server may still be writing are not among them."""
    for leftover in find_leftovers(database, blobs):
        if leftover.sha256 or is_older(leftover.path, GRACE_SECONDS):
            yield "orphan", str(leftover.path.relative_to(blobs.root.parent)), "no picture or job uses this file"


def find_log_faults(c: Connection) -> Iterator[Fault]:
    """Ready pictures and texts without a vector, and vectors without a row."""
    checks = (
        (
            "no vector",
            "SELECT name || '/' || id FROM images JOIN collections o ON o.label = images.collection"
            " WHERE name IS NOT NULL AND status = 'ready' AND NOT EXISTS"
            " (SELECT 1 FROM embeddings e WHERE e.target = 'images' AND e.op = 'add' AND e.key = images.key"
            " AND e.space = o.space)",
        ),
        (
            "no vector",
            "SELECT name || '/' || id FROM texts JOIN collections o ON o.label = texts.collection"
            " WHERE name IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM embeddings e WHERE e.target = 'texts' AND e.op = 'add' AND e.key = texts.key"
            " AND e.space = o.space)",
        ),
        (
            "no row",
            "SELECT target || ' ' || key FROM embeddings WHERE op = 'add'"
            " AND collection NOT IN (SELECT label FROM collections WHERE name IS NULL AND swept = 0) AND"
            " ((target = 'images' AND key NOT IN (SELECT key FROM images WHERE status = 'ready'))"
            " OR (target = 'texts' AND key NOT IN (SELECT key FROM texts)))",
        ),
    )
    for what, sql in checks:
        for row in fetch_all(c, sql):
            yield what, row[0], "row and log disagree"
