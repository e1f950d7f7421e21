from __future__ import annotations

import logging
from pathlib import Path

import pytest

from app.service.watching import WatchManager
from app.sources.base import SourcePolicy
from app.sources.local_files import AllowedFolders
from app.storage.library import Library
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
