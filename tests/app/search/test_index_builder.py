"""The builder: large indexes get a base in the background, and no failure of it is felt by a search."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import Overloaded
from app.search.index_builder import IndexBuilder, SegmentBuild
from app.search.index_manager import IndexManager
from app.storage.database import Database
from app.storage.tables import embeddings
from index.segmented import RebuildPolicy, SegmentedIndex
from index.types import Embeddings
from tests.app.conftest import SmallDisk
from tests.app.search.test_build_process import D, configured, put
from tests.index.oracle import nearest, unit
from tests.support.makers import FINGERPRINT, SPACE
from tests.support.servers import until

WAIT = 80.0
SOON = RebuildPolicy(least=100, tail=50, calm=10, quiet=0.2)


class Setup:
    """A live index, its log, and a builder that looks after both."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.stored: dict[int, Embeddings] = {}
        self.index = SegmentedIndex(D)
        self.site = SegmentBuild("default", "images", configured(folder), self.index, self.head)
        self.builder = IndexBuilder(database.path, SOON, poll=0.02, retry=0.05)

    def head(self) -> int:
        return self.database.read(lambda c: embeddings.get_last_seq(c, "default", FINGERPRINT, "images"))

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

    def based(self, vectors: int) -> bool:
        return self.index.facts().base == vectors and not self.site.building


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


def test_an_index_gets_a_base_when_it_is_large_and_another_when_it_has_grown(setup: Setup) -> None:
    setup.builder.take(setup.site)
    setup.put(0, 90)
    time.sleep(0.2)
    assert (setup.index.facts().kind, setup.site.building) == ("exact", False)
    setup.put(90, 40)
    until(lambda: setup.based(130), WAIT)
    setup.holds_everything()
    setup.put(100, 60, seed=1)
    until(lambda: setup.based(160), WAIT)
    assert setup.index.facts().tombstones == 0
    setup.holds_everything()
    assert setup.site.error is None
    assert children() == []


def test_a_killed_build_leaves_the_index_as_it_was_and_is_tried_again(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.take(setup.site)
    killed = 0
    until(lambda: bool(children()), WAIT)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
        killed += 1
    until(lambda: setup.site.error is not None, WAIT)
    assert killed == 1
    assert "code -9" in (setup.site.error or "")
    setup.holds_everything()
    until(lambda: setup.based(200), WAIT)
    assert setup.site.error is None


def test_a_full_disk_leaves_the_old_base_and_space_mends_it(database: Database, small_disk: SmallDisk) -> None:
    setup = Setup(database, small_disk.folder / "images")
    try:
        setup.put(0, 200)
        setup.builder.take(setup.site)
        until(lambda: setup.based(200), WAIT)
        small_disk.fill()
        setup.put(200, 300)
        until(lambda: setup.site.error is not None, WAIT)
        assert "No space" in (setup.site.error or "")
        assert setup.index.facts().base == 200
        setup.holds_everything()
        small_disk.free()
        until(lambda: setup.based(500), WAIT)
        setup.holds_everything()
        assert setup.site.error is None
    finally:
        setup.builder.close()


def test_a_site_that_is_released_is_left_alone_at_once(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.take(setup.site)
    until(lambda: bool(children()), WAIT)
    setup.builder.release(setup.site)
    assert children() == []
    assert not setup.site.building
    time.sleep(0.2)
    assert setup.index.facts().kind == "exact"


def test_closing_ends_a_build_under_way_and_every_thread(database: Database, tmp_path: Path) -> None:
    before = threading.active_count()
    setup = Setup(database, tmp_path / "images")
    setup.put(0, 200)
    setup.builder.take(setup.site)
    until(lambda: bool(children()), WAIT)
    setup.builder.close()
    setup.builder.close()
    assert children() == []
    assert threading.active_count() == before


def test_an_index_that_is_closed_meanwhile_is_no_matter(setup: Setup) -> None:
    setup.put(0, 200)
    setup.builder.take(setup.site)
    until(lambda: bool(children()), WAIT)
    setup.index.close()
    until(lambda: not setup.site.building, WAIT)
    other = SegmentBuild("default", "images", setup.site.config, SegmentedIndex(D), setup.head)
    setup.builder.release(setup.site)
    setup.builder.take(other)
    other.index.add(np.arange(200, dtype=np.int64), unit(200, D))
    until(lambda: other.index.facts().base == 200, WAIT)


def test_what_it_cannot_do_is_told_and_tried_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = setup.index.facts

    def fail() -> None:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(setup.index, "facts", fail)
    setup.builder.take(setup.site)
    until(setup.builder.faults, WAIT)
    assert setup.builder.faults() == [f"the base of {setup.site.config.name} is not looked after: RuntimeError"]
    assert setup.builder.alive()
    monkeypatch.setattr(setup.index, "facts", facts)
    until(lambda: not setup.builder.faults(), WAIT)


@pytest.fixture
def large(database: Database, tmp_path: Path) -> Iterator[IndexManager]:
    """Open indexes with a base of 150 vectors."""
    put(database, dict(enumerate(unit(150, D))))
    indexes = IndexManager(database, SPACE, tmp_path / "snapshots", policy=SOON)
    indexes.open("default")
    until(lambda: base_of(indexes) == 150, WAIT)
    yield indexes
    indexes.close()


def base_of(indexes: IndexManager) -> object:
    stats = indexes.stats("default")["images"]
    assert isinstance(stats, dict)
    return stats["base"]


def nearest_of(indexes: IndexManager, query: Embeddings) -> int:
    with indexes.use("default", "images") as index:
        return int(index.search(query[None, :], 1)[1][0, 0])


def test_a_restart_opens_the_base_and_reads_only_the_rest_of_the_log(
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


def test_a_base_that_is_damaged_on_the_disk_is_built_again(
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
        until(lambda again=again: sound(again), WAIT)
        assert [nearest_of(again, query) for query in unit(5, D, 3)] == expected
        until(lambda again=again: base_of(again) == 150, WAIT)
        again.close()


def nearest_of_stored(query: Embeddings) -> int:
    return int(nearest(dict(enumerate(unit(150, D))), query[None, :], 1)[1][0, 0])


def sound(indexes: IndexManager) -> bool:
    """Whether a search is answered; until then it is turned away."""
    try:
        nearest_of(indexes, unit(1, D)[0])
    except Overloaded:
        return False
    return True
