"""Vectors that came with pictures, kept until the pictures are ready."""

from __future__ import annotations

import json
from collections.abc import Iterable

from app.storage.sql import Connection, fetch_all


def store(c: Connection, key: int, space: str, vector: bytes) -> None:
    """`vector` is float32, little endian."""
    sql = "INSERT INTO given (image_key, space, vector) VALUES (?, ?, ?) ON CONFLICT (image_key) DO UPDATE"
    c.execute(sql + " SET space = excluded.space, vector = excluded.vector", (key, space, vector))


def find_vectors(c: Connection, space: str, keys: Iterable[int]) -> dict[int, bytes]:
    """The precomputed vectors of these pictures in this space, by key; pictures without one are absent."""
    sql = "SELECT image_key, vector FROM given WHERE space = ? AND image_key IN (SELECT value FROM json_each(?))"
    return dict(fetch_all(c, sql, (space, json.dumps(list(keys)))))


def delete(c: Connection, keys: Iterable[int]) -> None:
    c.execute("DELETE FROM given WHERE image_key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),))
