"""Migrate copies of a database, and kill each at another statement: `python -m tests.acceptance.killed_migration DB`.

It runs in its own process, because it forks. For each kill it prints one JSON object: the state of the database after
the kill, and after the next attempt.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import apsw

from app.storage.sqlite import migrate


def main(database: Path) -> None:
    """Kill at the first statement, then at the second, until a migration reaches its end."""
    copy = database.with_name("killed.db")
    n = 0
    while True:
        n += 1
        for suffix in ("", "-wal", "-shm"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(database, copy)
        if not migrate_and_kill(copy, n):
            return
        found = {"after": describe_database(copy), "again": None}
        again = apsw.Connection(str(copy))
        migrate(again)
        again.close()
        found["again"] = describe_database(copy)
        print(json.dumps(found), flush=True)


def migrate_and_kill(copy: Path, n: int) -> bool:
    """Migrate in a child that dies at its n-th statement; False when there are fewer."""
    child = os.fork()
    if child == 0:
        connection = apsw.Connection(str(copy))
        connection.pragma("journal_mode", "WAL")
        seen = 0

        def kill_at_statement(*_: Any) -> bool:
            nonlocal seen
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return True

        connection.exec_trace = kill_at_statement
        migrate(connection)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def describe_database(copy: Path) -> dict[str, Any]:
    """The schema and the pictures of a database, and the result of SQLite's check."""
    connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return {
            "version": connection.pragma("user_version"),
            "schema": sorted(str(row[0]) for row in connection.execute("SELECT sql FROM sqlite_schema")),
            "pictures": [list(row) for row in connection.execute("SELECT id, sha256, status FROM images ORDER BY id")],
            "faults": [row[0] for row in connection.execute("PRAGMA integrity_check")],
        }
    finally:
        connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
