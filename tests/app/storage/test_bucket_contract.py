"""What is tested of libraries, jobs and importers over a folder, tested over a bucket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.decode.limits import PictureLimits
from app.storage.database import Database
from app.storage.library import Library
from tests.app.storage.test_jobs import *  # noqa: F403
from tests.app.storage.test_library import *  # noqa: F403
from tests.app.worker.test_importer import *  # noqa: F403
from tests.support.object_stores import Store, open_blobs

pytestmark = pytest.mark.slow

# What lies in the data directory decides these, or they make a library of their own.
OF_FOLDERS = (
    "a_duplicate_heals_a_file_that_was_lost",
    "bytes_are_known_where_their_file_is_here_too",
    "an_upload_whose_files_are_gone_is_one_failed_item",
    "a_bulk_waits_as_a_folder_with_a_manifest_and_archives_beside_it",
    "a_kill_at_any_point_loses_and_doubles_nothing",
)
for name in OF_FOLDERS:
    del globals()[f"test_{name}"]


@pytest.fixture
def library(database: Database, tmp_path: Path, store: Store, credentials: None) -> Iterator[Library]:
    blobs = open_blobs(store.url, tmp_path / "media-cache", uuid.uuid4().hex)
    blobs.claim("us", has_files=False)
    yield Library(database, blobs, PictureLimits(), max_queue=1_000)
    blobs.close()
