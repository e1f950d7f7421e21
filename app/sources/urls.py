"""URLs that a client lists. The server does not download bytes again that it has, by their ETag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.core.errors import UrlNotAllowed, Validation
from app.core.types import SourceSpec
from app.sources.base import Source, SourceItem, SourcePolicy, with_error, with_result
from app.sources.fetch.http import FetchRequest, FetchResult, HttpFetcher
from app.sources.stop_signal import ShouldStop
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry

FETCHING_IS_OFF = UrlNotAllowed(
    "this server does not fetch pictures by URL; its operator can allow it (SIGHTLINE_FETCH)"
)


class UrlSource(Source):
    """Items with a `url`. The route that takes the list writes it as the manifest."""

    FORM = "urls"

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        require_fetching_allowed(policy)
        if spec.place:
            raise Validation('the source is "urls", and the URLs are its items')
        return spec

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """Nothing: the importer scans only what has no manifest."""
        return iter(())

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        fetcher = self.context.fetcher
        if fetcher is None:
            return [with_error(item, FETCHING_IS_OFF) for item in items]
        urls = [str(item["url"]) for item in items]
        cached = self.context.database.read(lambda c: source_cache.find_entries(c, urls))
        stored = self.context.blobs.find_existing({entry.sha256 for entry in cached.values()})
        etags = {url: entry.tag for url, entry in cached.items() if entry.sha256 in stored}
        requests = [FetchRequest(url, target / str(n), etags.get(url)) for n, url in enumerate(urls)]
        results = [self._with_bytes(fetcher, result, cached) for result in fetcher.fetch_all(requests, should_stop)]
        return [
            with_result({**item, "origin": item["url"]}, result) for item, result in zip(items, results, strict=True)
        ]

    def _with_bytes(self, fetcher: HttpFetcher, result: FetchResult, cached: dict[str, CacheEntry]) -> FetchResult:
        """Link the stored bytes of an unchanged URL; fetch them if they are gone meanwhile."""
        request = result.request
        if result.unchanged and not self.context.link_blob(cached[request.url].sha256, request.path):
            return fetcher.fetch(replace(request, etag=None))
        return result


def require_fetching_allowed(policy: SourcePolicy) -> None:
    """Raise UrlNotAllowed unless the operator allows URLs."""
    if not policy.fetch:
        raise FETCHING_IS_OFF
