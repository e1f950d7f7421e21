"""What URLs and files of this machine gave when they were read last, so that the same bytes need not come again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from app.storage.sql import fetch_all
from app.storage.tables.collections import IN_COLLECTION


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The tag of an origin (an ETag, or the time and size of a file) and the digest of the bytes that it had then."""

    tag: str
    sha256: str


def find_entries(c: apsw.Connection, origins: Iterable[str]) -> dict[str, CacheEntry]:
    """What these gave last; those that were never read, or had no tag, are absent."""
    rows = fetch_all(
        c,
        "SELECT origin, tag, sha256 FROM origins WHERE origin IN (SELECT value FROM json_each(?))",
        (json.dumps(list(origins)),),
    )
    return {origin: CacheEntry(tag, sha256) for origin, tag, sha256 in rows}


def find_held_tags(c: apsw.Connection, collection: str, origins: Iterable[str]) -> dict[str, str]:
    """The tags of those among these whose bytes are still a picture of the collection."""
    rows = fetch_all(
        c,
        "SELECT o.origin, o.tag FROM origins o WHERE o.origin IN (SELECT value FROM json_each(?))"
        " AND EXISTS (SELECT 1 FROM images WHERE " + IN_COLLECTION + " AND sha256 = o.sha256)",
        (json.dumps(list(origins)), collection),
    )
    return dict(rows)


def store(c: apsw.Connection, origin: str, known: CacheEntry) -> None:
    """Remember what an origin gave."""
    c.execute(
        "INSERT OR REPLACE INTO origins (origin, tag, sha256) VALUES (?, ?, ?)", (origin, known.tag, known.sha256)
    )
