from __future__ import annotations

from pathlib import Path

from app.service.health import measure_backlog, measure_disk
from app.storage.backup import LAST_BACKUP_NAME, LastBackup, read_last_backup, record_backup
from app.storage.library import Library
from tests.support.makers import add
from tests.support.pictures import picture


def test_the_disk_is_told_and_a_folder_that_is_gone_tells_less(library: Library, tmp_path: Path) -> None:
    add(library, picture("red"), id="a")
    found = {name: value for name, _, value in measure_disk(tmp_path)}
    assert 0 < found["disk_free_bytes"] <= found["disk_bytes"]
    assert found["disk_writable"] == 1
    assert found["database_bytes"] == (tmp_path / "sightline.db").stat().st_size
    assert found["database_wal_bytes"] > 0
    assert {name: value for name, _, value in measure_disk(tmp_path / "gone")} == {
        "database_bytes": 0,
        "database_wal_bytes": 0,
    }


def test_a_backup_is_remembered(tmp_path: Path) -> None:
    assert read_last_backup(tmp_path) == LastBackup(0, 0, 0)
    record_backup(tmp_path, 2.5, 7)
    last = read_last_backup(tmp_path)
    assert last.at > 1.7e9
    assert (last.seconds, last.pictures) == (2.5, 7)
    (tmp_path / LAST_BACKUP_NAME).write_text("[")
    assert read_last_backup(tmp_path) == LastBackup()


def test_what_waits_is_told_of_all_collections(library: Library) -> None:
    add(library, picture("red"), id="a")
    assert measure_backlog(library.database).images["queued"] == 1
