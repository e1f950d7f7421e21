"""PostgreSQL alone: its schema, its lock, what is refused, and what happens while it is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from app.core.errors import IdConflict, Overloaded, ReadOnly, StartupError, StorageFull, Timeout
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.filters.sql import time_limit
from app.storage.postgresql import database as module
from app.storage.postgresql.connection import PostgresqlConnection, map_error
from app.storage.postgresql.database import PostgresqlDatabase
from app.storage.postgresql.schema import list_steps, migrate
from app.storage.sql import Connection, fetch_all, fetch_number
from app.storage.tables import api_keys, collections, embeddings, images, jobs, queue_depth
from tests.support.makers import FINGERPRINT, SPACE, insert
from tests.support.postgresql import PostgresqlServer

NEWEST = max(int(path.name[:4]) for path in (Path(module.__file__).parent.parent / "migrations").glob("*.sql"))
OF_SQLITE = {"image_words", "image_parts", "spelled_images", "sqlite_sequence"}  # and those of FTS5 below them
OF_POSTGRESQL = {"image_words", "image_counts", "schema_version"}

ANSWER = (
    "INSERT INTO answers (n, owner, key, request, status, body, bytes, created_at)"
    " VALUES (?1, 'me', 'key ' || ?1, '', 0, '', 0, '')"
)


@pytest.fixture
def address(postgresql: PostgresqlServer) -> Iterator[str]:
    with postgresql.database() as address:
        yield address


@pytest.fixture
def opened(address: str) -> Iterator[PostgresqlDatabase]:
    with closing(open_database(address)) as database:
        yield cast(PostgresqlDatabase, database)


@pytest.fixture
def own_server() -> Iterator[PostgresqlServer]:
    """A server that this test may stop."""
    from tests.support.postgresql import find_binaries

    if find_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with closing(PostgresqlServer()) as server:
        yield server


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_tables_are_those_of_the_newest_migration(opened: Database, tmp_path: Path) -> None:
    columns = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    ours = {(table, column) for table, column in opened.read(lambda c: fetch_all(c, columns)) if column != "rowid"}
    sql = "SELECT m.name, i.name FROM sqlite_schema m, pragma_table_info(m.name) i WHERE m.type = 'table'"
    with closing(open_database(tmp_path / "sightline.db")) as sqlite:
        theirs = set(sqlite.read(lambda c: fetch_all(c, sql)))
    theirs = {(table, column) for table, column in theirs if not table.startswith(tuple(OF_SQLITE))}
    assert {one for one in ours if one[0] not in OF_POSTGRESQL} == theirs
    assert opened.read(lambda c: fetch_number(c, "SELECT version FROM schema_version")) == NEWEST


def test_the_indexes_are_those_of_the_newest_migration(opened: Database, tmp_path: Path) -> None:
    sql = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND indexname !~ '_(pkey|key)$'"
    ours = {name for (name,) in opened.read(lambda c: fetch_all(c, sql)) if not name.startswith("image_words")}
    named = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    with closing(open_database(tmp_path / "sightline.db")) as sqlite:
        assert ours == {name for (name,) in sqlite.read(lambda c: fetch_all(c, named))}


def test_a_newer_schema_is_refused_and_left_as_it_is(opened: Database) -> None:
    opened.write(lambda c: c.execute("UPDATE schema_version SET version = 999"))
    try:
        with pytest.raises(StartupError, match="newer Sightline"):
            open_database(opened.address)
    finally:
        opened.write(lambda c: c.execute("UPDATE schema_version SET version = ?", (NEWEST,)))


def test_a_later_migration_is_made_once(opened: Database, tmp_path: Path) -> None:
    (tmp_path / "9001_first.sql").write_text("UPDATE access SET version = version + 1;")
    (tmp_path / "9002_second.sql").write_text("UPDATE access SET version = version + 10;")
    (tmp_path / "notes.txt").touch()
    steps = list_steps(tmp_path)
    before = opened.read(api_keys.get_version)
    try:
        for _ in range(2):
            opened.write(lambda c: migrate(cast(PostgresqlConnection, c), steps))
        assert opened.read(api_keys.get_version) == before + 11
    finally:
        opened.write(lambda c: c.execute("UPDATE schema_version SET version = ?", (NEWEST,)))


def test_a_database_of_another_program_is_refused_and_left_as_it_is(postgresql: PostgresqlServer) -> None:
    with postgresql.empty_database() as address:
        name = address.partition("@/")[2].partition("?")[0]
        postgresql.execute("CREATE TABLE customers (id int)", name)
        with pytest.raises(StartupError, match=r"not Sightline's \(customers\)"):
            open_database(address)
        tables = postgresql.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)
        assert tables == [("customers",)]


@pytest.mark.parametrize("columns", ["installed int", "version text", "version int"])
def test_a_database_with_another_programs_schema_version_is_refused_and_left_as_it_is(
    columns: str, postgresql: PostgresqlServer
) -> None:
    with postgresql.empty_database() as address:
        name = address.partition("@/")[2].partition("?")[0]
        postgresql.execute(f"CREATE TABLE schema_version ({columns})", name)
        postgresql.execute("INSERT INTO schema_version VALUES ('7')", name)
        with pytest.raises(StartupError, match=r"not Sightline's \(schema_version\); name an empty one"):
            open_database(address)
        assert postgresql.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name) == [
            ("schema_version",)
        ]


def test_a_database_of_another_encoding_is_refused(postgresql: PostgresqlServer) -> None:
    postgresql.execute("CREATE DATABASE latin ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StartupError, match="UTF8"):
        open_database(postgresql.address("latin"))


def test_two_servers_that_start_at_once_make_one_schema(postgresql: PostgresqlServer) -> None:
    with postgresql.empty_database() as address:
        opened: list[Database] = []
        threads = [threading.Thread(target=lambda: opened.append(open_database(address))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 3
        assert [collection.name for collection in opened[0].read(collections.list_all)] == ["default"]
        for database in opened:
            database.close()


def test_a_wrong_password_is_told_and_not_repeated(
    own_server: PostgresqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
    (own_server.data / "pg_hba.conf").write_text("local all sightline trust\nlocal all all scram-sha-256\n")
    own_server.execute("SELECT pg_reload_conf()")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StartupError, match="the user or the password is wrong") as refused:
        open_database(own_server.address("postgres").replace("sightline@", "app:s3cret@"))
    assert "s3cret" not in "".join((str(refused.value), caplog.text))
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://app:s3cret@127.0.0.1:1/db", "cannot be opened"),
        ("postgresql://app:s3cret@[nowhere/db", "its address cannot be read"),
        ("postgresql://app:s3cret@127.0.0.1:1/db?nonsense=s3cret", "its address cannot be read"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_and_not_repeated(address: str, reason: str) -> None:
    with pytest.raises(StartupError, match=reason) as refused:
        open_database(address)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://app:s3%3Dcret@db/x",
        "postgresql://app@db/x?password=s3%3Dcret",
        "postgresql://app@db/x?sslmode=require&password=s3=cret&connect_timeout=1",
        "postgresql://app@[db/x?sslpassword=s3%3Dcret",
    ],
)
def test_a_password_anywhere_in_an_address_is_hidden(address: str) -> None:
    assert module.hide_password("no s3=cret here", address) == "no *** here"


def test_tls_that_the_server_does_not_have_is_told() -> None:
    error = psycopg.OperationalError("server does not support SSL, but SSL was required")
    assert "the server has none" in module.explain(error, "postgresql://a:b@c/d")


def test_numbers_of_the_log_are_committed_in_their_order(opened: Database) -> None:
    opened.write(lambda c: embeddings.save_space(c, SPACE))
    seen: list[int] = []
    stop = threading.Event()

    def list_new(c: Connection) -> list[Any]:
        return embeddings.list_after(c, "default", FINGERPRINT, "images", seen[-1] if seen else 0, 1000)

    def follow() -> None:
        while not stop.is_set():
            found = opened.read(list_new)
            seen.extend(seq for seq, *_ in found)

    def append(database: Database, first: int) -> None:
        for key in range(first, first + 60):
            database.write(lambda c, key=key: embeddings.add(c, "default", FINGERPRINT, "images", key, b"1234"))  # type: ignore[misc]

    with closing(open_database(opened.address)) as second:
        threads = [threading.Thread(target=append, args=(one, n * 1000)) for n, one in enumerate((opened, second) * 2)]
        follower = threading.Thread(target=follow)
        follower.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(seen) >= 240)
        stop.set()
        follower.join()
    assert len(seen) == 240 == len(set(seen))
    assert seen == sorted(seen)


def test_a_commit_of_another_process_is_seen_soon_and_one_of_our_own_at_once(opened: Database) -> None:
    count = opened.watch_commits()
    with closing(open_database(opened.address)) as second:
        theirs = second.watch_commits()
        before, before_theirs = count(), theirs()
        opened.write(lambda c: jobs.create(c, "default", "bulk"))
        assert count() > before
        wait_until(lambda: theirs() > before_theirs)


def test_a_change_that_changes_nothing_wakes_nobody(opened: Database) -> None:
    count = opened.watch_commits()
    opened.write(lambda c: jobs.set_name(c, "none", "of"))
    time.sleep(2 * module.POLL_SECONDS)
    before = count()
    opened.write(lambda c: jobs.set_name(c, "none", "of"))
    time.sleep(2 * module.POLL_SECONDS)
    assert count() == before


def test_a_commit_without_a_notification_is_found_by_looking(opened: Database, postgresql: PostgresqlServer) -> None:
    count = opened.watch_commits()
    time.sleep(2 * module.POLL_SECONDS)
    before = count()
    name = opened.address.partition("@/")[2].partition("?")[0]
    postgresql.execute("UPDATE access SET version = version + 1", name)
    wait_until(lambda: count() > before)


def test_a_failing_change_is_undone_alone_and_its_neighbours_commit(opened: Database) -> None:
    go, began = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        began.set()
        assert go.wait(5)

    def fails(c: Connection) -> None:
        jobs.create(c, "default", "half")
        raise IdConflict("taken")

    held = opened.submit(hold)
    began.wait(5)
    first = opened.submit(lambda c: jobs.create(c, "default", "first"))
    bad = opened.submit(fails)
    broken = opened.submit(lambda c: c.execute("SELECT nonsense FROM nowhere"))
    last = opened.submit(lambda c: jobs.create(c, "default", "last"))
    go.set()
    held.result()
    assert {first.result(), last.result()} == {job.id for job in opened.read(lambda c: jobs.list_recent(c, 9))}
    assert isinstance(bad.exception(), IdConflict)
    assert isinstance(broken.exception(), psycopg.Error)


def test_a_frozen_writer_loses_its_transaction_and_the_others_go_on(
    opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.storage.postgresql import connection

    quick = connection.OPTIONS.replace(
        "idle_in_transaction_session_timeout=8s", "idle_in_transaction_session_timeout=1s"
    )
    monkeypatch.setattr(connection, "OPTIONS", quick)
    with closing(open_database(opened.address)) as frozen:

        def freeze(c: Connection) -> str:
            made = jobs.create(c, "default", "frozen")
            time.sleep(2.5)
            return made

        lost = frozen.submit(freeze)
        time.sleep(0.3)
        opened.write(lambda c: jobs.create(c, "default", "other"))
        assert isinstance(lost.exception(), Overloaded)
        assert [job.kind for job in opened.read(lambda c: jobs.list_recent(c, 9))] == ["other"]
        frozen.write(lambda c: jobs.create(c, "default", "again"))


def test_sessions_that_the_server_would_end_for_being_idle_go_on(postgresql: PostgresqlServer) -> None:
    with postgresql.empty_database() as address:
        name = address.partition("@/")[2].partition("?")[0]
        postgresql.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '100ms'")
        with closing(open_database(address)) as database:
            time.sleep(0.5)
            assert database.read(lambda c: jobs.list_recent(c, 9)) == []
            database.write(lambda c: jobs.create(c, "default", "bulk"))


@pytest.mark.slow
def test_a_server_that_was_away_is_found_again(own_server: PostgresqlServer) -> None:
    own_server.execute("CREATE DATABASE away")
    with closing(open_database(own_server.address("away"))) as database:
        count = database.watch_commits()
        id = database.write(lambda c: jobs.create(c, "default", "before"))
        own_server.kill()
        with pytest.raises(Overloaded):
            database.write(lambda c: jobs.create(c, "default", "lost"))

        def fails() -> bool:
            try:
                return count() < 0
            except Overloaded:
                return True

        wait_until(fails)
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(Overloaded):
                database.read(lambda c: jobs.get(c, id))
        assert time.monotonic() - began < 3 * module.READER_SECONDS
        own_server.start()

        def answers() -> bool:
            try:
                return database.read(lambda c: jobs.get(c, id)) is not None and bool(
                    database.write(lambda c: jobs.create(c, "default", "after"))
                )
            except Overloaded:
                return False

        wait_until(answers)
        wait_until(lambda: not fails())
        assert (database.alive(), database.fault) == (True, None)


def test_a_read_cannot_write(opened: Database) -> None:
    with pytest.raises(ReadOnly):
        opened.read(lambda c: jobs.create(c, "default", "bulk"))
    assert opened.read(lambda c: jobs.list_recent(c, 9)) == []


def test_a_read_is_one_snapshot(opened: Database) -> None:
    def work(c: Connection) -> tuple[int, int]:
        before = fetch_number(c, "SELECT count(*) FROM jobs")
        opened.write(lambda w: jobs.create(w, "default", "bulk"))
        return before, fetch_number(c, "SELECT count(*) FROM jobs")

    assert opened.read(work) == (0, 0)


def test_what_takes_too_long_is_ended(opened: Database) -> None:
    def work(c: Connection) -> None:
        with time_limit(c, 0.05):
            list(c.execute("SELECT pg_sleep(20)"))

    with pytest.raises(Timeout):
        opened.read(work)
    assert opened.read(lambda c: fetch_number(c, "SELECT 1")) == 1


def test_a_closed_database_refuses(address: str) -> None:
    database = open_database(address)
    database.close()
    database.close()
    for use in (database.read, database.write):
        with pytest.raises(Overloaded, match="stopping"):
            use(api_keys.list_all)


def test_the_newest_changes_and_answers_are_kept(opened: Database) -> None:
    image = insert(opened, 1)
    opened.write(lambda c: images.rename(c, image.key, "a", "b"))
    opened.write(lambda c: c.execute("INSERT INTO changes (n, target, key) VALUES (150000, 'images', 2)"))
    opened.write(lambda c: c.execute(ANSWER, (1,)))
    opened.write(lambda c: c.execute(ANSWER, (20_000,)))
    assert opened.read(lambda c: fetch_all(c, "SELECT n FROM changes")) == [(150_000,)]
    assert opened.read(lambda c: fetch_all(c, "SELECT n FROM answers")) == [(20_000,)]


def test_counts_follow_every_change_of_many_rows(opened: Database) -> None:
    def compare() -> dict[str, int]:
        direct = "SELECT status, count(*) FROM images i WHERE collection = 'default' GROUP BY status"
        counted = {name: n for name, n in opened.read(lambda c: images.count_by_status(c, "default")).items() if n}
        assert counted == dict(opened.read(lambda c: fetch_all(c, direct)))
        return counted

    for n in range(12):
        insert(opened, n)
    assert compare() == {"queued": 12}
    for statement in (
        "UPDATE images SET status = 'ready' WHERE key <= 9",
        "UPDATE images SET status = 'queued', format = 'webp' WHERE key IN (1, 2)",
        "UPDATE images SET caption = 'changes nothing'",
        "DELETE FROM images WHERE key > 7",
        "DELETE FROM image_counts",  # as after a move
    ):
        opened.write(lambda c: c.execute(statement))  # noqa: B023
        compare()
    opened.write(lambda c: c.execute("UPDATE images SET status = 'failed' WHERE key = 3"))
    assert compare() == {"queued": 2, "ready": 4, "failed": 1}
    assert sum(opened.read(queue_depth.read_backlog).images.values()) == 7


@pytest.mark.parametrize(
    ("error", "mapped"),
    [
        (psycopg.errors.DiskFull("no space"), StorageFull),
        (psycopg.errors.IoError("broken disk"), ReadOnly),
        (psycopg.errors.ReadOnlySqlTransaction("a standby"), ReadOnly),
        (psycopg.errors.LockNotAvailable("lock_timeout"), Overloaded),
        (psycopg.errors.TooManyConnections("sorry"), Overloaded),
        (psycopg.errors.AdminShutdown("stopping"), Overloaded),
        (psycopg.errors.IdleInTransactionSessionTimeout("frozen"), Overloaded),
        (psycopg.errors.IdleSessionTimeout("idle"), Overloaded),
        (psycopg.errors.TransactionTimeout("long"), Overloaded),
        (psycopg.errors.DatabaseDropped("dropped"), Overloaded),
        (psycopg.errors.QueryCanceled("pg_cancel_backend"), Overloaded),
        (psycopg.OperationalError("the connection is lost"), Overloaded),
        (psycopg.errors.UniqueViolation("twice"), psycopg.errors.UniqueViolation),
        (KeyError("a bug"), KeyError),
    ],
)
def test_errors_of_postgresql_become_ours(error: Exception, mapped: type[Exception]) -> None:
    found = map_error(error)
    assert isinstance(found, mapped)
    assert found is error or found.__cause__ is error


def test_a_role_that_may_not_make_tables_is_told(postgresql: PostgresqlServer) -> None:
    with postgresql.empty_database() as address:
        name = address.partition("@/")[2].partition("?")[0]
        postgresql.execute("CREATE ROLE guest LOGIN", name)
        with pytest.raises(StartupError, match=r"CREATE EXTENSION pg_trgm"):
            open_database(address.replace("sightline@", "guest@"))
        postgresql.execute("CREATE EXTENSION pg_trgm", name)
        with pytest.raises(StartupError, match="may not make tables"):
            open_database(address.replace("sightline@", "guest@"))
        with pytest.raises(StartupError, match="sees no schema"):
            open_database(address + "&options=-csearch_path%3Dnowhere")
        postgresql.execute("GRANT CREATE ON SCHEMA public TO guest", name)
        open_database(address.replace("sightline@", "guest@")).close()
        postgresql.execute("DROP OWNED BY guest", name)
    postgresql.execute("DROP ROLE guest")
