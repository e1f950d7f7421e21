"""The rows of videos, and of their frames, which are pictures. Every function runs inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import NewVideo, Video
from app.storage.sql import Connection, fetch_all, fetch_one
from app.storage.tables.collections import IN_COLLECTION, LABEL_OF_NAME, PAGE, name_from_label

FRAMES = "FROM images WHERE images.collection = videos.collection AND video_id = videos.sha256"
COLUMNS = (
    "SELECT key, collection, sha256, source, format, codec, bytes, width, height, duration_ms, created_at, job_id,"
    " kept, complete, (SELECT count(*) " + FRAMES + "), taken_at, taken_offset FROM videos "
)


def video_from_row(row: Sequence[Any]) -> Video:
    key, label, *rest = row
    (sha256, source, format, codec, bytes, width, height, duration_ms, created_at, job_id, kept, complete) = rest[:12]
    shape = (format, codec, bytes, width, height, duration_ms)
    state = (created_at, job_id, bool(kept), bool(complete))
    return Video(key, name_from_label(label), sha256, source, *shape, *state, *rest[12:])


def get(c: Connection, collection: str, id: str) -> Video | None:
    row = fetch_one(c, COLUMNS + "WHERE " + IN_COLLECTION + " AND sha256 = ?", (collection, id))
    return video_from_row(row) if row else None


def list_page(c: Connection, collection: str, limit: int, before: int | None) -> list[Video]:
    """Up to `limit` videos, newest first, with keys below `before`."""
    highest = before if before is not None else 1 << 62
    return [video_from_row(row) for row in fetch_all(c, COLUMNS + PAGE, (collection, highest, limit))]


def put(c: Connection, collection: str, new: NewVideo, job_id: str) -> None:
    """Insert a video whose frames come now; one that is there is not complete until they are."""
    c.execute(
        "INSERT INTO videos (collection, sha256, source, format, codec, bytes, width, height, duration_ms, taken_at,"
        " taken_offset, created_at, job_id, kept) VALUES (" + LABEL_OF_NAME + ", ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (collection, sha256) DO UPDATE SET kept = max(videos.kept, excluded.kept)",
        (
            *(collection, new.sha256, new.source, new.format, new.codec, new.bytes, new.width, new.height),
            *(new.duration_ms, new.taken_at, new.taken_offset, now_rfc3339(), job_id, new.kept),
        ),
    )


def complete(c: Connection, collection: str, id: str) -> None:
    """All frames of the video are rows."""
    c.execute("UPDATE videos SET complete = 1 WHERE " + IN_COLLECTION + " AND sha256 = ?", (collection, id))


def set_frame(c: Connection, key: int, video_id: str, t_ms: int) -> None:
    """Say of a picture that it is a frame of this video."""
    c.execute("UPDATE images SET video_id = ?, t_ms = ? WHERE key = ?", (video_id, t_ms, key))


def filter_complete(c: Connection, collection: str, digests: Iterable[str]) -> set[str]:
    """Those of the digests that belong to videos whose frames are there: adding their bytes again changes nothing."""
    sql = (
        "SELECT sha256 FROM videos WHERE complete = 1 AND sha256 IN (SELECT value FROM json_each(?))"
        " AND EXISTS (SELECT 1 " + FRAMES + ") AND "
    )
    rows = fetch_all(c, sql + IN_COLLECTION, (json.dumps(list(digests)), collection))
    return {sha256 for (sha256,) in rows}


def list_frames(c: Connection, collection: str, id: str, limit: int) -> list[tuple[int, str]]:
    """Key and digest of up to `limit` frames of a video."""
    sql = "SELECT key, sha256 FROM images WHERE video_id = ? AND " + IN_COLLECTION + " ORDER BY key LIMIT ?"
    return [(key, sha256) for key, sha256 in fetch_all(c, sql, (id, collection, limit))]


def delete(c: Connection, key: int) -> None:
    c.execute("DELETE FROM videos WHERE key = ?", (key,))


def delete_of_collection(c: Connection, label: str, limit: int) -> list[str]:
    """Delete up to `limit` videos of a collection; returns their digests."""
    sql = "DELETE FROM videos WHERE key IN (SELECT key FROM videos WHERE collection = ? LIMIT ?) RETURNING sha256"
    return [sha256 for (sha256,) in fetch_all(c, sql, (label, limit))]
