"""Tags and digests of URLs and local files that were imported, so that unchanged ones are not read again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from app.storage.sql import fetch_all
from app.storage.tables.collections import IN_COLLECTION


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The tag of an origin (an ETag, or the time and size of a file) and the digest of its bytes at that time."""

    tag: str
    sha256: str


def find_entries(c: apsw.Connection, origins: Iterable[str]) -> dict[str, CacheEntry]:
    """The entries of these origins, without those that were never imported or have no tag."""
    rows = fetch_all(
        c,
        "SELECT origin, tag, sha256 FROM origins WHERE origin IN (SELECT value FROM json_each(?))",
        (json.dumps(list(origins)),),
    )
    return {origin: CacheEntry(tag, sha256) for origin, tag, sha256 in rows}


def find_held_tags(c: apsw.Connection, collection: str, origins: Iterable[str]) -> dict[str, str]:
    """The tags of those origins whose bytes are still a picture of the collection."""
    rows = fetch_all(
        c,
        "SELECT o.origin, o.tag FROM origins o WHERE o.origin IN (SELECT value FROM json_each(?))"
        " AND EXISTS (SELECT 1 FROM images WHERE " + IN_COLLECTION + " AND sha256 = o.sha256)",
        (json.dumps(list(origins)), collection),
    )
    return dict(rows)


def store(c: apsw.Connection, origin: str, entry: CacheEntry) -> None:
    c.execute(
        "INSERT OR REPLACE INTO origins (origin, tag, sha256) VALUES (?, ?, ?)", (origin, entry.tag, entry.sha256)
    )
