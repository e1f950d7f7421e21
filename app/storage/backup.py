"""`sightline backup` and `restore`: everything that was acknowledged, in a folder that proves itself.

    DIR/manifest.json           what belongs to it; written last, so that a backup is whole or none
    DIR/sightline-<n>.db        a copy of the database as of one moment
    DIR/media/ab/cd/<sha256>    the pictures; a later backup into DIR copies those that are new
    DIR/uploads-<n>/            the uploads that no worker had imported

The server goes on meanwhile. Pictures are copied before the database and after it: a row's file is in place before the
row is, and never changes, so that only a picture that was deleted during the copy can be missing; its row goes, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from time import monotonic, time
from typing import Any

import apsw

from app import __version__
from app.core.clock import now_rfc3339
from app.core.errors import BlobMissing, StartupError, map_os_errors
from app.core.files import atomic_write, beneath, fsync_dir, make_dirs, open_beneath, open_nofollow, warn_of_wide_modes
from app.core.locks import DataDirLock
from app.storage.blobs import BlobStore, LocalFile, StagedFile, remove_path
from app.storage.bucket_blobs import CACHE_NAME, BucketBlobStore
from app.storage.database import Database
from app.storage.library import delete_row
from app.storage.manifest import SCRATCH_DIRS
from app.storage.object_store import AT_ONCE
from app.storage.sql import Connection, fetch_all
from app.storage.sqlite import SqliteDatabase, check_integrity, connect_readonly, map_sqlite_errors
from app.storage.tables import installation
from app.storage.tables.installation import LOCAL, Installation

log = logging.getLogger(__name__)

LAST_BACKUP_NAME = "last-backup.json"  # in the data directory
MANIFEST_NAME = "manifest.json"
FORMAT = 1
MAX_TRIES = 20
NOT_AS_IT_WAS = "missing, altered or no plain file"
# Columns that name files and folders, with a statement that finds what Sightline never writes there.
ODD_NAMES = (
    ("images", "sha256", "SELECT sha256 FROM images WHERE sha256 GLOB '*[^0-9a-f]*' OR length(sha256) <> 64 LIMIT 1"),
    ("videos", "sha256", "SELECT sha256 FROM videos WHERE sha256 GLOB '*[^0-9a-f]*' OR length(sha256) <> 64 LIMIT 1"),
    ("origins", "sha256", "SELECT sha256 FROM origins WHERE sha256 GLOB '*[^0-9a-f]*' OR length(sha256) <> 64 LIMIT 1"),
    ("sources", "job_id", "SELECT job_id FROM sources WHERE job_id GLOB '*[^0-9a-zA-Z_-]*' LIMIT 1"),
    ("collections", "name", "SELECT name FROM collections WHERE name GLOB '*[^0-9a-z_~-]*' LIMIT 1"),
    ("collections", "label", "SELECT label FROM collections WHERE label GLOB '*[^0-9a-z_~-]*' LIMIT 1"),
)
RESTORED_NAME = ".restored.db"
UPLOAD_NAME = re.compile(r"([0-9a-zA-Z_-]+)-([0-9]+)")
# What a data directory may hold before anything is restored into it.
ALLOWED_IN_TARGET = ("lock", "models", CACHE_NAME, RESTORED_NAME)

Opener = Callable[[str, int], int]
# Gives the items back one by one, and shows a person how far it is.
Track = Callable[[Sequence[Any], str], Iterable[Any]]


def track_nothing(items: Sequence[Any], description: str) -> Iterable[Any]:
    return items


@dataclass(frozen=True, slots=True)
class LastBackup:
    """The last backup that succeeded: seconds since 1970 (0 without one), what it took, how many pictures it holds."""

    at: float = 0.0
    seconds: float = 0.0
    pictures: int = 0


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """What a backup holds: `files` maps the path of each file but the pictures to the SHA-256 of its bytes."""

    format: int
    version: str
    created_at: str
    number: int
    pictures: int
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 in hex over every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def create_backup(
    data_dir: Path, target: Path, track: Track = track_nothing, blobs: BlobStore | None = None
) -> BackupManifest:
    """Bring `target` up to what `data_dir` holds now, and `blobs`, which are in it if none are given.

    Raises StartupError; the backup before is then still whole.
    """
    began = monotonic()
    if not (data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {data_dir}")
    before = read_manifest(target) if (target / MANIFEST_NAME).exists() else None
    if before is None and target.exists() and any(target.iterdir()):
        raise StartupError(f"{target} is neither empty nor a backup")
    if (target / "media").is_symlink():
        raise StartupError(f"{target / 'media'} is a link, which a restore does not follow; put a folder there")
    number = 1 + (before.number if before else 0)
    with map_os_errors():
        make_dirs(target)
    warn_of_wide_modes(target)
    target = Path(os.path.realpath(target))  # below it no link is followed
    blobs = blobs or BlobStore(data_dir)
    copy_pictures(blobs, target, list_blobs(data_dir, blobs), track)
    held = copy_database(data_dir, blobs, target, number, track)
    files = [target / database_name(number), *iter_plain_files(target / uploads_name(number))]
    digests = {str(path.relative_to(target)): sha256_or_empty(path) for path in files}
    manifest = BackupManifest(FORMAT, __version__, now_rfc3339(), number, len(held), digests)
    write_manifest(target, manifest)
    remove_outdated(target, number, held)
    try:
        record_backup(data_dir, monotonic() - began, len(held))
    except OSError as error:
        log.warning("the metrics do not show this backup: %s cannot be written (%s)", data_dir, error.strerror)
    return manifest


def list_blobs(data_dir: Path, blobs: BlobStore) -> list[str]:
    """The digests of the pictures that are there before the database is copied."""
    if isinstance(blobs, BucketBlobStore):
        with connect_readonly(data_dir / "sightline.db") as connection:
            blobs.require_owner(installation.get_id(connection))
            return select_digests(connection)
    return list_digests(data_dir)


def copy_database(data_dir: Path, blobs: BlobStore, target: Path, number: int, track: Track) -> set[str]:
    """Copy the database, and what it needs beside it; returns the digests of its pictures."""
    for _ in range(MAX_TRIES):
        copy, uploads = target / database_name(number), target / uploads_name(number)
        remove_path(copy)
        remove_path(uploads)
        copy_sqlite(data_dir / "sightline.db", copy)
        with closing(SqliteDatabase(copy)) as database:
            wanted = database.read(select_digests)
            missing = copy_pictures(blobs, target, wanted, track)
            delete_missing(database, missing)
            if copy_uploads(blobs, uploads, list_pending_uploads(database)):
                return set(wanted) - set(missing)
    raise StartupError("workers import uploads faster than the backup copies them; try again when fewer are running")


def restore_backup(
    target: Path, source: Path, track: Track = track_nothing, blobs: BucketBlobStore | None = None
) -> BackupManifest:
    """Make the data directory `target` what the backup `source` holds; it must not hold one already.

    The pictures go into the data directory, or into a bucket, whose prefix must be free or that of this backup.
    Every name and every byte of the backup is checked first. Raises StartupError, and then nothing was changed.
    """
    source = Path(os.path.realpath(source))
    manifest, held = check_backup(source, track)
    if target.exists() and any(each.name not in ALLOWED_IN_TARGET for each in target.iterdir()):
        raise StartupError(f"{target} is not empty; move it away, or restore into another with --data-dir")
    with map_os_errors():
        make_dirs(target)
    warn_of_wide_modes(target)
    with closing(DataDirLock(target)):
        name, files = database_name(manifest.number), blobs or BlobStore(target)
        own = read_installation(source / name)
        if blobs is None:
            copy_pictures(source, target, held, track, open_nofollow)
        else:
            blobs.require_owner(own.id if own else None)
            put_pictures(source, blobs, held, track)
        for path in manifest.files:
            if path != name:
                below = Path(path).relative_to(uploads_name(manifest.number))
                copy_file(source / path, beneath(files.incoming, below), open_nofollow)
        for upload in files.incoming.iterdir() if blobs is not None else ():
            if (match := UPLOAD_NAME.fullmatch(upload.name)) is not None:
                files.keep_upload(match[1], int(match[2]), upload)
        restored = target / RESTORED_NAME
        copy_file(source / name, restored, open_nofollow)
        if blobs is not None or (own is not None and own.media != LOCAL):
            with closing(SqliteDatabase(restored)) as database:
                media = LOCAL if blobs is None else blobs.bucket.name
                own = database.write(lambda c: installation.set_media(c, media))
            files.claim(own.id, has_files=False)
        restored.replace(target / "sightline.db")  # last: until then there is no data directory
        fsync_dir(target)
    return manifest


def read_installation(path: Path) -> Installation | None:
    """Whose the database of a backup is; None of an older version's."""
    with closing(connect_immutable(path)) as connection:
        return installation.get(connection) if has_column(connection, "installation", "media") else None


