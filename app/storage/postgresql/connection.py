"""A connection to PostgreSQL that takes the statements of SQLite, and what its errors mean."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper, NumericBinaryLoader, NumericLoader
from psycopg.types.string import StrBinaryDumper, StrDumper

from app.core.errors import Overloaded, Timeout, from_os_error
from app.storage.filters.sql import TOO_LONG
from app.storage.postgresql.dialect import bind
from app.storage.postgresql.keywords import TsvectorIndex
from app.storage.row_cache import RowCache

PREPARE_AFTER = 2  # uses of a statement: then its plan is kept
MAX_PREPARED = 400
OPTIONS = (
    "-c statement_timeout=0 -c lock_timeout=10s -c idle_in_transaction_session_timeout=8s -c idle_session_timeout=0"
    " -c synchronous_commit=on -c client_encoding=UTF8 -c timezone=UTC -c standard_conforming_strings=on -c jit=off"
)
KEEP_ALIVE = {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3, "tcp_user_timeout": 15_000}
CONNECT_SECONDS = 5
ERRNOS: dict[type[psycopg.Error], int] = {
    **dict.fromkeys((errors.DiskFull, errors.OutOfMemory), errno.ENOSPC),
    errors.ReadOnlySqlTransaction: errno.EROFS,
    errors.IoError: errno.EIO,
}
AWAY = "the database cannot be reached; try again"
BUSY = "the database is busy; try again"
PASSING = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.TooManyConnections,
    errors.QueryCanceled,  # by somebody at the server, or by a limit of the address: ours is a Timeout already
)
LOST = (  # the server has closed the connection, or takes none
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.DatabaseDropped,
    errors.IdleSessionTimeout,
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
)


class _NumberLoader(NumericLoader):
    def load(self, data: Buffer) -> Any:
        return _to_number(super().load(data))


class _NumberBinaryLoader(NumericBinaryLoader):
    def load(self, data: Buffer) -> Any:
        return _to_number(super().load(data))


def _to_number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


@dataclass
class SharedCache:
    """What the connections that read have read since the last commit."""

    row_cache: RowCache = field(default_factory=RowCache)


class PostgresqlConnection:
    """What a change or a read gets.

    Since they were last set to False, a statement has changed rows (`has_changed`), perhaps words of pictures
    (`has_new_words`).
    """

    def __init__(self, connection: psycopg.Connection[Any], shared: SharedCache | None = None) -> None:
        self.raw = connection
        self._shared = shared
        self._snapshot: bytes | None = None
        self.word_index = TsvectorIndex(self)
        self.has_changed = self.has_new_words = False
        self._count = 0
        self._cursor = psycopg.RawCursor(connection)

    def open_row_cache(self) -> RowCache:
        """See `row_cache.open_cache`; one for this read alone where it writes."""
        if self._shared is None:
            return RowCache()
        known = self._shared.row_cache
        if known.version != self._snapshot:
            known = self._shared.row_cache = RowCache(self._snapshot)
        return known

    def begin_read(self) -> None:
        """Begin a transaction, and learn in the same round trip what it sees: equal snapshots see the same commits.

        Of one server, that is: one that was restored, or took over, gives the numbers of lost transactions again.
        """
        sql = "BEGIN; SELECT pg_current_snapshot()::text || pg_postmaster_start_time()::text"
        self._snapshot = self._send(sql).get_value(0, 0)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        statement, text, bound = bind(sql, values)
        self._cursor.execute(text, bound, binary=True)
        if statement.is_change:
            self._count = self._cursor.rowcount
            self.has_changed = self.has_changed or self._count > 0
            self.has_new_words = self.has_new_words or statement.has_words
        return iter(self._cursor.fetchall() if self._cursor.description else ())

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            self.execute(sql, row)

    def changes(self) -> int:
        return self._count

    def run(self, commands: str) -> None:
        """Run commands of PostgreSQL that give no rows, in one round trip."""
        self._send(commands)

    def _send(self, commands: str) -> psycopg.pq.abc.PGresult:
        """The last result of some commands."""
        result = self.raw.pgconn.exec_(commands.encode())
        if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
            error = psycopg.errors.error_from_result(result)
            raise error if error.sqlstate else psycopg.OperationalError("the connection is lost")
        return result

    @contextmanager
    def limit_time(self, seconds: float) -> Iterator[None]:
        """Raises Timeout. The limit stays until the transaction ends."""
        self.run(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        try:
            yield
        except errors.QueryCanceled:
            raise Timeout(TOO_LONG.format(seconds)) from None

    def is_in_transaction(self) -> bool:
        return self.raw.info.transaction_status in (
            psycopg.pq.TransactionStatus.INTRANS,
            psycopg.pq.TransactionStatus.INERROR,
        )

    def close(self) -> None:
        self.raw.close()


def connect(address: str, options: str = "") -> psycopg.Connection[Any]:
    """A new connection, in which each statement is a transaction outside of BEGIN and COMMIT."""
    connection = psycopg.connect(address, autocommit=True, **connect_settings(address, options))
    configure(connection)
    return connection


def connect_settings(address: str, options: str = "") -> dict[str, Any]:
    given = conninfo_to_dict(address).get("options") or ""
    return {
        "options": f"{OPTIONS} {options} {given}",
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "sightline",
        **KEEP_ALIVE,
    }


def configure(connection: psycopg.Connection[Any]) -> None:
    adapters = connection.adapters
    for kind, dumpers in ((int, (Int8Dumper, Int8BinaryDumper)), (str, (StrDumper, StrBinaryDumper))):
        for dumper in dumpers:
            adapters.register_dumper(kind, dumper)
    adapters.register_loader("numeric", _NumberLoader)
    adapters.register_loader("numeric", _NumberBinaryLoader)
    connection.prepare_threshold = PREPARE_AFTER
    connection.prepared_max = MAX_PREPARED


def map_error(error: BaseException) -> BaseException:
    """Our error for one of PostgreSQL; those of bugs stay as they are."""
    mapped: BaseException | None = None
    for kind, number in ERRNOS.items():
        if isinstance(error, kind):
            mapped = from_os_error(OSError(number, str(error)))
    if mapped is None and isinstance(error, PASSING):
        mapped = Overloaded(BUSY)
    if mapped is None and is_lost(error):
        mapped = Overloaded(AWAY)
    if mapped is None:
        return error
    mapped.__cause__ = error
    return mapped


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, or could not be made."""
    if isinstance(error, LOST):
        return True
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and error.sqlstate is None
