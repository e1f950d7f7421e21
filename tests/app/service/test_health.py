from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core.errors import Overloaded, QueueFull, StorageFull
from app.core.locks import LeaseOwner
from app.encoder.dummy import DummyEncoder
from app.service.health import (
    HealthCheck,
    check_database,
    check_disk,
    check_members,
    check_model,
    check_workers,
)
from app.storage.library import Library
from app.storage.membership import Member
from app.storage.tables import jobs, work_queue
from tests.support.makers import Switched, add, add_bulk
from tests.support.pictures import picture


def checks(library: Library) -> list[HealthCheck]:
    return list(check_database(library.database, library.max_queue, library.max_queue_bytes))


def test_the_queue_check_fails_when_uploads_are_refused_and_only_then(library: Library) -> None:
    add(library, picture("red"), id="a")
    library.max_queue = 2
    library.require_queue_capacity()
    database, queue = checks(library)
    assert (database.ok, queue.name, queue.ok, queue.detail) == (True, "queue", True, "1 pictures wait")
    library.max_queue = 1
    with pytest.raises(QueueFull, match="1 pictures are waiting already"):
        library.require_queue_capacity()
    assert not checks(library)[1].ok


def test_an_archive_that_waits_fills_the_queue_of_the_check_and_of_the_refusal_alike(library: Library) -> None:
    add_bulk(library, [], [("a.zip", b"z" * (3 << 20))])
    library.max_queue_bytes = 2 << 20
    with pytest.raises(QueueFull, match="3 MiB"):
        library.require_queue_capacity()
    assert [(check.name, check.ok) for check in checks(library)] == [("database", True), ("queue", False)]


def test_the_members_of_a_list_that_waits_fill_the_queue_of_the_check_and_of_the_refusal_alike(
    library: Library,
) -> None:
    database = library.database
    database.write(lambda c: work_queue.add_upload(c, jobs.create(c, "default", "urls"), 0, "folder", "", 50, "urls"))
    library.max_queue = 50
    with pytest.raises(QueueFull, match="50 pictures"):
        library.require_queue_capacity()
    assert [(check.name, check.ok) for check in checks(library)] == [("database", True), ("queue", False)]


def test_a_change_that_was_not_written_is_a_fault_until_one_is(library: Library) -> None:
    def fail(_: object) -> None:
        raise StorageFull("the disk is full")

    with pytest.raises(StorageFull):
        library.database.write(fail)
    assert library.database.fault is None  # a refusal of one change, not of the disk
    library.database.fault = "the disk is full"
    database, _ = checks(library)
    assert not database.ok
    assert "the disk is full" in database.detail
    library.database.write(lambda c: None)
    database, _ = checks(library)
    assert database.ok


def test_a_disk_that_is_full_read_only_or_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path).ok
    assert not check_disk(tmp_path / "gone").ok
    held = {"f_flag": 0, "f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 1 << 20, "f_favail": 1 << 19}
    for changed, said in (
        ({"f_flag": os.ST_RDONLY}, "read-only"),
        ({"f_bavail": 1000}, "3 MiB are free"),
        ({"f_favail": 10}, "10 more files"),
    ):
        monkeypatch.setattr("os.statvfs", lambda _, told={**held, **changed}: SimpleNamespace(**told))
        found = check_disk(tmp_path)
        assert not found.ok
        assert said in found.detail


def test_missing_workers_are_a_fault_and_none_wanted_is_not(tmp_path: Path) -> None:
    assert check_workers(tmp_path, 0).ok
    assert not check_workers(tmp_path, 1).ok
    owner = LeaseOwner(tmp_path / "workers")
    assert check_workers(tmp_path, 1).ok
    two = check_workers(tmp_path, 2)
    assert (two.ok, two.detail.split(":")[0]) == (False, "1 of 2 are alive")
    owner.close()
    assert not check_workers(tmp_path, 1).ok


def test_a_stopped_encoder_and_an_index_that_is_behind_keep_searches_from_being_answered() -> None:
    assert all(check.ok and check.vital for check in check_model(DummyEncoder(), True, []))
    _, encoder, index = check_model(DummyEncoder(), False, ["it is away", "and another"])
    assert not encoder.ok
    assert (index.ok, index.detail) == (False, "it is away; and another")


class Known(Switched):
    """A cluster with these members."""

    def __init__(self, *kinds: str, away: bool = False) -> None:
        super().__init__()
        self.members = [Member(kind, "host", n, "2026-01-01T00:00:00Z", 0.5, ()) for n, kind in enumerate(kinds)]
        self.away = away

    def list_members(self) -> list[Member]:
        if self.away:
            raise Overloaded("the database does not answer; try again")
        return self.members


def test_the_workers_of_a_cluster_count_wherever_they_run(tmp_path: Path) -> None:
    own = check_workers(tmp_path, 0)
    found = check_members(Known("server", "server", "worker"), own)
    assert (found.ok, found.detail) == (True, "1 alive in the cluster, of 2 servers")
    found = check_members(Known("server"), own)
    assert not found.ok
    assert "pictures wait for a `sightline worker`" in found.detail
    assert check_members(Known("server", "worker"), check_workers(tmp_path, 1)).detail.startswith("0 of 1 are alive")
    assert "not known" in check_members(Known(away=True), own).detail
