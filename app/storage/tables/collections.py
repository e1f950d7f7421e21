"""The collections, and the embedding space of each.

Requests name a collection; rows hold its label. So a new collection may take a name while the server still deletes
the rows of the old one (see `app.storage.tables.collection_deletion`). Functions take names, unless a parameter is
called `label`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from difflib import get_close_matches

from app.core.clock import now_rfc3339
from app.core.errors import CollectionMissing, IdConflict, ModelUnavailable
from app.storage.sql import Connection, fetch_all, fetch_one

LABEL_OF_NAME = "(SELECT label FROM collections WHERE name = ?)"
"""SQL for the label of a name; NULL, which no row has, when there is no such collection."""
IN_COLLECTION = "collection = " + LABEL_OF_NAME
PAGE = "WHERE " + IN_COLLECTION + " AND key < ? ORDER BY key DESC LIMIT ?"
COLUMNS = "SELECT name, label, description, space, created_at, head FROM collections "
SPACE = "SELECT space FROM collections WHERE label = ?"
LABEL_SEPARATOR = "~"  # between name and number of a label; no name has it


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of pictures and texts. `space` is the fingerprint of its space, None until its first vector; `head`
    is the head that it uses."""

    name: str
    label: str
    description: str
    space: str | None
    created_at: str
    head: str | None = None


def name_from_label(label: str) -> str:
    """The name that a collection of this label has or had."""
    return label.partition(LABEL_SEPARATOR)[0]


def get(c: Connection, name: str) -> Collection | None:
    row = fetch_one(c, COLUMNS + "WHERE name = ?", (name,))
    return Collection(*row) if row else None


def require(c: Connection, name: str) -> Collection:
    """The collection of this name. Raises CollectionMissing."""
    if (collection := get(c, name)) is None:
        near = get_close_matches(name, [one.name for one in list_all(c)])
        raise CollectionMissing(f"there is no collection {name!r}", near)
    return collection


def list_all(c: Connection) -> list[Collection]:
    """All collections, ordered by name; not those that are being deleted."""
    return [Collection(*row) for row in fetch_all(c, COLUMNS + "WHERE name IS NOT NULL ORDER BY name")]


def create(c: Connection, name: str, description: str) -> Collection:
    """A new, empty collection. Raises IdConflict when there is one of this name."""
    if get(c, name) is not None:
        raise IdConflict(f"there is a collection {name!r} already")
    made = Collection(name, name + LABEL_SEPARATOR + secrets.token_hex(4), description, None, now_rfc3339())
    sql = "INSERT INTO collections (name, label, description, created_at) VALUES (?, ?, ?, ?)"
    c.execute(sql, (name, made.label, description, made.created_at))
    return made


def set_description(c: Connection, name: str, description: str) -> Collection | None:
    """Change the description; None when there is no collection of this name."""
    c.execute("UPDATE collections SET description = ? WHERE name = ?", (description, name))
    return get(c, name)


def assign_space(c: Connection, label: str, space: str) -> None:
    """Set the space of a collection that has none.

    Raises ModelUnavailable when it has another one, or a server has loaded another model: a collection never mixes
    vectors of two models, and every ready picture is in the space that the server searches.
    """
    row = fetch_one(c, SPACE, (label,))
    if row == (None,):
        c.execute(
            "UPDATE collections SET space = ?1 WHERE label = ?2"
            " AND NOT EXISTS (SELECT 1 FROM spaces WHERE golden IS NOT NULL AND fingerprint <> ?1)",
            (space, label),
        )
        row = fetch_one(c, SPACE, (label,))
    if row is not None and row[0] != space:
        named = name_from_label(label)
        raise ModelUnavailable(f"the collection {named!r} belongs to another model than the one that runs here")
