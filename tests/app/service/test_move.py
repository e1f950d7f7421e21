"""`sightline move`: everything comes over, whatever interrupts it, and nothing else is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import app.service.move
from app.core.errors import Overloaded, StartupError
from app.core.locks import DataDirLock, LeaseOwner
from app.core.settings import Settings
from app.service.data_dir import open_database, open_library, open_membership
from app.service.move import KIND, make_target, move
from app.storage import keywords
from app.storage.bucket_blobs import MARKER
from app.storage.database import Database
from app.storage.membership import Membership
from app.storage.sql import fetch_all, fetch_number
from app.storage.table_copy import END_LEASES, list_copied
from app.storage.tables import work_queue
from tests.support.every_table import fill_library
from tests.support.makers import add
from tests.support.object_stores import WHO, Store
from tests.support.pictures import picture
from tests.support.postgresql import PostgresqlServer
from tests.support.servers import wait_until

# What a move changes: who holds leases, and which installation it is.
CHANGED = ("installation", "images", "sources", "enrichments")


def read_rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables that are copied."""
    tables = list_copied(database)

    def read(name: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        sql = f'SELECT {", ".join(columns)} FROM "{name}"'
        rows = database.read(lambda c: fetch_all(c, sql))
        return sorted((dict(zip(columns, row, strict=True)) for row in rows), key=repr)

    return {name: read(name, tuple(set(table.columns) - {"rowid"})) for name, table in tables.items()}


def list_files(data_dir: Path) -> dict[str, bytes]:
    """Every file of pictures, thumbnails and uploads."""
    found = {}
    for root in ("media", "thumbnails"):
        for path in (data_dir / root).rglob("*"):
            if path.is_file():
                found[str(path.relative_to(data_dir))] = path.read_bytes()
    return found


def ignore(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with rows in every table."""
    data_dir = tmp_path_factory.mktemp("filled") / "data"
    with closing(open_library(Settings(data_dir=data_dir))) as library:
        fill_library(library)
        for image in library.list_images("default", 9, None)[:2]:
            path = library.blobs.thumbnail_path(image.sha256, image.format)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"small " + image.sha256.encode())
    return data_dir


@pytest.fixture
def source(filled: Path) -> Settings:
    return Settings(data_dir=filled)


@pytest.fixture
def target(source: Settings, tmp_path: Path) -> Settings:
    return make_target(source, None, None, tmp_path / "there")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch, closing(Store("pictures")) as store:
        for name, value in WHO.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def cluster(source: Settings, postgresql: PostgresqlServer, store: Store, tmp_path: Path) -> Iterator[Settings]:
    """A PostgreSQL and a bucket with nothing in them, as the target."""
    with postgresql.database() as address:
        place = source.model_copy(update={"s3_endpoint": store.url})
        target = make_target(place, address, f"s3://pictures/{tmp_path.name}", None)
        yield target.model_copy(update={"data_dir": tmp_path / "none"})


@pytest.fixture
def before(source: Settings) -> dict[str, list[dict[str, Any]]]:
    with closing(open_database(source)) as database:
        return read_rows(database)


def check_moved(before: dict[str, list[dict[str, Any]]], source: Settings, target: Settings) -> None:
    """The target has everything, and goes on where the source would."""
    assert list_files(target.data_dir) == list_files(source.data_dir)
    with closing(open_library(target)) as library:
        after = read_rows(library.database)
        assert {name for name in after if after[name] != before[name]} <= set(CHANGED)
        kept = [{**row, "lease_until": 0.0 if row["lease_owner"] else None} for row in before["images"]]
        assert after["images"] == kept
        assert {row["state"] for row in after["enrichments"]} == {"waiting"}
        words = [(("yellow", "yellow"),)], [(("odd", "odd"),)]
        sql = "SELECT count(*) FROM images WHERE status = 'ready'"
        found = library.database.read(lambda c: list(keywords.find(c, "default", words[1])))
        assert len(set(found)) == library.database.read(lambda c: fetch_number(c, sql)) == 2
        highest = max(row["key"] for row in before["images"])
        assert add(library, picture(seed=77)).image.key > highest + 1  # one more was there, and is deleted
        assert library.database.read(work_queue.has_expired)  # what a worker of a cluster asks first
        library.database.write(lambda c: work_queue.expire_leases(c, (), 3))
        assert library.database.read(work_queue.list_owners) == set()


def test_every_table_of_the_source_has_rows(before: dict[str, list[dict[str, Any]]]) -> None:
    """A new table needs rows in tests/support/every_table.py, so that the tests below bring them over."""
    assert [name for name, rows in before.items() if not rows] == []


def test_every_column_of_a_lease_is_ended(source: Settings) -> None:
    with closing(open_database(source)) as database:
        leased = {name for name, table in list_copied(database).items() if "lease_until" in table.columns}
    assert leased == {statement.split()[1] for statement in END_LEASES}


def test_everything_comes_over(before: dict[str, list[dict[str, Any]]], source: Settings, target: Settings) -> None:
    moved = move(source, target, ignore)
    assert moved.rows == sum(map(len, before.values()))
    assert (moved.files, moved.uploads, moved.missing) == (4, 2, [])
    check_moved(before, source, target)
    with closing(open_database(source)) as database:
        assert read_rows(database) == before


def test_everything_comes_into_a_cluster_and_back(
    before: dict[str, list[dict[str, Any]]], source: Settings, cluster: Settings, tmp_path: Path
) -> None:
    there = move(source, cluster, ignore)
    assert (there.rows, there.files, there.uploads) == (sum(map(len, before.values())), 4, 2)
    assert move(source, cluster, ignore) == replace(there, was_there=True)
    with pytest.raises(StartupError, match="already; name an empty"):
        move(source, cluster.model_copy(update={"media": "s3://pictures/else"}), ignore)
    back = make_target(cluster, None, None, tmp_path / "back")
    assert move(cluster, back, ignore) == there
    check_moved(before, source, back)


def test_a_move_into_a_cluster_that_is_killed_goes_on(
    before: dict[str, list[dict[str, Any]]],
    source: Settings,
    cluster: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = [3, 20, 25, 31, 10_000]

    def report(what: str, done: int, total: int) -> None:
        killed[0] -= 1
        if killed[0] == 0:
            raise Killed

    while len(killed) > 1:
        with pytest.raises(Killed):
            move(source, cluster, report)
        with pytest.raises(StartupError, match="has not ended"):
            open_database(cluster)
        killed.pop(0)
    move(source, cluster, report)
    back = make_target(cluster, None, None, tmp_path / "back")
    move(cluster, back, ignore)
    check_moved(before, source, back)


def test_a_bucket_with_something_in_it_is_refused(source: Settings, cluster: Settings, store: Store) -> None:
    store.put("pictures", f"{cluster.media.removeprefix('s3://pictures/')}/other", b"of another program")
    with pytest.raises(StartupError, match="holds files already"):
        move(source, cluster, ignore)


def test_a_bucket_that_is_refused_leaves_the_database_free(
    before: dict[str, list[dict[str, Any]]], source: Settings, cluster: Settings, store: Store, tmp_path: Path
) -> None:
    place = f"{tmp_path.name}-theirs"
    store.put("pictures", f"{place}/{MARKER}", json.dumps({"installation": "theirs"}).encode())
    for media, reason in ((f"s3://pictures/{place}", "another installation"), ("s3://absent/a", "make the bucket")):
        with pytest.raises(StartupError, match=reason):
            move(source, cluster.model_copy(update={"media": media}), ignore)
    move(source, cluster, ignore)
    with closing(open_database(cluster)) as database:
        assert read_rows(database)["texts"] == before["texts"]


def test_the_files_of_the_source_must_be_its_own(
    source: Settings, cluster: Settings, target: Settings, store: Store, tmp_path: Path
) -> None:
    """Started without the --media of its server, a move found no file, and ended without one."""
    move(source, cluster, ignore)
    back = make_target(cluster, None, cluster.media + "-back", tmp_path / "back")
    move(cluster, back, ignore)
    for media, reason in (("local", f"are in {back.media}, not in local"), (cluster.media, "are in .*, not in")):
        with pytest.raises(StartupError, match=reason):
            move(back.model_copy(update={"media": media}), target, ignore)
    marker = f"{back.media.removeprefix('s3://pictures/')}/{MARKER}"
    held = store.get("pictures", marker)
    store.put("pictures", marker, json.dumps({"installation": "theirs"}).encode())
    with pytest.raises(StartupError, match="another installation"):
        move(back, target, ignore)
    store.delete("pictures", marker)
    with pytest.raises(StartupError, match="holds nothing of this database"):
        move(back, target, ignore)
    store.put("pictures", marker, held)
    assert move(back, target, ignore).missing == []


def test_two_moves_into_one_cluster_are_told_apart(
    source: Settings, cluster: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In containers both may have the same process id."""
    with closing(open_membership(cluster, KIND)) as other:
        other.start()
        wait_until(lambda: other.try_lead(KIND), 10)
        monkeypatch.setattr(app.service.move, "MEMBER_SECONDS", 2.0)
        with pytest.raises(StartupError, match=r"in use by a move on .* \(process"):
            move(source, cluster, ignore)
    assert move(source, cluster, ignore).missing == []


def test_a_text_that_postgresql_cannot_keep_is_named(filled: Path, cluster: Settings, tmp_path: Path) -> None:
    source = make_target(Settings(data_dir=filled), None, None, tmp_path / "mine")
    move(Settings(data_dir=filled), source, ignore)
    with closing(open_database(source)) as database:
        database.write(lambda c: c.execute("UPDATE texts SET text = ?", ("a\0b",)))
    with pytest.raises(StartupError, match=r"a row of texts cannot be kept by PostgreSQL: .*NUL"):
        move(source, cluster, ignore)


def test_nobody_uses_a_cluster_that_is_moved(source: Settings, cluster: Settings, tmp_path: Path) -> None:
    move(source, cluster, ignore)
    with closing(open_membership(cluster, "server")) as server:
        server.start()
        wait_until(lambda: is_listed(server), 10)
        with pytest.raises(StartupError, match=r"in use by a server on .* stop every server and worker first"):
            move(cluster, make_target(cluster, None, None, tmp_path / "back"), ignore)


def is_listed(membership: Membership) -> bool:
    try:
        return bool(membership.list_members())
    except Overloaded:
        return False


class Killed(Exception):
    """As if the process had ended."""


def test_a_move_that_is_killed_goes_on(
    before: dict[str, list[dict[str, Any]]], source: Settings, target: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.table_copy.FIRST_ROWS", 1)
    monkeypatch.setattr("app.storage.table_copy.MAX_ROWS", 1)
    monkeypatch.setattr("app.storage.file_copy.PORTION", 1)
    steps = 0
    killed = 0

    def report(what: str, done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == killed:
            raise Killed
        assert done <= total

    while True:
        killed, steps = killed + 3, 0
        try:
            move(source, target, report)
            break
        except Killed:
            with pytest.raises(StartupError, match="has not ended"):
                open_library(target)
    assert killed > 20
    check_moved(before, source, target)


def test_a_source_that_changed_meanwhile_is_told_from_what_was_copied(filled: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    first = make_target(Settings(data_dir=filled), None, None, mine)
    move(Settings(data_dir=filled), first, ignore)
    source, target = first, make_target(first, None, None, tmp_path / "there")

    def stop(what: str, done: int, total: int) -> None:
        if what == "files":
            raise Killed

    with pytest.raises(Killed):
        move(source, target, stop)
    with closing(open_library(source)) as library:
        library.database.write(lambda c: c.execute("UPDATE images SET caption = 'other'"))
    with pytest.raises(StartupError, match=r"in the target.*: the source has changed"):
        move(source, target, ignore)


def test_a_source_that_changed_after_its_move_is_not_called_moved(filled: Path, tmp_path: Path) -> None:
    source = make_target(Settings(data_dir=filled), None, None, tmp_path / "mine")
    move(Settings(data_dir=filled), source, ignore)
    target = make_target(source, None, None, tmp_path / "there")
    assert not move(source, target, ignore).was_there
    with closing(open_library(target)) as library:  # what happens in the target is its own matter
        library.database.write(lambda c: c.execute("UPDATE images SET caption = 'other'"))
    assert move(source, target, ignore).was_there
    with closing(open_library(source)) as library:
        library.database.write(lambda c: c.execute("UPDATE images SET caption = 'another'"))
    with pytest.raises(StartupError, match="the source has changed since it was moved there"):
        move(source, target, ignore)


def test_a_target_with_something_in_it_is_refused(source: Settings, target: Settings, tmp_path: Path) -> None:
    with closing(open_library(target)) as library:
        add(library, picture("red"))
    with pytest.raises(StartupError, match=r"holds (something|files) already"):
        move(source, target, ignore)
    alone = make_target(source, None, None, tmp_path / "alone")
    (alone.data_dir / "media/aa/bb").mkdir(parents=True)
    (alone.data_dir / "media/aa/bb" / ("a" * 64)).touch()
    with pytest.raises(StartupError, match="holds files already"):
        move(source, alone, ignore)


def test_an_unfinished_move_of_another_source_is_refused(source: Settings, target: Settings, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        move(source, target, stop)
    other = Settings(data_dir=tmp_path / "other")
    open_library(other).close()
    with pytest.raises(StartupError, match="unfinished move of another source"):
        move(other, target, ignore)


def test_nobody_uses_the_source_meanwhile(source: Settings, target: Settings) -> None:
    with closing(DataDirLock(source.data_dir)), pytest.raises(StartupError, match="in use by"):
        move(source, target, ignore)
    with closing(LeaseOwner(source.data_dir / "workers")), pytest.raises(StartupError, match="a worker runs"):
        move(source, target, ignore)

    def use(what: str, done: int, total: int) -> None:
        with pytest.raises(StartupError, match="in use by"):
            DataDirLock(source.data_dir)

    move(source, target, use)


def test_files_that_the_source_has_lost_are_named(filled: Path, tmp_path: Path) -> None:
    source = make_target(Settings(data_dir=filled), None, None, tmp_path / "mine")
    move(Settings(data_dir=filled), source, ignore)
    lost, altered = sorted(path for path in (source.data_dir / "media").glob("??/??/*"))[:2]
    lost.unlink()
    altered.write_bytes(b"other")
    target = make_target(source, None, None, tmp_path / "there")
    assert sorted(move(source, target, ignore).missing) == [lost.name, altered.name]
    assert {path.name for path in (target.data_dir / "media").glob("??/??/*")}.isdisjoint({lost.name, altered.name})


def test_a_table_that_only_one_side_has_is_refused(source: Settings, target: Settings) -> None:
    with closing(open_library(target)) as library:
        library.database.write(lambda c: c.execute("CREATE TABLE more (n INTEGER PRIMARY KEY)"))
    with pytest.raises(StartupError, match=r"other tables or columns \(more\)"):
        move(source, target, ignore)


@pytest.mark.parametrize(
    ("database", "media", "data_dir", "said"),
    [
        (None, None, None, "name the target: --to-database and --to-media, or --to-data-dir"),
        ("postgresql://db/x", None, None, "name the target"),
        (None, "s3://b/p", None, "name the target"),
        ("mysql://db/x", "s3://b/p", None, "--to-database: "),
        (None, "s3://b/p", "data", "share a place"),
        (None, None, "data", "share a place"),
    ],
)
def test_a_target_is_another_place_for_everything(
    database: str | None, media: str | None, data_dir: str | None, said: str, tmp_path: Path
) -> None:
    source = Settings(data_dir=tmp_path / "data")
    with pytest.raises(StartupError, match=said):
        make_target(source, database, media, tmp_path / data_dir if data_dir else None)


def test_a_source_that_is_not_there_is_refused(target: Settings, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no data directory"):
        move(Settings(data_dir=tmp_path / "nothing"), target, ignore)


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "move", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_says_what_was_moved(filled: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    moved = run_command("--data-dir", str(filled), "--to-data-dir", str(there))
    assert moved.returncode == 0, moved.stderr
    assert "4 files, 2 uploads that wait" in moved.stdout
    again = run_command("--data-dir", str(filled), "--to-data-dir", str(there))
    assert again.returncode == 0, again.stderr
    assert "everything is there already" in again.stdout
    assert "4 files, 2 uploads that wait" in again.stdout
    next((there / "media").glob("??/??/*")).unlink()
    lossy = run_command("--data-dir", str(there), "--to-data-dir", str(tmp_path / "third"))
    assert lossy.returncode == 1
    assert "1 files were not in the source" in lossy.stdout
