"""The heads that collections were taught, and which one each uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import HeadInfo
from app.storage.sql import Connection, fetch_all, fetch_one
from app.storage.tables.collections import IN_COLLECTION, LABEL_OF_NAME, name_from_label

MAX_KEPT = 10  # heads of a collection: with a further one, the oldest go that it does not use
COLUMNS = (
    "SELECT heads.id, collection, space, model, d, figures, heads.created_at,"
    " EXISTS (SELECT 1 FROM collections WHERE head = heads.id)"
    " FROM heads JOIN spaces ON fingerprint = space "
)
NAMED = "collection IN (SELECT label FROM collections WHERE name IS NOT NULL)"
NEWEST_FIRST = " ORDER BY heads.rowid DESC"


def compute_id(label: str, space: str, matrix: bytes) -> str:
    """16 hex digits that identify a head: its collection, its space and its numbers."""
    return hashlib.sha256(f"{label}|{space}|".encode() + matrix).hexdigest()[:16]


def head_from_row(row: Sequence[Any]) -> HeadInfo:
    id, label, space, model, d, figures, created_at, is_used = row
    return HeadInfo(id, name_from_label(label), space, model, d, json.loads(figures), created_at, bool(is_used))


def save(
    c: Connection, label: str, space: str, matrix: bytes, figures: Mapping[str, Any], *, maps_pictures: bool
) -> str:
    """Store a head, unless it is there already, and forget old ones; returns its id."""
    id = compute_id(label, space, matrix)
    c.execute(
        "INSERT INTO heads (id, collection, space, matrix, maps_pictures, figures, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (id, label, space, matrix, maps_pictures, json.dumps(figures), now_rfc3339()),
    )
    c.execute(
        "DELETE FROM heads WHERE collection = ?1 AND id <> ?2 AND id NOT IN (SELECT head FROM collections"
        " WHERE head IS NOT NULL) AND rowid NOT IN"
        " (SELECT rowid FROM heads WHERE collection = ?1 ORDER BY rowid DESC LIMIT ?3)",
        (label, id, MAX_KEPT),
    )
    return id


def get(c: Connection, id: str) -> HeadInfo | None:
    row = fetch_one(c, COLUMNS + "WHERE heads.id = ? AND " + NAMED, (id,))
    return head_from_row(row) if row else None


def list_all(c: Connection, collection: str | None = None) -> list[HeadInfo]:
    """The heads of one collection, or of all that are not being deleted; newest first."""
    if collection is not None:
        rows = fetch_all(c, COLUMNS + "WHERE " + IN_COLLECTION + NEWEST_FIRST, (collection,))
        return [head_from_row(row) for row in rows]
    return [head_from_row(row) for row in fetch_all(c, COLUMNS + "WHERE " + NAMED + NEWEST_FIRST)]


def get_used(c: Connection, collection: str) -> tuple[str, str] | None:
    """The id and the space of the head that a collection uses."""
    sql = "SELECT heads.id, heads.space FROM collections o JOIN heads ON heads.id = o.head WHERE o.name = ?"
    row = fetch_one(c, sql, (collection,))
    return (row[0], row[1]) if row else None


def read_matrix(c: Connection, id: str) -> tuple[bytes, bool]:
    """The numbers of a head, and whether pictures that look for texts go through it."""
    ((matrix, maps_pictures),) = fetch_all(c, "SELECT matrix, maps_pictures FROM heads WHERE id = ?", (id,))
    return matrix, bool(maps_pictures)


def use(c: Connection, collection: str, id: str | None) -> None:
    """Let a collection use this head; None takes off the one that it has."""
    c.execute("UPDATE collections SET head = ? WHERE label = " + LABEL_OF_NAME, (id, collection))


def delete(c: Connection, id: str) -> None:
    """Remove a head; a collection that uses it has none then."""
    c.execute("UPDATE collections SET head = NULL WHERE head = ?", (id,))
    c.execute("DELETE FROM heads WHERE id = ?", (id,))


def delete_of_collection(c: Connection, label: str) -> None:
    c.execute("DELETE FROM heads WHERE collection = ?", (label,))


def find_faults(c: Connection) -> list[tuple[str, str]]:
    """The heads (collection/id) whose numbers were altered, and those that a collection uses and that are gone."""
    rows = fetch_all(c, "SELECT collection, id, space, matrix FROM heads")
    altered = [
        (f"{name_from_label(label)}/{id}", "its numbers are altered")
        for label, id, space, matrix in rows
        if compute_id(label, space, matrix) != id
    ]
    sql = "SELECT name, head FROM collections WHERE head IS NOT NULL AND head NOT IN (SELECT id FROM heads)"
    return altered + [(f"{name}/{id}", "it is gone") for name, id in fetch_all(c, sql)]
