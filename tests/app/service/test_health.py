from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core.errors import StorageFull
from app.core.locks import LeaseOwner
from app.encoder.dummy import DummyEncoder
from app.service.health import check_database, check_disk, check_model, check_workers
from app.storage.library import Library
from tests.support.makers import add_image
from tests.support.pictures import picture


def test_a_database_with_room_is_well_and_a_full_queue_says_so(library: Library) -> None:
    add_image(library, picture("red"), id="a")
    for most, ok in ((2, True), (1, False)):
        database, queue = check_database(library.database, most)
        assert database.ok
        assert (queue.name, queue.ok) == ("queue", ok)
        assert queue.detail.startswith("1 pictures wait")


def test_a_change_that_was_not_written_is_a_fault_until_one_is(library: Library) -> None:
    def fail(_: object) -> None:
        raise StorageFull("the disk is full")

    with pytest.raises(StorageFull):
        library.database.write(fail)
    assert library.database.fault is None  # a refusal of one change, not of the disk
    library.database.fault = "the disk is full"
    database, _ = check_database(library.database, 10)
    assert not database.ok
    assert "the disk is full" in database.detail
    library.database.write(lambda c: None)
    database, _ = check_database(library.database, 10)
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
