"""SQLite: the database of one machine, a file in the data directory.

SQLite before 3.51.3 can lose commits when two connections reset the WAL at once, so every open checks the version
that apsw brings (that of the distribution may be older).
"""

from __future__ import annotations

import errno
import re
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TypeVar

import apsw

from app.core.errors import Overloaded, StartupError, from_os_error
from app.core.metrics import ProcessMetrics
from app.core.text import has_words
from app.storage.database import Database, Work
from app.storage.keywords import register_functions
from app.storage.row_cache import RowCache
from app.storage.sql import Connection, fetch_number

T = TypeVar("T")

MIN_SQLITE_VERSION = 3_051_003
PRAGMAS = {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "ON"}
ERRNOS = {
    apsw.FullError: errno.ENOSPC,
    apsw.IOError: errno.EIO,
    **dict.fromkeys((apsw.ReadOnlyError, apsw.CantOpenError), errno.EROFS),
}
BUSY_TIMEOUT_MS = 10_000
LEAST_FREE_BYTES = 1 << 20  # SQLite needs some for its log and its shared memory, and calls the lack of it an I/O error
MAX_CHECKED_BYTES = 64 << 20  # a start checks databases up to this size (0.1 s); `sightline verify` checks larger ones


class ReadingConnection(apsw.Connection):
    """A connection of one thread that only reads."""

    row_cache = RowCache()

    def open_row_cache(self) -> RowCache:
        """What it has read of the snapshot that this read sees from here on."""
        version = fetch_number(self, "PRAGMA data_version")
        if version != self.row_cache.version:
            self.row_cache = RowCache(version)
        return self.row_cache


class SqliteDatabase(Database):
    """One database file. apsw's connections are what the changes and reads get: nothing stands in their way."""

    def __init__(self, path: Path, metrics: ProcessMetrics | None = None) -> None:
        if apsw.SQLITE_VERSION_NUMBER < MIN_SQLITE_VERSION:
            raise StartupError(f"SQLite {apsw.sqlite_lib_version()} is too old; apsw must bring 3.51.3 or newer")
        super().__init__(str(path), metrics)
        self._path = path
        self._readers = threading.local()
        # weak, so that the connection of a reader thread ends with its thread
        self._opened: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._writer = self._open_writer()
        self._thread.start()

    def read(self, work: Work[T]) -> T:
        connection = self._reader()
        with map_sqlite_errors():
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")

    def watch_commits(self) -> Callable[[], int]:
        connection = self._connect(read_only=True)

        def count_commits() -> int:
            with map_sqlite_errors():
                return fetch_number(connection, "PRAGMA data_version")

        return count_commits

    def check(self) -> list[str]:
        return self.read(check_integrity)

    def _begin(self) -> None:
        if self._writer.in_transaction:  # the rollback of the last batch failed
            self._writer.execute("ROLLBACK")
        self._writer.execute("BEGIN IMMEDIATE")

    def _change(self, work: Work[T]) -> T:
        """(apsw's `with` hides the error of a full disk.)"""
        self._writer.execute("SAVEPOINT change")
        try:
            result = work(self._writer)
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK TO change; RELEASE change")
            raise
        self._writer.execute("RELEASE change")
        return result

    def _commit(self) -> None:
        self._writer.execute("COMMIT")

    def _roll_back(self) -> None:
        with suppress(apsw.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _is_in_transaction(self) -> bool:
        return self._writer.in_transaction

    def _map_error(self, error: BaseException) -> BaseException:
        return _map_sqlite_error(error)

    def _disconnect(self) -> None:
        with self._lock:
            readers = [connection for connection in self._opened if connection is not self._writer]
        for connection in readers:
            connection.close()
        self._writer.close()  # last: a read-only connection cannot copy the WAL into the file

    def _reader(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = self._connect(read_only=True)
        return connection

    def _connect(self, read_only: bool) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        kind = ReadingConnection if read_only else apsw.Connection
        connection = kind(str(self._path), flags=flags)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.create_scalar_function(
            "has_words", lambda *of: has_words(str(of[0]), str(of[1])), 2, deterministic=True
        )
        connection.create_scalar_function("lease_clock", lambda *_: time.monotonic(), 0)
        register_functions(connection)
        with self._lock:
            self._opened.add(connection)
        return connection

    def _open_writer(self) -> apsw.Connection:
        try:
            connection = self._connect(read_only=False)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a file that we refuse stays as it is
            for name, value in PRAGMAS.items():  # one by one: SQLite stops after a row
                connection.pragma(name, value)
            if self._path.stat().st_size <= MAX_CHECKED_BYTES:
                faults = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
                if faults != ["ok"]:
                    raise apsw.CorruptError(str(faults[0]).splitlines()[-1])
            migrate(connection)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise StartupError(
                f"{self._path.name} is damaged ({error}); restore it from a backup, nothing was changed"
            ) from error
        except apsw.Error as error:
            is_full = isinstance(error, apsw.FullError) or shutil.disk_usage(self._path.parent).free < LEAST_FREE_BYTES
            reason = "the disk is full; free some space" if is_full else str(error)
            raise StartupError(f"{self._path.name} cannot be opened: {reason}") from error
        return connection


def connect_readonly(path: Path) -> apsw.Connection:
    """A read-only connection to a database that another process has open."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def check_integrity(connection: Connection) -> list[str]:
    """Every fault that SQLite's own integrity check finds."""
    rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    return [] if rows == ["ok"] else rows


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema up to date, each step in a transaction. Raises StartupError for a newer schema than ours."""
    steps = sorted(
        (int(re.split("_", file.name)[0]), file.read_text("utf-8"))
        for file in resources.files("app.storage").joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    )
    register_functions(connection)
    version = int(connection.pragma("user_version"))
    if version > steps[-1][0]:
        raise StartupError(
            f"the data directory was written by a newer Sightline (schema {version}, this one knows "
            f"{steps[-1][0]}); upgrade, or restore a backup from before"
        )
    for number, script in steps:
        if number > version:
            with connection:
                connection.execute(script)
                connection.pragma("user_version", number)


@contextmanager
def map_sqlite_errors() -> Iterator[None]:
    """Raise our error for one of SQLite; those of bugs pass as they are."""
    try:
        yield
    except apsw.Error as error:
        raise _map_sqlite_error(error) from error


def _map_sqlite_error(error: BaseException) -> BaseException:
    for kind, number in ERRNOS.items():
        if isinstance(error, kind):
            return _add_cause(from_os_error(OSError(number, str(error))), error)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return _add_cause(Overloaded("the database is busy; try again"), error)
    return error


def _add_cause(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
