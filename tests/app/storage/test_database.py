from __future__ import annotations

import gc
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from app.core.errors import IdConflict, Overloaded, ReadOnly, StartupError, StorageFull
from app.storage import sqlite as migrations
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import Connection, fetch_all, fetch_number, fetch_one
from app.storage.sqlite import MIN_SQLITE_VERSION, SqliteDatabase, check_integrity, map_sqlite_errors, migrate
from app.storage.tables import collections, jobs, work_queue
from tests.app.conftest import SmallDisk


def sqlite(c: Connection) -> apsw.Connection:
    return cast(apsw.Connection, c)


def put(id: str) -> Any:
    """A change that inserts one row."""

    def work(c: Connection) -> str:
        c.execute(
            "INSERT INTO jobs (id, collection, kind, state, created_at) VALUES (?, 'default', '', 'queued', '')", (id,)
        )
        return id

    return work


def ids(database: Database) -> set[str]:
    return {row[0] for row in database.read(lambda c: fetch_all(c, "SELECT id FROM jobs"))}


class Held:
    """Holds the write thread, so that what is submitted meanwhile shares the next transaction."""

    def __init__(self, database: Database) -> None:
        self.go = threading.Event()
        began = threading.Event()

        def work(_: Connection) -> None:
            began.set()
            assert self.go.wait(60)

        self.future = database.submit(work)
        assert began.wait(60)


def test_write_returns_what_the_work_returns_and_is_seen_by_reads(database: Database) -> None:
    assert database.write(put("one")) == "one"
    assert ids(database) == {"one"}


