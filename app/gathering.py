"""Gathering: brings the members of a URL list into a folder, a few at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from app.errors import SightlineError, UrlNotAllowed, Validation, translated
from app.fetch.fetcher import Fetcher, Got, Wanted
from app.media import Media, discard, sync_folder
from app.store import origins
from app.store.database import Database
from app.store.origins import Known

OFF = UrlNotAllowed("this server takes no pictures by URL; its operator may allow it (SIGHTLINE_FETCH)")
FOLDER = "fetched"


class Gathering:
    """Fetches what a manifest names. Bytes that are here already, by their ETag, do not come again."""

    def __init__(self, database: Database, media: Media, fetcher: Fetcher | None) -> None:
        self._database = database
        self._media = media
        self._fetcher = fetcher

    def bring(self, folder: Path, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines, each with the `file` in `folder` that its `url` gave and its `tag`, or with the `error`."""
        if self._fetcher is None:
            return [failed(line, OFF) for line in lines]
        target = folder / FOLDER
        discard(target)
        with translated():
            target.mkdir()
        urls = [str(line["url"]) for line in lines]
        before = self._database.read(lambda c: origins.known(c, urls))
        wanted = [
            Wanted(url, target / str(n), known.tag if (known := before.get(url)) and self._has(known) else None)
            for n, url in enumerate(urls)
        ]
        came = [self._reused(self._fetcher, got, before) for got in self._fetcher.fetch_all(wanted)]
        return [brought(line, got) for line, got in zip(lines, came, strict=True)]

    def done(self, folder: Path) -> None:
        """Remove what was brought; what was taken in has a name of its own."""
        discard(folder / FOLDER)

    def _has(self, known: Known) -> bool:
        return self._media.path(known.sha256).exists()

    def _reused(self, fetcher: Fetcher, got: Got, before: dict[str, Known]) -> Got:
        """An unchanged URL with the bytes that are here; fetched after all if they are gone meanwhile."""
        if not got.unchanged:
            return got
        with translated():
            try:
                os.link(self._media.path(before[got.wanted.url].sha256), got.wanted.path)
            except FileNotFoundError:
                return fetcher.fetch(replace(got.wanted, etag=None))
        return got


def write_list(folder: Path, items: Iterable[dict[str, Any]], most: int) -> int:
    """Write what a worker is to fetch as the manifest of `folder`, durably; returns how many items there are.

    Each has a `name` and a `url`. Raises Validation for none, and for more than `most`.
    """
    count = 0
    with translated(), open(folder / "manifest.jsonl", "w", encoding="utf-8") as file:
        for item in islice(items, most + 1):
            count += 1
            file.write(json.dumps(item) + "\n")
        file.flush()
        os.fsync(file.fileno())
    if not 1 <= count <= most:
        raise Validation(f"send 1 to {most} URLs" + ("" if count else ", got none"))
    sync_folder(folder)
    return count


def brought(line: dict[str, Any], got: Got) -> dict[str, Any]:
    """A line of the manifest with what became of it."""
    if got.error is not None:
        return failed(line, got.error)
    return {**line, "file": f"{FOLDER}/{got.wanted.path.name}", "tag": got.etag}


def failed(line: dict[str, Any], error: SightlineError) -> dict[str, Any]:
    """A line with the reason why nothing came."""
    return {**line, "error": {"code": error.code, "detail": error.detail}}
