"""The collections and the space that each was filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from app.errors import ModelUnavailable
from app.store.rows import fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of pictures and texts; `space` is None until its first vector."""

    name: str
    description: str
    space: str | None
    created_at: str


def collection_of(row: Sequence[Any]) -> Collection:
    """The record of one row."""
    return Collection(name=row[0], description=row[1], space=row[2], created_at=row[3])


def get(c: apsw.Connection, name: str) -> Collection | None:
    """The collection of this name, or None."""
    row = fetch_one(c, "SELECT name, description, space, created_at FROM collections WHERE name = ?", (name,))
    return collection_of(row) if row else None


def every(c: apsw.Connection) -> list[Collection]:
    """All collections by name."""
    rows = fetch_all(c, "SELECT name, description, space, created_at FROM collections ORDER BY name")
    return [collection_of(row) for row in rows]


def stamp(c: apsw.Connection, name: str, space: str) -> None:
    """Say which space the collection is filled in, if nobody has yet.

    Raises ModelUnavailable when it is another one, or a server has loaded another: vectors of two models are never
    mixed, and no picture is ready that the server's searches would not find.
    """
    c.execute(
        "UPDATE collections SET space = ?1 WHERE name = ?2 AND space IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM spaces WHERE golden IS NOT NULL AND fingerprint <> ?1)",
        (space, name),
    )
    collection = get(c, name)
    if collection is not None and collection.space != space:
        raise ModelUnavailable(f"the collection {name!r} belongs to another model than the one that runs here")
