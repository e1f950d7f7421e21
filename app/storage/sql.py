"""Typed shorthands for queries: apsw types every value of a row as a union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

Row = tuple[Any, ...]


def fetch_all(c: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    return list(c.execute(sql, values))


def fetch_one(c: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> Row | None:
    """The first row; None when there is none."""
    return next(iter(c.execute(sql, values)), None)


def fetch_number(c: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """The one number that a query returns; 0 for NULL or no row."""
    row = fetch_one(c, sql, values)
    return int(row[0] or 0) if row else 0
