"""Pairs of duplicates, and how far each collection has been searched for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.core.clock import now_rfc3339
from app.core.types import Image
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.tables import images

PairRow = tuple[int, int, int, int, int | None, float | None]
"""Keys of two pictures, their `embedded_seq`, bits, and distance."""
HashRow = tuple[int, int, bytes | None]  # key, embedded_seq, perceptual hash

ADD = (
    "INSERT INTO duplicate_pairs (a, b, collection, bits, distance) SELECT ?1, ?2, ?5, ?6, ?7"
    " WHERE EXISTS (SELECT 1 FROM images WHERE key = ?1 AND embedded_seq = ?3 AND status = 'ready' AND collection = ?5)"
    " AND EXISTS (SELECT 1 FROM images WHERE key = ?2 AND embedded_seq = ?4 AND status = 'ready' AND collection = ?5)"
    " ON CONFLICT (a, b) DO UPDATE SET collection = excluded.collection, bits = excluded.bits,"
    " distance = excluded.distance"
)
LIST_EXACT = "SELECT a, b, bits FROM duplicate_pairs WHERE collection = ? AND bits <= ?"
LIST_NEAR = "SELECT a, b, distance FROM duplicate_pairs WHERE collection = ? AND distance <= ?"


@dataclass(frozen=True, slots=True)
class DuplicateScan:
    """A search for duplicates in the pictures of a space; those up to `seq` are compared with each other."""

    space: str
    seq: int
    finished_at: str | None


def get_scan(c: Connection, label: str) -> DuplicateScan | None:
    row = fetch_one(c, "SELECT space, seq, finished_at FROM duplicate_scans WHERE collection = ?", (label,))
    return DuplicateScan(*row) if row else None


def begin_scan(c: Connection, label: str, space: str) -> DuplicateScan:
    """The scan to go on with. What was found in another space is deleted."""
    found = get_scan(c, label)
    if found is not None and found.space == space:
        return found
    c.execute("DELETE FROM duplicate_pairs WHERE collection = ?", (label,))
    c.execute("DELETE FROM duplicate_scans WHERE collection = ?", (label,))
    c.execute("INSERT INTO duplicate_scans (collection, space) VALUES (?, ?)", (label, space))
    return DuplicateScan(space, 0, None)


def record_pairs(c: Connection, label: str, space: str, seq: int, pairs: Sequence[PairRow]) -> bool:
    """Store the pairs whose pictures are still as they were read, and how far the scan is.

    False if the scan is no longer there, or of another space.
    """
    c.execute("UPDATE duplicate_scans SET seq = ? WHERE collection = ? AND space = ?", (seq, label, space))
    if c.changes() == 0:
        return False
    for a, b, seq_a, seq_b, bits, distance in pairs:
        c.execute(ADD, (a, b, seq_a, seq_b, label, bits, distance))
    return True


def finish_scan(c: Connection, label: str, space: str) -> None:
    sql = "UPDATE duplicate_scans SET finished_at = ? WHERE collection = ? AND space = ?"
    c.execute(sql, (now_rfc3339(), label, space))


def list_pairs(c: Connection, label: str, kind: str, threshold: float) -> list[tuple[int, int, float]]:
    """The pairs of a kind that are at most `threshold` apart."""
    sql = LIST_EXACT if kind == "exact" else LIST_NEAR
    return [(a, b, float(distance)) for a, b, distance in fetch_all(c, sql, (label, threshold))]


def count_pairs(c: Connection, label: str) -> int:
    return fetch_number(c, "SELECT count(*) FROM duplicate_pairs WHERE collection = ?", (label,))


def sort_by_quality(c: Connection, keys: Iterable[int]) -> list[int]:
    """The ready ones of these pictures, the one to keep first: most pixels, then most bytes, then oldest."""
    sql = (
        "SELECT key FROM images WHERE key IN (SELECT value FROM json_each(?)) AND status = 'ready'"
        " ORDER BY coalesce(width, 0) * coalesce(height, 0) DESC, bytes DESC, created_at, key"
    )
    return [key for (key,) in fetch_all(c, sql, (json.dumps(list(keys)),))]


def list_hashes(c: Connection, label: str, after: int, limit: int) -> list[HashRow]:
    """The hashes of ready pictures past the log number `after`, in the order of the log."""
    sql = (
        "SELECT key, embedded_seq, perceptual_hash FROM images WHERE collection = ? AND status = 'ready'"
        " AND embedded_seq > ? ORDER BY embedded_seq LIMIT ?"
    )
    return [(key, seq, hashed) for key, seq, hashed in fetch_all(c, sql, (label, after, limit))]


def count_after(c: Connection, label: str, seq: int) -> int:
    """How many ready pictures the log has past `seq`."""
    sql = "SELECT count(*) FROM images WHERE collection = ? AND status = 'ready' AND embedded_seq > ?"
    return fetch_number(c, sql, (label, seq))


def list_unhashed(c: Connection, label: str, limit: int) -> list[Image]:
    """Ready pictures that have no perceptual hash yet: those that an older version embedded."""
    sql = images.COLUMNS + "WHERE collection = ? AND status = 'ready' AND perceptual_hash IS NULL LIMIT ?"
    return [images.image_from_row(row) for row in fetch_all(c, sql, (label, limit))]


def count_unhashed(c: Connection, label: str) -> int:
    sql = "SELECT count(*) FROM images WHERE collection = ? AND status = 'ready' AND perceptual_hash IS NULL"
    return fetch_number(c, sql, (label,))


def save_hash(c: Connection, image: Image, perceptual_hash: bytes) -> None:
    """Unless the picture has other bytes by now."""
    sql = "UPDATE images SET perceptual_hash = ? WHERE key = ? AND sha256 = ?"
    c.execute(sql, (perceptual_hash, image.key, image.sha256))
