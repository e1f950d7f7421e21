"""The rows of API keys and of browser sessions. Every function runs inside a transaction that the caller holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import ApiKey, KeyScope
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one

COLUMNS = "SELECT id, name, hash, scope, collections, created_at, expires_at, revoked_at, last_used_at FROM keys "


def key_from_row(row: Sequence[Any]) -> ApiKey:
    id, name, hash, scope, collections, created_at, expires_at, revoked_at, last_used_at = row
    bound = None if collections is None else frozenset(json.loads(collections))
    return ApiKey(id, name, hash, KeyScope[scope.upper()], bound, created_at, expires_at, revoked_at, last_used_at)


def get_version(c: Connection) -> int:
    """A number that changes with every change of a key or session, but not when a key is used."""
    return fetch_number(c, "SELECT version FROM access")


def list_all(c: Connection) -> list[ApiKey]:
    """All keys in the order of their creation, revoked and expired ones too."""
    return [key_from_row(row) for row in fetch_all(c, COLUMNS + "ORDER BY rowid")]


def get(c: Connection, id: str) -> ApiKey | None:
    row = fetch_one(c, COLUMNS + "WHERE id = ?", (id,))
    return key_from_row(row) if row else None


def add(c: Connection, key: ApiKey) -> None:
    bound = None if key.collections is None else json.dumps(sorted(key.collections))
    c.execute(
        "INSERT INTO keys (id, name, hash, scope, collections, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key.id, key.name, key.hash, key.right.name.lower(), bound, key.created_at, key.expires_at),
    )
    _bump_version(c)


def revoke(c: Connection, id: str) -> None:
    """End a key and its sessions; the row stays, so that `sightline keys list` shows it."""
    c.execute("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now_rfc3339(), id))
    c.execute("DELETE FROM sessions WHERE key_id = ?", (id,))
    _bump_version(c)


def delete_all(c: Connection) -> int:
    """Delete every key and session; returns how many keys there were."""
    count = fetch_number(c, "SELECT count(*) FROM keys")
    c.execute("DELETE FROM sessions")
    c.execute("DELETE FROM keys")
    _bump_version(c)
    return count


def record_use(c: Connection, id: str) -> None:
    """Write down that the key was used now."""
    c.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", (now_rfc3339(), id))


def list_sessions(c: Connection) -> dict[bytes, tuple[str, str]]:
    """(key id, end) of every session, by the hash of its cookie."""
    return {row[0]: (row[1], row[2]) for row in fetch_all(c, "SELECT hash, key_id, expires_at FROM sessions")}


def add_session(c: Connection, hash: bytes, key_id: str, expires_at: str, most: int) -> None:
    """Add a session, delete those that have ended, and keep the `most` sessions of the key that end last."""
    c.execute("INSERT INTO sessions (hash, key_id, expires_at) VALUES (?, ?, ?)", (hash, key_id, expires_at))
    c.execute("DELETE FROM sessions WHERE expires_at <= ?", (now_rfc3339(),))
    c.execute(
        "DELETE FROM sessions WHERE key_id = ?1 AND hash NOT IN"
        " (SELECT hash FROM sessions WHERE key_id = ?1 ORDER BY expires_at DESC LIMIT ?2)",
        (key_id, most),
    )
    _bump_version(c)


def delete_session(c: Connection, hash: bytes) -> None:
    """End a session, if it is still there."""
    c.execute("DELETE FROM sessions WHERE hash = ?", (hash,))
    _bump_version(c)


def _bump_version(c: Connection) -> None:
    c.execute("UPDATE access SET version = version + 1")
