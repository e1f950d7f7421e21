"""How much is not done yet. Triggers of the schema count it, so that asking costs one row."""

from __future__ import annotations

import apsw

from app.store.rows import fetch_one


def load(c: apsw.Connection) -> tuple[int, int]:
    """How many pictures wait, with the members of uploads that are not taken in yet, and how many bytes these are."""
    row = fetch_one(c, "SELECT items, bytes FROM waiting")
    assert row is not None
    return int(row[0]), int(row[1])
