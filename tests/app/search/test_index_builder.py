"""The builder: large indexes get sealed segments in the background, and no search notices a failure of it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import Overloaded
from app.search.index_builder import IndexBuilder
from app.search.index_handle import EmbeddingLog, IndexHandle
from app.search.index_manager import IndexManager
from app.storage.database import Database
from app.storage.tables import embeddings
from index.follower import Follower
from index.product_codes import ProductCodes
from index.protocol import OpenedIndex
from index.segmented import RebuildPolicy, SegmentedIndex
from index.types import Embeddings
from tests.app.conftest import SmallDisk
from tests.app.search.test_build_process import D, make_config, put
from tests.index.oracle import nearest, unit
from tests.support.makers import SPACE
from tests.support.servers import wait_until

WAIT = 80.0
SOON = RebuildPolicy(least=100, growing=50, quiet_growing=10, quiet=0.2)


class Setup:
    """A segmented index, its log, and a builder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.stored: dict[int, Embeddings] = {}
        self.index = SegmentedIndex(D)
        self.folder = folder
        self.handle = self.make_handle(self.index)
        self.builder = IndexBuilder(database.address, SOON, poll=0.02, retry=0.05)

    def make_handle(self, index: SegmentedIndex) -> IndexHandle:
        log = EmbeddingLog(self.database, SPACE, ("default", "images"))
        follower = Follower(OpenedIndex(index), log, "images")
        return IndexHandle(("default", "images"), make_config(self.folder), log, index, follower)

    def put(self, first: int, count: int, seed: int = 0) -> None:
        vectors = dict(zip(range(first, first + count), unit(count, D, seed), strict=True))
        put(self.database, vectors)
        self.index.add(np.array(list(vectors), np.int64), np.stack(list(vectors.values())))
        self.stored |= vectors

    def holds_everything(self) -> None:
        queries = unit(3, D, 5)
        expected = nearest(self.stored, queries, 20)
        scores, _ = self.index.search(queries, 20)
        np.testing.assert_allclose(scores, expected[0], rtol=0, atol=2**-10)
        assert self.index.ntotal == len(self.stored)

    def is_sealed(self, vectors: int) -> bool:
        return self.index.stats().sealed == vectors and not self.handle.building


