"""The database as a whole: a consistent copy of it, and what such a copy says must lie beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import apsw

from app.core.types import ItemError
from app.storage.database import Database, map_sqlite_errors
from app.storage.sql import fetch_all
from app.storage.tables import embeddings, images, jobs

DELETED_MEANWHILE = ItemError("not_found", "deleted before it was processed")


def copy_database(database: Path, target: Path) -> None:
    """Write what is committed in `database` into a new file, as of one moment; writers go on meanwhile."""
    with map_sqlite_errors():
        connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()


def list_digests(database: Database) -> list[str]:
    """The digest of every picture's bytes, each once, in order."""
    return database.read(select_digests)


def select_digests(c: apsw.Connection) -> list[str]:
    """The same, of a connection."""
    return [row[0] for row in fetch_all(c, "SELECT DISTINCT sha256 FROM images ORDER BY sha256")]


def list_pending_uploads(database: Database) -> list[tuple[str, int, bool]]:
    """The uploads that are accepted but not taken in: (job, number, whether there must be files of it)."""
    sql = "SELECT job_id, n, kind <> 'named' OR imported > 0 FROM sources ORDER BY job_id, n"
    return [(job, n, bool(needed)) for job, n, needed in database.read(lambda c: fetch_all(c, sql))]


def check_copy(path: Path) -> tuple[list[str], list[str]]:
    """What SQLite finds wrong with a copy, and the digests of its pictures; nothing is written, not even beside it."""
    with map_sqlite_errors():
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)
        try:
            rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            return [] if rows == ["ok"] else rows, select_digests(connection)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            return [str(error)], []
        finally:
            connection.close()


def delete_missing(database: Database, missing: Iterable[str]) -> int:
    """Delete the pictures with these digests, as their owner did while they were copied; returns how many."""

    def work(c: apsw.Connection) -> int:
        count = 0
        for sha256 in missing:
            for (key,) in fetch_all(c, "SELECT key FROM images WHERE sha256 = ?", (sha256,)):
                embeddings.remove(c, "images", key)
                jobs.fail_items(c, key, DELETED_MEANWHILE)
                images.delete(c, key)
                count += 1
        return count

    return database.write(work)
