"""Opens what lies in a data directory. Imports neither models nor indexes, so that commands start quickly."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Collection
from pathlib import Path

from app.core.connection_string import describe_database
from app.core.errors import StartupError
from app.core.files import close_to_others, make_dirs, warn_of_wide_modes
from app.core.locks import DataDirLock, find_holder
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.decode.limits import PictureLimits
from app.storage import address
from app.storage.attributes import MetadataLimits
from app.storage.blobs import BlobStore
from app.storage.camera_data import CameraDataPolicy
from app.storage.database import Database
from app.storage.file_system import UNWRITABLE, check_file_system, is_of_several_machines, unusable
from app.storage.library import Library
from app.storage.media_place import claim_media, open_media
from app.storage.membership import SINGLE_SERVER, ClusterMembership, Duty, Membership
from app.storage.table_copy import is_unfinished

DATABASE_NAME = "sightline.db"


def lock_data_dir(settings: Settings) -> DataDirLock:
    """Make the data directory if it is missing, try what its file system can do, and lock it for this server.

    A server of a cluster has only its cache folder for itself.
    """
    check_places(settings)
    if settings.is_cluster:
        return DataDirLock(settings.cache, make_data_dir(settings.cache), "cache folder")
    return DataDirLock(settings.data_dir, make_data_dir(settings.data_dir))


def check_places(settings: Settings) -> None:
    """Raise StartupError unless database, folders and index of the settings go together."""
    file = settings.data_dir / DATABASE_NAME
    if not settings.is_cluster:
        if settings.shared_media:
            raise StartupError(
                "--shared-media is for the servers of a cluster, and SQLite is a database of one machine; name a"
                " PostgreSQL with --database postgresql://..."
            )
        return
    if file.exists():
        raise StartupError(
            f"two databases are named: {describe_database(settings.database)}, and {file}, which holds the data of a"
            " server with SQLite; copy that with `sightline move`, or name another folder with --data-dir"
        )
    if is_folder_media(settings):
        if not settings.shared_media:
            raise StartupError(
                f"the servers and workers of a cluster must all reach the pictures, and {settings.data_dir} is a folder"
                " of this machine; name a bucket with --media s3://BUCKET/PREFIX, or say with --shared-media that all"
                " of them mount this folder"
            )
        if settings.cache.resolve() == settings.data_dir.resolve():
            raise StartupError(
                f"{settings.data_dir} is shared, and each server needs a folder of its own for its indexes: name one on"
                " a local disk with --cache-dir"
            )
    if settings.index.startswith("milvus:") and not settings.index.startswith("milvus://"):
        raise StartupError(
            "Milvus Lite is a file of one machine; a cluster has an index in each server (--index local), or a Milvus"
            " that all reach (--index milvus://HOST)"
        )


def is_folder_media(settings: Settings) -> bool:
    """Whether the pictures lie in a folder."""
    return not settings.media.startswith("s3://")


def refuse_other_machine(data_dir: Path) -> None:
    """Raise StartupError for a worker with SQLite whose server runs on another machine."""
    holder = find_holder(data_dir)
    if holder is not None and holder.host != socket.gethostname() and is_of_several_machines(data_dir):
        raise StartupError(
            f"the data directory {data_dir} is in use by {holder}, and SQLite is a database of one machine; workers on"
            " several machines need --database postgresql://..."
        )


def make_data_dir(data_dir: Path) -> Path | None:
    """Make a data directory that a server or a worker can use; returns the outermost folder that was made for it.

    Raises StartupError if its file system lacks something, and leaves nothing behind then.
    """
    made: Path | None = None
    try:
        made = next((folder for folder in reversed([data_dir, *data_dir.parents]) if not folder.exists()), None)
        make_dirs(data_dir)
        check_file_system(data_dir)
        warn_of_wide_modes(data_dir)
        close_to_others(data_dir, *(DATABASE_NAME + suffix for suffix in ("", "-wal", "-shm")))
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise unusable(data_dir, "make a folder in it", str(error.strerror), error.errno) from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise StartupError(
                f"the data directory {data_dir} cannot be made: {error.filename} is there, and is no folder"
            ) from error
        raise StartupError(f"the data directory {data_dir} cannot be used: {error.strerror}") from error
    except StartupError:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise
    return made


def open_library(settings: Settings, metrics: ProcessMetrics | None = None) -> Library:
    blobs = open_blobs(settings, metrics)
    metadata = MetadataLimits(settings.max_metadata_bytes, settings.max_metadata_depth)
    limits = picture_limits(settings)
    database = open_database(settings, metrics)
    try:
        claim_media(database, blobs, settings.media)
    except BaseException:
        database.close()
        blobs.close()
        raise
    policy = CameraDataPolicy(settings.keep_exif, settings.keep_location)
    return Library(database, blobs, limits, settings.max_queue, metadata, settings.max_queue_bytes, policy)


def open_database(settings: Settings, metrics: ProcessMetrics | None = None) -> Database:
    """Open the database, or make an empty one. Raises StartupError when there are pictures that it must know."""
    if settings.is_cluster:
        return refuse_unfinished(address.open_database(settings.database, metrics))
    file = settings.data_dir / DATABASE_NAME
    if not file.exists() and (blobs := open_blobs(settings)).has_files():
        raise StartupError(
            f"{file} is missing, but {blobs.root} holds pictures; restore it from a backup, or move the pictures away"
        )
    return refuse_unfinished(address.open_database(file, metrics))


def refuse_unfinished(database: Database) -> Database:
    """The database. Raises StartupError, and closes it, where `sightline move` has filled it only in part."""
    if is_unfinished(database):
        database.close()
        raise StartupError(
            "a `sightline move` into this database has not ended: start it again with the same options, and it goes on"
        )
    return database


def open_blobs(settings: Settings, metrics: ProcessMetrics | None = None) -> BlobStore:
    return open_media(settings, metrics)


def open_membership(settings: Settings, kind: str, duties: Collection[Duty] = ()) -> Membership:
    """How this process, a server for example, belongs to those that use the same data; not started."""
    return ClusterMembership(settings.database, kind, duties) if settings.is_cluster else SINGLE_SERVER


def picture_limits(settings: Settings) -> PictureLimits:
    return PictureLimits(
        settings.max_image_bytes, settings.max_image_pixels, settings.max_image_side, settings.accepted_formats
    )
