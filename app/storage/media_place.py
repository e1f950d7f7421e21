"""Where the bytes of the pictures are: in the data directory, or below a prefix of a bucket."""

from __future__ import annotations

import re
from pathlib import Path

from app.core.errors import SightlineError, StartupError
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.storage.blobs import BlobStore
from app.storage.bucket_blobs import CACHE_NAME, BucketBlobStore
from app.storage.database import Database
from app.storage.object_store import ENDPOINT, Bucket
from app.storage.sql import Connection
from app.storage.tables import installation
from app.storage.tables.installation import LOCAL, Installation

PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[\w!*'().=+-]+)*)/?")


def parse_media(media: str) -> tuple[str, str] | None:
    """The bucket and the path of `s3://BUCKET/PATH`; None for `local`. Raises StartupError, which repeats nothing."""
    if media == LOCAL:
        return None
    match = PLACE.fullmatch(media)
    if match is None or any(step in (".", "..") for step in match[2].split("/")):
        raise StartupError(
            "--media is local, or s3://BUCKET/PREFIX, without a key or a port; SIGHTLINE_S3_ENDPOINT names a store"
            " that is not Amazon's, and the variables AWS_... the credentials"
        )
    return match[1], match[2].strip("/")


def normalise_media(media: str) -> str:
    """The place as it is stored. Raises StartupError."""
    parsed = parse_media(media)
    return "s3://" + "/".join(filter(None, parsed)) if parsed else LOCAL


def open_media(settings: Settings, metrics: ProcessMetrics | None = None) -> BlobStore:
    """The store of the bytes. Asks nothing of a bucket. Raises StartupError."""
    parsed = parse_media(settings.media)
    folder = settings.data_dir
    try:
        if parsed is None:
            folder.mkdir(parents=True, exist_ok=True)
            return BlobStore(folder, metrics)
        folder = find_cache(settings)
        folder.mkdir(parents=True, exist_ok=True)
        return BucketBlobStore(open_bucket(*parsed, settings, metrics), folder, settings.media_cache, metrics)
    except (OSError, SightlineError) as error:
        if isinstance(error, StartupError):
            raise
        raise StartupError(f"the data directory {folder} cannot be used: {error}") from error


def open_bucket(name: str, path: str, settings: Settings, metrics: ProcessMetrics | None = None) -> Bucket:
    """Raises StartupError for an endpoint or an environment that makes no client."""
    if not ENDPOINT.fullmatch(settings.s3_endpoint):
        raise StartupError("SIGHTLINE_S3_ENDPOINT is no http:// or https:// address")
    try:
        return Bucket(name, path, settings.s3_endpoint, settings.user_agent, metrics)
    except Exception as error:  # obstore's own, whose text may repeat values of the environment
        raise StartupError(
            f"the environment configures s3://{name} wrongly ({type(error).__name__}): check the variables AWS_..."
        ) from None


def find_bucket(settings: Settings) -> BucketBlobStore | None:
    """The store of the bucket that the settings name; None if the bytes are in the data directory."""
    if parse_media(settings.media) is None:
        return None
    blobs = open_media(settings)
    assert isinstance(blobs, BucketBlobStore)
    return blobs


def claim_media(database: Database, blobs: BlobStore, media: str) -> Installation:
    """Check that the bytes of the rows are in `media`, and take it for this database. Raises StartupError."""
    media = normalise_media(media)
    held, has_files = check_media(database, media)
    if held is None or held.media != media:
        held = database.write(lambda c: installation.set_media(c, media))
    blobs.claim(held.id, has_files=has_files)
    return held


def check_media(database: Database, media: str) -> tuple[Installation | None, bool]:
    """The installation of a database, and whether its rows have files. Raises StartupError if those are elsewhere."""

    def read(c: Connection) -> tuple[Installation | None, bool]:
        return installation.get(c), installation.has_files(c)

    held, has_files = database.read(read)
    there = LOCAL if held is None else held.media
    if has_files and there != media:
        where = "the data directory (--media local)" if there == LOCAL else there
        raise StartupError(
            f"the pictures of this database are in {where}, not in {media}; name that place with --media, or copy them"
            " with `sightline move`"
        )
    return held, has_files


def find_cache(settings: Settings) -> Path:
    """The folder of the files of a bucket that this machine keeps."""
    return settings.cache / CACHE_NAME
