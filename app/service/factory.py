"""Opens the parts of a server or a worker from the settings: who needs one part opens one part."""

from __future__ import annotations

from app.core.errors import StartupError
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.decode.limits import ArchiveLimits, ChildLimits, VideoLimits
from app.decode.pool import DecodePool
from app.decode.video import why_refused
from app.encoder.protocol import Encoder
from app.service.data_dir import picture_limits
from app.sources.base import SourceContext, SourcePolicy
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import FetchLimits, HttpFetcher
from app.sources.fetch.http_post import HttpPoster
from app.sources.local_files import AllowedFolders
from app.sources.object_store import open_object_store, parse_allowed_buckets
from app.sources.registry import SourceReader
from app.storage.library import Library


def open_pool(settings: Settings, device: str = "cpu", metrics: ProcessMetrics | None = None) -> DecodePool:
    """The decode children of this process; `device` is what they feed."""
    limits = ChildLimits(settings.decode_seconds, settings.decode_memory)
    return DecodePool(settings.decoders_for(device), limits, picture_limits(settings), metrics)


def archive_limits(settings: Settings) -> ArchiveLimits:
    given = (settings.max_archive_bytes, settings.max_archive_members, settings.max_image_bytes)
    return ArchiveLimits(*given, video_limits(settings))


def video_limits(settings: Settings) -> VideoLimits:
    given = (settings.max_video_bytes, settings.video_frames, settings.video_rate, settings.video_seconds)
    return VideoLimits(*given, settings.keep_videos, why_refused(is_on=settings.video))


def open_source_policy(settings: Settings) -> SourcePolicy:
    """What sources may read. Raises StartupError."""
    try:
        folders = AllowedFolders.parse(settings.folders, settings.data_dir)
    except ValueError as error:  # a path that is not absolute
        raise StartupError(f"SIGHTLINE_FOLDERS: {error}") from None
    try:
        bound = AllowedFolders.parse_bound(settings.bound_folders, settings.data_dir)
    except ValueError as error:
        raise StartupError(f"SIGHTLINE_BOUND_FOLDERS: {error}") from None
    buckets = parse_allowed_buckets(settings)
    for one in bound.values():
        folders += one
    limits = (settings.max_urls, settings.max_image_bytes)
    formats, videos = settings.accepted_formats, video_limits(settings)
    return SourcePolicy(folders, settings.fetch, *limits, buckets, bound, formats, videos)


def open_address_policy(settings: Settings) -> AddressPolicy:
    """Which addresses URLs may lead to. Raises StartupError for networks that are none."""
    try:
        return AddressPolicy([text for text in settings.fetch_also.split(",") if text.strip()])
    except ValueError as error:
        raise StartupError(f"SIGHTLINE_FETCH_ALSO is not a list of addresses and networks: {error}") from None


def open_fetcher(settings: Settings) -> HttpFetcher | None:
    """None where the operator does not allow URLs."""
    if not settings.fetch:
        return None
    limits = FetchLimits(settings.max_image_bytes, settings.fetch_seconds)
    return HttpFetcher(open_address_policy(settings), limits, user_agent=settings.user_agent)


def open_poster(settings: Settings, seconds: float) -> HttpPoster | None:
    """None where the operator does not allow webhooks."""
    if not settings.webhooks:
        return None
    return HttpPoster(open_address_policy(settings), seconds, user_agent=settings.user_agent)


def open_sources(settings: Settings, library: Library, pool: DecodePool, encoder: Encoder) -> SourceReader:
    """Reads pictures from named sources, in a worker."""
    policy, fetcher, objects = open_source_policy(settings), open_fetcher(settings), open_object_store(settings)
    given = (library.database, library.blobs, policy, fetcher, pool, settings.archive_seconds)
    return SourceReader(SourceContext(*given, object_store=objects, encoder=encoder))


def check_source_settings(settings: Settings) -> None:
    """Raise StartupError for settings that only workers use: otherwise the first worker would find them wrong."""
    open_address_policy(settings)
    open_object_store(settings)
