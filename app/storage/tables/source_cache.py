"""What each origin (a URL, or `file:` and a path) contained when it was last read, to skip those that did not change.

If an entry is lost, that origin is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from app.storage.sql import Connection, fetch_all
from app.storage.tables.collections import IN_COLLECTION


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The tag of an origin (an ETag, or the time and size of a file) and the SHA-256 of its bytes at that time."""

    tag: str
    sha256: str


def find_entries(c: Connection, origins: Iterable[str]) -> dict[str, CacheEntry]:
    """The entries of these origins; those that were never read, or had no tag, are absent."""
    sql = "SELECT origin, tag, sha256 FROM origins WHERE origin IN (SELECT value FROM json_each(?))"
    rows = fetch_all(c, sql, (json.dumps(list(origins)),))
    return {origin: CacheEntry(tag, sha256) for origin, tag, sha256 in rows}


def find_held_tags(c: Connection, collection: str, origins: Iterable[str]) -> dict[str, str]:
    """The tags of those of these origins whose bytes are still a picture or a video of the collection."""
    rows = fetch_all(
        c,
        "SELECT o.origin, o.tag FROM origins o WHERE o.origin IN (SELECT value FROM json_each(?))"
        " AND (EXISTS (SELECT 1 FROM images WHERE " + IN_COLLECTION + " AND sha256 = o.sha256)"
        " OR EXISTS (SELECT 1 FROM videos WHERE complete = 1 AND " + IN_COLLECTION + " AND sha256 = o.sha256))",
        (json.dumps(list(origins)), collection, collection),
    )
    return dict(rows)


def store(c: Connection, origin: str, entry: CacheEntry) -> None:
    sql = "INSERT INTO origins (origin, tag, sha256) VALUES (?, ?, ?) ON CONFLICT (origin) DO UPDATE"
    c.execute(sql + " SET tag = excluded.tag, sha256 = excluded.sha256", (origin, entry.tag, entry.sha256))
