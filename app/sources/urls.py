"""URLs, listed by whoever asks. Bytes that are here already, by their ETag, do not come again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.core.errors import UrlNotAllowed, Validation, map_os_errors
from app.core.types import SourceSpec
from app.sources.base import ShouldStop, Source, SourceItem, SourcePolicy, path_in_job, with_error
from app.sources.fetch.http import FetchRequest, FetchResult, HttpFetcher
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry

FETCHING_IS_OFF = UrlNotAllowed("this server takes no pictures by URL; its operator may allow it (SIGHTLINE_FETCH)")


class UrlSource(Source):
    """Lines with a `url`. The list is the manifest: it was written when it was sent."""

    FORM = "urls"

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """Nothing but `urls`."""
        require_fetching_allowed(allowed)
        if asked.place:
            raise Validation('the source is "urls", and the URLs are its items')
        return asked

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """Never called with a list, which is there; without it, nothing."""
        return iter(())

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Fetch them, some at a time."""
        fetcher = self.tools.fetcher
        if fetcher is None:
            return [with_error(line, FETCHING_IS_OFF) for line in lines]
        urls = [str(line["url"]) for line in lines]
        before = self.tools.database.read(lambda c: source_cache.find_entries(c, urls))
        wanted = [
            FetchRequest(url, target / str(n), known.tag if (known := before.get(url)) and self._has(known) else None)
            for n, url in enumerate(urls)
        ]
        came = [self._reused(fetcher, got, before) for got in fetcher.fetch_all(wanted, stopping)]
        return [with_result(line, got) for line, got in zip(lines, came, strict=True)]

    def _has(self, known: CacheEntry) -> bool:
        return self.tools.blobs.path(known.sha256).exists()

    def _reused(self, fetcher: HttpFetcher, got: FetchResult, before: dict[str, CacheEntry]) -> FetchResult:
        """An unchanged URL with the bytes that are here; fetched after all if they are gone meanwhile."""
        if not got.unchanged:
            return got
        with map_os_errors():
            try:
                os.link(self.tools.blobs.path(before[got.wanted.url].sha256), got.wanted.path)
            except FileNotFoundError:
                return fetcher.fetch(replace(got.wanted, etag=None))
        return got


def require_fetching_allowed(allowed: SourcePolicy) -> None:
    """Raise UrlNotAllowed unless the operator allows URLs."""
    if not allowed.fetch:
        raise FETCHING_IS_OFF


def with_result(line: SourceItem, got: FetchResult) -> SourceItem:
    """A line of the manifest with what became of it."""
    if got.error is not None:
        return with_error(line, got.error)
    return {**line, "file": path_in_job(got.wanted.path), "tag": got.etag, "origin": line["url"]}