def put_pictures(source: Path, blobs: BucketBlobStore, wanted: Sequence[str], track: Track) -> None:
    """Put the pictures of a backup into a bucket, some at a time."""
    batches = [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
    for batch in track(batches, "copying"):
        paths = [blob_path(source, sha256) for sha256 in batch]
        blobs.put([StagedFile(path, path.name, path.lstat().st_size) for path in paths])


def check_backup(source: Path, track: Track = track_nothing) -> tuple[BackupManifest, list[str]]:
    """The manifest of a backup whose every byte is right, and its pictures. Raises StartupError saying what is not."""
    manifest = read_manifest(source)
    name = database_name(manifest.number)
    for path, sha256 in manifest.files.items():
        if path != name and not is_below(path, uploads_name(manifest.number)):
            raise StartupError(f"the backup is damaged: {path[:200]!r} is no file of a backup; nothing was changed")
        if sha256_or_empty(source / path) != sha256:
            raise StartupError(f"the backup is damaged: {path} is {NOT_AS_IT_WAS}; nothing was changed")
    faults, held = check_copy(source / name)
    if faults:
        raise StartupError(f"the backup is damaged: {name}: {faults[0]}; nothing was changed")
    for sha256 in track(held, "checking"):
        if sha256_or_empty(blob_path(source, sha256)) != sha256:
            raise StartupError(f"the backup is damaged: picture {sha256} is {NOT_AS_IT_WAS}; nothing was changed")
    return manifest, held


def is_below(path: str, folder: str) -> bool:
    """Whether a path of a manifest is that of a file below `folder`, spelled without detours."""
    steps = PurePosixPath(path).parts
    return len(steps) > 1 and steps[0] == folder and ".." not in steps and "\0" not in path and path == "/".join(steps)


def copy_pictures(
    source: Path | BlobStore, target: Path, wanted: Sequence[str], track: Track, opener: Opener | None = None
) -> list[str]:
    """Copy what `target` does not have; returns what `source` does not have either."""

    def copy(sha256: str) -> bool:
        copied = blob_path(target, sha256)
        if copied.exists():
            return True
        try:
            with LocalFile(blob_path(source, sha256)) if isinstance(source, Path) else source.fetch(sha256) as file:
                copy_file(file.path, copied, opener)
        except (FileNotFoundError, BlobMissing):
            return False
        return True

    if not isinstance(source, BucketBlobStore):
        return [sha256 for sha256 in track(wanted, "copying") if not copy(sha256)]
    batches = [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
    copied = [source.bucket.run_all(lambda one: (one, copy(one)), batch) for batch in track(batches, "copying")]
    return [sha256 for batch in copied for sha256, is_there in batch if not is_there]


def copy_uploads(blobs: BlobStore, target: Path, uploads: Iterable[tuple[str, int, bool]]) -> bool:
    """Copy the uploads that wait; False when a worker took one in meanwhile."""
    for job, n, needed in uploads:
        path = blobs.upload_path(job, n)
        blobs.fetch_upload(job, n)
        try:
            for each in iter_plain_files(path) if path.is_dir() else [path]:
                if not SCRATCH_DIRS & set(each.relative_to(path.parent).parts):  # what is fetched is fetched again
                    copy_file(each, target / each.relative_to(path.parent))
        except FileNotFoundError:
            if needed:
                return False
        if needed and not (target / path.name).exists():
            return False
    return True


def copy_sqlite(database: Path, target: Path) -> None:
    """Write what is committed in `database` into a new file, as of one moment; writers go on meanwhile."""
    with map_sqlite_errors(), closing(connect_readonly(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))


def select_digests(c: Connection) -> list[str]:
    """The digest of the bytes of every picture, and of every video that is kept, each once, in order."""
    sql = "SELECT sha256 FROM images"
    if has_column(c, "videos", "sha256"):
        sql += " UNION SELECT sha256 FROM videos WHERE kept = 1"
    return sorted({row[0] for row in fetch_all(c, sql)})


def list_pending_uploads(database: Database) -> list[tuple[str, int, bool]]:
    """The uploads that no worker has imported: (job, number, whether there must be files of it)."""
    sql = "SELECT job_id, n, kind <> 'named' OR imported > 0 FROM sources ORDER BY job_id, n"
    return [(job, n, bool(needed)) for job, n, needed in database.read(lambda c: fetch_all(c, sql))]


def check_copy(path: Path) -> tuple[list[str], list[str]]:
    """What SQLite finds wrong with a copy, and the digests of its pictures. Writes nothing, not even a WAL."""
    with map_sqlite_errors(), closing(connect_immutable(path)) as connection:
        try:
            return [*check_integrity(connection), *find_odd_names(connection)], select_digests(connection)
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:  # the last: it has other tables
            return [str(error)], []


def connect_immutable(path: Path) -> apsw.Connection:
    """A connection that writes nothing, not even a WAL."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)


def find_odd_names(c: Connection) -> list[str]:
    """A fault if the database of a backup has a digest, a job or a label that Sightline does not write: files and
    folders are named after them."""
    return [
        f"{table}.{column} holds {str(row[0])[:100]!r}"
        for table, column, statement in ODD_NAMES
        if has_column(c, table, column)
        for row in fetch_all(c, statement)
    ]


def has_column(c: Connection, table: str, column: str) -> bool:
    """Whether a schema, perhaps that of an older version, has this column."""
    return bool(fetch_all(c, "SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)))


def delete_missing(database: Database, missing: Iterable[str]) -> None:
    """Delete the pictures and videos with these digests, which their owner deleted during the copy."""

    def work(c: Connection) -> None:
        wanted = json.dumps(list(missing))
        keys = fetch_all(c, "SELECT key FROM images WHERE sha256 IN (SELECT value FROM json_each(?))", (wanted,))
        for (key,) in keys:
            delete_row(c, key)
        c.execute("DELETE FROM videos WHERE kept = 1 AND sha256 IN (SELECT value FROM json_each(?))", (wanted,))

    database.write(work)


def copy_file(source: Path, target: Path, opener: Opener | None = None) -> None:
    """Copy a file so that `target` is there whole, after a power cut too, or not at all."""
    with map_os_errors(), open(source, "rb", opener=opener) as original:
        make_dirs(target.parent)
        with atomic_write(target, "wb") as copied:
            shutil.copyfileobj(original, copied, 1 << 20)


def read_manifest(folder: Path) -> BackupManifest:
    """The manifest of a backup. Raises StartupError where there is none that this version can read."""
    damaged = StartupError(f"the backup is damaged: {MANIFEST_NAME} cannot be read; nothing was changed")
    try:
        with open_beneath(folder, MANIFEST_NAME) as file:
            fields = json.load(file)
        sha256 = fields.pop("sha256")
        if fields["format"] != FORMAT:
            raise StartupError(f"{folder} was written by Sightline {fields['version']}; restore it with that version")
        manifest = BackupManifest(**fields)
        if sha256 != manifest.digest or type(manifest.number) is not int:  # its digest needs no secret
            raise damaged
        if database_name(manifest.number) not in manifest.files:
            raise damaged
        return manifest
    except FileNotFoundError:
        raise StartupError(f"there is no backup at {folder}, or it was not finished") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise damaged from None


def write_manifest(folder: Path, manifest: BackupManifest) -> None:
    with map_os_errors(), atomic_write(folder / MANIFEST_NAME) as file:
        json.dump({**asdict(manifest), "sha256": manifest.digest}, file, indent=1, sort_keys=True)


def remove_outdated(folder: Path, number: int, held: set[str]) -> None:
    """Remove what the newest backup does not need, and what a killed one was writing."""
    current = (MANIFEST_NAME, "media", database_name(number), uploads_name(number))
    for path in folder.iterdir():
        if path.name not in current and path.name.startswith(("sightline-", "uploads-", f".{MANIFEST_NAME}.")):
            remove_path(path)
    for path in (folder / "media").glob("*/*/*"):
        if path.name not in held:
            remove_path(path)


def database_name(number: int) -> str:
    return f"sightline-{number}.db"


def uploads_name(number: int) -> str:
    return f"uploads-{number}"


def blob_path(folder: Path, sha256: str) -> Path:
    """Where a picture lies, in a data directory and in a backup."""
    return folder / "media" / sha256[:2] / sha256[2:4] / sha256


def list_digests(folder: Path) -> list[str]:
    """The digests of the pictures of a data directory or a backup."""
    return [path.name for path in (folder / "media").glob("??/??/*") if len(path.name) == 64]


def iter_plain_files(folder: Path) -> Iterator[Path]:
    """Every plain file below a folder, in order."""
    yield from (path for path in sorted(folder.rglob("*")) if stat.S_ISREG(path.lstat().st_mode))


def sha256_or_empty(path: Path) -> str:
    """The SHA-256 of a file of a backup in hex; an empty string for one that cannot be read or is no plain file."""
    try:
        with open(path, "rb", opener=open_nofollow) as file:
            is_plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return hashlib.file_digest(file, "sha256").hexdigest() if is_plain else ""
    except OSError:
        return ""


def read_last_backup(data_dir: Path) -> LastBackup:
    """What `sightline backup` left here when it last succeeded."""
    try:
        return LastBackup(**json.loads((data_dir / LAST_BACKUP_NAME).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return LastBackup()


def record_backup(data_dir: Path, seconds: float, pictures: int) -> None:
    """Write down a backup that has just succeeded, for the metrics. Raises OSError."""
    with atomic_write(data_dir / LAST_BACKUP_NAME, durable=False) as file:
        json.dump(asdict(LastBackup(time(), seconds, pictures)), file)
