"""The address of a database: the path of SQLite's file, or a URL of PostgreSQL. Only what is here looks into one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.core.metrics import ProcessMetrics
from app.storage import sqlite
from app.storage.database import Database
from app.storage.sql import Connection


def open_database(address: str | Path, metrics: ProcessMetrics | None = None) -> Database:
    """Open the database, or make an empty one, and bring its schema up to date. Raises StartupError."""
    return sqlite.SqliteDatabase(Path(address), metrics)


@contextmanager
def connect_readonly(address: str | Path) -> Iterator[Connection]:
    """A connection that only reads, to a database that another process has open."""
    with closing(sqlite.connect_readonly(Path(address))) as connection:
        yield connection
