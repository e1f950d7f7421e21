"""The address of a database: the path of SQLite's file, or a URL of PostgreSQL. Only what is here looks into one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

from app.core.errors import StartupError
from app.core.metrics import ProcessMetrics
from app.storage import sqlite
from app.storage.database import Database
from app.storage.sql import Connection

SCHEMES = ("postgresql://", "postgres://")


def open_database(address: str | Path, metrics: ProcessMetrics | None = None) -> Database:
    """Open the database, or make an empty one, and bring its schema up to date. Raises StartupError."""
    if is_postgresql(address):
        database: Database = _import_postgresql().PostgresqlDatabase(str(address), metrics)
        return database
    return sqlite.SqliteDatabase(Path(address), metrics)


def is_postgresql(address: str | Path) -> bool:
    return str(address).startswith(SCHEMES)


@contextmanager
def connect_readonly(address: str | Path) -> Iterator[Connection]:
    """A connection that only reads, to a database that another process has open."""
    if is_postgresql(address):
        with _import_postgresql().connect_readonly(str(address)) as connection:
            yield connection
        return
    with closing(sqlite.connect_readonly(Path(address))) as connection:
        yield connection


def _import_postgresql() -> ModuleType:
    """Raises StartupError where the extra is not installed."""
    try:
        return importlib.import_module("app.storage.postgresql.database")
    except ImportError as error:
        raise StartupError(
            "PostgreSQL needs packages that are not installed: pip install 'sightline-search[postgresql]'"
        ) from error