def test_writes_are_in_wal_mode_and_fsynced(database: Database) -> None:
    modes = database.write(
        lambda c: [sqlite(c).pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")]
    )
    assert modes == ["wal", 2, 1]
    assert apsw.SQLITE_VERSION_NUMBER >= MIN_SQLITE_VERSION


def test_changes_submitted_together_share_one_commit(database: Database) -> None:
    commits: list[int] = []

    def count() -> bool:
        commits.append(1)
        return False

    database.write(lambda c: sqlite(c).set_commit_hook(count))
    commits.clear()
    held = Held(database)
    futures = [database.submit(put(str(n))) for n in range(20)]
    held.go.set()
    assert [future.result() for future in futures] == [str(n) for n in range(20)]
    assert len(commits) <= 2  # of the change that held them up, and of theirs
    assert len(ids(database)) == 20


def test_changes_are_applied_in_the_order_of_submission(database: Database) -> None:
    order: list[int] = []
    futures = [database.submit(lambda _, n=n: order.append(n)) for n in range(200)]  # type: ignore[misc]
    for future in futures:
        future.result()
    assert order == list(range(200))


def test_a_failing_change_is_undone_alone_and_its_neighbours_commit(database: Database) -> None:
    def fails(c: Connection) -> None:
        put("half")(c)
        raise IdConflict("taken")

    held = Held(database)
    first, bad, last = database.submit(put("first")), database.submit(fails), database.submit(put("last"))
    held.go.set()
    assert (first.result(), last.result()) == ("first", "last")
    with pytest.raises(IdConflict, match="taken"):
        bad.result()
    assert ids(database) == {"first", "last"}


def test_a_constraint_that_fails_is_undone_alone_too(database: Database) -> None:
    held = Held(database)
    futures = [database.submit(put(id)) for id in ("a", "a", "b")]
    held.go.set()
    assert futures[0].result() == "a"
    assert isinstance(futures[1].exception(), apsw.ConstraintError)
    assert futures[2].result() == "b"
    assert ids(database) == {"a", "b"}


def test_a_savepoint_inside_a_change_undoes_only_itself(database: Database) -> None:
    def work(c: Connection) -> None:
        put("kept")(c)

        def fails() -> None:
            with sqlite(c):
                put("undone")(c)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        with sqlite(c):
            put("inner")(c)

    database.write(work)
    assert ids(database) == {"kept", "inner"}


def test_a_commit_that_fails_reaches_every_caller_of_the_batch_and_keeps_nothing(database: Database) -> None:
    refusing: list[bool] = []
    database.write(
        lambda c: sqlite(c).set_commit_hook(lambda: bool(refusing))
    )  # SQLite turns such a commit into a rollback
    held = Held(database)
    futures = [database.submit(put(str(n))) for n in range(3)]
    refusing.append(True)
    held.go.set()
    for future in futures:
        assert isinstance(future.exception(10), apsw.ConstraintError)
    assert ids(database) == set()
    refusing.clear()
    assert database.write(put("after")) == "after"


class Denying:
    """A connection that refuses some statements, as one does whose disk fails."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.denied: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql in self.denied:
            raise apsw.IOError("at /secret/place")
        return self.connection.execute(sql, *values)


def test_what_can_neither_be_committed_nor_undone_is_told_and_undone_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Denying(cast(SqliteDatabase, database)._writer)
    monkeypatch.setattr(database, "_writer", writer)
    writer.denied = ["COMMIT", "ROLLBACK"]
    with pytest.raises(ReadOnly):
        database.write(put("before"))
    writer.denied = []
    assert database.write(put("after")) == "after"
    assert (ids(database), database.alive()) == ({"after"}, True)


def test_a_cancelled_change_is_not_made(database: Database) -> None:
    held = Held(database)
    cancelled, kept = database.submit(put("cancelled")), database.submit(put("kept"))
    assert cancelled.cancel()
    held.go.set()
    assert kept.result() == "kept"
    assert ids(database) == {"kept"}


def test_a_read_sees_one_snapshot_whatever_is_committed_meanwhile(database: Database) -> None:
    def work(c: Connection) -> tuple[int, int]:
        before = fetch_number(c, "SELECT count(*) FROM jobs")
        database.write(put("meanwhile"))
        return before, fetch_number(c, "SELECT count(*) FROM jobs")

    assert database.read(work) == (0, 0)
    assert ids(database) == {"meanwhile"}


def test_a_read_that_raises_leaves_its_connection_usable(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        database.read(lambda _: 1 // 0)
    assert ids(database) == set()


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(ReadOnly):
        database.read(put("never"))
    assert ids(database) == set()


def test_watch_gives_another_number_after_every_commit_of_somebody_else(tmp_path: Path, database: Database) -> None:
    changed = database.watch_commits()
    seen = changed()
    assert changed() == seen
    database.write(put("own process"))
    assert (after := changed()) != seen
    other = open_database(tmp_path / "sightline.db")
    other.write(put("other process"))
    assert changed() != after
    other.close()


def test_threads_that_end_take_their_connections_with_them(tmp_path: Path, database: Database) -> None:
    def handles() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(tmp_path) in str(link.readlink()) for link in links)

    ids(database)
    before = handles()
    for _ in range(20):
        thread = threading.Thread(target=ids, args=(database,))
        thread.start()
        thread.join()
    assert handles() <= before + 3


def test_close_finishes_what_was_submitted(tmp_path: Path) -> None:
    database = open_database(tmp_path / "sightline.db")
    held = Held(database)
    futures: list[Future[str]] = [database.submit(put(str(n))) for n in range(200)]
    closing = threading.Thread(target=database.close)
    closing.start()
    held.go.set()
    closing.join(60)
    assert [future.result(0) for future in futures] == [str(n) for n in range(200)]
    again = open_database(tmp_path / "sightline.db")
    assert len(ids(again)) == 200
    again.close()


def test_nothing_can_be_submitted_after_close_and_close_may_be_repeated(tmp_path: Path) -> None:
    database = open_database(tmp_path / "sightline.db")
    database.close()
    database.close()
    with pytest.raises(Overloaded):
        database.write(put("late"))


def test_two_databases_on_one_file_take_turns(tmp_path: Path, database: Database) -> None:
    other = open_database(tmp_path / "sightline.db")
    futures = [d.submit(put(f"{name}{n}")) for n in range(50) for name, d in (("a", database), ("b", other))]
    for future in futures:
        future.result(60)
    assert len(ids(database)) == 100
    other.close()


def test_check_finds_nothing_wrong_with_a_whole_file(database: Database) -> None:
    assert database.read(check_integrity) == []


def test_check_tells_of_rows_and_indexes_that_disagree(tmp_path: Path) -> None:
    database = open_database(tmp_path / "sightline.db")
    for n in range(3):
        database.write(put(str(n)))

    def work(c: Connection) -> None:
        c.execute("PRAGMA writable_schema = ON")
        c.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, '(created_at', '(id, created_at') WHERE name = 'jobs_listed'"
        )

    database.write(work)
    database.close()
    again = open_database(tmp_path / "sightline.db")
    assert any("jobs_listed" in fault for fault in again.read(check_integrity))
    again.close()


def test_a_full_disk_is_told_keeps_nothing_and_passes_when_there_is_room_again(small_disk: SmallDisk) -> None:
    database = open_database(small_disk.folder / "sightline.db")
    database.write(put("before"))
    small_disk.fill()

    def large(c: Connection) -> None:
        put("large")(c)
        c.execute("UPDATE jobs SET kind = zeroblob(1000000) || '' WHERE id = 'large'")

    with pytest.raises(StorageFull):
        database.write(large)
    refused = 0
    for n in range(200):  # until the room that SQLite holds already is used up
        try:
            database.write(put(f"{n}" * 300))
        except StorageFull:
            refused += 1
            break
    assert refused == 1
    held = Held(database)
    futures = [database.submit(large) for _ in range(3)]
    held.go.set()
    assert all(isinstance(future.exception(10), StorageFull) for future in futures)
    assert "before" in ids(database)
    assert "large" not in ids(database)
    small_disk.free()
    database.write(put("after"))
    assert {"before", "after"} <= ids(database)
    assert database.read(check_integrity) == []
    database.close()


def test_a_change_for_which_there_is_no_room_is_told_as_a_full_disk_to_all_of_its_batch(database: Database) -> None:
    def large(c: Connection) -> None:
        for n in range(300):
            put(f"{n}" * 200)(c)

    database.write(lambda c: sqlite(c).pragma("max_page_count", 1))  # SQLite makes that as many as there are
    held = Held(database)
    futures: list[Future[Any]] = [database.submit(put("small")), database.submit(large), database.submit(put("last"))]
    held.go.set()
    assert all(isinstance(future.exception(10), StorageFull) for future in futures)
    assert ids(database) == set()
    database.write(lambda c: sqlite(c).pragma("max_page_count", 1 << 30))
    database.write(large)
    assert len(ids(database)) == 300


def damage_database(path: Path) -> dict[str, bytes]:
    """Overwrite a page in the middle of the file; returns every file of the folder."""
    with open(path, "r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


@pytest.mark.parametrize("log_left", [False, True])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, log_left: bool) -> None:
    path = tmp_path / "first" / "sightline.db"
    path.parent.mkdir()
    open_database(path).close()
    database = open_database(path)
    database.write(put("one"))
    if log_left:  # as after a kill
        shutil.copytree(path.parent, tmp_path / "copy")
        path = tmp_path / "copy" / "sightline.db"
    database.close()
    before = damage_database(path)
    with pytest.raises(StartupError, match=r"is damaged .* restore it from a backup, nothing was changed"):
        open_database(path)
    gc.collect()
    after = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert after["sightline.db"] == before["sightline.db"]
    assert after.get("sightline.db-wal", b"") == before.get("sightline.db-wal", b"")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sightline.db"
    path.write_bytes(b"these are my holiday notes\n" * 400)
    with pytest.raises(StartupError, match=r"sightline\.db is damaged"):
        open_database(path)
    assert path.read_bytes() == b"these are my holiday notes\n" * 400


def test_a_path_that_cannot_be_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sightline.db").mkdir()
    with pytest.raises(StartupError, match="cannot be opened"):
        open_database(tmp_path / "sightline.db")


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sightline.db"
    database = open_database(path)
    database.write(put("one"))
    database.write(lambda c: sqlite(c).pragma("user_version", 999))
    database.close()
    with pytest.raises(StartupError, match="newer Sightline"):
        open_database(path)
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == 999
    assert fetch_number(connection, "SELECT count(*) FROM jobs") == 1
    connection.close()


def test_migrations_are_made_once_and_in_order(database: Database) -> None:
    version = database.read(lambda c: sqlite(c).pragma("user_version"))
    assert isinstance(version, int)
    assert version >= 1
    database.write(put("kept"))
    database.write(lambda c: migrate(sqlite(c)))
    assert database.read(lambda c: sqlite(c).pragma("user_version")) == version
    assert ids(database) == {"kept"}


def test_sources_from_before_they_had_kinds_are_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "sightline.db"
    connection = apsw.Connection(str(path))
    for step in sorted(Path(migrations.__file__).parent.glob("migrations/000[1-6]_*.sql")):
        connection.execute(step.read_text("utf-8"))
    connection.pragma("user_version", 6)
    put("job")(connection)
    connection.execute(
        "INSERT INTO sources (job_id, n, kind, name, imported, pending, origin) VALUES ('job', 0, 'folder', '', 64, 9,"
        " 'urls'), ('job', 1, 'folder', '/photos', 0, 0, 'folder'), ('job', 2, 'archive', 'a.zip', 0, 0, NULL)"
    )
    connection.close()
    database = open_database(path)
    taken = [database.write(lambda c, n=n: work_queue.claim_upload(c, str(n), 1e12)) for n in range(3)]  # type: ignore[misc]
    assert [(one.kind, one.name, one.imported, one.source_kind, one.options, one.position) for one in taken if one] == [
        ("folder", "", 64, "urls", {}, 0),
        ("named", "/photos", 0, "folder", {}, 0),
        ("archive", "a.zip", 0, None, {}, 0),
    ]
    database.close()


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "sightline.db"))
    connection.execute("CREATE TABLE images (in_the_way)")
    with pytest.raises(apsw.SQLError):
        migrate(connection)
    assert connection.pragma("user_version") == 0
    assert fetch_one(connection, "SELECT name FROM sqlite_schema WHERE name = 'spaces'") is None
    connection.close()


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (apsw.FullError, StorageFull),
        (apsw.ReadOnlyError, ReadOnly),
        (apsw.IOError, ReadOnly),
        (apsw.CantOpenError, ReadOnly),
        (apsw.BusyError, Overloaded),
        (apsw.LockedError, Overloaded),
        (apsw.CorruptError, apsw.CorruptError),
    ],
)
def test_errors_of_sqlite_become_ours(raised: type[Exception], told: type[Exception]) -> None:
    with pytest.raises(told), map_sqlite_errors():
        raise raised("as SQLite words it")


def test_close_leaves_one_file_that_holds_everything(tmp_path: Path) -> None:
    for n in range(8):
        path = tmp_path / f"{n}.db"
        database = open_database(path)
        readers = [threading.Thread(target=database.read, args=(collections.list_all,)) for _ in range(4)]
        watches = [database.watch_commits() for _ in range(4)]
        database.write(lambda c: jobs.create(c, "default", "bulk"))
        for reader in readers:
            reader.start()
            reader.join()
        assert all(watch() for watch in watches)
        database.read(collections.list_all)
        database.close()
        assert [file.name for file in tmp_path.glob(f"{n}.db*")] == [path.name]
