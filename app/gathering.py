"""Gathering: brings what a list of URLs, or a folder of this machine, holds to where it can be taken in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from app.decode.limits import PictureLimits
from app.errors import Rejected, SightlineError, UrlNotAllowed, Validation, translated
from app.fetch.fetcher import Fetcher, Got, Wanted
from app.folders import Roots, copy, parts, pictures, tag, text_of
from app.media import Media, discard, sync_folder
from app.store import origins
from app.store.database import Database
from app.store.origins import Known

OFF = UrlNotAllowed("this server takes no pictures by URL; its operator may allow it (SIGHTLINE_FETCH)")
FOLDER = "fetched"
MANIFEST = "manifest.jsonl"
NOWHERE = Roots(())
LOOK = 1_000  # files of a folder that are looked up at once


class Gathering:
    """Reads what a manifest names. Bytes that are here already, by their tag, do not come again."""

    def __init__(
        self,
        database: Database,
        media: Media,
        fetcher: Fetcher | None,
        roots: Roots = NOWHERE,
        most: int = PictureLimits().max_bytes,
    ) -> None:
        self._database = database
        self._media = media
        self._fetcher = fetcher
        self._roots = roots
        self._most = most

    def scan(self, folder: Path, named: str, collection: str) -> None:
        """Write the manifest of `folder`: the pictures below the folder `named` that are new or have changed.

        Raises Validation when that may not be read (any more).
        """
        root = self._roots.folder(named)
        with translated(), open(folder / f"{MANIFEST}.new", "w", encoding="utf-8") as file:
            for part in parts(pictures(root), LOOK):
                origins_of = {f"file:{text_of(path)}": path for path in part}
                held = self._database.read(partial(origins.held, collection=collection, origins=list(origins_of)))
                for origin, path in origins_of.items():
                    if held.get(origin, "") != tag(path):
                        name = text_of(path.relative_to(root.parent))
                        file.write(json.dumps({"name": name, "origin": origin, "path": str(path)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with translated():
            Path(file.name).replace(folder / MANIFEST)
            sync_folder(folder)

    def bring(
        self, folder: Path, lines: Sequence[dict[str, Any]], stopping: Callable[[], bool] = lambda: False
    ) -> list[dict[str, Any]]:
        """The lines, each with the `file` in `folder` that its `url` or `path` gave and a `tag`, or with an `error`.

        Raises Overloaded when it is `stopping` before all have come.
        """
        target = folder / FOLDER
        discard(target)
        with translated():
            target.mkdir()
        if lines and "path" in lines[0]:
            return [self._copied(line, target / str(n)) for n, line in enumerate(lines)]
        return self._fetched(target, lines, stopping)

    def _copied(self, line: dict[str, Any], target: Path) -> dict[str, Any]:
        path = Path(line["path"])
        try:
            self._roots.folder(str(path.parent))  # once more: a link may have come between
            found = copy(path, target, self._most)
        except (Rejected, Validation) as error:
            return failed(line, error)
        return {**line, "file": f"{FOLDER}/{target.name}", "tag": found}

    def _fetched(
        self, target: Path, lines: Sequence[dict[str, Any]], stopping: Callable[[], bool]
    ) -> list[dict[str, Any]]:
        if self._fetcher is None:
            return [failed(line, OFF) for line in lines]
        urls = [str(line["url"]) for line in lines]
        before = self._database.read(lambda c: origins.known(c, urls))
        wanted = [
            Wanted(url, target / str(n), known.tag if (known := before.get(url)) and self._has(known) else None)
            for n, url in enumerate(urls)
        ]
        came = [self._reused(self._fetcher, got, before) for got in self._fetcher.fetch_all(wanted, stopping)]
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
    with translated(), open(folder / MANIFEST, "w", encoding="utf-8") as file:
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
    return {**line, "file": f"{FOLDER}/{got.wanted.path.name}", "tag": got.etag, "origin": line["url"]}


def failed(line: dict[str, Any], error: SightlineError) -> dict[str, Any]:
    """A line with the reason why nothing came."""
    return {**line, "error": {"code": error.code, "detail": error.detail}}
