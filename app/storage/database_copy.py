"""A consistent copy of the whole database, for a backup, and the files that must lie beside such a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import apsw

from app.storage.database import Database, check_integrity, connect_readonly, map_sqlite_errors
from app.storage.library import delete_row
from app.storage.sql import fetch_all


def copy_database(database: Path, target: Path) -> None:
    """Write what is committed in `database` into a new file, as of one moment; writers go on meanwhile."""
    with map_sqlite_errors(), closing(connect_readonly(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))


def list_digests(c: apsw.Connection) -> list[str]:
    """The digest of every picture's bytes, each once, in order."""
    return [row[0] for row in fetch_all(c, "SELECT DISTINCT sha256 FROM images ORDER BY sha256")]


def list_pending_uploads(database: Database) -> list[tuple[str, int, bool]]:
    """The uploads that no worker has imported: (job, number, whether there must be files of it)."""
    sql = "SELECT job_id, n, kind <> 'named' OR imported > 0 FROM sources ORDER BY job_id, n"
    return [(job, n, bool(needed)) for job, n, needed in database.read(lambda c: fetch_all(c, sql))]


def check_copy(path: Path) -> tuple[list[str], list[str]]:
    """What SQLite finds wrong with a copy, and the digests of its pictures. Writes nothing, not even a WAL."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with (
        map_sqlite_errors(),
        closing(apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)) as connection,
    ):
        try:
            return check_integrity(connection), list_digests(connection)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            return [str(error)], []


def delete_missing(database: Database, missing: Iterable[str]) -> int:
    """Delete the pictures with these digests, which their owner deleted during the copy; returns how many."""

    def work(c: apsw.Connection) -> int:
        wanted = json.dumps(list(missing))
        keys = fetch_all(c, "SELECT key FROM images WHERE sha256 IN (SELECT value FROM json_each(?))", (wanted,))
        for (key,) in keys:
            delete_row(c, key)
        return len(keys)

    return database.write(work)
