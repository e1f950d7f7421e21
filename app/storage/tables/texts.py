"""The rows of texts. Every function runs inside a transaction that the caller holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from app.core.clock import now_rfc3339
from app.core.types import Metadata, Text
from app.storage.sql import Connection, Row, fetch_all, fetch_number, fetch_one
from app.storage.tables.collections import IN_COLLECTION, LABEL_OF_NAME, PAGE, name_from_label

FIELDS = "key, collection, id, text, metadata, created_at, truncated"
COLUMNS = f"SELECT {FIELDS} FROM texts "


def text_from_row(row: Sequence[Any]) -> Text:
    truncated = None if row[6] is None else bool(row[6])
    return Text(row[0], name_from_label(row[1]), row[2], row[3], json.loads(row[4]), row[5], truncated)


def get(c: Connection, collection: str, id: str) -> Text | None:
    row = fetch_one(c, COLUMNS + "WHERE " + IN_COLLECTION + " AND id = ?", (collection, id))
    return text_from_row(row) if row else None


def get_label(c: Connection, key: int) -> str:
    """The label of its collection."""
    ((label,),) = fetch_all(c, "SELECT collection FROM texts WHERE key = ?", (key,))
    return str(label)


def get_by_keys(c: Connection, keys: Iterable[int]) -> dict[int, Text]:
    """The texts of these keys, without deleted ones."""
    return {key: text_from_row(row) for key, row in get_rows(c, keys).items()}


def get_rows(c: Connection, keys: Iterable[int]) -> dict[int, Row]:
    """The rows of the texts of these keys, for `text_from_row`."""
    wanted = json.dumps([int(key) for key in keys])
    rows = fetch_all(c, COLUMNS + "WHERE key IN (SELECT value FROM json_each(?))", (wanted,))
    return {row[0]: row for row in rows}


def list_page(c: Connection, collection: str, limit: int, before: int | None) -> list[Text]:
    """Up to `limit` texts, newest first, with keys below `before`."""
    highest = before if before is not None else 1 << 62
    rows = fetch_all(c, COLUMNS + PAGE, (collection, highest, limit))
    return [text_from_row(row) for row in rows]


def put(c: Connection, collection: str, id: str, text: str, metadata: Metadata, truncated: bool | None = None) -> Text:
    """Insert the text, or replace the one that has this id."""
    (row,) = fetch_all(
        c,
        "INSERT INTO texts (collection, id, text, metadata, created_at, truncated)"
        " VALUES (" + LABEL_OF_NAME + ", ?, ?, ?, ?, ?) ON CONFLICT (collection, id)"
        " DO UPDATE SET text = excluded.text, metadata = excluded.metadata, truncated = excluded.truncated"
        " RETURNING " + FIELDS,
        (collection, id, text, json.dumps(metadata, ensure_ascii=False), now_rfc3339(), truncated),
    )
    return text_from_row(row)


def set_truncated(c: Connection, key: int, truncated: bool) -> None:
    c.execute("UPDATE texts SET truncated = ? WHERE key = ?", (truncated, key))


def delete(c: Connection, key: int) -> None:
    c.execute("DELETE FROM texts WHERE key = ?", (key,))


def count(c: Connection, collection: str) -> int:
    return fetch_number(c, "SELECT count(*) FROM texts WHERE " + IN_COLLECTION, (collection,))


def list_after(c: Connection, key: int, limit: int) -> list[Text]:
    """The first `limit` texts of all collections with keys past `key`, in the order of keys."""
    return [text_from_row(row) for row in fetch_all(c, COLUMNS + "WHERE key > ? ORDER BY key LIMIT ?", (key, limit))]


def list_all(c: Connection) -> list[Text]:
    """Every text of every collection, in the order of keys."""
    named = "WHERE collection IN (SELECT label FROM collections WHERE name IS NOT NULL) ORDER BY key"
    return [text_from_row(row) for row in fetch_all(c, COLUMNS + named)]
