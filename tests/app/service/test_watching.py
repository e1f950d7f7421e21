from __future__ import annotations

import logging
from pathlib import Path

import pytest

from app.service.watching import WatchManager
from app.sources.base import SourcePolicy
from app.sources.local_files import AllowedFolders
from app.storage.library import Library
from tests.support.makers import Switched
from tests.support.servers import wait_until


def test_the_folder_of_a_deleted_collection_is_read_no_more(
    library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "album").mkdir()
    library.create_collection("gone", "")
    manager = WatchManager(library, SourcePolicy(AllowedFolders((tmp_path,))), rescan_seconds=600.0)
    manager.start()
    try:
        watch = manager.create("gone", "folder", str(tmp_path / "album"), "album", {"poll_seconds": 1.0})
        wait_until(lambda: manager.store.get(watch.id).scanned_at is not None, 20.0)
        library.begin_deletion("gone")
        wait_until(lambda: "the collection of a watched folder was deleted" in caplog.text, 20.0, manager.fault)
        assert manager.fault() is None
    finally:
        manager.close()


def test_a_server_that_leads_reads_the_folders_and_scans_what_others_were_asked_for(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "album").mkdir()
    leader, other = Switched(), Switched()
    leader.is_leader = other.is_leader = False
    policy = SourcePolicy(AllowedFolders((tmp_path,)))
    managers = [WatchManager(library, policy, 600.0, one) for one in (leader, other)]
    for manager in managers:
        manager.start()
    try:
        watch = managers[1].create("default", "folder", str(tmp_path / "album"), "album", {"poll_seconds": 600.0})
        leader.is_leader = True
        wait_until(lambda: managers[1].store.get(watch.id).scanned_at is not None, 20.0)
        before = managers[1].store.get(watch.id).scanned_at
        managers[1].scan_now(watch.id)
        wait_until(lambda: managers[1].store.get(watch.id).scanned_at != before, 20.0)
        assert managers[1].store.list_asked_scans() == []
        leader.is_leader = False
        wait_until(lambda: not managers[0]._threads, 20.0)
        assert [manager.fault() for manager in managers] == [None, None]
    finally:
        for manager in managers:
            manager.close()
