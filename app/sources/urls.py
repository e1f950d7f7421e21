"""URLs, listed by whoever asks. Bytes that are here already, by their ETag, do not come again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.core.errors import UrlNotAllowed, Validation, translated
from app.core.types import Asked
from app.sources.base import Allowed, Kind, Line, Stopping, failed, named
from app.sources.fetch.http import Fetcher, Got, Wanted
from app.storage.tables import source_cache
from app.storage.tables.source_cache import Known

OFF = UrlNotAllowed("this server takes no pictures by URL; its operator may allow it (SIGHTLINE_FETCH)")


class Urls(Kind):
    """Lines with a `url`. The list is the manifest: it was written when it was sent."""

    FORM = "urls"

    @classmethod
    def checked(cls, asked: Asked, allowed: Allowed) -> Asked:
        """Nothing but `urls`."""
        require_fetching(allowed)
        if asked.place:
            raise Validation('the source is "urls", and the URLs are its items')
        return asked

    def scan(self, folder: Path, collection: str, stopping: Stopping) -> Iterator[Line]:
        """Never called with a list, which is there; without it, nothing."""
        return iter(())

    def bring(self, target: Path, lines: Sequence[Line], stopping: Stopping) -> list[Line]:
        """Fetch them, some at a time."""
        fetcher = self.tools.fetcher
        if fetcher is None:
            return [failed(line, OFF) for line in lines]
        urls = [str(line["url"]) for line in lines]
        before = self.tools.database.read(lambda c: source_cache.known(c, urls))
        wanted = [
            Wanted(url, target / str(n), known.tag if (known := before.get(url)) and self._has(known) else None)
            for n, url in enumerate(urls)
        ]
        came = [self._reused(fetcher, got, before) for got in fetcher.fetch_all(wanted, stopping)]
        return [brought(line, got) for line, got in zip(lines, came, strict=True)]

    def _has(self, known: Known) -> bool:
        return self.tools.media.path(known.sha256).exists()

    def _reused(self, fetcher: Fetcher, got: Got, before: dict[str, Known]) -> Got:
        """An unchanged URL with the bytes that are here; fetched after all if they are gone meanwhile."""
        if not got.unchanged:
            return got
        with translated():
            try:
                os.link(self.tools.media.path(before[got.wanted.url].sha256), got.wanted.path)
            except FileNotFoundError:
                return fetcher.fetch(replace(got.wanted, etag=None))
        return got


def require_fetching(allowed: Allowed) -> None:
    """Raise UrlNotAllowed unless the operator allows URLs."""
    if not allowed.fetch:
        raise OFF


def brought(line: Line, got: Got) -> Line:
    """A line of the manifest with what became of it."""
    if got.error is not None:
        return failed(line, got.error)
    return {**line, "file": named(got.wanted.path), "tag": got.etag, "origin": line["url"]}
