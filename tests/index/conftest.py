"""A disk that can really be full, and followers of a log in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index.flat import FlatIndex
from index.follower import Follower
from index.follower_loop import FollowerLoop
from index.milvus import MilvusIndex
from index.milvus_client import MilvusClient
from index.protocol import LogReader, OpenedIndex
from tests.index.memory_log import Log, Open


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, empty. Skips where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def index() -> FlatIndex:
    return FlatIndex(8)


class LoopedFollower(Follower):
    """A follower on a loop of its own, which ends with it."""

    loop: FollowerLoop[str]

    def close(self, *, save: bool = True) -> None:
        self.loop.close()
        super().close(save=save)


@pytest.fixture
def follow(log: Log, index: FlatIndex) -> Iterator[Open]:
    """Follows logs, each on a loop of its own, and closes followers and loops."""
    opened: list[LoopedFollower] = []

    def start(
        opening: OpenedIndex | None = None,
        entries: LogReader = log,
        data_version: Callable[[], int] = log.data_version,
        poll: float | None = None,
        **options: Any,
    ) -> Follower:
        follower = LoopedFollower(opening or OpenedIndex(index), entries, "test", **options)
        follower.loop = FollowerLoop(data_version, lambda: ["test"])
        if poll is not None:
            follower.loop.poll = follower.loop.poll_idle = poll
        follower.loop.attach("test", follower)
        follower.loop.start()
        opened.append(follower)
        return follower

    yield start
    for follower in opened:
        follower.close()


@pytest.fixture
def milvus(lite: MilvusClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], MilvusIndex]]:
    """Opens the index of an empty collection, and removes it after the test. Deadlines are long, for a busy machine."""
    for name in ("READ_SECONDS", "WRITE_SECONDS", "COUNT_SECONDS"):
        monkeypatch.setattr(f"index.milvus_collection.{name}", 60.0)
    made: list[MilvusIndex] = []

    def open(d: int) -> MilvusIndex:
        made.append(index := MilvusIndex(lite, f"test_{len(made)}", d))
        index.open()
        return index

    yield open
    for index in made:
        index.drop()
