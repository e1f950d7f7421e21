"""Reading rows with the types that a schema, not the driver, knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

Row = tuple[Any, ...]


def fetch_all(c: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """All rows."""
    return list(c.execute(sql, values))


def fetch_one(c: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> Row | None:
    """The first row, or None."""
    return next(iter(c.execute(sql, values)), None)


def fetch_number(c: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """The one number that a query gives; 0 for NULL or no row."""
    row = fetch_one(c, sql, values)
    return int(row[0] or 0) if row else 0
