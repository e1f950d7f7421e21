"""A prefix of a bucket, all of it or what is new since it was taken last."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from app.core.errors import ImageTooLarge, SightlineError, StartupError, map_os_errors
from app.core.settings import Settings
from app.core.types import SourceSpec
from app.decode.headers import has_picture_suffix
from app.sources.base import ShouldStop, Source, SourceItem, SourcePolicy, path_in_job, with_error
from app.sources.bucket_prefix import AllowedBuckets, BucketPrefix
from app.sources.fetch.http import FetchLimits, FetchRequest, FetchResult
from app.sources.fetch.object_store import ObjectStoreClient
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry

ENDPOINT = re.compile(r"(https?://[^\s/?#@]+(/[^\s?#]*)?)?")


class BucketSource(Source):
    """Lines with the URL of an object as `origin`, and its `tag` and `bytes` as they were listed."""

    FORM = "s3://BUCKET/PATH"

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """The prefix without a slash at its end."""
        prefix = allowed.buckets.prefix(f"{asked.kind}:{asked.place}")
        return SourceSpec(asked.kind, str(prefix).partition(":")[2])

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """The pictures below it that are new or have changed. Raises Validation when it may not be read (any more),
        UrlUnreachable when it cannot be."""
        prefix = self.tools.allowed.buckets.prefix(f"{self.asked.kind}:{self.asked.place}")
        for page in self.tools.objects.listed(prefix, stopping):
            there = {one.url: one for one in page if is_visible_picture(prefix, one.url)}
            held = self.tools.database.read(
                partial(source_cache.find_held_tags, collection=collection, origins=list(there))
            )
            for url, one in there.items():
                if held.get(url) != one.tag:
                    yield {"name": url, "origin": url, "tag": one.tag, "bytes": one.bytes}

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Fetch them, some at a time, but for those whose bytes are here by their tag."""
        urls = [str(line["origin"]) for line in lines]
        before = self.tools.database.read(lambda c: source_cache.find_entries(c, urls))
        came = [self._here(line, before.get(urls[n]), target / str(n)) for n, line in enumerate(lines)]
        missing = [n for n, one in enumerate(came) if one is None]
        wanted = [FetchRequest(urls[n], target / str(n)) for n in missing]
        for n, got in zip(missing, self.tools.objects.fetch_all(wanted, stopping) if wanted else (), strict=True):
            came[n] = with_result(lines[n], got)
        return [one for one in came if one is not None]

    def _here(self, line: SourceItem, known: CacheEntry | None, target: Path) -> SourceItem | None:
        """A line that needs nothing from the store; None for one that does."""
        allowed = self.tools.allowed
        try:
            allowed.buckets.check(BucketPrefix.split(line["origin"]))
            if line["bytes"] > allowed.most_bytes:
                raise ImageTooLarge(f"a picture may have {allowed.most_bytes} bytes")
        except SightlineError as error:
            return with_error(line, error)
        if known is None or known.tag != line["tag"]:
            return None
        with map_os_errors():
            try:
                os.link(self.tools.blobs.path(known.sha256), target)
            except FileNotFoundError:
                return None
        return {**line, "file": path_in_job(target)}


class GoogleBucketSource(BucketSource):
    """The same of Google Cloud Storage."""

    FORM = "gs://BUCKET/PATH"


def is_visible_picture(prefix: BucketPrefix, url: str) -> bool:
    """Whether an object looks like a picture, and no step below the prefix is hidden."""
    steps = url.removeprefix(str(prefix)).split("/")
    return has_picture_suffix(url) and not any(step.startswith(".") for step in steps)


def with_result(line: SourceItem, got: FetchResult) -> SourceItem:
    """A line of the manifest with what became of it."""
    if got.error is not None:
        return with_error(line, got.error)
    return {**line, "file": path_in_job(got.wanted.path), "tag": got.etag}


def parse_allowed_buckets(settings: Settings) -> AllowedBuckets:
    """The prefixes of object stores that may be read. Raises StartupError for one that is none."""
    try:
        return AllowedBuckets.of(settings.buckets)
    except ValueError as error:
        raise StartupError(f"SIGHTLINE_BUCKETS: {error}") from None


def open_object_store(settings: Settings) -> ObjectStoreClient:
    """What reads object stores. Raises StartupError for an endpoint that is no address."""
    for name, endpoint in (("S3", settings.s3_endpoint), ("GCS", settings.gcs_endpoint)):
        if not ENDPOINT.fullmatch(endpoint):
            raise StartupError(f"SIGHTLINE_{name}_ENDPOINT is no http:// or https:// address")
    limits = FetchLimits(settings.max_image_bytes, settings.fetch_seconds)
    return ObjectStoreClient(limits, settings.s3_endpoint, settings.gcs_endpoint)
