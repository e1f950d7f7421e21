"""Makes the tables of an empty database, and refuses one that a newer Sightline or another program filled."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

import psycopg
from psycopg import errors

from app.core.errors import StartupError
from app.storage.postgresql.connection import PostgresqlConnection
from app.storage.sql import fetch_all, fetch_number

BASE = 25  # the newest migration of SQLite that schema.sql has; later ones have their pair in `migrations/`
FILES = ("functions.sql", "schema.sql", "triggers.sql", "rows.sql")
OLDEST_SERVER = 140_000
# Other programs keep a table of this name, too: migrations of many tools do.
IS_OURS = (
    "SELECT count(*) = 2 FROM pg_tables WHERE schemaname = current_schema()"
    " AND tablename IN ('schema_version', 'image_words')"
)


def prepare_schema(c: PostgresqlConnection, lock: int) -> None:
    """Make the tables if there are none. Two servers that start at once wait for each other. Raises StartupError."""
    check_server(c)
    c.run(f"BEGIN; SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock({lock})")
    try:
        if not fetch_number(c, IS_OURS):
            create_tables(c)
        migrate(c, list_steps(resources.files("app.storage.postgresql").joinpath("migrations")))
        c.run("COMMIT")
    finally:
        if c.is_in_transaction():
            c.run("ROLLBACK")


def check_server(c: PostgresqlConnection) -> None:
    version = c.raw.info.server_version
    if version < OLDEST_SERVER:
        raise StartupError(f"PostgreSQL {version // 10_000} is too old; Sightline needs 14 or newer")
    if c.raw.info.parameter_status("server_encoding") != "UTF8":
        raise StartupError("the database has another encoding than UTF8; make one with ENCODING 'UTF8'")


def list_steps(folder: Traversable) -> dict[int, str]:
    """The migrations in a folder by their numbers, in order: `0027_name.sql`."""
    files = sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else []
    return {int(file.name[:4]): file.read_text("utf-8") for file in files if file.name.endswith(".sql")}


def migrate(c: PostgresqlConnection, steps: Mapping[int, str]) -> None:
    """Bring the tables up to date. Raises StartupError for newer ones than ours."""
    version = fetch_number(c, "SELECT version FROM schema_version")
    newest = max([BASE, *steps])
    if version > newest:
        raise StartupError(
            f"the database was written by a newer Sightline (schema {version}, this one knows {newest}); upgrade"
        )
    for number, script in steps.items():
        if number > version:
            c.run(script)
            c.run(f"UPDATE schema_version SET version = {number}")


def create_tables(c: PostgresqlConnection) -> None:
    found = fetch_all(c, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1 LIMIT 3")
    if found:
        names = ", ".join(str(name) for (name,) in found)
        raise StartupError(f"the database holds tables that are not Sightline's ({names}); name an empty one")
    try:
        c.run("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except errors.InsufficientPrivilege as error:
        raise StartupError(
            "the database has no extension pg_trgm, which its owner may add: CREATE EXTENSION pg_trgm"
        ) from error
    except (errors.UndefinedFile, errors.FeatureNotSupported) as error:
        raise StartupError("the PostgreSQL server has no pg_trgm; install its contrib package") from error
    try:
        for name in FILES:
            c.run(resources.files("app.storage.postgresql").joinpath(name).read_text("utf-8"))
        c.run(f"CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version VALUES ({BASE})")
    except psycopg.errors.InsufficientPrivilege as error:
        raise StartupError("the role may not make tables in the database; GRANT CREATE ON its schema to it") from error
