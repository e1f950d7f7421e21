"""Fixtures of the service's own unit tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.decode.pool import DecodePool

if TYPE_CHECKING:  # what it needs takes a second to import
    from tests.support.object_stores import Store


class SmallDisk:
    """A disk of 2 MiB and 256 names that can be filled to the last byte and name, and freed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"
        self.filler.touch()

    def fill(self) -> None:
        names = self.folder / "names"
        names.mkdir()
        with suppress(OSError):
            for n in count():
                (names / str(n)).touch()
        with open(self.filler, "ab", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def free(self) -> None:
        shutil.rmtree(self.folder / "names")
        self.filler.write_bytes(b"")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Skips where a tmpfs cannot be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=256", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="session")
def pool() -> Iterator[DecodePool]:
    """One decode child for everybody."""
    with DecodePool(1) as pool:
        yield pool


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """One object store for everybody, with the bucket `photos`."""
    from tests.support.object_stores import Store

    store = Store("photos")
    yield store
    store.close()


@pytest.fixture
def own_store() -> Iterator[Store]:
    """An object store for one test, which may stop it, with the bucket `photos`."""
    from tests.support.object_stores import Store

    store = Store("photos")
    yield store
    store.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What says to a store of the tests who we are."""
    from tests.support.object_stores import WHO

    for name, value in WHO.items():
        monkeypatch.setenv(name, value)
