"""The pictures of a bucket, or below a prefix in it, in Amazon S3, stores like it, and Google Cloud Storage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import SightlineError, StartupError
from app.core.settings import Settings
from app.core.types import SourceSpec
from app.decode.headers import has_picture_suffix
from app.decode.litter import is_litter
from app.sources.base import Source, SourceItem, SourcePolicy, path_in_job, with_error, with_result
from app.sources.bucket_prefix import AllowedBuckets, BucketPrefix
from app.sources.changed import skip_unchanged
from app.sources.fetch.http import FetchLimits, FetchRequest
from app.sources.fetch.object_store import ObjectStoreClient
from app.sources.local_files import require_size
from app.sources.stop_signal import ShouldStop
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry

ENDPOINT = re.compile(r"(https?://[^\s/?#@]+(/[^\s?#]*)?)?")


class BucketSource(Source):
    """Items with the URL of an object as `origin`, and its `tag` and `bytes` as the store listed them."""

    FORM = "s3://BUCKET/PATH"

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        prefix = policy.buckets.parse_prefix(f"{spec.kind}:{spec.place}")
        return SourceSpec(spec.kind, str(prefix).partition(":")[2])

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The pictures that are new or have changed.

        Raises Validation when the server may no longer read the prefix, UrlUnreachable when the store does not answer.
        """
        prefix = self.context.policy.buckets.parse_prefix(f"{self.spec.kind}:{self.spec.place}")
        return skip_unchanged(self.context.database, collection, self._list(prefix, should_stop), should_stop)

    def _list(self, prefix: BucketPrefix, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The pictures below a prefix; counts what is of another kind."""
        count = 0
        for page in self.context.object_store.list_pages(prefix, should_stop):
            for one in page:
                if is_litter(one.url.removeprefix(str(prefix)).strip("/")):
                    continue
                if has_picture_suffix(one.url):
                    count += 1
                    yield {"name": one.url, "origin": one.url, "tag": one.tag, "bytes": one.bytes}
                elif one.bytes:  # the others stand for folders
                    self.left_out.add(one.url)
        if not count:
            yield from self.report_nothing(str(prefix))

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        """Link the bytes that are stored already, and download the others."""
        origins = [str(item["origin"]) for item in items]
        cached = self.context.database.read(lambda c: source_cache.find_entries(c, origins))
        fetched = {
            n: done
            for n, item in enumerate(items)
            if (done := self._without_download(item, cached.get(origins[n]), target / str(n))) is not None
        }
        missing = [n for n in range(len(items)) if n not in fetched]
        requests = [FetchRequest(origins[n], target / str(n)) for n in missing]
        results = self.context.object_store.download_all(requests, should_stop) if requests else []
        fetched.update((n, with_result(items[n], result)) for n, result in zip(missing, results, strict=True))
        return [fetched[n] for n in range(len(items))]

    def _without_download(self, item: SourceItem, entry: CacheEntry | None, target: Path) -> SourceItem | None:
        """The item with stored bytes or with an error; None when the store must send it."""
        policy = self.context.policy
        try:
            policy.buckets.require(BucketPrefix.from_url(item["origin"]))
            require_size(item["bytes"], policy.max_bytes)
        except SightlineError as error:
            return with_error(item, error)
        if entry is None or entry.tag != item["tag"] or not self.context.link_blob(entry.sha256, target):
            return None
        return {**item, "file": path_in_job(target)}


class GoogleBucketSource(BucketSource):
    FORM = "gs://BUCKET/PATH"


def parse_allowed_buckets(settings: Settings) -> AllowedBuckets:
    """The prefixes that the server may read. Raises StartupError for text that is no prefix."""
    try:
        return AllowedBuckets.parse(settings.buckets)
    except ValueError as error:
        raise StartupError(f"SIGHTLINE_BUCKETS: {error}") from None


def open_object_store(settings: Settings) -> ObjectStoreClient:
    """Make the client of object stores. Raises StartupError for an endpoint that is no address."""
    for name, endpoint in (("S3", settings.s3_endpoint), ("GCS", settings.gcs_endpoint)):
        if not ENDPOINT.fullmatch(endpoint):
            raise StartupError(f"SIGHTLINE_{name}_ENDPOINT is no http:// or https:// address")
    limits = FetchLimits(settings.max_image_bytes, settings.fetch_seconds)
    return ObjectStoreClient(limits, settings.s3_endpoint, settings.gcs_endpoint, settings.user_agent)