@pytest.fixture
def setup(database: Database, tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(database, tmp_path / "images")
    yield setup
    setup.builder.close()


def children() -> list[int]:
    """The builds under way."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"app.search.build_process" in path.read_bytes() and str(os.getpid()).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_large_index_gets_a_sealed_segment_and_another_when_it_has_grown(setup: Setup) -> None:
    setup.builder.watch(setup.handle)
    setup.put(0, 90)
    time.sleep(0.2)
    assert (setup.index.stats().kind, setup.handle.building) == ("exact", False)
    setup.put(90, 40)
    wait_until(lambda: setup.is_sealed(130), WAIT)
    setup.holds_everything()
    setup.put(100, 60, seed=1)
    wait_until(lambda: setup.is_sealed(160), WAIT)
    assert setup.index.stats().tombstones == 0
    setup.holds_everything()
    assert setup.handle.build_error is None
    assert children() == []


def test_a_segment_of_an_older_format_answers_until_it_is_built_again_with_what_is_asked(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.watch(setup.handle)
    wait_until(lambda: setup.is_sealed(200), WAIT)
    old = setup.index.sealed
    assert old is not None
    asked = 0.1 * unit(80, D, 6) + unit(1, D, 7)  # close together, so that half of them have nearly the same mean
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    setup.builder.list_asked = lambda key: [asked, unit(100, D + 1)] if key == setup.handle.key else []
    old.params = replace(old.params, format=1)
    setup.holds_everything()
    wait_until(lambda: setup.index.sealed is not old and not setup.handle.building, WAIT)
    assert setup.index.sealed is not None
    codes = setup.index.sealed._codes
    assert isinstance(codes, ProductCodes)
    assert codes.gap is not None
    assert np.linalg.norm(codes.gap.asked - asked.mean(axis=0)) < 0.05  # by one half of them
    setup.holds_everything()


def test_a_killed_build_leaves_the_index_as_it_was_and_is_tried_again(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.watch(setup.handle)
    killed = 0
    wait_until(lambda: bool(children()), WAIT)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
        killed += 1
    wait_until(lambda: setup.handle.build_error is not None, WAIT)
    assert killed == 1
    assert "code -9" in (setup.handle.build_error or "")
    setup.holds_everything()
    wait_until(lambda: setup.is_sealed(200), WAIT)
    assert setup.handle.build_error is None


def test_a_full_disk_leaves_the_old_segment_and_space_mends_it(database: Database, small_disk: SmallDisk) -> None:
    setup = Setup(database, small_disk.folder / "images")
    try:
        setup.put(0, 200)
        setup.builder.watch(setup.handle)
        wait_until(lambda: setup.is_sealed(200), WAIT)
        small_disk.fill()
        setup.put(200, 300)
        wait_until(lambda: setup.handle.build_error is not None, WAIT)
        assert "No space" in (setup.handle.build_error or "")
        assert setup.index.stats().sealed == 200
        setup.holds_everything()
        small_disk.free()
        wait_until(lambda: setup.is_sealed(500), WAIT)
        setup.holds_everything()
        assert setup.handle.build_error is None
    finally:
        setup.builder.close()


def test_the_build_of_a_released_index_is_cancelled_at_once(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.watch(setup.handle)
    wait_until(lambda: bool(children()), WAIT)
    setup.builder.release(setup.handle)
    assert children() == []
    assert not setup.handle.building
    time.sleep(0.2)
    assert setup.index.stats().kind == "exact"


def test_closing_ends_a_build_under_way_and_every_thread(database: Database, tmp_path: Path) -> None:
    before = threading.active_count()
    setup = Setup(database, tmp_path / "images")
    setup.put(0, 200)
    setup.builder.watch(setup.handle)
    wait_until(lambda: bool(children()), WAIT)
    setup.builder.close()
    setup.builder.close()
    assert children() == []
    assert threading.active_count() == before


def test_an_index_that_is_closed_meanwhile_does_no_harm(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.watch(setup.handle)
    wait_until(lambda: bool(children()), WAIT)
    setup.index.close()
    wait_until(lambda: not setup.handle.building, WAIT)
    index = SegmentedIndex(D)
    other = setup.make_handle(index)
    setup.builder.release(setup.handle)
    setup.builder.watch(other)
    index.add(np.arange(200, dtype=np.int64), unit(200, D))
    wait_until(lambda: index.stats().sealed == 200, WAIT)


def test_a_failing_check_is_a_fault_until_one_succeeds(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = setup.index.stats

    def fail() -> None:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(setup.index, "stats", fail)
    setup.builder.watch(setup.handle)
    wait_until(setup.builder.faults, WAIT)
    assert setup.builder.faults() == [f"the sealed segment of {setup.handle.config.name} is not checked: RuntimeError"]
    assert setup.builder.is_alive()
    monkeypatch.setattr(setup.index, "stats", stats)
    wait_until(lambda: not setup.builder.faults(), WAIT)


@pytest.fixture
def large(database: Database, tmp_path: Path) -> Iterator[IndexManager]:
    """Open indexes with a sealed segment of 150 vectors."""
    put(database, dict(enumerate(unit(150, D))))
    indexes = IndexManager(database, SPACE, tmp_path / "snapshots", policy=SOON)
    indexes.open("default")
    wait_until(lambda: base_of(indexes) == 150, WAIT)
    yield indexes
    indexes.close()


def base_of(indexes: IndexManager) -> object:
    stats = indexes.stats("default")["images"]
    assert isinstance(stats, dict)
    return stats["base"]


def nearest_of(indexes: IndexManager, query: Embeddings) -> int:
    with indexes.use("default", "images") as index:
        return int(index.search(query[None, :], 1)[1][0, 0])


def test_a_restart_opens_the_segment_and_reads_only_the_rest_of_the_log(
    database: Database, tmp_path: Path, large: IndexManager
) -> None:
    large.close()
    assert not (tmp_path / "snapshots" / "default" / "images" / "CURRENT").exists()
    put(database, {200: unit(1, D, 7)[0]})
    database.write(lambda c: embeddings.remove(c, "images", 3))
    again = IndexManager(database, SPACE, tmp_path / "snapshots")
    again.open("default")
    stats = again.stats("default")["images"]
    assert isinstance(stats, dict)
    assert (stats["kind"], stats["base"], stats["tail"], stats["tombstones"]) == ("base+tail", 150, 1, 1)
    assert (stats["ntotal"], stats["built_seq"]) == (150, 150)
    assert nearest_of(again, unit(1, D, 7)[0]) == 200
    again.close()


def test_a_segment_that_is_damaged_on_the_disk_is_built_again(
    database: Database, tmp_path: Path, large: IndexManager, caplog: pytest.LogCaptureFixture
) -> None:
    large.close()
    folder = tmp_path / "snapshots" / "default" / "images"
    kept = shutil.copytree(folder, tmp_path / "kept")
    expected = [nearest_of_stored(query) for query in unit(5, D, 3)]
    for name in ("codes.faiss", "vectors.half", "ids.npy", "CURRENT"):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        path = next(folder.rglob(name))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        again = IndexManager(database, SPACE, tmp_path / "snapshots", policy=SOON)
        again.open("default")
        wait_until(lambda again=again: answers_searches(again), WAIT)
        assert [nearest_of(again, query) for query in unit(5, D, 3)] == expected
        wait_until(lambda again=again: base_of(again) == 150, WAIT)
        again.close()


def nearest_of_stored(query: Embeddings) -> int:
    return int(nearest(dict(enumerate(unit(150, D))), query[None, :], 1)[1][0, 0])


def answers_searches(indexes: IndexManager) -> bool:
    """Whether a search is answered; until then it is turned away."""
    try:
        nearest_of(indexes, unit(1, D)[0])
    except Overloaded:
        return False
    return True
