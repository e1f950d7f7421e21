from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import NotFound, Overloaded, StartupError
from app.indexes import Indexes, engine_at
from app.store import collections, embeddings, texts
from app.store.database import Database
from index.engine import Address, Engine
from index.errors import IndexClosed
from tests.app.makers import SPACE
from tests.index.deadline import soon
from tests.index.proxy import Proxy

WAIT = 20.0
EAST, NORTH = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


def put(database: Database, id: str, vector: tuple[float, ...], collection: str = "default") -> tuple[int, int]:
    """A text with its vector; returns its key and its number in the log."""

    def work(c: Any) -> tuple[int, int]:
        embeddings.remember(c, SPACE)
        collections.stamp(c, collection, SPACE.fingerprint)
        row = texts.put(c, collection, id, id, {})
        packed = np.array(vector, "<f4").tobytes()
        return row.key, embeddings.add(c, collection, SPACE.fingerprint, "texts", row.key, packed)

    return database.write(work)


def nearest(indexes: Indexes, vector: tuple[float, ...], collection: str = "default") -> int:
    with indexes.use(collection, "texts") as index:
        return int(index.search(np.array([vector], np.float32), 1)[1][0, 0])


@pytest.fixture
def indexes(database: Database, tmp_path: Path) -> Iterator[Indexes]:
    indexes = Indexes(database, SPACE, tmp_path / "snapshots")
    yield indexes
    indexes.close()


def test_an_open_index_holds_what_the_log_holds(database: Database, indexes: Indexes) -> None:
    east, _ = put(database, "east", EAST)
    indexes.open("default")
    assert nearest(indexes, EAST) == east


def test_what_is_settled_is_found(database: Database, indexes: Indexes) -> None:
    indexes.open("default")
    for n in range(20):
        key, seq = put(database, str(n), NORTH if n % 2 else EAST)
        assert indexes.settle("default", "texts", seq, WAIT)
        with indexes.use("default", "texts") as index:
            assert key in index.search(np.array([NORTH], np.float32), 50)[1][0]
    assert not indexes.settle("default", "texts", seq + 1, 0.01)


def test_what_is_not_there_is_not_found(indexes: Indexes) -> None:
    indexes.open("default")
    with pytest.raises(NotFound), indexes.use("other", "images"):
        pass
    with pytest.raises(NotFound):
        indexes.settle("other", "images", 1, 0)


def test_statistics_say_size_and_lag(database: Database, indexes: Indexes) -> None:
    _, seq = put(database, "east", EAST)
    indexes.open("default")
    of_a_base = ("built_seq", "built_at", "build_error", "probes", "rerank")
    small = {"kind": "exact", "lag": 0, "base": 0, "tombstones": 0, "building": False, "effort": 0}
    small |= dict.fromkeys(of_a_base)
    assert indexes.stats("default") == {
        "images": {**small, "ntotal": 0, "tail": 0, "applied_seq": 0},
        "texts": {**small, "ntotal": 1, "tail": 1, "applied_seq": seq},
    }


def test_closing_saves_ends_every_thread_and_says_that_nothing_follows(database: Database, tmp_path: Path) -> None:
    east, _ = put(database, "east", EAST)
    before = threading.active_count()
    indexes = Indexes(database, SPACE, tmp_path / "snapshots")
    indexes.open("default")
    assert indexes.faults() == []
    indexes.close()
    assert threading.active_count() == before
    assert indexes.faults() == ["the index of images has stopped following", "the index of texts has stopped following"]
    with pytest.raises(IndexClosed):
        nearest(indexes, EAST)
    assert (tmp_path / "snapshots" / "default" / "texts" / "CURRENT").is_file()
    again = Indexes(database, SPACE, tmp_path / "snapshots")
    again.open("default")
    assert nearest(again, EAST) == east
    again.close()


def test_a_damaged_snapshot_is_rebuilt_from_the_log(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    east, _ = put(database, "east", EAST)
    first = Indexes(database, SPACE, tmp_path / "snapshots")
    first.open("default")
    first.close()
    (tmp_path / "snapshots" / "default" / "texts" / "CURRENT").write_bytes(b"{}")
    second = Indexes(database, SPACE, tmp_path / "snapshots")
    second.open("default")
    assert nearest(second, EAST) == east
    assert "snapshot of default/texts not used" in caplog.text
    second.close()


def test_an_engine_is_named_by_the_settings_and_a_wrong_name_told_in_one_line() -> None:
    assert engine_at("local", "") is None
    with pytest.raises(StartupError, match=r"--index \(SIGHTLINE_INDEX\): 'faiss' is neither local") as raised:
        engine_at("faiss", "")
    assert "\n" not in raised.value.detail


def test_indexes_in_an_engine_hold_what_the_log_holds_and_are_found_there_again(
    database: Database, tmp_path: Path, lite: Engine
) -> None:
    east, seq = put(database, "east", EAST)
    for _ in range(2):
        indexes = Indexes(database, SPACE, tmp_path / "snapshots", lite)
        indexes.open("default")
        assert nearest(indexes, EAST) == east
        assert indexes.stats("default")["texts"] == {
            "kind": "milvus", "ntotal": 1, "applied_seq": seq, "lag": 0, "ghosts": 0
        }  # fmt: skip
        indexes.close()
    assert not (tmp_path / "snapshots").exists()


def test_a_collection_moves_to_an_engine_and_back_by_its_log_alone(
    database: Database, tmp_path: Path, lite: Engine
) -> None:
    east, _ = put(database, "east", EAST)
    north = 0
    for n, engine in enumerate((None, lite, None, lite)):
        indexes = Indexes(database, SPACE, tmp_path / "snapshots", engine)
        indexes.open("default")
        assert nearest(indexes, EAST) == east
        north, seq = put(database, f"north{n}", NORTH)
        assert indexes.settle("default", "texts", seq, WAIT)
        with indexes.use("default", "texts") as index:
            assert index.ntotal == n + 2
            assert north in index.search(np.array([NORTH], np.float32), 10)[1][0]
        indexes.close()


def test_while_the_engine_is_away_every_question_says_so_and_nothing_is_called_settled(
    database: Database, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "index.table.READ_SECONDS",
        "index.table.WRITE_SECONDS",
        "index.table.COUNT_SECONDS",
        "index.engine.CONNECT_SECONDS",
    ):
        monkeypatch.setattr(name, 0.4)
    engine = Engine(Address(f"http://127.0.0.1:{proxy.port}", layout="FLAT"))
    indexes = Indexes(database, SPACE, tmp_path / "snapshots", engine)
    proxy.mode = "silence"
    with pytest.raises(Overloaded, match="does not answer"):
        indexes.open("default")
    proxy.mode = "pass"
    soon(lambda: opened(indexes))
    east, seq = put(database, "east", EAST)
    assert indexes.settle("default", "texts", seq, WAIT)
    proxy.mode = "reset"
    _, seq = put(database, "north", NORTH)
    soon(lambda: len(indexes.away()) == 2)
    assert indexes.away()[0].startswith("the index of images: Milvus at 127.0.0.1")
    assert indexes.faults() == []
    with pytest.raises(Overloaded):
        nearest(indexes, EAST)
    assert not indexes.settle("default", "texts", seq, 1000.0)  # which is not waited for
    proxy.mode = "pass"
    soon(lambda: not indexes.away() and indexes.settle("default", "texts", seq, WAIT))
    assert nearest(indexes, EAST) == east
    indexes.close()
    engine.close()


def opened(indexes: Indexes) -> bool:
    try:
        indexes.open("default")
    except Overloaded:
        return False
    return True
