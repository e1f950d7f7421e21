"""The collections and the space that each was filled in.

People name a collection; rows hold its label. They differ so that a name can be made anew while the rows of what
had it before are still being swept away (see `app.storage.tables.collection_deletion`). Callers of the store say
names, save where a
parameter is called `label`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from app.core.clock import now_rfc3339
from app.core.errors import IdConflict, ModelUnavailable
from app.storage.sql import fetch_all, fetch_one

LABEL_OF_NAME = "(SELECT label FROM collections WHERE name = ?)"
"""The label of a name, as part of a statement; NULL, which no row has, when there is no such collection."""
IN_COLLECTION = "collection = " + LABEL_OF_NAME
COLUMNS = "SELECT name, label, description, space, created_at FROM collections "
LABEL_SEPARATOR = "~"  # between name and number of a label; no name has it


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of pictures and texts; `space` is None until its first vector."""

    name: str
    label: str
    description: str
    space: str | None
    created_at: str


def collection_from_row(row: Sequence[Any]) -> Collection:
    """The record of one row of `COLUMNS`."""
    return Collection(name=row[0], label=row[1], description=row[2], space=row[3], created_at=row[4])


def name_from_label(label: str) -> str:
    """The name that a collection of this label has or had."""
    return label.partition(LABEL_SEPARATOR)[0]


def get(c: apsw.Connection, name: str) -> Collection | None:
    """The collection of this name, or None."""
    row = fetch_one(c, COLUMNS + "WHERE name = ?", (name,))
    return collection_from_row(row) if row else None


def list_all(c: apsw.Connection) -> list[Collection]:
    """All collections by name."""
    return [collection_from_row(row) for row in fetch_all(c, COLUMNS + "WHERE name IS NOT NULL ORDER BY name")]


def create(c: apsw.Connection, name: str, description: str) -> Collection:
    """A new, empty collection. Raises IdConflict when there is one of this name."""
    if get(c, name) is not None:
        raise IdConflict(f"there is a collection {name!r} already")
    label = name + LABEL_SEPARATOR + secrets.token_hex(4)
    c.execute(
        "INSERT INTO collections (label, name, description, created_at) VALUES (?, ?, ?, ?)",
        (label, name, description, now_rfc3339()),
    )
    made = get(c, name)
    assert made is not None
    return made


def set_description(c: apsw.Connection, name: str, description: str) -> Collection | None:
    """Change what is said of a collection; None when there is none of this name."""
    c.execute("UPDATE collections SET description = ? WHERE name = ?", (description, name))
    return get(c, name)


def assign_space(c: apsw.Connection, label: str, space: str) -> None:
    """Say which space the collection is filled in, if nobody has yet.

    Raises ModelUnavailable when it is another one, or a server has loaded another: vectors of two models are never
    mixed, and no picture is ready that the server's searches would not find.
    """
    c.execute(
        "UPDATE collections SET space = ?1 WHERE label = ?2 AND space IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM spaces WHERE golden IS NOT NULL AND fingerprint <> ?1)",
        (space, label),
    )
    row = fetch_one(c, "SELECT space FROM collections WHERE label = ?", (label,))
    if row is not None and row[0] != space:
        named = name_from_label(label)
        raise ModelUnavailable(f"the collection {named!r} belongs to another model than the one that runs here")
