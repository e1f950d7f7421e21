"""The pictures of a bucket, or below a prefix in it, in Amazon S3, stores like it, and Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from app.core.errors import SightlineError, StartupError, map_os_errors
from app.core.settings import Settings
from app.core.types import SourceSpec
from app.decode.headers import has_picture_suffix
from app.decode.litter import is_litter
from app.decode.sidecars import (
    SidecarFields,
    match_sidecar_paths,
    merge_sidecars,
    parse_sidecar,
    refuse_sidecar,
    sidecar_extension,
    split_key,
)
from app.sources.base import Source, SourceItem, SourcePolicy, path_in_job, with_error, with_result
from app.sources.bucket_prefix import AllowedBuckets, BucketPrefix
from app.sources.changed import skip_unchanged
from app.sources.fetch.http import FetchLimits, FetchRequest, FetchResult
from app.sources.fetch.object_store import ObjectInfo, ObjectStoreClient
from app.sources.local_files import require_size
from app.sources.stop_signal import ShouldStop
from app.storage.object_store import ENDPOINT
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry

TAG_MARK = " "  # in a tag, before those of the files beside the picture
MAX_TOGETHER = 50_000  # objects of a folder that are kept in memory


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
        """The pictures below a prefix, with the files beside them; counts what is of another kind."""
        count = 0
        pages = self.context.object_store.list_pages(prefix, should_stop)
        objects = (one for page in pages for one in page)
        clean = (one for one in objects if not is_litter(one.url.removeprefix(str(prefix)).strip("/")))
        for together in group_by_folder(clean):
            for item in self._list_folder(together):
                count += 1
                yield item
        self.left_out.explain(self.context.policy.formats)
        if not count:
            yield from self.report_nothing(str(prefix))

    def _list_folder(self, objects: Sequence[ObjectInfo]) -> Iterator[SourceItem]:
        formats = self.context.policy.formats
        pictures = [one for one in objects if has_picture_suffix(one.url, formats)]
        others = {one.url: one for one in objects if not has_picture_suffix(one.url, formats)}
        matched = match_sidecar_paths([one.url for one in pictures], filter(sidecar_extension, others))
        for one in pictures:
            beside = [others[url] for url in matched.get(one.url, ())]
            tag = TAG_MARK.join([one.tag, *(sidecar.tag for sidecar in beside)])
            item = {"name": one.url, "origin": one.url, "tag": tag, "bytes": one.bytes}
            yield {**item, "beside": [sidecar.url for sidecar in beside]} if beside else item
        used = {url for found in matched.values() for url in found}
        for url, one in others.items():
            if url not in used and one.bytes:  # the others stand for folders
                self.left_out.add(url)

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        """Link the bytes that are stored already, and download the others, and the files beside the pictures."""
        origins = [str(item["origin"]) for item in items]
        cached = self.context.database.read(lambda c: source_cache.find_entries(c, origins))
        fetched = {
            n: done
            for n, item in enumerate(items)
            if (done := self._without_download(item, cached.get(origins[n]), target / str(n))) is not None
        }
        missing = [n for n in range(len(items)) if n not in fetched]
        requests = [FetchRequest(origins[n], target / str(n)) for n in missing]
        for n, result in zip(missing, self._download(requests, should_stop), strict=True):
            fetched[n] = with_result(items[n], result)
            if result.etag is not None:
                _, mark, beside = items[n]["tag"].partition(TAG_MARK)
                fetched[n]["tag"] = result.etag + mark + beside
        return self._add_fields([fetched[n] for n in range(len(items))], target, should_stop)

    def _download(self, requests: Sequence[FetchRequest], should_stop: ShouldStop) -> list[FetchResult]:
        return self.context.object_store.download_all(requests, should_stop) if requests else []

    def _add_fields(self, items: list[SourceItem], target: Path, should_stop: ShouldStop) -> list[SourceItem]:
        """The items with what the files beside them say."""
        allowed = self.context.policy.buckets.allows
        named = dict.fromkeys(url for item in items if "error" not in item for url in item.get("beside", ()))
        urls = [url for url in named if allowed(BucketPrefix.from_url(url))]
        requests = [FetchRequest(url, target / f"beside-{n}") for n, url in enumerate(urls)]
        read = {one.request.url: read_sidecar(one) for one in self._download(requests, should_stop)}
        return [
            {**item, **merge_sidecars(read[url] for url in item.get("beside", ()) if url in read)} for item in items
        ]

    def _without_download(self, item: SourceItem, entry: CacheEntry | None, target: Path) -> SourceItem | None:
        """The item with stored bytes or with an error; None when the store must send it."""
        policy = self.context.policy
        try:
            policy.buckets.require(BucketPrefix.from_url(item["origin"]))
            require_size(item["bytes"], policy.max_bytes)
        except SightlineError as error:
            return with_error(item, error)
        if (
            entry is None
            or not _has_same_bytes(entry.tag, item["tag"])
            or not self.context.link_blob(entry.sha256, target)
        ):
            return None
        return {**item, "file": path_in_job(target)}


def _has_same_bytes(tag: str, other: str) -> bool:
    """Whether two tags are of the same bytes, whatever lies beside the picture."""
    return tag.partition(TAG_MARK)[0] == other.partition(TAG_MARK)[0]


def group_by_folder(objects: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    """The objects of each folder together, as far as the store lists them in order; of a large folder, part by part."""
    entered: list[tuple[str, list[ObjectInfo]]] = []  # the folder of the last object, and those around it
    for one in objects:
        folder = one.url.rpartition("/")[0] + "/"
        while entered and not folder.startswith(entered[-1][0]):
            yield entered.pop()[1]
        if not entered or entered[-1][0] != folder:
            entered.append((folder, []))
        together = entered[-1][1]
        if len(together) >= MAX_TOGETHER and split_key(one.url)[0] != split_key(together[-1].url)[0]:
            yield together.copy()
            together.clear()
        together.append(one)
    yield from (together for _, together in reversed(entered))


def read_sidecar(result: FetchResult) -> tuple[str, SidecarFields]:
    """The extension of a sidecar, and its fields."""
    name = result.request.url.rpartition("/")[2]
    extension = sidecar_extension(name) or ""
    if result.error is not None:
        return extension, refuse_sidecar(extension, f"{name}: {result.error.detail}")
    with map_os_errors():
        return extension, parse_sidecar(extension, result.request.path.read_bytes(), name)


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
