"""Opens what lies in a data directory. Imports neither models nor indexes, so that commands start quickly."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.core.errors import SightlineError, StartupError
from app.core.files import close_to_others, make_dirs, warn_of_wide_modes
from app.core.locks import DataDirLock
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.decode.limits import PictureLimits
from app.storage import address
from app.storage.attributes import MetadataLimits
from app.storage.blobs import BlobStore
from app.storage.camera_data import CameraDataPolicy
from app.storage.database import Database
from app.storage.file_system import UNWRITABLE, check_file_system, unusable
from app.storage.library import Library

DATABASE_NAME = "sightline.db"


def lock_data_dir(settings: Settings) -> DataDirLock:
    """Make the data directory if it is missing, try what its file system can do, and lock it for this server."""
    return DataDirLock(settings.data_dir, make_data_dir(settings.data_dir))


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
    policy = CameraDataPolicy(settings.keep_exif, settings.keep_location)
    return Library(database, blobs, limits, settings.max_queue, metadata, settings.max_queue_bytes, policy)


def open_database(settings: Settings, metrics: ProcessMetrics | None = None) -> Database:
    """Open the database, or make an empty one. Raises StartupError when there are pictures that it must know."""
    file = settings.data_dir / DATABASE_NAME
    if not file.exists() and (blobs := open_blobs(settings)).has_files():
        raise StartupError(
            f"{file} is missing, but {blobs.root} holds pictures; restore it from a backup, or move the pictures away"
        )
    return address.open_database(file, metrics)


def open_blobs(settings: Settings, metrics: ProcessMetrics | None = None) -> BlobStore:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return BlobStore(settings.data_dir, metrics)
    except (OSError, SightlineError) as error:
        raise StartupError(f"the data directory {settings.data_dir} cannot be used: {error}") from error


def picture_limits(settings: Settings) -> PictureLimits:
    return PictureLimits(
        settings.max_image_bytes, settings.max_image_pixels, settings.max_image_side, settings.accepted_formats
    )
