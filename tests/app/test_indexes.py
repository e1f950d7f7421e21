from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import NotFound
from app.indexes import Indexes
from app.store import collections, embeddings, texts
from app.store.database import Database
from index.errors import IndexClosed
from tests.app.makers import SPACE

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
