from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import NotFound, Overloaded
from app.search.index_handle import OVERHEAD, EmbeddingLog, IndexKey
from app.search.index_manager import GrownLogs, IndexManager
from app.storage.database import Database
from app.storage.tables import embeddings
from index.types import LogEntry
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, restore_log, save_log

KEY: IndexKey = ("default", "texts")


@pytest.fixture
def indexes(database: Database, tmp_path: Path) -> Iterator[IndexManager]:
    indexes = IndexManager(database, SPACE, tmp_path)
    yield indexes
    indexes.close()


def append(database: Database, key: int = 1, label: str = "default") -> int:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    return database.write(lambda c: embeddings.add(c, label, FINGERPRINT, "texts", key, VECTOR))


def test_an_opened_index_holds_its_log_and_costs_its_vectors(database: Database, indexes: IndexManager) -> None:
    seq = append(database)
    handle = indexes._open_handle(KEY)
    assert (handle.index.ntotal, handle.follower.applied_seq) == (1, seq)
    assert handle.nbytes > OVERHEAD
    assert handle.describe()["ntotal"] == 1
    handle.follower.close()


def test_an_opening_that_no_one_wants_any_more_ends_and_saves_nothing(
    database: Database, indexes: IndexManager, tmp_path: Path
) -> None:
    append(database)
    indexes._dropped.add("default")
    with pytest.raises(NotFound):
        indexes._open_handle(KEY)
    assert list(tmp_path.glob("default/*/*")) == []


def test_a_log_that_cannot_be_read_ends_the_opening(
    database: Database, indexes: IndexManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: EmbeddingLog, after_seq: int, limit: int, /) -> list[LogEntry]:
        raise OSError("the disk is away")

    append(database)
    monkeypatch.setattr("app.search.index_manager.FAULT_SECONDS", 0.05)
    monkeypatch.setattr(EmbeddingLog, "read", fail)
    with pytest.raises(Overloaded, match="'default' cannot be opened"):
        indexes._open_handle(KEY)


def test_each_log_that_has_grown_is_named_once(database: Database) -> None:
    append(database)
    find_grown = GrownLogs(database)
    assert find_grown() == []
    for key in (2, 3):
        append(database, key)
    append(database, 4, label="other")
    assert sorted(find_grown() or ()) == [("default", "texts"), ("other", "texts")]
    assert find_grown() == []


def test_every_log_may_have_changed_where_the_database_has_lost_its_end(database: Database) -> None:
    append(database)
    kept = save_log(database)
    for key in (2, 3):
        append(database, key)
    find_grown = GrownLogs(database)
    restore_log(database, kept)
    assert find_grown() is None
    assert find_grown() == []
    append(database, 4)
    assert find_grown() == [("default", "texts")]
