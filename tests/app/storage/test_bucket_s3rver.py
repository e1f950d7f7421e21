"""What is tested of a bucket with moto's store, tested with S3rver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.storage.test_bucket_blobs import *  # noqa: F403
from tests.app.storage.test_bucket_blobs import _short_waits  # noqa: F401
from tests.support.object_stores import S3rverStore, Store, find_s3rver

pytestmark = pytest.mark.slow
BUILD = Path(__file__).parents[3] / "build"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    program = find_s3rver(BUILD / "s3rver")
    if program is None:
        pytest.skip("S3rver cannot be installed here: there is no npm, or no registry of packages")
    store = S3rverStore(program, tmp_path_factory.mktemp("s3rver"), "photos")
    yield store
    store.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in S3rverStore.who.items():
        monkeypatch.setenv(name, value)
