from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import NotFound, Overloaded
from app.search.index_builder import IndexBuilder
from app.search.index_manager import OVERHEAD, EmbeddingLog, GrownLogs, IndexKey, IndexOpener
from app.storage.database import Database
from app.storage.tables import embeddings
from index.types import LogEntry
from tests.support.makers import FINGERPRINT, SPACE, VECTOR

KEY: IndexKey = ("default", "texts")


@pytest.fixture
def opener(database: Database, tmp_path: Path) -> Iterator[IndexOpener]:
    """Of a directory of its own; what it wakes is noted."""
    builder = IndexBuilder(database.path)
    yield IndexOpener(database, SPACE, tmp_path, builder, woken.append)
    builder.close()
    woken.clear()


woken: list[IndexKey] = []


def append(database: Database, key: int = 1, label: str = "default") -> int:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    return database.write(lambda c: embeddings.add(c, label, FINGERPRINT, "texts", key, VECTOR))


def test_an_index_is_brought_up_to_its_log_and_costs_its_vectors(database: Database, opener: IndexOpener) -> None:
    seq = append(database)
    one = opener(KEY, lambda: None)
    assert (one.index.ntotal, one.follower.applied_seq) == (1, seq)
    assert one.bytes() > OVERHEAD
    one.follower.notify()
    assert woken == [KEY]
    one.follower.close()


def test_an_opening_that_is_wanted_no_more_ends_and_saves_nothing(
    database: Database, opener: IndexOpener, tmp_path: Path
) -> None:
    append(database)

    def check() -> None:
        raise NotFound("gone")

    with pytest.raises(NotFound):
        opener(KEY, check)
    assert list(tmp_path.glob("default/*/*")) == []


def test_a_log_that_cannot_be_read_ends_the_opening(
    database: Database, opener: IndexOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: EmbeddingLog, after: int, limit: int) -> list[LogEntry]:
        raise OSError("the disk is away")

    append(database)
    monkeypatch.setattr("app.search.index_manager.FAULT_SECONDS", 0.05)
    monkeypatch.setattr(EmbeddingLog, "read", broken)
    with pytest.raises(Overloaded, match="'default/texts' cannot be opened"):
        opener(KEY, lambda: None)


def test_news_tell_each_log_that_has_grown_once(database: Database) -> None:
    append(database)
    news = GrownLogs(database)
    assert news() == []
    for key in (2, 3):
        append(database, key)
    append(database, 4, label="other")
    assert sorted(news()) == [("default", "texts"), ("other", "texts")]
    assert news() == []
