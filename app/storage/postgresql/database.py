"""PostgreSQL as the database of several machines.

A write transaction takes one exclusive advisory lock, as SQLite has one write lock: what is right there is right here.
So the numbers of the log are committed in their order, and who follows it skips none. The changes of one process share
a transaction, as on SQLite. Reads are snapshots (REPEATABLE READ) that wait for nobody.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from app.core.backoff import Backoff
from app.core.errors import Overloaded, StartupError
from app.core.metrics import ProcessMetrics
from app.storage.database import Database, Work
from app.storage.postgresql import keywords
from app.storage.postgresql.connection import (
    AWAY,
    PostgresqlConnection,
    SharedCache,
    configure,
    connect,
    connect_settings,
    is_lost,
    map_error,
)
from app.storage.postgresql.schema import prepare_schema

T = TypeVar("T")
log = logging.getLogger(__name__)

# A plan that is kept from when a table was new goes through the whole table when it has grown, and one for any words
# goes through it when few pictures have these.
PLANNED = "-c plan_cache_mode=force_custom_plan"
READ_OPTIONS = f"{PLANNED} -c default_transaction_isolation=repeatable\\ read -c default_transaction_read_only=on"
MAX_READERS = 20
READER_SECONDS, LOST_READER_SECONDS = 5.0, 0.5  # that a read waits for a connection; while the server is away
POLL_SECONDS = 0.5  # between two looks whether somebody has committed, should no notification come
LOST_SECONDS = 3.0  # without a look: then `watch_commits` fails, as what is cached may be wrong by now
RETRY_FIRST, RETRY_LAST = 0.1, 5.0
BUSY_OR_AWAY = "the database is busy, or cannot be reached; try again"
SECRET = re.compile(r"(?:^|[?&])(?:ssl)?password=([^&]*)")  # of a query
COMMITTED = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


class PostgresqlDatabase(Database):
    """One database of a server, or the schema of it that is first in the search path."""

    def __init__(self, address: str, metrics: ProcessMetrics | None = None) -> None:
        super().__init__(address, metrics)
        with startup_errors(address):
            self._writer: PostgresqlConnection | None = PostgresqlConnection(connect(address, PLANNED))
            try:
                self._lock_number = compute_lock(self._writer)
                prepare_schema(self._writer, self._lock_number)
                self._commits = CommitListener(address, self._lock_number)
            except BaseException:
                self._writer.close()
                raise
        self._retry = Backoff(RETRY_FIRST, RETRY_LAST)
        self._not_before = 0.0
        self._pool = ConnectionPool(
            address,
            kwargs={"autocommit": True, **connect_settings(address, READ_OPTIONS)},
            min_size=1,
            max_size=MAX_READERS,
            timeout=READER_SECONDS,
            reconnect_timeout=RETRY_LAST,
            configure=configure,
            open=True,
            name="sightline-read",
        )
        self._shared = SharedCache()
        self._is_alone = self._has_savepoint = False
        self._thread.start()

    def read(self, work: Work[T]) -> T:
        try:
            connection = self._take_reader()
            try:
                return work(connection)
            finally:
                self._give_back(connection)
        except (psycopg.Error, PoolTimeout, PoolClosed) as error:
            mapped = _map(error)
            if mapped is error:
                raise
            raise mapped from error

    def watch_commits(self) -> Callable[[], int]:
        return self._commits.count

    def check(self) -> list[str]:
        return []  # PostgreSQL's own tools do (pg_amcheck)

    def _take_reader(self) -> PostgresqlConnection:
        """A connection with a transaction that has begun. One that the server has closed meanwhile is replaced."""
        for is_last in (False,) * MAX_READERS + (True,):
            wait = LOST_READER_SECONDS if self._commits.is_lost() else READER_SECONDS
            connection = PostgresqlConnection(self._pool.getconn(wait), self._shared)
            try:
                connection.begin_read()
            except psycopg.Error as error:
                self._put_back(connection)
                if is_last or not is_lost(error):
                    raise
            else:
                return connection
        raise AssertionError

    def _give_back(self, connection: PostgresqlConnection) -> None:
        with suppress(psycopg.Error):
            if connection.is_in_transaction():
                connection.run("ROLLBACK")
        self._put_back(connection)

    def _put_back(self, connection: PostgresqlConnection) -> None:
        with suppress(PoolClosed):
            self._pool.putconn(connection.raw)

    # Of the transaction of the write thread:

    def _commit_batch(self, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        self._is_alone = len(batch) == 1
        super()._commit_batch(batch)

    def _begin(self) -> None:
        begin = f"BEGIN; SELECT pg_advisory_xact_lock({self._lock_number})"
        for is_last in (False, True):
            writer = self._connect_writer()
            try:
                if writer.is_in_transaction():  # the rollback of the last batch failed
                    writer.run("ROLLBACK")
                writer.has_changed = writer.has_new_words = self._has_savepoint = False
                writer.run(begin)
                return
            except psycopg.Error as error:
                if is_last or not is_lost(error):
                    raise
                self._drop_writer()

    def _connect_writer(self) -> PostgresqlConnection:
        if self._writer is None:
            if monotonic() < self._not_before:
                raise Overloaded(AWAY)
            try:
                self._writer = PostgresqlConnection(connect(self.address, PLANNED))
            except psycopg.Error:
                self._not_before = monotonic() + self._retry.next()
                raise
            self._retry.reset()
        return self._writer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            with suppress(psycopg.Error):
                self._writer.close()
            self._writer = None

    def _change(self, work: Work[T]) -> T:
        """One that is alone in its batch needs no savepoint."""
        writer = self._writer
        assert writer is not None
        if not self._is_alone:
            writer.run("RELEASE change; SAVEPOINT change" if self._has_savepoint else "SAVEPOINT change")
            self._has_savepoint = True  # the next change, or the commit, releases it
        try:
            return work(writer)
        except BaseException:
            if writer.is_in_transaction():
                writer.run("ROLLBACK; BEGIN" if self._is_alone else "ROLLBACK TO change")
            raise

    def _commit(self) -> None:
        writer = self._writer
        assert writer is not None
        if writer.has_new_words:
            keywords.fill(writer)
        if not writer.has_changed:
            writer.run("COMMIT")
            return
        writer.run(f"NOTIFY {self._commits.channel}; COMMIT")
        self._commits.add()

    def _roll_back(self) -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            if writer.is_in_transaction():
                writer.run("ROLLBACK")
        except psycopg.Error:
            self._drop_writer()
        else:
            if writer.raw.closed or writer.raw.broken:
                self._drop_writer()

    def _is_in_transaction(self) -> bool:
        return self._writer is not None and self._writer.is_in_transaction()

    def _map_error(self, error: BaseException) -> BaseException:
        return _map(error)

    def _disconnect(self) -> None:
        self._commits.begin_closing()
        with suppress(psycopg.Error):
            if self._writer is not None:
                self._writer.run(f"NOTIFY {self._commits.channel}")  # the listener need not wait for its next look
        self._commits.close()
        self._pool.close(timeout=5.0)
        self._drop_writer()


class CommitListener:
    """Counts the commits that change something, by any process: by notifications, and by a look every POLL_SECONDS."""

    def __init__(self, address: str, number: int) -> None:
        self.channel = f"sightline_{number & 0xFFFFFFFF:08x}"
        self._address = address
        self._count = 0
        self._lock = threading.Lock()
        self._seen = monotonic()
        self._closing = threading.Event()
        self._connection = self._listen()
        self._thread = threading.Thread(target=self._run, name="database-commits", daemon=True)
        self._thread.start()

    def add(self) -> None:
        """This process has committed."""
        with self._lock:
            self._count += 1

    def count(self) -> int:
        """Raises Overloaded where nobody can know whether somebody has committed."""
        if self.is_lost():
            raise Overloaded(AWAY)
        return self._count

    def is_lost(self) -> bool:
        return monotonic() - self._seen > LOST_SECONDS

    def begin_closing(self) -> None:
        self._closing.set()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _listen(self) -> psycopg.Connection[Any]:
        connection = connect(self._address)
        PostgresqlConnection(connection).run(f"LISTEN {self.channel}")
        return connection

    def _run(self) -> None:
        retry = Backoff(RETRY_FIRST, RETRY_LAST)
        committed: str | None = None
        while not self._closing.is_set():
            try:
                if self._connection.closed:
                    self._connection = self._listen()
                    committed = None
                found = sum(1 for _ in self._connection.notifies(timeout=POLL_SECONDS, stop_after=1))
                row = self._connection.execute(COMMITTED).fetchone() if not found else None
                if found or (row and row[0] != committed):
                    self.add()
                committed = row[0] if row else committed
                self._seen = monotonic()
                retry.reset()
            except psycopg.Error:
                self._connection.close()
                self._closing.wait(retry.next())
        self._connection.close()


def compute_lock(c: PostgresqlConnection) -> int:
    """The number of the lock that the writers of one schema share."""
    ((name,),) = c.execute("SELECT current_schema()")
    if name is None:
        raise StartupError("the role sees no schema of the database; set its search_path, or GRANT USAGE")
    return int.from_bytes(hashlib.sha256(b"sightline " + str(name).encode()).digest()[:8], "big", signed=True)


@contextmanager
def connect_readonly(address: str) -> Iterator[PostgresqlConnection]:
    """A connection that only reads, each statement by itself."""
    connection = PostgresqlConnection(connect(address, READ_OPTIONS))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def startup_errors(address: str) -> Iterator[None]:
    """Raise StartupError for what keeps us from a database, without the password of its address."""
    try:
        yield
    except psycopg.Error as error:
        raise StartupError(explain(error, address)) from None


def explain(error: psycopg.Error, address: str) -> str:
    """Why a database cannot be opened, for people. Its address may be wrong in any way, so none of it is repeated."""
    text = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    reason = hide_password(text[0].removeprefix("FATAL:").strip(), address)
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        reason = "its address cannot be read; it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    elif "password authentication failed" in reason or isinstance(error, errors.InvalidPassword):
        reason = "the user or the password is wrong"
    elif "does not support SSL" in reason:
        reason = "sslmode asks for TLS, and the server has none"
    return f"the PostgreSQL database cannot be opened: {reason}"


def hide_password(text: str, address: str) -> str:
    """The text without the password of an address, which stands before the host or in the query."""
    try:
        parts = urlsplit(address)
        found = [parts.password or "", *SECRET.findall(parts.query)]
    except ValueError:
        found = SECRET.findall(address)
    for secret in {form for one in found for form in (one, unquote(one))} - {""}:
        text = text.replace(secret, "***")
    return text


def _map(error: BaseException) -> BaseException:
    if isinstance(error, PoolTimeout):
        return Overloaded(BUSY_OR_AWAY)
    if isinstance(error, PoolClosed):
        return Overloaded("the service is stopping")
    return map_error(error)
