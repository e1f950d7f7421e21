"""The one row that says which installation a database is, and where the bytes of its pictures are."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from app.storage.sql import Connection, fetch_number, fetch_one

LOCAL = "local"
HAS_FILES = "SELECT EXISTS (SELECT 1 FROM images) OR EXISTS (SELECT 1 FROM videos) OR EXISTS (SELECT 1 FROM sources)"


@dataclass(frozen=True, slots=True)
class Installation:
    id: str
    media: str  # LOCAL, or the prefix of a bucket


def get(c: Connection) -> Installation | None:
    row = fetch_one(c, "SELECT id, media FROM installation")
    return Installation(*row) if row else None


def get_id(c: Connection) -> str | None:
    held = get(c)
    return held.id if held else None


def has_files(c: Connection) -> bool:
    """Whether any row needs the bytes of a file."""
    return fetch_number(c, HAS_FILES) > 0


def set_media(c: Connection, media: str) -> Installation:
    """Say where the bytes are; gives the database its id if it has none."""
    held = get(c)
    if held is None:
        held = Installation(uuid.uuid4().hex, media)
        c.execute("INSERT INTO installation (id, media) VALUES (?, ?)", (held.id, media))
    elif held.media != media:
        c.execute("UPDATE installation SET media = ?", (media,))
    return Installation(held.id, media)


def identify(c: Connection) -> str:
    """What tells this database from others: its id, or the time when it was made."""
    held = get(c)
    return held.id if held else str(fetch_one(c, "SELECT min(created_at) FROM collections"))


def replace(c: Connection, id: str, media: str, moved_from: str) -> None:
    """Make a copy of a database an installation of its own, which says what it is a copy of."""
    c.execute("DELETE FROM installation")
    c.execute("INSERT INTO installation (id, media, moved_from) VALUES (?, ?, ?)", (id, media, moved_from))


def get_moved_from(c: Connection, media: str) -> str | None:
    """What a move has brought into this database and this place for its files; None if none has."""
    row = fetch_one(c, "SELECT moved_from FROM installation WHERE media = ?", (media,))
    return row[0] if row else None
